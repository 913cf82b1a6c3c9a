"""Heartbeats, nudges and pauses, the same on both engines."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from kommo_airtable_sync.core.types import BULK, LIVE, Priority
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.runners import Runner, Runners, RunnerState
from tests.conftest import HandClock

STALE = 6.0


@pytest.fixture
def runners(database: Database) -> Runners:
    return Runners(database)


def beat(
    runners: Runners, run_id: str, state: RunnerState = "standby", lane: Priority = LIVE
) -> RunnerState:
    return runners.beat(run_id, lane, "host", 42, state)


def states(runners: Runners) -> dict[str, str]:
    return {runner.run_id: runner.state for runner in runners.all()}


def test_a_heartbeat_is_recorded_with_its_age(runners: Runners, clock: HandClock) -> None:
    assert beat(runners, "a") == "standby"
    clock.advance(3)
    assert runners.all() == [Runner("a", LIVE, "host", 42, "standby", 3.0)]
    beat(runners, "a")
    assert runners.all()[0].heartbeat_age_seconds == 0.0


def test_a_lane_has_one_runner(runners: Runners) -> None:
    for run_id in ("a", "b"):
        beat(runners, run_id)
    assert runners.become_runner("a", LIVE, STALE)
    assert not runners.become_runner("b", LIVE, STALE)
    assert runners.become_runner("a", LIVE, STALE)
    assert states(runners) == {"a": "running", "b": "standby"}


def test_lanes_do_not_hinder_each_other(runners: Runners) -> None:
    beat(runners, "live")
    beat(runners, "bulk", lane=BULK)
    assert runners.become_runner("live", LIVE, STALE)
    assert runners.become_runner("bulk", BULK, STALE)


def test_standbys_that_try_at_once_cannot_both_become_the_runner(runners: Runners) -> None:
    names = [f"run-{number}" for number in range(4)]
    for turn in range(10):
        for name in names:
            beat(runners, f"{turn}-{name}", lane=LIVE)
        together = threading.Barrier(len(names))

        def attempt(name: str, turn: int = turn, gate: threading.Barrier = together) -> bool:
            gate.wait()
            return runners.become_runner(f"{turn}-{name}", LIVE, STALE)

        with ThreadPoolExecutor(len(names)) as pool:
            assert sum(pool.map(attempt, names)) == 1
        for name in names:
            runners.leave(f"{turn}-{name}")


def test_a_silent_runner_is_replaced_and_may_not_come_back(
    runners: Runners, clock: HandClock
) -> None:
    beat(runners, "a")
    beat(runners, "b")
    assert runners.become_runner("a", LIVE, STALE)
    clock.advance(STALE - 0.1)
    beat(runners, "b")
    assert not runners.become_runner("b", LIVE, STALE)
    clock.advance(0.1)
    assert runners.become_runner("b", LIVE, STALE)
    assert beat(runners, "a", "running") == "retiring"
    assert not runners.become_runner("a", LIVE, STALE)
    assert states(runners) == {"a": "retiring", "b": "running"}


def test_a_retiring_runner_makes_room(runners: Runners) -> None:
    beat(runners, "a")
    runners.become_runner("a", LIVE, STALE)
    beat(runners, "b")
    assert beat(runners, "a", "retiring") == "retiring"
    assert runners.become_runner("b", LIVE, STALE)


def test_a_run_that_left_or_never_came_cannot_become_the_runner(runners: Runners) -> None:
    beat(runners, "a")
    runners.leave("a")
    assert runners.all() == []
    assert not runners.become_runner("a", LIVE, STALE)


def test_a_nudge_is_unanswered_until_a_run_of_its_lane_is_here(
    runners: Runners, clock: HandClock
) -> None:
    assert runners.unanswered_nudge_age(LIVE) is None
    first = runners.nudge(LIVE)
    clock.advance(4)
    second = runners.nudge(LIVE)
    assert second > first
    clock.advance(1)
    assert runners.unanswered_nudge_age(LIVE) == 1.0
    runners.answer_nudges("run", BULK)
    assert runners.unanswered_nudge_age(LIVE) == 1.0
    runners.answer_nudges("run", LIVE)
    assert runners.unanswered_nudge_age(LIVE) is None


def test_nudge_ids_never_come_back_though_old_nudges_go(runners: Runners, clock: HandClock) -> None:
    """Dagster never launches a used run key again, and the nudge id is the run key."""
    first = runners.nudge(LIVE)
    clock.advance(3601)
    second = runners.nudge(LIVE)
    assert second > first
    clock.advance(3601)
    assert runners.nudge(BULK) > second
    assert runners.unanswered_nudge_age(LIVE) is None


def test_a_pause_says_why_and_how_long(runners: Runners, clock: HandClock) -> None:
    assert runners.pauses() == {}
    runners.pause("airtable", 30, 1, "rate_limited", "x" * 900)
    clock.advance(10)
    pause = runners.pauses()["airtable"]
    assert (pause.side, pause.seconds_left, pause.seconds) == ("airtable", 20, 30)
    assert (pause.failures, pause.reason, pause.detail) == (1, "rate_limited", "x" * 500)
    clock.advance(21)
    assert runners.pauses()["airtable"].seconds_left == -1


def test_a_pause_goes_on_but_is_never_shortened(runners: Runners, clock: HandClock) -> None:
    runners.pause("kommo", 60, 3, "blocked", "403")
    runners.pause("kommo", 5, 1, "timeout", "late answer of another worker")
    assert runners.pauses()["kommo"].reason == "blocked"
    assert runners.pauses()["kommo"].seconds_left == 60
    clock.advance(60)
    runners.pause("kommo", 120, 4, "timeout", "")
    pause = runners.pauses()["kommo"]
    assert (pause.seconds, pause.failures, pause.seconds_left) == (180, 4, 120)


def test_a_side_that_answers_is_resumed(runners: Runners) -> None:
    runners.pause("kommo", 60, 1, "timeout", "")
    runners.pause("airtable", 60, 1, "quota", "")
    assert runners.resume([]) == []
    assert runners.resume(["kommo"]) == ["kommo"]
    assert runners.resume(["kommo"]) == []
    assert set(runners.pauses()) == {"airtable"}
