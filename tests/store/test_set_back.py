"""A clock that was hours fast and is put right: nothing waits for what it left behind."""

from __future__ import annotations

from kommo_airtable_sync.core.types import LIVE, IncomingEvent
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.documents import Documents
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.limiter import SqlBudget
from kommo_airtable_sync.store.runners import Runners
from kommo_airtable_sync.store.set_back import mend_times
from tests.conftest import HandClock

HOURS = 3 * 3600.0
LEASE_SECONDS = 60.0
LEAD = [IncomingEvent("lead:1", "kommo", "update")]


def test_events_leases_nudges_and_pauses_of_the_fast_clock_wait_no_longer(
    database: Database, clock: HandClock
) -> None:
    inbox, runners = Inbox(database), Runners(database)
    clock.advance(HOURS)
    inbox.receive(LEAD)
    assert inbox.claim(LIVE, 1, "dead", LEASE_SECONDS)
    inbox.receive([IncomingEvent("lead:2", "kommo", "update")])
    runners.beat("dead", LIVE, "host", 1, "running")
    runners.nudge(LIVE)
    runners.pause("kommo", 900.0, 1, "unreachable", "")
    clock.advance(-HOURS)
    assert not inbox.due_lanes()
    assert mend_times(database, LEASE_SECONDS)
    clock.advance(LEASE_SECONDS + 1)
    assert inbox.due_lanes() == {LIVE}
    claim = inbox.claim(LIVE, 10, "next", LEASE_SECONDS)
    assert claim is not None
    assert set(claim.events) == {"lead:1", "lead:2"}
    assert [runner.heartbeat_age_seconds for runner in runners.all()] == [LEASE_SECONDS + 1]
    assert runners.unanswered_nudge_age(LIVE) == LEASE_SECONDS + 1
    assert runners.pauses()["kommo"].seconds_left < 0


def test_a_lease_that_is_renewed_by_the_new_clock_stays(
    database: Database, clock: HandClock
) -> None:
    inbox = Inbox(database)
    clock.advance(HOURS)
    inbox.receive(LEAD)
    claim = inbox.claim(LIVE, 1, "alive", LEASE_SECONDS)
    assert claim is not None
    Documents(database).put("any", "")
    clock.advance(-HOURS)
    inbox.renew(claim.batch_id, LEASE_SECONDS)
    assert mend_times(database, LEASE_SECONDS)
    clock.advance(LEASE_SECONDS - 1)
    inbox.renew(claim.batch_id, LEASE_SECONDS)


def test_a_clock_that_runs_as_it_should_is_left_alone(database: Database, clock: HandClock) -> None:
    inbox, runners = Inbox(database), Runners(database)
    inbox.receive(LEAD)
    runners.pause("kommo", 900.0, 1, "unreachable", "")
    runners.beat("run", LIVE, "host", 1, "running")
    assert not mend_times(database, LEASE_SECONDS)
    clock.advance(HOURS)
    assert not mend_times(database, LEASE_SECONDS)
    assert runners.pauses()["kommo"].seconds_left == 900.0 - HOURS


def test_calls_go_on_at_once_after_the_clock_was_set_back(
    database: Database, clock: HandClock
) -> None:
    budget = SqlBudget(database, "airtable", 5)
    clock.advance(2 * HOURS)
    budget.throttled(30.0)
    clock.advance(40.0)
    for _ in range(5):
        with budget.slot():
            pass
    clock.advance(-2 * HOURS)
    began = clock.now()
    with budget.slot():
        pass
    assert clock.now() == began


def test_a_call_during_which_the_clock_leaps_holds_up_none_that_follow(
    database: Database, clock: HandClock
) -> None:
    budget = SqlBudget(database, "airtable", 5)
    with budget.slot():
        clock.advance(0.1)
    for hours in (HOURS, -HOURS):
        with budget.slot():
            clock.advance(hours)
        began = clock.now()
        with budget.slot():
            pass
        assert (clock.now() - began).total_seconds() < 2
