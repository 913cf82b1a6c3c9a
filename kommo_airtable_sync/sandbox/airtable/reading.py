"""Records as the API shows them: computed cells, empty ones left out, JSON or text form."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, cast

from kommo_airtable_sync.sandbox.airtable.cells import as_javascript, as_text
from kommo_airtable_sync.sandbox.airtable.formula import FormulaError, compile_formula
from kommo_airtable_sync.sandbox.airtable.refusal import Refusal
from kommo_airtable_sync.sandbox.airtable.schema import COMPUTED, Base, Field, Record, Table

Json = Any
# Attachment addresses change with every answer and die after two hours (AT:field-model).
ATTACHMENT_LIFE = timedelta(hours=2)


class Reader:
    """Reads the cells of one base.

    Args:
        base: the base.
        users: by id.
        now: aware UTC, for attachment addresses.
    """

    def __init__(self, base: Base, users: dict[str, dict[str, str]], now: datetime) -> None:
        self._base = base
        self._users = users
        self._expires = int((now + ATTACHMENT_LIFE).timestamp())

    def record(
        self,
        table: Table,
        record: Record,
        *,
        fields: Iterable[Field] | None = None,
        by_id: bool = False,
        as_strings: bool = False,
        comments: bool = False,
    ) -> Json:
        """The envelope ``{id, createdTime, fields}``.

        Args:
            table: of the record.
            record: the record.
            fields: only these; None = all.
            by_id: cells keyed by field id instead of name.
            as_strings: ``cellFormat=string``.
            comments: with ``commentCount``.
        """
        shown: dict[str, Json] = {}
        for field in table.fields.values() if fields is None else fields:
            value = self.cell(table, record, field)
            if value is not None and value is not False:
                name = field.id if by_id else field.name
                shown[name] = as_text(value) if as_strings else value
        envelope = {"id": record.id, "createdTime": record.created, "fields": shown}
        return {**envelope, "commentCount": 0} if comments else envelope

    def cell(self, table: Table, record: Record, field: Field) -> Json:
        """One cell; None if empty, False for a box that is not ticked."""
        if field.type in COMPUTED:
            return self._computed(table, record, field)
        value = record.cells.get(field.id)
        if field.type == "checkbox":
            return value or False
        if field.type == "multipleAttachments" and value is not None:
            host = "https://v5.airtableusercontent.example"
            return [{**each, "url": f"{host}/{self._expires}/{each['id']}"} for each in value]
        return value

    def _computed(self, table: Table, record: Record, field: Field) -> Json:
        match field.type:
            case "autoNumber":
                return record.number
            case "createdTime":
                return _shortened(record.created, field)
            case "lastModifiedTime":
                watched: list[str] = field.options.get("referencedFieldIds") or []
                times = [record.touched[each] for each in watched if each in record.touched]
                at = max(times, default=None) if watched else record.modified
                return None if at is None else _shortened(at, field)
            case "createdBy":
                return self._users.get(record.created_by)
            case "lastModifiedBy":
                return self._users.get(record.modified_by)
            case "formula":
                return self._formula(table, record, str(field.options.get("formula")))
            case "count":
                return len(record.cells.get(str(field.options.get("recordLinkFieldId"))) or [])
            case "multipleLookupValues":
                return self._looked_up(table, record, field) or None
            case "rollup":
                values = self._looked_up(table, record, field)
                return as_javascript(sum(values)) if values else {"specialValue": "NaN"}
            case "button":
                return {"label": field.name, "url": None}
            case _:
                return None

    def _formula(self, table: Table, record: Record, text: str) -> Json:
        read: Callable[[Record, Field], Json] = lambda rec, fld: self.cell(table, rec, fld)  # noqa: E731
        try:
            value = compile_formula(text, table, read).evaluate(record)
        except (FormulaError, Refusal):
            return {"error": "#ERROR!"}
        return as_javascript(value) if isinstance(value, float) else value

    def _looked_up(self, table: Table, record: Record, field: Field) -> list[Json]:
        link = table.fields[field.options["recordLinkFieldId"]]
        target = self._base.tables[link.options["linkedTableId"]]
        wanted = target.fields[field.options["fieldIdInLinkedTable"]]
        found: list[Json] = []
        for each in cast("list[str]", record.cells.get(link.id) or []):
            value = self.cell(target, target.records[each], wanted)
            if isinstance(value, list):
                found += cast("list[Json]", value)
            elif value is not None:
                found.append(value)
        return found


def _shortened(at: str, field: Field) -> str:
    """Such a field shows an instant, or only the day if its result is a date."""
    result: dict[str, Json] = field.options.get("result") or {}
    return at[:10] if result.get("type") == "date" else at
