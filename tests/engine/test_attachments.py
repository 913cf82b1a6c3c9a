"""A file behind an address in Kommo becomes an attachment in Airtable, and stays one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kommo_airtable_sync.sandbox.airtable.schema_edits import new_field
from kommo_airtable_sync.sandbox.airtable.seed import BASE_ID
from kommo_airtable_sync.sandbox.kommo.seed import lead_field_id
from tests.simulated import World
from tests.two_way import settle

pytestmark = pytest.mark.parametrize("sql_engine", ["sqlite"])
FIELDS = [
    {"airtable": "Deal Name", "kommo": "name"},
    {"airtable": "Amount", "kommo": "price", "owner": "both"},
    {"airtable": "Offer", "kommo": {"custom_field": "Website"}},
]


@pytest.fixture
def world(new_world: Callable[..., World]) -> World:
    world = new_world(fields=FIELDS)
    tables = world.airtable.bases[BASE_ID].tables
    deals = next(table for table in tables.values() if table.name == "Deals")
    new_field(world.airtable.ids, deals, {"name": "Offer", "type": "multipleAttachments"})
    return world


def with_offer(address: str | None) -> dict[str, object]:
    values = [{"value": address}] if address else None
    return {"custom_fields_values": [{"field_id": lead_field_id("Website"), "values": values}]}


def test_an_address_becomes_an_attachment_once_and_a_person_cannot_lose_it(world: World) -> None:
    lead = world.add_lead(name="Deal", **with_offer("https://example.com/offer.pdf"))
    settle(world)
    [first] = world.record(lead)["Offer"]
    world.edit_lead(lead, price=7)
    settle(world)
    assert [each["id"] for each in world.record(lead)["Offer"]] == [first["id"]]
    record_id = world.by_lead()[lead]["id"]
    world.edit_record(record_id, Offer=None, Amount=8)
    settle(world)
    assert len(world.record(lead)["Offer"]) == 1
    world.edit_lead(lead, **with_offer("https://example.com/other.pdf"))
    settle(world)
    [other] = world.record(lead)["Offer"]
    assert "other.pdf" in other["filename"]
    world.edit_lead(lead, **with_offer(None))
    settle(world)
    assert "Offer" not in world.record(lead)
