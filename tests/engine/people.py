"""What people do and see on both sides, and what passes until all is told."""

from __future__ import annotations

from typing import Any

from kommo_airtable_sync.core import canonical
from kommo_airtable_sync.core.types import IncomingEvent
from tests.simulated import World


def record_id(world: World, lead: int) -> str:
    return str(world.by_lead()[lead]["id"])


def custom_field(world: World, name: str) -> dict[str, Any]:
    return next(each for each in world.engine.kommo.custom_fields("leads") if each["name"] == name)


def text_field(world: World, name: str, text: str) -> dict[str, Any]:
    return {"field_id": custom_field(world, name)["id"], "values": [{"value": text}]}


def enum_field(world: World, name: str, choice: str) -> dict[str, Any]:
    field = custom_field(world, name)
    enum = next(each for each in field["enums"] if each["value"] == choice)
    return {"field_id": field["id"], "values": [{"enum_id": enum["id"]}]}


def resolve(world: World, lead: int, held: Any, use: str) -> None:
    directive = {
        "field": held.field,
        "kommo": canonical.to_json(held.kommo),
        "airtable": canonical.to_json(held.airtable),
        "use": use,
        "actor": "test",
    }
    event = IncomingEvent(
        f"lead:{lead}", "resolve", "resolve", always_read=True, directive=directive
    )
    world.inbox.receive([event])


def add_contact(world: World, kind: str = "contacts", **attributes: Any) -> int:
    """Somebody adds a contact (or company) in Kommo; its id."""
    return int(world._in_kommo("POST", kind, attributes)["lead"]["id"])


def edit_contact(world: World, contact: int, kind: str = "contacts", **changes: Any) -> None:
    world._in_kommo("PATCH", f"{kind}/{contact}", changes)


def delete_contact(world: World, contact: int) -> None:
    world._in_kommo("DELETE", f"contacts/{contact}")


def clients(world: World, table: str = "Clients") -> dict[int, dict[str, Any]]:
    """The one record of each contact, by its id; two for one contact are a failure."""
    world.airtable_wire.catch_up()
    found: dict[int, dict[str, Any]] = {}
    for record in world._in_airtable("GET", "records", table=table)["records"]:
        key = int(record["fields"]["Kommo Contact ID"])
        assert key not in found, f"two records for contact {key}"
        found[key] = record
    return found


def writes_to(world: World, table: str = "Deals") -> int:
    """How many records the sync has written in a table so far, each as often as it was.

    The other end of a link, which Airtable keeps by itself, is no write.
    """
    listed = world._in_airtable("GET", "writes", source="publicApi", table=table)["writes"]
    return sum(write["fields"].keys() != {"Deals"} for write in listed)


def restore_lead(world: World, lead: int) -> None:
    world._in_kommo("POST", f"leads/{lead}/restore")
