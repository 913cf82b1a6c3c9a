"""From the change log to a webhook's payloads (reference 5.4 to 5.6). Pure but for the clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, cast

from kommo_airtable_sync.sandbox.airtable.data import Actor, Change
from kommo_airtable_sync.sandbox.airtable.kinds import as_text, read_cell
from kommo_airtable_sync.sandbox.airtable.schema import LINK, Field, Table
from kommo_airtable_sync.sandbox.airtable.webhooks import Filters, Options

Json = Any
_TYPES = {"create": "add", "update": "update", "delete": "remove"}
_LOOKED_UP = "recSandboxLookup0"  # lookups show the same everywhere
_COLLABORATORS = ("singleCollaborator", "multipleCollaborators", "createdBy", "lastModifiedBy")


def wanted(changes: Iterable[Change], filters: Filters) -> list[Change]:
    """The changes that pass a webhook's filters."""
    return [each for each in changes if _passes(each, filters)]


def _passes(change: Change, filters: Filters) -> bool:
    watched = filters.watchDataInFieldIds
    # A deletion empties every cell, so it tells of each watched field of its table.
    touched = change.table.fields if change.kind == "delete" else change.cells
    return (
        filters.recordChangeScope in (None, change.table.id)
        and (filters.changeTypes is None or _TYPES[change.kind] in filters.changeTypes)
        and (filters.fromSources is None or change.actor.source in filters.fromSources)
        and (watched is None or not set(watched).isdisjoint(touched))
    )


def tables_changed(
    changes: Sequence[Change],
    options: Options,
    now: datetime,
    *,
    cleared: Literal["null", "absent"],
) -> Json:
    """``changedTablesById`` of changes that belong together and have passed the filters.

    Args:
        changes: oldest first.
        options: of the webhook.
        now: the present, for addresses that expire.
        cleared: how ``current`` shows a cell that was emptied (unknown on the wire).
    """
    tables: dict[str, dict[str, Json]] = {}
    for change in changes:
        table = tables.setdefault(change.table.id, {})
        if change.kind == "delete":
            table.setdefault("destroyedRecordIds", []).append(change.record)
            continue
        watched = options.filters.watchDataInFieldIds
        cells = {
            each: pair
            for each, pair in change.cells.items()
            if each in change.table.fields and (watched is None or each in watched)
        }
        created: dict[str, Json] = table.get("createdRecordsById", {})
        if change.kind == "create" or change.record in created:
            _add_created(table, change, cells, options, now)
        else:
            _add_changed(table, change, cells, options, now, cleared)
    return tables


def _add_created(
    table: dict[str, Json],
    change: Change,
    cells: Mapping[str, tuple[Json, Json]],
    options: Options,
    now: datetime,
) -> None:
    record = change.table.records.get(change.record)
    fresh: Json = {"createdTime": record and record.created, "cellValuesByFieldId": {}}
    shown = table.setdefault("createdRecordsById", {}).setdefault(change.record, fresh)
    values = _included(change, options, now)
    values |= {each: _v2(change.table, each, new) for each, (_, new) in cells.items()}
    shown["cellValuesByFieldId"] |= {k: value for k, value in values.items() if value is not None}


def _add_changed(
    table: dict[str, Json],
    change: Change,
    cells: Mapping[str, tuple[Json, Json]],
    options: Options,
    now: datetime,
    cleared: Literal["null", "absent"],
) -> None:
    """Merged with what the same payload says of the record: first old value, last new one."""
    shown = table.setdefault("changedRecordsById", {}).setdefault(change.record, {})
    current = shown.setdefault("current", {"cellValuesByFieldId": {}})["cellValuesByFieldId"]
    for each, (old, new) in cells.items():
        if new is not None or cleared == "null":
            current[each] = _v2(change.table, each, new)
        if options.includes.includePreviousCellValues:
            previous = shown.setdefault("previous", {"cellValuesByFieldId": {}})
            previous["cellValuesByFieldId"].setdefault(each, _v2(change.table, each, old))
    same = {k: v for k, v in _included(change, options, now).items() if k not in current}
    if options.includes.includeCellValuesInFieldIds is not None:
        shown["unchanged"] = {"cellValuesByFieldId": same}


def _included(change: Change, options: Options, now: datetime) -> dict[str, Json]:
    """What ``includeCellValuesInFieldIds`` asks for; fields that are gone are just left out."""
    asked, fields = options.includes.includeCellValuesInFieldIds, change.table.fields
    record = change.table.records.get(change.record)
    if asked is None or record is None:
        return {}
    chosen = [each for each in fields.values() if asked == "all" or each.id in asked]
    cells = {each.id: read_cell(record, each, now) for each in chosen}
    held = {k: value for k, value in cells.items() if value is not None and value is not False}
    return {each: _v2(change.table, each, value) for each, value in held.items()}


def _v2(table: Table, field_id: str, value: Json) -> Json:
    """A REST cell in the form of webhooks: selects, links and users as objects."""
    field = table.fields[field_id]
    if field.type == "multipleLookupValues":
        return {"valuesByLinkedRecordId": {_LOOKED_UP: value}, "linkedRecordIds": [_LOOKED_UP]}
    if isinstance(value, list) and field.type != "multipleAttachments":
        return [_v2_item(table, field, each) for each in cast("list[Json]", value)]
    return value if value is None else _v2_item(table, field, value)


def _v2_item(table: Table, field: Field, value: Json) -> Json:
    if field.type in ("singleSelect", "multipleSelects"):
        choices = {each["name"]: each for each in field.options.get("choices", ())}
        return choices.get(value, {"name": value})
    if field.type == LINK:
        target = table.linked(field)
        record = target.records.get(value)
        name = as_text(record.cells.get(target.primary.id)) if record else ""
        return {"id": value, "name": name}
    return {**value, "permissionLevel": "create"} if field.type in _COLLABORATORS else value


def action(actor: Actor, users: Mapping[str, Mapping[str, str]]) -> Json:
    """``actionMetadata``: a user behind people and the API, an automation's id, or nobody."""
    metadata: dict[str, Json] = {}
    if actor.source in ("client", "publicApi"):
        metadata = {"user": {**users[actor.user], "permissionLevel": "create"}}
    elif actor.source == "automation":
        metadata = {"automationId": actor.user}
    return {"source": actor.source, **({"sourceMetadata": metadata} if metadata else {})}
