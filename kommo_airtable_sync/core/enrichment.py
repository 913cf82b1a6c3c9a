"""Values from the user's own functions, as mapped fields (``enrich`` of ``sync.yaml``)."""

from __future__ import annotations

from collections import abc
from datetime import date, datetime
from decimal import Decimal
from typing import cast

from kommo_airtable_sync.core.canonical import normalise
from kommo_airtable_sync.core.codecs import CELL_KINDS, CONVERTERS, fit
from kommo_airtable_sync.core.errors import LeadFailed
from kommo_airtable_sync.core.field_mapping import FieldMapping
from kommo_airtable_sync.core.mapping import Mapping
from kommo_airtable_sync.core.problems import not_known
from kommo_airtable_sync.core.schemas import AirtableField, KommoSchema
from kommo_airtable_sync.core.sources import Kind, Source, UnfitError, clipped, number, person
from kommo_airtable_sync.core.types import Canonical

PYTHON_TYPES: dict[Kind, str] = {
    "text": "str",
    "number": "int, float or Decimal",
    "flag": "bool",
    "date": "date",
    "instant": "datetime with a time zone",
    "set": "list or set of str",
}
"""What a function may return, by what it means; None empties the cell."""

SETS = (list, tuple, set, frozenset)

PAIRS = (CONVERTERS.keys() | {("text", "person")}) - {("text", "number")}
"""What goes into which kind of cell: amounts are not looked for in text."""

FREE_TYPES = CELL_KINDS.keys() - {"multipleRecordLinks"}
"""Types that a function may fill."""

Pair = tuple[FieldMapping, Canonical]


def enriched_fields(values: abc.Mapping[str, object], mapping: Mapping) -> list[Pair]:
    """What functions gave for one lead, as fields that Kommo's side owns.

    Args:
        values: by the name (or id) of a field of the deals table that nothing else fills.
        mapping: of the deals.

    Returns:
        Each field, whose ``from_kommo`` gives the value for any lead, and the value in its terms.

    Raises:
        LeadFailed: naming the field and what is allowed there.
    """
    pairs: dict[str, Pair] = {}
    for name, value in values.items():
        target = _target(name, mapping)
        if target.id in pairs:
            reason = f"enrich: {target.name!r} is given twice, by name and by id"
            raise LeadFailed(reason)
        pairs[target.id] = _enriched(target, value, mapping.fields[0].schema)
    return list(pairs.values())


def kind_of(value: object) -> tuple[Kind, Canonical]:
    """What a Python value means, and its canonical form.

    Raises:
        UnfitError: if it is none of `PYTHON_TYPES`.
    """
    if value is None or isinstance(value, str):
        return "text", normalise(_storable(value or ""))
    if isinstance(value, bool):
        return "flag", value
    if isinstance(value, (int, float, Decimal)):
        return "number", number(Decimal(value) if isinstance(value, int) else value)
    if isinstance(value, datetime) and value.tzinfo is not None and 1 < value.year < 9999:
        return "instant", normalise(value.replace(microsecond=0))
    if isinstance(value, date) and not isinstance(value, datetime):
        return "date", value
    names = _names(value)
    if names is not None:
        return "set", normalise(frozenset(_storable(name).strip() for name in names) - {""})
    allowed = "; ".join(PYTHON_TYPES.values())
    message = f"{type(value).__name__} is no value for a cell; allowed: {allowed}"
    raise UnfitError(message)


def _names(value: object) -> list[str] | None:
    members = list(cast("abc.Iterable[object]", value)) if isinstance(value, SETS) else [None]
    return [str(each) for each in members] if all(isinstance(e, str) for e in members) else None


def _storable(text: str) -> str:
    """The text without the halves of characters that no database takes."""
    return text.encode("utf-8", "replace").decode()


def _enriched(target: AirtableField, value: object, schema: KommoSchema) -> Pair:
    held = CELL_KINDS[target.type]
    try:
        kind, given = _as(held, value, target)
        fitted = fit(given, kind, target, schema.zone)
    except UnfitError as error:
        reason = f"enrich: {target.name}: {error}."
        raise LeadFailed(reason) from error
    field = FieldMapping(
        target=target,
        source=Source("enrich", held, lambda _lead, _final: fitted, {}),
        owner="kommo",
        on_conflict="kommo",
        create_options=False,
        fingerprint=f"enrich {target.id} {held}",
        schema=schema,
    )
    return field, fitted


def _as(held: Kind, value: object, target: AirtableField) -> tuple[Kind, Canonical]:
    kind, given = kind_of(value)
    if given is not None and (kind, held) not in PAIRS:
        allowed = ", ".join(
            words for other, words in PYTHON_TYPES.items() if (other, held) in PAIRS
        )
        message = f"a {target.type} field cannot hold {clipped(value)}; allowed: {allowed}"
        raise UnfitError(message)
    return (held, person(given)) if held == "person" else (kind, given)


def _target(name: str, mapping: Mapping) -> AirtableField:
    taken = {field.id for field in mapping.fields} | {mapping.key.id}
    taken |= {mapping.status.id} if mapping.status else set()
    target = mapping.table.find_field(name)
    if target is None or target.id in taken or target.type not in FREE_TYPES:
        free = [f.name for f in mapping.table.fields if f.id not in taken and f.type in FREE_TYPES]
        noun = f"a writable field of table {mapping.table_name!r} that nothing else fills"
        reason = f"enrich: {not_known(name, free, noun)}"
        raise LeadFailed(reason)
    return target
