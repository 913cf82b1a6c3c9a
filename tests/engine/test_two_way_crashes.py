"""A process dies at any step of a batch that writes to both sides; then a person edits.

Every point is tried with every kind of edit at once: each deal of the scene meets one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kommo_airtable_sync.core.types import LIVE
from kommo_airtable_sync.engine.claim import claim_batch
from kommo_airtable_sync.engine.context import LEASE_SECONDS
from kommo_airtable_sync.engine.follow import work_batch
from kommo_airtable_sync.engine.sweep import bury, dead_runners
from kommo_airtable_sync.store.runners import Runners
from tests.simulated import World
from tests.trap import Crash, Trap
from tests.two_way import BOTH_WAYS, Values, custom, edit, in_kommo, settle, tagged

# Every call that one batch makes of its store and APIs, and how often in the scene below.
STEPS: dict[str, int] = {
    "inbox.due_lanes": 1,
    "runners.pauses": 2,
    "inbox.claim": 1,
    "directory.mapping": 28,
    "journal.load": 3,
    "kommo.leads_by_id": 1,
    "airtable.find_records": 1,
    "journal.acknowledge": 3,
    "journal.changed_since": 1,
    "journal.open": 2,
    "airtable.upsert": 1,
    "kommo.update_leads": 1,
    "inbox.settle": 1,
}
LASTING = {
    "inbox.claim", "journal.open", "airtable.upsert", "kommo.update_leads", "journal.acknowledge",
    "inbox.settle",
}  # fmt: skip
"""After the others nothing is different from before them."""
CRASHES = [
    (step, nth, after)
    for step, most in STEPS.items()
    for nth in (range(1, most + 1) if step in LASTING else sorted({1, most}))
    for after in ((False, True) if step in LASTING else (False,))
]

BASE: Values = {"Deal Name": "Deal", "Amount": 10, "Region": "EU", "Notes": "base", "Seats": 10}
FIRST: Values = {"Deal Name": "First", "Amount": 11, "Region": "UK", "Notes": "first", "Seats": 11}
LATER: Values = {"Deal Name": "Later", "Amount": 12, "Region": "US", "Notes": "later", "Seats": 12}
KOMMO, AIRTABLE = "kommo", "airtable"
OTHER = {KOMMO: AIRTABLE, AIRTABLE: KOMMO}


def shown(world: World, lead: int) -> dict[str, Any]:
    """Each field of the scene, which both sides show alike."""
    record = world.record(lead)
    both = {name: (in_kommo(world, lead, name), record.get(name)) for name in BASE}
    assert {name: pair for name, pair in both.items() if pair[0] != pair[1]} == {}, lead
    return {name: pair[0] for name, pair in both.items()}


def tags(world: World, lead: int) -> set[str]:
    assert in_kommo(world, lead, "Tags") == set(world.record(lead)["Tags"])
    return set(world.record(lead)["Tags"])


def without(values: Values, *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


class Deal:
    """One deal: edited on one side before the batch, and again once it has died.

    Args:
        origin: the side of the first edit, which the batch takes to the other.
    """

    def __init__(self, world: World, lead: int, origin: str) -> None:
        self.world, self.lead, self.origin = world, lead, origin
        self.target = OTHER[origin]
        # In Kommo nobody has a reason to edit what Airtable owns.
        self.fields = without(FIRST, *(["Seats"] if origin == KOMMO else []))

    def before(self) -> None:
        edit(self.world, self.origin, self.lead, self.fields, {"old", "gone", "first"})

    def after(self) -> None:
        """What a person does after the crash."""
        raise NotImplementedError

    def check(self) -> None:
        assert shown(self.world, self.lead) == {**BASE, **self.fields}
        assert tags(self.world, self.lead) == {"old", "gone", "first"}


class SameFieldsAtTheOrigin(Deal):
    def after(self) -> None:
        edit(self.world, self.origin, self.lead, {name: LATER[name] for name in self.fields})

    def check(self) -> None:
        wanted = {name: LATER[name] for name in self.fields}
        assert shown(self.world, self.lead) == {**BASE, **wanted}


class TakenBackAtTheOrigin(Deal):
    def after(self) -> None:
        wanted = {name: BASE[name] for name in self.fields}
        edit(self.world, self.origin, self.lead, wanted, {"old", "gone"})

    def check(self) -> None:
        assert shown(self.world, self.lead) == BASE
        assert tags(self.world, self.lead) == {"old", "gone"}


class SameFieldsAtTheTarget(Deal):
    def after(self) -> None:
        edit(self.world, self.target, self.lead, {name: LATER[name] for name in self.fields})

    def check(self) -> None:
        """The edit stands, or a rule that the journal names was against it, or a person is asked."""
        (known,) = self.world.journal.load([f"lead:{self.lead}"]).values()
        held = {each.field_name: (each.kommo, each.airtable) for each in known.held.values()}
        record = self.world.record(self.lead)
        for name in self.fields:
            in_both = (in_kommo(self.world, self.lead, name), record[name])
            first, later = FIRST[name], LATER[name]
            if name in held:
                pair = (first, later) if self.origin == KOMMO else (later, first)
                assert (name, held[name], in_both) == ("Notes", pair, pair)
            elif in_both != (later, later):
                assert in_both == (first, first), name
                assert self.overruled(name)[-1] in {
                    "Deal Name": {"conflict_airtable"},
                    "Amount": {"conflict_kommo"},
                    "Region": {"conflict_newest", "conflict_tie"},
                    "Seats": {"airtable_owns"},
                }[name]  # fmt: skip

    def overruled(self, name: str) -> list[str]:
        """The rules by which the later edit of a field was taken back."""
        return [
            row.rule
            for row in self.world.journal_rows("done")
            if (row.key, row.field_name, row.side) == (f"lead:{self.lead}", name, self.target)
            and str(LATER[name]) in str(row.before)
        ]


class OtherFieldsOnBothSides(Deal):
    def __init__(self, world: World, lead: int, origin: str) -> None:
        super().__init__(world, lead, origin)
        self.fields = without(FIRST, "Deal Name", "Region", "Seats")

    def after(self) -> None:
        edit(self.world, KOMMO, self.lead, {"Deal Name": "Later"})
        edit(self.world, AIRTABLE, self.lead, {"Region": "US", "Seats": 12})

    def check(self) -> None:
        assert shown(self.world, self.lead) == {**LATER, **self.fields}
        assert tags(self.world, self.lead) == {"old", "gone", "first"}


class TagsOnBothSides(Deal):
    def after(self) -> None:
        in_lead = set(in_kommo(self.world, self.lead, "Tags"))
        in_record = set(self.world.record(self.lead)["Tags"])
        edit(self.world, KOMMO, self.lead, {}, in_lead | {"hot"})
        edit(self.world, AIRTABLE, self.lead, {}, (in_record | {"partner"}) - {"gone"})

    def check(self) -> None:
        assert shown(self.world, self.lead) == {**BASE, **self.fields}
        assert tags(self.world, self.lead) == {"old", "first", "hot", "partner"}


class Created(Deal):
    """New in Kommo; if its record is there already, somebody edits that as well."""

    def before(self) -> None:
        edit(self.world, KOMMO, self.lead, {}, {"old"})

    def after(self) -> None:
        edit(self.world, KOMMO, self.lead, {"Deal Name": "Later", "Amount": 12})
        self.met = self.lead in self.world.by_lead()
        if self.met:
            edit(self.world, AIRTABLE, self.lead, {"Notes": "later", "Seats": 12})

    def check(self) -> None:
        wanted = {"Deal Name": "Later", "Amount": 12, "Region": None}
        typed = {"Notes": "later", "Seats": 12} if self.met else {"Notes": None, "Seats": None}
        assert shown(self.world, self.lead) == {**wanted, **typed}


KINDS = (
    SameFieldsAtTheOrigin,
    TakenBackAtTheOrigin,
    SameFieldsAtTheTarget,
    OtherFieldsOnBothSides,
    TagsOnBothSides,
)


class Scene:
    """Ten known deals, edited on one side or the other, and a new one; their events have come."""

    def __init__(self, world: World) -> None:
        self.world = world
        for name in ("old", "gone", "first"):
            world.add_option("Tags", name)
        start = {"name": "Deal", "price": 10, **custom(**without(BASE, "Deal Name", "Amount"))}
        both = [(kind, origin) for kind in KINDS for origin in (KOMMO, AIRTABLE)]
        leads = world.add_leads([{**start, **tagged("old", "gone")} for _ in both])
        settle(world)
        self.deals = [
            kind(world, lead, origin) for lead, (kind, origin) in zip(leads, both, strict=True)
        ]
        self.deals.append(Created(world, world.add_lead(name="New"), KOMMO))
        for deal in self.deals:
            deal.before()
        world.clock.advance(2)
        world.deliver_hooks()

    def run(self, trap: Trap) -> None:
        engine = trap.set(self.world.new_engine())
        batch = claim_batch(engine, "first")
        assert batch is not None
        work_batch(engine, batch)

    def people_edit(self) -> None:
        self.world.clock.advance(5)
        for deal in self.deals:
            deal.after()

    def check(self) -> None:
        self.world.assert_in_step([deal.lead for deal in self.deals])
        assert self.world.errors() == []
        for deal in self.deals:
            deal.check()


def by_lease(world: World) -> None:
    world.work(world.new_engine(), "second", patience=LEASE_SECONDS + 60)


def by_sweep(world: World) -> None:
    runners = Runners(world.database)
    runners.beat("first", LIVE, "host", 1, "running")
    world.clock.advance(7)
    (dead,) = dead_runners(runners)
    bury(dead, runners, world.inbox)
    world.work(world.new_engine(), "second", patience=60)


@pytest.fixture
def world(new_world: Callable[..., World]) -> World:
    return new_world(**BOTH_WAYS)


def test_the_steps_at_which_crashes_are_tried_are_all_there_are(world: World):
    scene = Scene(world)
    trap = Trap()
    scene.run(trap)
    assert {step: trap.steps.count(step) for step in trap.steps} == STEPS


def recovered(world: World, step: str, nth: int, after: bool, recover: Callable[..., None]) -> None:
    scene = Scene(world)
    with pytest.raises(Crash):
        scene.run(Trap(step, after, nth))
    scene.people_edit()
    recover(world)
    settle(world)
    scene.check()


@pytest.mark.parametrize("sql_engine", ["sqlite"])
@pytest.mark.parametrize("recover", [by_lease, by_sweep])
@pytest.mark.parametrize(("step", "nth", "after"), CRASHES)
def test_what_people_edit_after_a_crash_is_lost_on_neither_side(
    world: World, step: str, nth: int, after: bool, recover: Callable[..., None]
):
    recovered(world, step, nth, after, recover)


@pytest.mark.parametrize("sql_engine", ["postgresql"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    "step", ["journal.open", "airtable.upsert", "kommo.update_leads", "journal.acknowledge"]
)
def test_nor_is_it_on_the_other_engine(world: World, step: str, after: bool):
    recovered(world, step, 1, after, by_lease)
