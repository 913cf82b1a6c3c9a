"""What ``GET /events`` will say of a change (reference 5, event types and value shapes)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from kommo_airtable_sync.sandbox.kommo.shapes import SINGULAR
from kommo_airtable_sync.sandbox.kommo.state import Entity, State

Json = dict[str, Any]
Event = tuple[str, list[Any], list[Any]]
Wrapping = Callable[[Any], Json]
_SIMPLE: tuple[tuple[str, str, Wrapping], ...] = (
    (
        "responsible_user_id",
        "entity_responsible_changed",
        lambda value: {"responsible_user": {"id": value}},
    ),
    ("price", "sale_field_changed", lambda value: {"sale_field_value": {"sale": value}}),
    ("name", "name_field_changed", lambda value: {"name_field_value": {"name": value}}),
)


def events_of(
    state: State, entity: Entity, old: Json, changed: tuple[str, ...], *, is_new: bool
) -> Iterator[Event]:
    """``(type, value_before, value_after)`` of each event one write makes.

    Args:
        state: for the names of tags.
        entity: as it now is.
        old: its snapshot from before.
        changed: names of what differs, custom fields as ``cf_{id}``.
        is_new: created just now; then that is the only event.
    """
    if is_new:
        yield (f"{SINGULAR[entity.kind]}_added", [], [])
        return
    if "status_id" in changed or "pipeline_id" in changed:
        before = {"id": old["status_id"], "pipeline_id": old["pipeline_id"]}
        after = {"id": entity.status_id, "pipeline_id": entity.pipeline_id}
        yield ("lead_status_changed", [{"lead_status": before}], [{"lead_status": after}])
    for key, kind, wrapped in _SIMPLE:
        if key in changed:
            yield (kind, [wrapped(old[key])], [wrapped(getattr(entity, key))])
    names = state.tags[entity.kind]
    for tag in [each for each in entity.tags if each not in old["tags"]]:
        yield ("entity_tag_added", [], [{"tag": {"name": names[tag]}}])
    for tag in [each for each in old["tags"] if each not in entity.tags]:
        yield ("entity_tag_deleted", [{"tag": {"name": names[tag]}}], [])
    for field_id in (int(key[3:]) for key in changed if key.startswith("cf_")):
        before, after = (
            [_field_value(field_id, value) for value in fields.get(field_id, [])]
            for fields in (old["fields"], entity.fields)
        )
        yield (f"custom_field_{field_id}_value_changed", before, after)


def _field_value(field_id: int, value: Json) -> Json:
    shown = {"field_id": field_id, "enum_id": value.get("enum_id"), "text": str(value.get("value"))}
    return {"custom_field_value": shown}
