from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.simulated import World

NAMES: dict[str, Any] = {"airtable": "Name", "kommo": "name"}
PHONE: dict[str, Any] = {"airtable": "Phone", "kommo": {"custom_field": "PHONE"}}


def link(*fields: dict[str, Any]) -> list[dict[str, Any]]:
    """``links`` of sync.yaml to the sandbox's Clients."""
    entry = {"airtable": "Client", "table": "Clients", "key_field": "Kommo Contact ID"}
    return [{**entry, "kommo": "main_contact", "fields": list(fields)}]


def reads(world: World) -> list[int]:
    """How often the custom fields of leads, contacts and companies were read."""
    entities = ("leads", "contacts", "companies")
    return [world.calls("kommo", route=f"{each}/custom_fields") for each in entities]


def test_custom_fields_of_contacts_are_read_only_if_contacts_are_mapped(
    new_world: Callable[..., World],
) -> None:
    world = new_world(links=[])
    assert world.engine.directory.mapping().links == ()
    assert reads(world) == [1, 0, 0]


def test_a_link_that_is_added_reads_the_schema_again(new_world: Callable[..., World]) -> None:
    world = new_world(links=[])
    world.engine.directory.mapping()
    world.clock.advance(60)

    world.restart(links=link(NAMES, PHONE))
    [linked] = world.engine.directory.mapping().links

    assert reads(world) == [2, 1, 0]
    assert [field.name for field in linked.mapping.fields] == ["Name", "Phone"]
    world.restart(links=link(NAMES, PHONE))
    assert len(world.engine.directory.mapping().links) == 1
    assert reads(world) == [2, 1, 0]  # kept with the rest of the schema
