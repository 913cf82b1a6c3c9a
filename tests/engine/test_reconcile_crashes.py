"""A reconciliation dies at any step; people go on editing, and the next attempt makes it right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kommo_airtable_sync.core.types import BULK
from kommo_airtable_sync.engine.context import LEASE_SECONDS, Engine
from kommo_airtable_sync.engine.reconcile import Comparison, compare_sides, hand_over, remember
from kommo_airtable_sync.store.survey import Survey
from tests.simulated import EXAMPLE, World
from tests.trap import Crash, Trap
from tests.two_way import in_kommo, settle

# Every call that the run makes of its store and APIs, and how often in the scene below.
STEPS: dict[str, int] = {
    "directory.mapping": 48,
    "kommo.lead_pages": 1,
    "airtable.record_pages": 2,
    "journal.load": 8,
    "kommo.contacts_by_id": 1,
    "kommo.leads_by_id": 3,
    "inbox.receive": 1,
    "inbox.due_lanes": 2,
    "inbox.claim": 1,
    "airtable.find_records": 1,
    "journal.acknowledge": 3,
    "journal.changed_since": 1,
    "inbox.contended": 1,
    "journal.open": 2,
    "airtable.upsert": 1,
    "kommo.update_leads": 1,
    "inbox.settle": 1,
    "runners.pauses": 1,
}
LASTING = {
    "inbox.receive", "inbox.claim", "journal.open", "airtable.upsert", "airtable.delete",
    "kommo.update_leads", "journal.acknowledge", "inbox.settle",
}  # fmt: skip
"""After the others nothing is different from before them."""
CRASHES = [
    (step, nth, after)
    for step, most in STEPS.items()
    for nth in (range(1, most + 1) if step in LASTING else sorted({1, most}))
    for after in ((False, True) if step in LASTING else (False,))
]
pytestmark = pytest.mark.parametrize("sql_engine", ["sqlite"])


@contextmanager
def compared(engine: Engine, folder: Path) -> Iterator[Comparison]:
    survey = Survey(folder / "survey.db", engine.clock)
    try:
        yield compare_sides(engine, survey, None, lambda _what, _done: None)
    finally:
        survey.close()


def reconcile(world: World, engine: Engine, folder: Path, run_id: str) -> None:
    with compared(engine, folder) as comparison:
        assert comparison.brake is None
        hand_over(engine, comparison, release=False)
        world.work(engine, run_id, patience=LEASE_SECONDS + 60)
        remember(engine, comparison, {})


class Scene:
    """Deals that drifted in every way, and neither side has told of it."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.leads: list[int] = world._in_kommo("POST", "seed", {"count": 12})["ids"]
        reconcile(world, world.new_engine(BULK), folder, "load")
        settle(world)
        world.clock.advance(600)
        self.records = {lead: record["id"] for lead, record in world.by_lead().items()}
        self.renamed, self.typed, self.both, self.bare, self.gone = self.leads[:5]
        world.edit_lead(self.renamed, name="Drifted")
        world.edit_record(self.records[self.typed], Amount=4711)
        world.edit_lead(self.both, name="Drifted")
        world.edit_record(self.records[self.both], Amount=4712)
        world.delete_record(self.records[self.bare])
        world.delete_lead(self.gone)
        self.new = world.add_lead(name="Unheard of")
        self._deafen()

    def _deafen(self) -> None:
        self.world.take_hooks()
        self.world.take_automations()
        self.world.clock.advance(600)

    def run(self, trap: Trap) -> None:
        reconcile(self.world, trap.set(self.world.new_engine(BULK)), self.folder, "first")

    def people_edit(self) -> None:
        """Some of it is told by a webhook at once, and some never."""
        self.world.clock.advance(5)
        self.world.edit_lead(self.renamed, name="Later")
        self.world.edit_record(self.records[self.typed], Amount=12)
        settle(self.world)
        self.world.edit_record(self.records[self.both], Amount=13)
        self._deafen()

    def check(self) -> None:
        world = self.world
        shown = {lead: record["fields"] for lead, record in world.by_lead().items()}
        assert set(shown) == {*self.leads, self.new}
        self._both(self.renamed, "Deal Name", "Later")
        self._both(self.typed, "Amount", 12)
        self._both(self.both, "Deal Name", "Drifted")
        self._both(self.both, "Amount", 13)
        assert shown[self.bare]["Deal Name"] == world.lead(self.bare)["name"]
        assert shown[self.gone]["Sync Status"] != shown[self.bare]["Sync Status"]
        assert shown[self.new]["Deal Name"] == "Unheard of"
        assert not world.events("pending", "claimed", "dead", "held")
        assert not world.journal_rows("open")
        with compared(world.new_engine(BULK), self.folder) as comparison:
            assert not +comparison.summary.kinds

    def _both(self, lead: int, name: str, value: Any) -> None:
        assert (in_kommo(self.world, lead, name), self.world.record(lead)[name]) == (value, value)


@pytest.fixture
def world(new_world: Callable[..., World]) -> World:
    return new_world(**{name: EXAMPLE[name] for name in ("fields", "airtable", "links")})


def test_the_steps_at_which_crashes_are_tried_are_all_there_are(world: World, tmp_path: Path):
    scene = Scene(world, tmp_path)
    trap = Trap()
    scene.run(trap)
    assert {step: trap.steps.count(step) for step in trap.steps} == STEPS


@pytest.mark.parametrize(("step", "nth", "after"), CRASHES)
def test_the_next_attempt_ends_it_without_a_wrong_write(
    world: World, tmp_path: Path, step: str, nth: int, after: bool
):
    scene = Scene(world, tmp_path)
    with pytest.raises(Crash):
        scene.run(Trap(step, after, nth))
    scene.people_edit()
    reconcile(world, world.new_engine(BULK), tmp_path, "second")
    settle(world)
    scene.check()
