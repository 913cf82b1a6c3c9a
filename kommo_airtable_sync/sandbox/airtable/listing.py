"""List records: filter, pages and offsets that expire (reference 1.2).

Views, sorting and cells as text are refused, never ignored: a sync has no use for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from kommo_airtable_sync.sandbox.airtable.formula import RECORD_ID, Formula, compile_formula
from kommo_airtable_sync.sandbox.airtable.kinds import read_cell
from kommo_airtable_sync.sandbox.airtable.refusal import Refusal, bad_request, refuse
from kommo_airtable_sync.sandbox.airtable.schema import Record, Table
from kommo_airtable_sync.sandbox.airtable.state import State

Json = Any
PAGE = 100
_OFFSET = re.compile(r"itr[0-9A-Za-z]{14}/rec[0-9A-Za-z]{14}")
_KNOWN = frozenset((
    "cellFormat", "fields", "filterByFormula", "maxRecords", "offset", "pageSize",
    "returnFieldsByFieldId", "timeZone", "userLocale"
))  # fmt: skip


def query_parameters(query: str) -> dict[str, Json]:
    """A query string in the form that POST ``listRecords`` takes as JSON."""
    found: dict[str, Json] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name.endswith("[]"):
            found.setdefault(name[:-2], []).append(value)
        else:
            found[name] = value
    return found


def show_record(state: State, table: Table, record: Record, given: Mapping[str, Json]) -> Json:
    """The envelope ``{id, createdTime, fields}``, empty cells left out.

    Args:
        state: of the stand-in.
        table: of the record.
        record: the record.
        given: of the call's parameters ``fields`` and ``returnFieldsByFieldId``.
    """
    chosen = [table.field_of(str(each)) for each in given.get("fields") or ()]
    # pyairtable sends 1 on GET and true on POST.
    by_id = given.get("returnFieldsByFieldId") in (True, "1", "true")
    now, shown = state.clock.now(), dict[str, Json]()
    for field in chosen or table.fields.values():
        value = read_cell(record, field, now)
        if value is not None and value is not False:
            shown[field.id if by_id else field.name] = value
    return {"id": record.id, "createdTime": record.created, "fields": shown}


def list_page(state: State, table: Table, given: Mapping[str, Json]) -> Json:
    """One page, ``{records, offset?}``, or 422 for a bad parameter, formula, view or offset.

    Pages are no snapshot: which records is decided at the first, cells are read at each.
    """
    size = min(whole_number(given, "pageSize", PAGE), state.settings.page_records)
    if not _KNOWN.issuperset(given) or (given.get("cellFormat") or "json") != "json":
        raise bad_request(f"The sandbox lists by {sorted(_KNOWN)}, cellFormat json")
    now, offset = state.clock.now().timestamp(), str(given.get("offset") or "")
    _forget_offsets(state, now)
    ids, start = _resume(state, offset) if offset else (_select(state, table, given), 0)
    if offset:
        state.offsets[offset] = (ids, start, now)
    living = [each for each in ids[start : start + size] if each in table.records]
    page = {"records": [show_record(state, table, table.records[each], given) for each in living]}
    if start + size >= len(ids):
        return page
    following = f"{state.ids.new('itr')}/{ids[start + size]}"
    state.offsets[following] = (ids, start + size, now)
    return {**page, "offset": following}


def _forget_offsets(state: State, now: float) -> None:
    life = state.settings.offset_life_seconds
    state.offsets = {name: each for name, each in state.offsets.items() if each[2] > now - life}


def _resume(state: State, offset: str) -> tuple[list[str], int]:
    if not _OFFSET.fullmatch(offset):
        raise refuse("INVALID_OFFSET_VALUE", offset)
    if offset not in state.offsets:
        raise Refusal(422, {"error": {"type": "LIST_RECORDS_ITERATOR_NOT_AVAILABLE"}})
    return state.offsets[offset][:2]


def _select(state: State, table: Table, given: Mapping[str, Json]) -> list[str]:
    most = whole_number(given, "maxRecords", len(table.records) or 1)
    found = _filtered(state, table, str(given.get("filterByFormula") or ""))
    return [each.id for each in found][:most]


def _filtered(state: State, table: Table, text: str) -> Iterable[Record]:
    if not text:
        return table.records.values()
    formula = compile_formula(text, table, state.clock.now())
    return [each for each in _candidates(state, table, formula) if formula.keeps(each)]


def _candidates(state: State, table: Table, formula: Formula) -> Iterable[Record]:
    if formula.keys is None:
        return table.records.values()
    ids: dict[str, None] = {}
    for field_id, value in formula.keys:
        by_id = field_id == RECORD_ID
        ids |= dict.fromkeys([value] if by_id else state.data.matching(table, {field_id: value}))
    return [table.records[each] for each in ids if each in table.records]


def whole_number(given: Mapping[str, Json], name: str, default: int) -> int:
    """A parameter that must be 1 or more, or 422."""
    value = given.get(name)
    if value is None or value == "":
        return default
    if not re.fullmatch(r"0*[1-9]\d{0,8}", str(value)):
        raise bad_request()
    return int(value)
