"""A process may die between any two steps; another one ends what it began."""

from __future__ import annotations

import pytest

from kommo_airtable_sync.core.errors import LeaseLost
from kommo_airtable_sync.core.types import LIVE
from kommo_airtable_sync.engine.claim import claim_batch
from kommo_airtable_sync.engine.context import LEASE_SECONDS
from kommo_airtable_sync.engine.follow import STEPS as STEPS_OF_A_BATCH
from kommo_airtable_sync.engine.merge import merge_batch
from kommo_airtable_sync.engine.read import read_batch
from kommo_airtable_sync.engine.settle import settle_batch
from kommo_airtable_sync.engine.sweep import bury, dead_runners
from kommo_airtable_sync.engine.write_airtable import write_airtable
from kommo_airtable_sync.store.runners import Runners
from tests.simulated import World
from tests.trap import Crash, Trap
from tests.two_way import write_late

# Every call that one batch makes of its store and APIs, and how often in the scene below.
STEPS = {
    "inbox.due_lanes": 1,
    "inbox.claim": 1,
    "runners.pauses": 2,
    "directory.mapping": 38,
    "journal.load": 3,
    "journal.changed_since": 1,
    "kommo.leads_by_id": 1,
    "journal.open": 2,
    "airtable.upsert": 2,
    "journal.acknowledge": 3,
    "inbox.settle": 1,
}
LASTING = {
    "inbox.claim", "journal.open", "airtable.upsert", "journal.acknowledge", "inbox.settle"
}  # fmt: skip
"""After the others nothing is different from before them."""
CRASHES = [
    (step, nth, after)
    for step, most in STEPS.items()
    for nth in (range(1, most + 1) if step in LASTING else sorted({1, most}))
    for after in ((False, True) if step in LASTING else (False,))
]


class Scene:
    """Twelve leads: four known and unchanged, four known and changed, four new."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.add_leads([{"name": f"Deal {n}", "price": 1} for n in range(8)])
        world.sync()
        world.clock.advance(2)
        self.known = sorted(world.by_lead())
        self.changed = self.known[4:]
        world.edit_leads(self.changed, price=2)
        self.new = world.add_leads([{"name": f"New {n}", "price": 2} for n in range(4)])
        for lead_id in self.known[:4]:
            world.hint(lead_id)
        world.deliver_hooks()
        # More than ten rows to write, so that a crash may fall between two requests.
        self.more = world.add_leads([{"name": f"More {n}"} for n in range(4)])
        world.deliver_hooks()

    def run(self, trap: Trap) -> None:
        engine = trap.set(self.world.new_engine())
        batch = claim_batch(engine, "first")
        assert batch is not None
        for step in (*STEPS_OF_A_BATCH, settle_batch):
            step(engine, batch)

    def check(self) -> None:
        self.world.assert_in_step([*self.known, *self.new, *self.more])
        assert not self.world.events("dead")


def test_the_steps_at_which_crashes_are_tried_are_all_there_are(world: World):
    scene = Scene(world)
    trap = Trap()
    scene.run(trap)
    assert {step: trap.steps.count(step) for step in trap.steps} == STEPS
    scene.check()


def recover_by_lease(world: World) -> None:
    world.work(world.new_engine(), "second", patience=LEASE_SECONDS + 60)


def recover_by_sweep(world: World) -> None:
    runners = Runners(world.database)
    runners.beat("first", LIVE, "host", 1, "running")
    world.clock.advance(7)
    (dead,) = dead_runners(runners)
    bury(dead, runners, world.inbox)
    assert runners.all() == []
    world.work(world.new_engine(), "second", patience=60)


@pytest.mark.parametrize("sql_engine", ["sqlite"])
@pytest.mark.parametrize("recover", [recover_by_lease, recover_by_sweep])
@pytest.mark.parametrize(("step", "nth", "after"), CRASHES)
def test_after_a_crash_every_lead_has_one_record_with_its_newest_values(
    world: World, step: str, nth: int, after: bool, recover: object
):
    scene = Scene(world)
    with pytest.raises(Crash):
        scene.run(Trap(step, after, nth))
    # People go on meanwhile: one change is taken back, one lead changes again.
    back, again = scene.changed[0], scene.new[0]
    world.edit_lead(back, price=1)
    world.edit_lead(again, price=3, name="Renamed")
    world.deliver_hooks()
    assert callable(recover)
    recover(world)
    scene.check()
    assert (world.record(back)["Amount"], world.record(again)["Amount"]) == (1, 3)


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_the_write_is_recovered_from_on_both_engines(world: World, after: bool):
    scene = Scene(world)
    with pytest.raises(Crash):
        scene.run(Trap("airtable.upsert", after, 2))
    recover_by_lease(world)
    scene.check()


@pytest.mark.parametrize("sql_engine", ["sqlite"])
@pytest.mark.parametrize("after", [False, True])
def test_a_second_crash_while_recovering_from_the_first_does_no_harm(world: World, after: bool):
    scene = Scene(world)
    with pytest.raises(Crash):
        scene.run(Trap("airtable.upsert", after=True, nth=2))
    world.clock.advance(LEASE_SECONDS + 1)
    trap = Trap("journal.acknowledge", after)
    with pytest.raises(Crash):
        world.work(trap.set(world.new_engine()), "second")
    recover_by_lease(world)
    scene.check()


@pytest.mark.parametrize("done", range(3))
def test_a_batch_that_lost_its_lease_writes_nothing_and_settles_nothing(world: World, done: int):
    lead_id = world.add_lead(name="Deal", price=1)
    world.engine.directory.mapping()
    world.hint(lead_id)  # and this event is never skipped as stale
    batch = claim_batch(world.engine, "first")
    assert batch is not None
    steps = [read_batch, merge_batch]
    for step in steps[:done]:
        step(world.engine, batch)
    world.clock.advance(LEASE_SECONDS + 1)
    world.edit_lead(lead_id, price=2)
    world.deliver_hooks()
    world.work(world.new_engine(), "second")
    world.edit_lead(lead_id, price=3)  # the old batch would have something to write
    written, rows = world.cells_written(), world.journal_rows()
    entry, events = world.ledger(lead_id), world.events()
    for step in steps[done:]:
        step(world.engine, batch)
    with pytest.raises(LeaseLost):
        write_airtable(world.engine, batch)
    report = settle_batch(world.engine, batch)
    assert report.outage == "another run has taken these leads"
    assert (world.cells_written(), world.journal_rows()) == (written, rows)
    assert (world.ledger(lead_id), world.events()) == (entry, events)


@pytest.mark.parametrize("sql_engine", ["sqlite"])
def test_nothing_is_sent_with_less_lease_left_than_the_time_out(world: World):
    world.add_lead(name="Deal")
    world.engine.directory.mapping()
    world.deliver_hooks()
    batch = claim_batch(world.engine, "first")
    assert batch is not None
    read_batch(world.engine, batch)
    merge_batch(world.engine, batch)
    world.clock.advance(LEASE_SECONDS - 15)
    with pytest.raises(LeaseLost):
        write_airtable(world.engine, batch)
    assert world.calls("airtable", method="PATCH") == 0


@pytest.mark.parametrize("sql_engine", ["sqlite"])
def test_what_was_read_a_while_ago_is_read_again_before_it_is_written(world: World):
    lead_id = world.add_lead(name="Deal", price=1)
    world.engine.directory.mapping()
    world.deliver_hooks()
    batch = claim_batch(world.engine, "first")
    assert batch is not None
    read_batch(world.engine, batch)
    merge_batch(world.engine, batch)
    world.edit_lead(lead_id, price=2)
    world.take_hooks()
    world.clock.advance(3.5)
    write_airtable(world.engine, batch)
    assert world.record(lead_id)["Amount"] == 2


@pytest.mark.parametrize("sql_engine", ["sqlite"])
def test_an_answer_that_comes_after_the_lease_was_lost_moves_no_ledger_back(world: World):
    lead_id = world.add_lead(name="Deal", price=1)
    world.sync()
    world.clock.advance(2)
    write_late(world, lead_id, {"price": 2}, {"price": 3})
    assert world.record(lead_id)["Amount"] == 3
    # Nobody could know in which order the two writes had arrived: it is written once more.
    world.work(world.new_engine(), "third")
    world.assert_in_step([lead_id])
