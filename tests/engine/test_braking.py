"""The brake at work: more change than allowed waits for a person, and only that."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kommo_airtable_sync.store.reports import Reports
from tests.simulated import World, fields_with
from tests.two_way import in_kommo, settle

Make = Callable[..., World]
LIMITS = {"max_records_changed": 5, "max_deletes": 3}
FIELDS = fields_with(Amount={"owner": "both"})


@pytest.fixture
def world(new_world: Make) -> World:
    return new_world(safety=LIMITS, fields=FIELDS, kommo={"when_deleted": "delete"})


@pytest.fixture
def deals(world: World) -> list[int]:
    """Twelve on both sides: creations pass whatever the limit."""
    made = world.add_leads([{"name": f"Deal {n}", "price": 10} for n in range(12)])
    settle(world)
    assert len(world.records()) == 12
    assert held(world) == []
    world.clock.advance(3600)
    return made


def held(world: World) -> list[int]:
    return [item.id for item in Reports(world.database).list_holds()]


def changed(world: World, price: int) -> int:
    return sum(record["fields"].get("Amount") == price for record in world.records())


def test_beyond_the_limit_changes_wait_and_creations_pass(world: World, deals: list[int]):
    world.edit_leads(deals, price=11)
    new = world.add_lead(name="New", price=11)
    settle(world)
    assert changed(world, 11) == 5 + 1
    assert world.record(new)["Amount"] == 11
    assert len(held(world)) == 7
    assert "safety.max_records_changed" in world.events("held")[0].error
    # More events of the same leads in the same hour wait as well.
    world.edit_leads(deals, price=12)
    settle(world)
    assert changed(world, 12) == 5
    Reports(world.database).release_holds(held(world))
    settle(world)
    assert changed(world, 12) == 12
    assert held(world) == []


def test_the_limit_holds_towards_kommo_as_well(world: World, deals: list[int]):
    for record in world.records():
        world.edit_record(record["id"], Amount=20.0)
    settle(world)
    assert sum(world.lead(deal)["price"] == 20 for deal in deals) == 5
    Reports(world.database).release_holds(held(world))
    settle(world)
    assert {world.lead(deal)["price"] for deal in deals} == {20}
    world.assert_in_step(deals)


def test_what_a_person_drops_is_forgotten_until_the_next_change(world: World, deals: list[int]):
    world.edit_leads(deals, price=11)
    settle(world)
    Reports(world.database).drop_events(held(world))
    settle(world)
    assert (changed(world, 11), held(world)) == (5, [])
    world.clock.advance(3600)
    late = next(deal for deal in deals if world.record(deal)["Amount"] == 10)
    world.edit_lead(late, name="Touched")
    settle(world)
    assert world.record(late)["Amount"] == 11


def test_the_window_rolls_on(world: World, deals: list[int]):
    world.edit_leads(deals[:5], price=11)
    settle(world)
    world.clock.advance(1800)
    world.edit_lead(deals[5], price=11)
    settle(world)
    assert changed(world, 11) == 5
    world.clock.advance(1801)
    world.hint(deals[5])
    settle(world)
    assert changed(world, 11) == 6
    assert held(world) == []


def test_deletions_have_a_limit_of_their_own(world: World, deals: list[int]):
    for deal in deals[:5]:
        world.delete_lead(deal)
    settle(world)
    assert (len(world.records()), len(held(world))) == (12 - 3, 2)
    Reports(world.database).release_holds(held(world)[:1])
    settle(world)
    assert (len(world.records()), len(held(world))) == (12 - 4, 1)


def test_a_field_emptied_en_masse_waits(new_world: Make):
    world = new_world(safety=LIMITS | {"max_records_changed": 500}, fields=FIELDS)
    tags = {"_embedded": {"tags": [{"name": "hot"}]}}
    deals = world.add_leads([{"name": f"Deal {n}", **tags} for n in range(6)])
    settle(world)
    world.clock.advance(3600)
    world.edit_leads(deals, _embedded={"tags": None})
    settle(world)
    assert sum("Tags" in record["fields"] for record in world.records()) == 3
    assert "emptied" in world.events("held")[0].error
    assert in_kommo(world, deals[0], "Tags") is None
    Reports(world.database).release_holds(held(world))
    settle(world)
    assert not any("Tags" in record["fields"] for record in world.records())
