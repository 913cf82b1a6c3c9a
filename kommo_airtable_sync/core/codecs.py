"""Airtable cells: what each field type can hold, and canonical value <-> cell (reference 3).

A mapped field is compared in the terms of its Airtable type: a Kommo date_time mapped to a date is
a day on both sides, a percent is what people read (12.5, not 0.125).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, time, timezone
from decimal import Decimal
from typing import cast
from zoneinfo import ZoneInfo

from kommo_airtable_sync.core.amounts import parse_amount
from kommo_airtable_sync.core.canonical import normalise, parse_instant, plain, to_json
from kommo_airtable_sync.core.schemas import AirtableField
from kommo_airtable_sync.core.sources import CLIPPED_AT, Kind, UnfitError, clipped, person
from kommo_airtable_sync.core.types import Canonical, Json

CELL_KINDS: dict[str, Kind] = {
    "singleLineText": "text",
    "multilineText": "text",
    # Airtable rewrites Markdown as it likes; the ledger's own column for each side absorbs that.
    "richText": "text",
    "email": "text",
    "url": "text",
    "phoneNumber": "text",
    "barcode": "text",
    "number": "number",
    "currency": "number",
    "percent": "number",
    "rating": "number",
    "duration": "number",
    "date": "date",
    "dateTime": "instant",
    "checkbox": "flag",
    "singleSelect": "option",
    "multipleSelects": "set",
    "singleCollaborator": "person",
    "multipleRecordLinks": "link",
    # Sent by address, shown by id: Airtable keeps a copy, whose own address changes (reference 3).
    "multipleAttachments": "attachment",
}
"""Airtable types that can be written, and what they hold."""

WRAPPED = {"barcode": "text", "singleCollaborator": "email"}
"""Types whose cell is an object, and the key of it that is synced."""

COMPUTED = frozenset({
    "aiText", "autoNumber", "button", "count", "createdBy", "createdTime", "externalSyncSource",
    "formula", "lastModifiedBy", "lastModifiedTime", "multipleLookupValues", "rollup",
})  # fmt: skip
"""Airtable types that Airtable fills (reference 3, read-only)."""

INTEGER_MAX = 2**53
"""Above it a JSON number, a double, no longer tells neighbouring integers apart."""

Converter = Callable[[Canonical, ZoneInfo], Canonical]


def _day(value: Canonical, zone: ZoneInfo) -> Canonical:
    return cast("datetime", value).astimezone(zone).date()


def _midnight(value: Canonical, zone: ZoneInfo) -> Canonical:
    return normalise(datetime.combine(cast("date", value), time(), tzinfo=zone))


def _as_is(value: Canonical, _: ZoneInfo) -> Canonical:
    return value


def _address(value: Canonical, _: ZoneInfo) -> Canonical:
    address = str(value).strip()
    if not re.fullmatch(r"https?://[^\s/]+\S*", address):
        message = f"{clipped(address)} is not a web address from which Airtable could fetch a file"
        raise UnfitError(message)
    return address


def _written_out(value: Canonical, _: ZoneInfo) -> Canonical:
    return next(iter(to_json(value).values()))


CONVERTERS: dict[tuple[Kind, Kind], Converter] = {
    ("text", "text"): _as_is,
    ("text", "option"): lambda value, _: str(value).strip(),
    ("text", "number"): lambda value, _: parse_amount(str(value)),
    ("text", "attachment"): _address,
    ("option", "text"): _as_is,
    ("option", "option"): _as_is,
    ("option", "set"): lambda value, _: frozenset({str(value)}),
    ("number", "number"): _as_is,
    ("number", "text"): _written_out,
    ("flag", "flag"): _as_is,
    ("date", "date"): _as_is,
    ("date", "instant"): _midnight,
    ("date", "text"): _written_out,
    ("instant", "instant"): _as_is,
    ("instant", "date"): _day,
    ("instant", "text"): _written_out,
    ("set", "set"): _as_is,
    ("set", "text"): lambda value, _: ", ".join(sorted(cast("frozenset[str]", value))),
    ("person", "person"): _as_is,
    ("link", "link"): _as_is,
}
"""(Kommo's kind, Airtable's kind) -> how; a pair that is absent makes no sense."""

ONE_WAY = frozenset({
    ("text", "number"), ("text", "attachment"), ("option", "set"), ("number", "text"),
    ("date", "instant"), ("date", "text"), ("instant", "date"), ("instant", "text"),
    ("set", "text"),
})  # fmt: skip
"""Pairs that Kommo must own: the way back would have to guess, or to drop something."""


def targets_of(kind: Kind, *, both_ways: bool = False) -> list[str]:
    """The Airtable types that can hold values of a kind, and give them back if so wanted."""
    allowed = CONVERTERS.keys() - ONE_WAY if both_ways else CONVERTERS.keys()
    return [name for name, held in CELL_KINDS.items() if (kind, held) in allowed]


def fit(value: Canonical, kind: Kind, field: AirtableField, zone: ZoneInfo) -> Canonical:
    """A Kommo value in the terms of its Airtable field, as it will read back.

    Args:
        value: of `kind`, or None.
        kind: what the Kommo source yields.
        field: the target.
        zone: the Kommo account's, in which instants become days.

    Raises:
        UnfitError: if the field cannot hold it.
    """
    if value is not None:
        if kind == "text" and field.type == "percent":
            value = str(value).strip().removesuffix("%")
        try:
            value = normalise(CONVERTERS[kind, CELL_KINDS[field.type]](value, zone))
        except OverflowError as error:
            message = f"{value} is outside the years 1 to 9999 in {zone}"
            raise UnfitError(message) from error
    if field.type == "checkbox":
        return bool(value)  # an unticked box is absent
    if field.type == "richText" and isinstance(value, str):
        return normalise(value.rstrip("\n"))
    return _fit_number(value, field) if isinstance(value, Decimal) else value


def _fit_number(value: Decimal, field: AirtableField) -> Canonical:
    if field.type == "rating":
        if value == 0:
            return None  # Airtable refuses 0; empty is its "no rating"
        if value != value.to_integral_value() or not 0 < value <= (field.max or 10):
            message = f"{plain(value)} is not a whole rating from 1 to {field.max or 10}"
            raise UnfitError(message)
    if abs(value) > INTEGER_MAX:
        message = (
            f"{plain(value)[:CLIPPED_AT]} has more digits than an Airtable number holds exactly; "
            "map it to a text field"
        )
        raise UnfitError(message)
    if field.type == "percent":
        return shift(as_double(shift(value, -2)), 2)
    return as_double(value)


def as_double(value: Decimal) -> Decimal:
    """The nearest number that survives JSON, by its shortest spelling: what is read back."""
    return Decimal(plain(Decimal(repr(float(value)))))


def shift(value: Decimal, places: int) -> Decimal:
    """Move the decimal point, exactly (``scaleb`` would round to the context's precision)."""
    sign, digits, exponent = value.as_tuple()
    return Decimal(plain(Decimal((sign, digits, cast("int", exponent) + places))))


def to_cell(value: Canonical, field: AirtableField) -> Json:
    """The cell to send for a value that `fit` has passed; None clears it."""
    if value is not None and field.type in {*WRAPPED, "multipleAttachments"}:
        inner = WRAPPED.get(field.type)
        return {inner: value} if inner else [{"url": value}]
    if isinstance(value, Decimal):
        sent = shift(value, -2) if field.type == "percent" else value
        return int(sent) if sent == sent.to_integral_value() else float(sent)
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).isoformat(timespec="milliseconds")[:-6] + "Z"
    if isinstance(value, date):
        return value.isoformat()
    # A select takes the exact name of its option, stray blanks included.
    exact = {choice.strip(): choice for choice in field.choices}
    if isinstance(value, frozenset):
        return sorted(exact.get(name, name) for name in value)
    return exact.get(value, value) if isinstance(value, str) else value


def from_cell(cell: Json, field: AirtableField) -> Canonical:
    """The value of a cell as the API gives it, None if it is absent.

    Raises:
        UnfitError: if the cell is not of its field's type, as after a change of type.
    """
    kind = CELL_KINDS[field.type]
    if kind == "flag":
        return bool(cell)
    if cell is None:
        return None
    try:
        return _read(cell[WRAPPED[field.type]] if field.type in WRAPPED else cell, kind, field)
    except (KeyError, TypeError, ValueError) as error:
        message = f"{clipped(cell)} is not a value of an Airtable {field.type} field"
        raise UnfitError(message) from error


READERS: dict[Kind, Callable[[str], Canonical]] = {
    "text": str,
    "option": str.strip,
    "date": date.fromisoformat,
    "instant": parse_instant,
    "person": person,
}
"""The kinds that cells hold as text."""


def _read(cell: Json, kind: Kind, field: AirtableField) -> Canonical:
    if kind in {"set", "link"} and isinstance(cell, list):
        return normalise(frozenset(str(name).strip() for name in cast("list[object]", cell)))
    if kind == "attachment" and isinstance(cell, list):
        return normalise(frozenset(str(one["id"]) for one in cast("list[Json]", cell)))
    if kind == "number" and isinstance(cell, (int, float)) and not isinstance(cell, bool):
        value = Decimal(plain(Decimal(repr(cell))))
        return shift(value, 2) if field.type == "percent" else value
    if not isinstance(cell, str):
        raise TypeError
    # A cleared rich text reads "\n", a filled one ends in it (reference 3).
    return normalise(READERS[kind](cell.rstrip("\n") if field.type == "richText" else cell))
