"""Bulk work that was put in for a purpose is worked on until it has ended, and no longer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kommo_airtable_sync.core.types import BULK, IncomingEvent, lead_key
from kommo_airtable_sync.engine.batch import BatchReport
from kommo_airtable_sync.engine.working_off import QUOTA, QUOTA_PATIENCE_SECONDS, work_off
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.reports import Reports
from kommo_airtable_sync.store.settling import Outcome
from kommo_airtable_sync.store.standing import database_now
from tests.conftest import HandClock
from tests.simulated import KOMMO_OWNED, World

sqlite_only = pytest.mark.parametrize("sql_engine", ["sqlite"])


class Watcher:
    """Puts leads in and keeps what it is told of the work on them."""

    def __init__(self, world: World) -> None:
        self.engine = world.new_engine(BULK)
        self.since = database_now(world.database)
        self.reports: list[BatchReport] = []
        self.progress: list[tuple[int, int]] = []
        self.reasons: list[str] = []

    def put_in(self, lead_ids: list[int], kind: str = "day") -> None:
        self.engine.inbox.receive(
            [
                IncomingEvent(lead_key(each), "backfill", kind, priority=BULK, always_read=True)
                for each in lead_ids
            ]
        )

    def work(self, kind: str = "day", should_end: Callable[[], bool] = lambda: False) -> Any:
        return work_off(
            self.engine,
            "run",
            source="backfill",
            since=self.since,
            kind=kind,
            on_batch=self.reports.append,
            should_end=should_end,
            on_progress=lambda done, total: self.progress.append((done, total)),
            on_wait=self.reasons.append,
        )


def test_it_ends_when_all_is_done_and_says_how(world: World) -> None:
    lead_ids = world.add_leads([{"name": f"Deal {n}"} for n in range(25)])
    world.take_hooks()
    watcher = Watcher(world)
    watcher.put_in(lead_ids)
    assert watcher.work() == {"created": 25}
    assert watcher.progress[0] == (0, 25)
    assert watcher.progress[-1] == (25, 25)
    assert sum(report.counts["created"] for report in watcher.reports) == 25
    world.assert_in_step(lead_ids)


@sqlite_only
def test_nothing_put_in_is_nothing_to_do(world: World) -> None:
    watcher = Watcher(world)
    assert watcher.work() == {}
    assert watcher.progress == [(0, 0)]


@sqlite_only
def test_what_was_put_in_before_or_for_another_day_is_not_counted(world: World) -> None:
    first, second, third = world.add_leads([{"name": "Deal"}] * 3)
    world.take_hooks()
    early = Watcher(world)
    early.put_in([first])
    early.work()
    world.clock.advance(5)
    watcher = Watcher(world)
    watcher.put_in([second])
    watcher.put_in([third], kind="another day")
    assert watcher.work() == {"created": 1}


@sqlite_only
def test_an_outage_is_waited_for_and_its_reason_is_told_once(world: World) -> None:
    lead_ids = world.add_leads([{"name": "Deal"}, {"name": "Deal"}])
    world.take_hooks()
    watcher = Watcher(world)
    watcher.put_in(lead_ids)
    began = world.clock.now()
    world.fail("kommo", kind="status", status=503, times=3, route="/api/v4/leads", method="GET")
    assert watcher.work() == {"created": 2}
    assert (world.clock.now() - began).total_seconds() > 1 + 2 + 4
    assert len(watcher.reasons) == 3  # a pause each
    assert all("kommo is paused (server_error)" in reason for reason in watcher.reasons)
    assert len(watcher.progress) < 30  # no spinning
    assert not world.events("dead")


@sqlite_only
def test_a_lead_that_ends_dead_is_named_and_those_beside_it_are_done(world: World) -> None:
    lead_ids = world.add_leads([{"name": "Deal", "price": n} for n in range(3)])
    world.take_hooks()
    world._in_airtable("POST", "refusals", {"field": "Amount", "key": lead_ids[1]})
    watcher = Watcher(world)
    watcher.put_in(lead_ids)
    assert watcher.work() == {"created": 2, "dead": 1}
    (dead,) = Reports(world.database).dead_of("backfill", watcher.since, "day")
    assert dead.key == lead_key(lead_ids[1])
    assert "Amount" in (dead.error or "")
    assert Reports(world.database).dead_of("backfill", watcher.since, "another day") == []


@sqlite_only
def test_a_lead_that_failed_for_the_moment_is_waited_for(world: World) -> None:
    (lead_id,) = world.add_leads([{"name": "Deal"}])
    world.take_hooks()
    watcher = Watcher(world)
    watcher.put_in([lead_id])
    claim = watcher.engine.inbox.claim(BULK, 1, "other", 60.0)
    assert claim is not None
    busy = Outcome("retry", error="not now", due_in_seconds=5.0)
    watcher.engine.inbox.settle(claim.batch_id, {lead_key(lead_id): busy}, max_attempts=8)
    assert watcher.work() == {"created": 1}


@sqlite_only
def test_a_lead_that_a_dead_run_holds_is_waited_for(world: World) -> None:
    (lead_id,) = world.add_leads([{"name": "Deal"}])
    world.take_hooks()
    watcher = Watcher(world)
    watcher.put_in([lead_id])
    assert watcher.engine.inbox.claim(BULK, 1, "other", 5.0) is not None
    assert watcher.work() == {"created": 1}


@sqlite_only
def test_asked_to_end_it_leaves_the_rest_in_the_inbox(world: World) -> None:
    lead_ids = world.add_leads([{"name": "Deal"}] * 12)
    world.take_hooks()
    watcher = Watcher(world)
    watcher.put_in(lead_ids)
    assert watcher.work(should_end=lambda: True) == {"pending": 12}
    assert watcher.reports == []


@sqlite_only
def test_what_the_months_quota_keeps_back_for_long_is_left_to_later_runs(
    database: Database, clock: HandClock
) -> None:
    world = World(database, clock, parts=KOMMO_OWNED, monthly_calls=100)
    for _ in range(96):
        with world.engine.airtable_budget.slot():
            pass
    lead_ids = world.add_leads([{"name": "Deal"}] * 3)
    world.take_hooks()
    watcher = Watcher(world)
    watcher.put_in(lead_ids)
    began = clock.now()
    assert watcher.work() == {"pending": 3}
    assert (clock.now() - began).total_seconds() >= QUOTA_PATIENCE_SECONDS
    assert watcher.reasons == [QUOTA]
    world.close()
