"""List records: parameters, filter, order, pages and offsets that expire (reference 1.2)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from kommo_airtable_sync.sandbox.airtable.cells import as_text
from kommo_airtable_sync.sandbox.airtable.data import Data
from kommo_airtable_sync.sandbox.airtable.formula import RECORD_ID, Formula, compile_formula
from kommo_airtable_sync.sandbox.airtable.reading import Reader
from kommo_airtable_sync.sandbox.airtable.refusal import bad_request, typed
from kommo_airtable_sync.sandbox.airtable.schema import Field, Ids, Record, Table, is_id

Json = Any
PAGE = 100
_OFFSET = re.compile(r"itr[0-9A-Za-z]{14}/rec[0-9A-Za-z]{14}")
_SORT = re.compile(r"sort\[(\d+)\]\[(field|direction)\]")


@dataclass(slots=True)
class _Iterator:
    """The ids one listing goes through; cells are read when their page is asked for."""

    ids: list[str]
    starts: dict[str, int] = field(default_factory=dict[str, int])
    used: float = 0.0


def query_parameters(pairs: Iterable[tuple[str, str]]) -> dict[str, Json]:
    """The query of a GET in the form that POST ``listRecords`` takes as JSON."""
    found: dict[str, Json] = {}
    sorts: dict[int, dict[str, str]] = {}
    for name, value in pairs:
        sort = _SORT.fullmatch(name)
        if sort:
            sorts.setdefault(int(sort[1]), {})[sort[2]] = value
        elif "[" in name:
            found.setdefault(name.partition("[")[0], []).append(value)
        else:
            found[name] = value
    return {**found, "sort": [sorts[each] for each in sorted(sorts)]} if sorts else found


def flag(value: Json) -> bool:
    """A boolean parameter; pyairtable sends ``1`` on GET and ``true`` on POST."""
    return value in (True, "1", "true", 1)


class Listings:
    """The listings in progress.

    Args:
        data: for look-ups by index.
        ids: source of iterator ids.
    """

    def __init__(self, data: Data, ids: Ids) -> None:
        self._data = data
        self._ids = ids
        self._open: dict[str, _Iterator] = {}

    def page(
        self,
        table: Table,
        reader: Reader,
        given: Mapping[str, Json],
        now: datetime,
        life_seconds: float,
    ) -> Json:
        """One page: ``{records, offset?}``.

        Args:
            table: the table listed.
            reader: of its base.
            given: parameters as in POST ``listRecords``, with those of the query string.
            now: aware UTC.
            life_seconds: offsets not used for so long are dead.

        Raises:
            Refusal: 422 for a bad parameter, formula, view, field or offset.
        """
        size = _whole(given, "pageSize", PAGE, 1, PAGE)
        fields, as_strings = self._fields(table, given), _as_strings(given)
        self._forget_older_than(now.timestamp() - life_seconds)
        offset = given.get("offset") or ""
        if offset:
            name, iterator, start = self._resume(str(offset))
        else:
            name, start = self._ids.new("itr"), 0
            iterator = _Iterator(self._select(table, reader, given))
        iterator.used = now.timestamp()
        shown = [
            reader.record(
                table,
                table.records[each],
                fields=fields,
                by_id=flag(given.get("returnFieldsByFieldId")),
                as_strings=as_strings,
                comments="commentCount" in (given.get("recordMetadata") or ()),
            )
            for each in iterator.ids[start : start + size]
            if each in table.records
        ]
        if start + size >= len(iterator.ids):
            return {"records": shown}
        first = iterator.ids[start + size]
        iterator.starts[first] = start + size
        self._open[name] = iterator
        return {"records": shown, "offset": f"{name}/{first}"}

    def _fields(self, table: Table, given: Mapping[str, Json]) -> list[Field] | None:
        names = given.get("fields")
        return None if not names else [table.field_of(str(each)) for each in names]

    def _resume(self, offset: str) -> tuple[str, _Iterator, int]:
        if not _OFFSET.fullmatch(offset):
            message = f"The value of offset {offset} is invalid"
            raise typed(422, "INVALID_OFFSET_VALUE", message)
        name, _, first = offset.partition("/")
        iterator = self._open.get(name)
        if iterator is None or first not in iterator.starts:
            raise typed(422, "LIST_RECORDS_ITERATOR_NOT_AVAILABLE")
        return name, iterator, iterator.starts[first]

    def _forget_older_than(self, at: float) -> None:
        self._open = {name: each for name, each in self._open.items() if each.used > at}

    def _select(self, table: Table, reader: Reader, given: Mapping[str, Json]) -> list[str]:
        most = _whole(given, "maxRecords", len(table.records) or 1, 1, None)
        view = given.get("view")
        if view and not any(view in (each["id"], each["name"]) for each in table.views):
            by_id = is_id(str(view), "viw")
            kind = "VIEW_ID_NOT_FOUND" if by_id else "VIEW_NAME_NOT_FOUND"
            raise typed(422, kind, f"View {view} not found")
        found = self._filtered(table, reader, str(given.get("filterByFormula") or ""))
        for key, descending in reversed(_sorting(table, reader, given)):
            found = sorted(found, key=key, reverse=descending)
        return [each.id for each in found][:most]

    def _filtered(self, table: Table, reader: Reader, formula: str) -> Iterable[Record]:
        if not formula:
            return table.records.values()
        parsed = compile_formula(
            formula, table, lambda record, field: reader.cell(table, record, field)
        )
        return [each for each in self._candidates(table, parsed) if parsed.keeps(each)]

    def _candidates(self, table: Table, parsed: Formula) -> Iterable[Record]:
        if parsed.keys is None:
            return table.records.values()
        ids: dict[str, None] = {}
        for field_id, value in parsed.keys:
            own = [value] if value in table.records else []
            found = own if field_id == RECORD_ID else self._data.matching(table, {field_id: value})
            ids.update(dict.fromkeys(found))
        return [table.records[each] for each in ids]


def _whole(given: Mapping[str, Json], name: str, default: int, least: int, most: int | None) -> int:
    value = given.get(name)
    if value is None or value == "":
        return default
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,9}", str(value)):
        raise bad_request()
    if int(value) < least:
        raise bad_request()
    return int(value) if most is None else min(int(value), most)


def _as_strings(given: Mapping[str, Json]) -> bool:
    cell_format = given.get("cellFormat") or "json"
    complete = given.get("timeZone") and given.get("userLocale")
    if cell_format not in ("json", "string") or (cell_format == "string" and not complete):
        raise bad_request()
    return cell_format == "string"


def _sorting(
    table: Table, reader: Reader, given: Mapping[str, Json]
) -> list[tuple[Callable[[Record], Json], bool]]:
    found: list[tuple[Callable[[Record], Json], bool]] = []
    for each in given.get("sort") or ():
        if not isinstance(each, dict):
            raise bad_request()
        asked = cast("dict[str, Json]", each)
        direction = asked.get("direction", "asc")
        if direction not in ("asc", "desc"):
            raise bad_request()
        field = table.field_of(str(asked.get("field")))
        found.append((_sort_key(table, reader, field), direction == "desc"))
    return found


def _sort_key(table: Table, reader: Reader, field: Field) -> Callable[[Record], Json]:
    order = [choice["name"] for choice in field.options.get("choices", ())]

    def key(record: Record) -> Json:
        value = reader.cell(table, record, field)
        if field.type == "singleSelect" and value in order:
            return (1, order.index(value), "")
        if isinstance(value, (int, float)):
            return (1, value, "")
        return (0, 0, "") if value is None else (2, 0, as_text(value))

    return key
