"""Explain: for what stands, who wrote it and because of what; people's edits are called theirs."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

from kommo_airtable_sync.core.airtable_hooks import parse_automation
from kommo_airtable_sync.core.errors import SideUnavailable
from kommo_airtable_sync.engine.explain import Explanation, FieldView, Shown, explain
from kommo_airtable_sync.receiver.app import kommo_events
from tests.engine.people import add_contact, record_id, resolve
from tests.simulated import World, fields_with
from tests.two_way import BOTH_WAYS, custom, edit, settle

Make = Callable[..., World]
sqlite_only = pytest.mark.parametrize("sql_engine", ["sqlite"])

LEADS, ROUNDS, EDITS_A_ROUND, PICKED = 250, 3, 500, 1000
OTHER = {"kommo": "airtable", "airtable": "kommo"}
VALUES: dict[str, Callable[[int], Any]] = {
    "Deal Name": lambda n: f"Deal number {n}",
    "Amount": lambda n: 1000 + n,
    "Notes": lambda n: f"Note {n}",
    "Seats": lambda n: 1000 + n,
    "Website": lambda n: f"https://example.com/{n}",
}
"""What people edit; each value is given once, so that no two writes look alike."""
SIDES = {"Seats": ("airtable",), "Website": ("kommo",)}
"""Where, if one side owns the field."""
Place = tuple[int, str, str]
"""Lead, field name, the side that shows the value."""


@dataclass
class Witness:
    """Sees what people edit and which run follows; knows nothing of the journal.

    Args:
        written: by place: the run that wrote what stands there, and the side it came from.
        people: places that show what a person entered there.
    """

    world: World
    dice: random.Random
    written: dict[Place, tuple[str, str]] = field(default_factory=dict[Place, tuple[str, str]])
    people: set[Place] = field(default_factory=set[Place])
    values: dict[Place, Any] = field(default_factory=dict[Place, Any])
    events_of: dict[str, range] = field(default_factory=dict[str, range])

    def load(self) -> list[int]:
        leads = self.world.add_leads([{"name": f"Deal {n}", "price": 10 + n} for n in range(LEADS)])
        self._work("run-of-the-load")
        for n, lead in enumerate(leads):
            for name, value in (("Deal Name", f"Deal {n}"), ("Amount", 10 + n)):
                self.written[lead, name, "airtable"] = ("run-of-the-load", "kommo")
                self.values[lead, name, "airtable"] = value
        return leads

    def play(self, leads: list[int], turn: int) -> None:
        """Many edits on both sides, none of a field twice; then a run takes them across."""
        records = {lead: record["id"] for lead, record in self.world.by_lead().items()}
        run_id = f"run-of-turn-{turn}"
        places = [(lead, name) for lead in leads for name in VALUES]
        for n, (lead, name) in enumerate(self.dice.sample(places, EDITS_A_ROUND)):
            side = self.dice.choice(SIDES.get(name, ("kommo", "airtable")))
            value = VALUES[name](turn * 10_000 + n)
            if side == "kommo":
                edit(self.world, side, lead, {name: value})
            else:
                self.world.edit_record(records[lead], **{name: value})
            here, there = (lead, name, side), (lead, name, OTHER[side])
            self.written.pop(here, None)
            self.people.add(here)
            self.people.discard(there)
            self.written[there] = (run_id, side)
            self.values[here] = self.values[there] = value
        self._work(run_id)

    def _work(self, run_id: str) -> None:
        first = len(self.world.events())
        for _ in range(20):
            self.world.clock.advance(2)
            if not self._deliver_all():
                break
            self.world.work(run_id=run_id, patience=30)
        self.events_of[run_id] = range(first + 1, len(self.world.events()) + 1)
        self.world.clock.advance(300)

    def _deliver_all(self) -> int:
        """What is told now, in one commit; how much."""
        told = [each for body in self.world.take_hooks() for each in kommo_events(body, links=True)]
        told += [each for body in self.world.take_automations() for each in parse_automation(body)]
        self.world.inbox.receive(told)
        return len(told)


def view(found: Explanation, name: str) -> FieldView:
    return next(each for each in found.fields if each.name == name)


def shown(found: Explanation, name: str, side: str) -> Shown:
    return getattr(view(found, name), side)


@sqlite_only
def test_each_of_1000_written_values_has_exactly_one_cause_the_right_one(new_world: Make):
    dice = random.Random(4)
    fields = fields_with(
        **{
            "Deal_Name": {"owner": "both"},
            "Amount": {"owner": "both"},
            "Notes": {"owner": "both"},
            "Seats": {"owner": "airtable"},
        }
    )
    limits = {"max_records_changed": 10_000, "max_deletes": 100}
    world = new_world(fields=fields, safety=limits)
    witness = Witness(world, dice)
    leads = witness.load()
    for turn in range(ROUNDS):
        witness.play(leads, turn)
    assert {row.state for row in world.journal_rows()} == {"done"}
    looks = {lead: explain(world.engine, lead) for lead in leads}
    assert not any(look.unreadable for look in looks.values())

    picked = dice.sample(sorted(witness.written), PICKED)
    for place in picked:
        lead, name, side = place
        run_id, origin = witness.written[place]
        there = shown(looks[lead], name, side)
        assert there.value == witness.values[place]
        cause = there.cause
        assert cause is not None, place
        assert (cause.run_id, cause.side, cause.key) == (run_id, side, f"lead:{lead}")
        assert (cause.field_name, cause.after) == (name, witness.values[place])
        assert cause.event is not None
        assert cause.event.source == origin
        assert cause.event.id in witness.events_of[run_id]
        same = [row for row in looks[lead].rows if (row.side, row.field) == (side, cause.field)]
        assert sum(row.after == there.value for row in same) == 1
    assert len({witness.written[place] for place in picked}) > 2 * ROUNDS
    for lead, name, side in witness.people:
        assert shown(looks[lead], name, side).cause is None


@pytest.fixture
def world(new_world: Make) -> World:
    return new_world(**BOTH_WAYS)


@pytest.fixture
def lead(world: World) -> int:
    made = world.add_lead(name="Deal", price=10)
    settle(world)
    world.clock.advance(300)
    return made


def test_a_value_that_a_person_put_back_is_the_persons(world: World, lead: int):
    for amount in (25.0, 10.0):
        world.edit_record(record_id(world, lead), Amount=amount)
        settle(world)
        world.clock.advance(300)
    amount = view(explain(world.engine, lead), "Amount")
    assert (amount.kommo.value, amount.airtable.value) == (10, 10)
    assert amount.kommo.cause is not None
    assert (amount.kommo.cause.before, amount.kommo.cause.after) == (25, 10)
    assert amount.airtable.cause is None
    assert amount.airtable.last is not None
    assert amount.airtable.last.operation == "create"


@sqlite_only
def test_an_edit_that_no_run_has_seen_yet_is_the_persons(world: World, lead: int):
    world.edit_record(record_id(world, lead), Amount=25.0)
    amount = view(explain(world.engine, lead), "Amount")
    assert (amount.airtable.value, amount.airtable.cause) == (25, None)
    assert amount.agreed is not None
    assert amount.agreed.airtable == 10


@sqlite_only
def test_what_kommo_keeps_in_its_own_way_is_still_ours(world: World, lead: int):
    world.edit_record(record_id(world, lead), Amount=None)
    settle(world)
    price = shown(explain(world.engine, lead), "Amount", "kommo")
    assert price.value == Decimal(0)
    assert price.cause is not None
    assert price.cause.after is None


@sqlite_only
def test_a_decision_names_the_person_and_a_held_field_is_shown(world: World, lead: int):
    edit(world, "kommo", lead, {"Notes": "of Kommo"})
    edit(world, "airtable", lead, {"Notes": "of Airtable"})
    settle(world)
    notes = view(explain(world.engine, lead), "Notes")
    assert notes.held is not None
    assert (notes.held.reason, notes.kommo.cause, notes.airtable.cause) == ("conflict", None, None)
    world.edit_lead(lead, price=11)  # told in the same batch, and not the cause
    world.deliver_hooks()
    resolve(world, lead, notes.held, "kommo")
    world.edit_lead(lead, price=12)
    settle(world)
    found = explain(world.engine, lead)
    cause = shown(found, "Notes", "airtable").cause
    assert cause is not None
    assert cause.event is not None
    assert (cause.rule, cause.event.source, cause.event.actor) == ("directive", "resolve", "test")
    amount = shown(found, "Amount", "airtable").cause
    assert amount is not None
    assert amount.event is not None
    assert amount.event.source == "kommo"


@sqlite_only
def test_the_status_the_link_and_a_persons_own_field_are_explained_too(new_world: Make):
    links = [
        {
            "airtable": "Client", "kommo": "main_contact", "table": "Clients",
            "key_field": "Kommo Contact ID", "fields": [{"airtable": "Name", "kommo": "name"}],
        }
    ]  # fmt: skip
    world = new_world(**BOTH_WAYS, links=links)
    contact = add_contact(world, name="Ann")
    lead = world.add_lead(name="Deal", _embedded={"contacts": [{"id": contact}]})
    settle(world)
    calls = world.calls("kommo", method="PATCH"), world.calls("airtable", method="PATCH")
    found = explain(world.engine, lead)
    client, status = view(found, "Client"), view(found, "Sync Status")
    assert client.kommo.value == client.airtable.value
    assert client.kommo.value is not None
    assert client.airtable.cause is not None
    assert (status.owner, status.airtable.value) == ("sync", "ok")
    assert status.airtable.cause is not None
    assert status.airtable.cause.rule == "status"
    assert (world.calls("kommo", method="PATCH"), world.calls("airtable", method="PATCH")) == calls


@sqlite_only
@pytest.mark.parametrize("side", ["kommo", "airtable"])
def test_a_side_that_cannot_be_read_is_said_to_be_and_the_rest_is_shown(
    world: World, lead: int, side: str
):
    edit(world, "kommo", lead, {"Notes": "new"})
    settle(world)
    world.fail(side, "status", status=503, method="GET")
    found = explain(world.engine, lead)
    assert list(found.unreadable) == [side]
    assert "unavailable" in found.unreadable[side]  # type: ignore[index]
    notes = view(found, "Notes")
    assert getattr(notes, side).unread == found.unreadable[side]  # type: ignore[index]
    assert getattr(notes, OTHER[side]).value == "new"
    assert len(found.rows) == len(world.journal_rows())


@sqlite_only
def test_without_any_schema_the_journal_is_still_told(
    world: World, lead: int, monkeypatch: pytest.MonkeyPatch
):
    def unreachable() -> None:
        raise SideUnavailable("kommo", "unreachable")

    monkeypatch.setattr(world.engine.directory, "mapping", unreachable)
    found = explain(world.engine, lead)
    assert set(found.unreadable) == {"kommo", "airtable"}
    assert (found.fields, found.state, len(found.rows) > 0) == ((), "synced", True)


@sqlite_only
def test_a_lead_that_nobody_knows(world: World):
    found = explain(world.engine, 4711)
    assert set(found.unreadable) == {"kommo", "airtable"}
    assert found.unreadable["kommo"] == "Kommo shows no such lead."
    assert (found.state, found.record_id, found.rows) == (None, None, [])


@sqlite_only
def test_a_cell_that_is_not_of_its_fields_type_is_unread_alone(world: World, lead: int):
    world.edit_record(record_id(world, lead), Notes="text")
    settle(world)
    world.alter_field("Notes", type="number", options={"precision": 0})
    world.edit_lead(lead, **custom(Website="https://example.com/"))
    world.alter_field("Amount", type="singleLineText")
    world.edit_record(record_id(world, lead), Amount="ten")
    found = explain(world.engine, lead)
    assert found.unreadable == {}
    assert "Amount" in str(shown(found, "Amount", "airtable").unread)
    assert shown(found, "Website", "kommo").value == "https://example.com/"
