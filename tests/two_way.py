"""A sync.yaml in which people edit on both sides, and what tests of it do by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kommo_airtable_sync.engine.claim import claim_batch
from kommo_airtable_sync.engine.context import LEASE_SECONDS
from kommo_airtable_sync.engine.merge import merge_batch
from kommo_airtable_sync.engine.read import read_batch
from kommo_airtable_sync.engine.settle import settle_batch
from kommo_airtable_sync.engine.write_airtable import write_airtable
from kommo_airtable_sync.sandbox.kommo.seed import lead_field_id
from tests.simulated import World, fields_with

Values = Mapping[str, Any]
TWO_WAY: dict[str, dict[str, Any]] = {
    "Deal_Name": {"owner": "both", "on_conflict": "airtable"},
    "Stage": {"owner": "both", "on_conflict": "kommo", "names": {"142": "Won"}},
    "Amount": {"owner": "both", "on_conflict": "kommo"},
    "Manager": {"owner": "both", "on_conflict": "hold"},
    "Tags": {"owner": "both"},
    "Seats": {"owner": "airtable"},
    "Region": {"owner": "both", "on_conflict": "newest"},
    "Notes": {"owner": "both", "on_conflict": "hold"},
    "VIP": {"owner": "airtable"},
}
BOTH_WAYS: dict[str, Any] = {
    "fields": fields_with(**TWO_WAY),
    "airtable": {"table": "Deals", "key_field": "Kommo Deal ID", "status_field": "Sync Status"},
}
"""Parts of sync.yaml."""


def settle(world: World) -> None:
    """Until nobody has anything to tell any more."""
    for _ in range(20):
        world.clock.advance(2)
        if not world.deliver_hooks() and world.next_due_at() is None:
            return
        world.work(patience=30)
    raise AssertionError("it does not come to rest")


def in_kommo(world: World, lead: int, name: str) -> Any:
    """A field's value in Kommo as the mapping reads it."""
    mapping = world.engine.directory.mapping()
    field = next(each for each in mapping.fields if each.name == name)
    return field.from_kommo(world.lead(lead), final=True)


def custom(**values: Any) -> dict[str, Any]:
    """What a person's edit of a lead's custom fields looks like: ``custom(Notes="by hand")``."""
    return {
        "custom_fields_values": [
            {"field_id": lead_field_id(name), "values": [{"value": value}]}
            for name, value in values.items()
        ]
    }


def tagged(*names: str) -> dict[str, Any]:
    """The same of all its tags."""
    return {"_embedded": {"tags": [{"name": name} for name in names]}}


def edit(
    world: World, side: str, lead: int, values: Values, tags: Iterable[str] | None = None
) -> None:
    """A person changes these fields of a deal, by their names in Airtable; and all its tags."""
    if side == "airtable":
        labels = {} if tags is None else {"Tags": sorted(tags)}
        world.edit_record(world.by_lead()[lead]["id"], **values, **labels)
        return
    own = {"Deal Name": "name", "Amount": "price"}
    attributes = {own[name]: value for name, value in values.items() if name in own}
    fields = {name: value for name, value in values.items() if name not in own}
    labels = {} if tags is None else tagged(*sorted(tags))
    world.edit_lead(lead, **attributes, **(custom(**fields) if fields else {}), **labels)


def write_late(world: World, lead_id: int, first: Values, second: Values) -> None:
    """A run writes what people changed first and oversleeps its lease; its heir, what came second.

    Then the first one wakes, with Airtable's answer to its write.
    """
    world.edit_lead(lead_id, **first)
    world.deliver_hooks()
    late = world.new_engine()
    batch = claim_batch(late, "first")
    assert batch is not None
    read_batch(late, batch)
    merge_batch(late, batch)
    send = late.airtable.upsert

    def overtaken(*args: object, **named: object) -> object:
        answer = send(*args, **named)  # type: ignore[arg-type]
        world.clock.advance(LEASE_SECONDS + 1)
        world.edit_lead(lead_id, **second)
        world.deliver_hooks()
        world.work(world.new_engine(), "second")
        return answer

    late.airtable.upsert = overtaken  # type: ignore[method-assign,assignment]
    write_airtable(late, batch)
    settle_batch(late, batch)
