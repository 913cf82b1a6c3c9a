"""A run's place in its lane, on a real instance, store and engine."""

from __future__ import annotations

import dagster as dg
import pytest

from kommo_airtable_sync.core.types import BULK, LIVE
from kommo_airtable_sync.defs.running import Attendance, another_run_waits
from kommo_airtable_sync.engine.context import STALE_SECONDS
from kommo_airtable_sync.store.database import Database
from tests.conftest import HandClock
from tests.defs.loaded import repository
from tests.simulated import World
from tests.stack import wait_until


@pytest.fixture
def world(database: Database, clock: HandClock) -> World:
    return World(database, clock)


def create_run(instance: dg.DagsterInstance, **tags: str) -> str:
    job = repository().get_job("sync_changes")
    status = dg.DagsterRunStatus.STARTING
    return instance.create_run_for_job(job, status=status, tags=tags).run_id


def test_nobody_waits_in_an_idle_instance(world: World) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert not another_run_waits(instance, world.new_engine(LIVE), "me")


def test_a_run_that_is_starting_is_waited_for_by_its_lane_only(world: World) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        create_run(instance, **{"sync/lane": "live"})
        assert another_run_waits(instance, world.new_engine(LIVE), "me")
        assert not another_run_waits(instance, world.new_engine(BULK), "me")


def test_a_standby_of_the_lane_is_seen(world: World) -> None:
    engine = world.new_engine(LIVE)
    engine.runners.beat("other", LIVE, "host", 1, "standby")
    with dg.DagsterInstance.ephemeral() as instance:
        assert another_run_waits(instance, engine, "me")
        assert not another_run_waits(instance, engine, "other")


def test_a_standby_takes_over_when_the_first_falls_silent(world: World) -> None:
    engine = world.new_engine(LIVE)
    engine.runners.beat("first", LIVE, "host", 1, "standby")
    assert engine.runners.become_runner("first", LIVE, STALE_SECONDS)
    second = Attendance("second")
    second.begin(engine)  # waits by the clock turned by hand; the first never beats again
    states = {runner.run_id: runner.state for runner in engine.runners.all()}
    assert states == {"first": "retiring", "second": "running"}
    second.end()


def test_a_run_that_was_replaced_while_it_was_silent_learns_of_it(world: World) -> None:
    engine = world.new_engine(LIVE)
    first = Attendance("first")
    first.begin(engine)
    assert not first.replaced
    world.clock.advance(STALE_SECONDS + 1)
    engine.runners.beat("second", LIVE, "host", 2, "standby")
    assert engine.runners.become_runner("second", LIVE, STALE_SECONDS)
    wait_until(lambda: first.replaced, 10, "its next heartbeat tells it")
    first.end()


def test_a_run_that_ends_gives_its_leads_back_and_retires(world: World) -> None:
    engine = world.new_engine(LIVE)
    attendance = Attendance("run")
    attendance.begin(engine)
    lead = world.add_lead(name="Held")
    world.hint(lead)
    assert engine.inbox.claim(LIVE, 10, "run", 60.0) is not None
    attendance.end()
    assert [runner.state for runner in engine.runners.all()] == ["retiring"]
    assert engine.inbox.due_lanes() == frozenset()
    world.clock.advance(10.0)
    assert engine.inbox.due_lanes() == {LIVE}
