"""Claiming, taking up again, yielding, and staying for what comes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kommo_airtable_sync.core.types import BULK, LIVE
from kommo_airtable_sync.engine.batch import BatchReport
from kommo_airtable_sync.engine.claim import claim_batch, resume_batch
from kommo_airtable_sync.engine.context import (
    LEADS_PER_BATCH,
    LEADS_PER_BULK_BATCH,
    LEASE_SECONDS,
    Engine,
)
from kommo_airtable_sync.engine.directory import SCHEMA_SECONDS_TO_LIVE
from kommo_airtable_sync.engine.follow import (
    RUN_SECONDS_MAX,
    follow,
    work_batch,
)
from kommo_airtable_sync.engine.merge import merge_batch
from kommo_airtable_sync.engine.read import read_batch
from kommo_airtable_sync.engine.settle import settle_batch
from kommo_airtable_sync.engine.write_airtable import write_airtable
from tests.simulated import World

sqlite_only = pytest.mark.parametrize("sql_engine", ["sqlite"])
LINGER_SECONDS = 6.0


def test_a_claim_takes_fifty_leads_and_a_bulk_claim_ten(world: World):
    for lead_id in range(1, 61):
        world.hint(lead_id)
        world.hint(lead_id + 1000, BULK)
    live = claim_batch(world.engine, "live")
    bulk = claim_batch(world.new_engine(BULK), "bulk")
    assert live is not None
    assert bulk is not None
    assert (len(live.claim.keys), len(bulk.claim.keys)) == (LEADS_PER_BATCH, LEADS_PER_BULK_BATCH)


def test_a_lane_takes_only_its_own(world: World):
    world.hint(1, BULK)
    assert claim_batch(world.engine, "live") is None
    world.hint(1, LIVE)  # somebody touches it: now it is urgent
    assert claim_batch(world.new_engine(BULK), "bulk") is None
    assert claim_batch(world.engine, "live") is not None


@sqlite_only
def test_bulk_waits_for_its_place_before_it_claims(world: World):
    world.hint(1, BULK)
    bulk = world.new_engine(BULK)
    bulk.airtable_budget.throttled(30)
    before = world.clock.now()
    batch = claim_batch(bulk, "bulk")
    assert batch is not None
    assert (world.clock.now() - before).total_seconds() >= 30
    world.clock.advance(LEASE_SECONDS - 1)
    assert resume_batch(bulk, batch.id, "bulk") is batch  # the lease began after the wait


def test_bulk_lets_go_of_a_lead_that_somebody_has_just_touched(world: World):
    touched, other = world.add_leads([{"name": "Touched", "price": 1}, {"name": "Other"}])
    world.take_hooks()
    world.engine.directory.mapping()
    bulk = world.new_engine(BULK)
    for lead_id in (touched, other):
        world.hint(lead_id, BULK)
    batch = claim_batch(bulk, "bulk")
    assert batch is not None
    read_batch(bulk, batch)
    merge_batch(bulk, batch)
    world.edit_lead(touched, price=2)
    world.deliver_hooks()
    write_airtable(bulk, batch)
    assert list(world.by_lead()) == [other]
    settle_batch(bulk, batch)
    world.work()
    assert world.record(touched)["Amount"] == 2
    world.assert_in_step([touched, other])


def test_an_op_takes_the_batch_up_as_the_last_one_left_it(world: World):
    world.add_lead(name="Deal")
    world.deliver_hooks()
    batch = claim_batch(world.engine, "run")
    assert batch is not None
    read_batch(world.engine, batch)
    world.clock.advance(LEASE_SECONDS - 10)
    again = resume_batch(world.engine, batch.id, "run")
    assert again is batch
    world.clock.advance(LEASE_SECONDS - 10)  # taking it up renewed the lease
    assert resume_batch(world.engine, batch.id, "run") is batch


def test_a_run_executed_again_elsewhere_claims_and_reads_anew(world: World):
    lead_id = world.add_lead(name="Deal", price=1)
    world.deliver_hooks()
    batch = claim_batch(world.engine, "first")
    assert batch is not None
    read_batch(world.engine, batch)
    merge_batch(world.engine, batch)
    world.inbox.release_run("first")
    world.edit_lead(lead_id, price=2)
    world.deliver_hooks()
    other = world.new_engine()
    again = resume_batch(other, batch.id, "second")
    assert again is not None
    assert (again.id > batch.id, again.leads, again.plans) == (True, {}, [])
    work_batch(other, again)
    assert world.record(lead_id)["Amount"] == 2
    world.assert_in_step([lead_id])
    assert resume_batch(world.engine, batch.id, "first") is None  # nothing is left of it


def test_what_another_run_holds_is_not_taken_up(world: World):
    world.add_lead(name="Deal")
    world.deliver_hooks()
    batch = claim_batch(world.engine, "first")
    assert batch is not None
    assert resume_batch(world.new_engine(), batch.id, "second") is None


def test_a_settled_or_unheard_of_batch_leaves_nothing_to_do(world: World):
    world.add_lead(name="Deal")
    world.deliver_hooks()
    batch = claim_batch(world.engine, "run")
    assert batch is not None
    work_batch(world.engine, batch)
    calls = world.calls("kommo")
    assert resume_batch(world.engine, batch.id, "run") is None
    assert resume_batch(world.new_engine(), batch.id, "second") is None
    assert resume_batch(world.engine, 12345, "run") is None
    assert world.calls("kommo") == calls
    assert world.engine.batches == {}


# ---------------------------------------------------------------------- follow


class Following:
    """Runs ``follow`` and notes what it told and asked."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.reports: list[BatchReport] = []
        self.asked = 0

    def run(
        self,
        engine: Engine | None = None,
        *,
        then: Callable[[], None] = lambda: None,
        ends: Callable[[], bool] = lambda: False,
    ) -> float:
        """Seconds it stayed."""

        def on_batch(report: BatchReport) -> None:
            self.reports.append(report)
            then()

        def should_end() -> bool:
            self.asked += 1
            return ends()

        began_at = self.world.clock.now()
        follow(engine or self.world.engine, "run", on_batch=on_batch, should_end=should_end)
        return (self.world.clock.now() - began_at).total_seconds()


@pytest.fixture
def following(world: World) -> Following:
    world.engine.directory.mapping()
    return Following(world)


@sqlite_only
def test_without_events_it_stays_for_the_linger_and_goes(following: Following):
    assert following.run() == pytest.approx(LINGER_SECONDS, abs=0.2)
    assert following.reports == []
    assert following.asked == 5


@sqlite_only
def test_events_that_come_meanwhile_are_worked_on_and_prolong_the_stay(
    following: Following, world: World
):
    lead_id = world.add_lead(name="Deal", price=1)
    world.deliver_hooks()

    def once() -> None:
        if len(following.reports) < 3:
            world.clock.advance(4)
            world.edit_lead(lead_id, price=10 + len(following.reports))
            world.deliver_hooks()

    stayed = following.run(then=once)
    assert [report.counts.get("created", 0) for report in following.reports] == [1, 0, 0]
    assert stayed > 2 * 4 + LINGER_SECONDS
    assert world.record(lead_id)["Amount"] == 12


@sqlite_only
def test_it_ends_early_when_somebody_else_waits(following: Following):
    assert following.run(ends=lambda: following.asked == 2) == pytest.approx(2, abs=0.2)


@sqlite_only
def test_under_constant_load_it_ends_all_the_same(following: Following, world: World):
    lead_id = world.add_lead(name="Deal")
    world.deliver_hooks()

    def more() -> None:
        world.clock.advance(60)
        world.hint(lead_id)

    assert following.run(then=more) == pytest.approx(RUN_SECONDS_MAX, abs=70)
    assert following.asked >= len(following.reports) - 1  # a batch does not put the question off


@sqlite_only
def test_a_linger_of_nothing_ends_at_once(world: World):
    world.restart(realtime={"linger_seconds": 0})
    world.hint(1)
    assert Following(world).run() == 0
    assert world.events("pending")


def schema_reads(world: World) -> int:
    return world.calls("airtable", route="/tables")


@sqlite_only
def test_aged_schemas_are_read_again_while_nobody_waits(following: Following, world: World):
    reads = schema_reads(world)
    following.run()
    assert schema_reads(world) == reads
    world.clock.advance(SCHEMA_SECONDS_TO_LIVE + 1)
    user = world.kommo.state.rows["users"][11087002]
    user["name"] = "Zoë Schmidt"
    following.run()
    assert schema_reads(world) == reads + 1
    lead_id = world.add_lead(name="Deal", responsible_user_id=user["id"])
    world.sync()
    assert world.record(lead_id)["Manager"] == "Zoë Schmidt"


@sqlite_only
def test_schemas_that_cannot_be_read_again_stay_as_they_were(following: Following, world: World):
    world.clock.advance(SCHEMA_SECONDS_TO_LIVE + 1)
    world.kommo_wire.unreachable = True
    assert following.run() == pytest.approx(LINGER_SECONDS, abs=0.2)
    world.mend()
    world.assert_in_step([])


@sqlite_only
def test_a_paused_side_is_not_asked_for_its_schema(following: Following, world: World):
    world.clock.advance(SCHEMA_SECONDS_TO_LIVE + 1)
    world.engine.runners.pause("kommo", 300, 1, "blocked", "")
    calls = world.calls("kommo")
    following.run()
    assert world.calls("kommo") == calls


@sqlite_only
def test_a_second_process_finds_the_schemas_in_the_store(world: World):
    world.engine.directory.mapping()
    calls = world.calls("kommo") + world.calls("airtable")
    world.new_engine().directory.mapping()
    assert world.calls("kommo") + world.calls("airtable") == calls
