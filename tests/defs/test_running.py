"""A run's place in its lane, on a real instance, store and engine."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

import dagster as dg
import pytest
import sqlalchemy as sa

from kommo_airtable_sync.core.types import BULK, LIVE
from kommo_airtable_sync.defs.lanes import lane_of
from kommo_airtable_sync.defs.running import Attendance, another_run_waits
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.store.database import Database, StoreError
from kommo_airtable_sync.store.runners import STALE_SECONDS
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


class Meanwhile:
    """A clock: while somebody sleeps, another run is at work, until it has ended."""

    def __init__(self, world: World, engine: Engine) -> None:
        self._clock, self._engine = world.clock, engine
        self._ends_at = world.clock.now() + timedelta(seconds=10)

    def now(self) -> datetime:
        return self._clock.now()

    def sleep(self, seconds: float) -> None:
        self._clock.advance(seconds)
        runners = self._engine.runners
        if self.now() < self._ends_at:
            runners.beat("first", self._engine.lane, "host", 1, "running")
        else:
            runners.leave("first")


@pytest.mark.parametrize("sql_engine", ["sqlite"])
def test_bulk_runs_queue_for_their_lane_and_live_ones_do_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kommo_airtable_sync.defs.running.STANDBY_SECONDS_MAX", 5.0)
    for lane, waits in ((BULK, True), (LIVE, False)):
        engine = world.new_engine(lane)
        engine.runners.beat("first", lane, "host", 1, "standby")
        assert engine.runners.become_runner("first", lane, STALE_SECONDS)
        engine.clock = Meanwhile(world, engine)
        second = Attendance("second")
        if waits:
            second.begin(engine)
            states = {runner.run_id: runner.state for runner in engine.runners.all()}
            assert states == {"second": "running"}
        else:
            with pytest.raises(dg.Failure, match="Another run keeps this lane"):
                second.begin(engine)
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


def test_a_run_that_ends_without_its_store_leaves_no_heart_behind(world: World) -> None:
    run = Attendance("broken")
    run.begin(world.new_engine(LIVE))

    def rename(old: str, new: str) -> None:
        with world.database.write() as connection:
            connection.execute(sa.text(f"ALTER TABLE {old} RENAME TO {new}"))

    rename("batches", "away")
    with pytest.raises(StoreError):
        run.end()
    assert not [thread for thread in threading.enumerate() if thread.name == "heart-broken"]
    rename("away", "batches")


def test_what_the_ui_launches_without_a_job_of_ours_belongs_to_the_bulk_lane() -> None:
    def run(*assets: str, **tags: str) -> dg.DagsterRun:
        selection = frozenset(dg.AssetKey(each) for each in assets)
        return dg.DagsterRun("__ASSET_JOB", asset_selection=selection or None, tags=tags)

    assert lane_of(run("lead_backfill")) == "bulk"
    assert lane_of(run("reconciliation")) == "bulk"
    assert lane_of(run("airtable_deals")) == "live"
    assert lane_of(run()) == "live"
    assert lane_of(run(**{"sync/lane": "bulk"})) == "bulk"
