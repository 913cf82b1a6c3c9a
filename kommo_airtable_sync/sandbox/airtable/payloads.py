"""From the change log to a webhook's payloads (reference 5.4 to 5.6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from kommo_airtable_sync.sandbox.airtable.data import Actor, Change
from kommo_airtable_sync.sandbox.airtable.kinds import as_text, read_cell
from kommo_airtable_sync.sandbox.airtable.schema import LINK, Field, Table
from kommo_airtable_sync.sandbox.airtable.webhooks import Filters, Options

Json = Any
_TYPES = {"create": "add", "update": "update", "delete": "remove"}
_LOOKED_UP = "recSandboxLookup0"  # lookups show the same everywhere
_AUTOMATION = "wflSandbox0000000"
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


@dataclass(frozen=True, slots=True)
class Shape:
    """How a webhook's payloads look.

    Args:
        options: of the webhook.
        now: the present, for addresses that expire.
        shows_cleared: whether ``current`` holds null for an emptied cell (unknown on the wire).
    """

    options: Options
    now: datetime
    shows_cleared: bool

    def tables(self, changes: Iterable[Change]) -> Json:
        """``changedTablesById`` of changes, oldest first, that have passed the filters."""
        tables: dict[str, dict[str, Json]] = {}
        for change in changes:
            table = tables.setdefault(change.table.id, {})
            if change.kind == "delete":
                table.setdefault("destroyedRecordIds", []).append(change.record)
            elif change.kind == "create" or change.record in table.get("createdRecordsById", {}):
                self._add_created(table, change)
            else:
                self._add_changed(table, change)
        return tables

    def _add_created(self, table: dict[str, Json], change: Change) -> None:
        record = change.table.records.get(change.record)
        fresh: Json = {"createdTime": record and record.created, "cellValuesByFieldId": {}}
        shown = table.setdefault("createdRecordsById", {}).setdefault(change.record, fresh)
        cells = {k: _v2(change.table, k, new) for k, (_, new) in self._watched(change)}
        held = {k: value for k, value in cells.items() if value is not None}
        shown["cellValuesByFieldId"] |= self._included(change) | held

    def _add_changed(self, table: dict[str, Json], change: Change) -> None:
        """Merged with what the same payload says of it: first old value, last new one."""
        includes = self.options.includes
        shown = table.setdefault("changedRecordsById", {}).setdefault(change.record, {})
        current = shown.setdefault("current", {"cellValuesByFieldId": {}})["cellValuesByFieldId"]
        for field_id, (old, new) in self._watched(change):
            if new is not None or self.shows_cleared:
                current[field_id] = _v2(change.table, field_id, new)
            if includes.includePreviousCellValues:
                before = shown.setdefault("previous", {"cellValuesByFieldId": {}})
                before["cellValuesByFieldId"].setdefault(field_id, _v2(change.table, field_id, old))
        if includes.includeCellValuesInFieldIds is not None:
            same = {k: v for k, v in self._included(change).items() if k not in current}
            shown["unchanged"] = {"cellValuesByFieldId": same}

    def _watched(self, change: Change) -> list[tuple[str, tuple[Json, Json]]]:
        watched = self.options.filters.watchDataInFieldIds
        known = [each for each in change.cells.items() if each[0] in change.table.fields]
        return [each for each in known if watched is None or each[0] in watched]

    def _included(self, change: Change) -> dict[str, Json]:
        """What ``includeCellValuesInFieldIds`` asks for; fields that are gone are left out."""
        asked, fields = self.options.includes.includeCellValuesInFieldIds, change.table.fields
        record = change.table.records.get(change.record)
        if asked is None or record is None:
            return {}
        chosen = [each for each in fields.values() if asked == "all" or each.id in asked]
        cells = {each.id: read_cell(record, each, self.now) for each in chosen}
        held = {k: v for k, v in cells.items() if v is not None and v is not False}
        return {k: _v2(change.table, k, value) for k, value in held.items()}


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
        metadata = {"automationId": _AUTOMATION}
    return {"source": actor.source, **({"sourceMetadata": metadata} if metadata else {})}
