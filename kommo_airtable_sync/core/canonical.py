"""Canonical values: one spelling for what Kommo and Airtable write differently.

Rules (design 3.2): text as the API returns it, numbers as ``Decimal``, instants as aware UTC, sets
of names; ``""``, ``[]`` and absent are the one empty value, 0 and ``False`` are not.
"""

from __future__ import annotations

from datetime import date, datetime, timezone
from decimal import Decimal
from typing import cast

from kommo_airtable_sync.core.types import Canonical, Json


def normalise(value: Canonical) -> Canonical:
    """The same value in its one spelling: empties as None, instants in UTC, no negative zero.

    Raises:
        ValueError: for a naive datetime or a number that is not finite.
    """
    if value is None or isinstance(value, str):  # most are: a comparison asks a million times
        return value or None
    if isinstance(value, frozenset):
        return value or None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            message = f"{value!r} has no time zone"
            raise ValueError(message)
        return value.astimezone(timezone.utc)
    if isinstance(value, Decimal):
        return Decimal(plain(value))
    return value


def same(a: Canonical, b: Canonical) -> bool:
    """Whether two values mean the same. A number never equals a flag, nor a date an instant."""
    if isinstance(a, str) and isinstance(b, str):
        return a == b
    a, b = normalise(a), normalise(b)
    return type(a) is type(b) and a == b


def is_blank(value: Canonical) -> bool:
    """Whether the value is the one empty value."""
    return normalise(value) is None


def shown(value: Canonical) -> str:
    """A canonical value as people read it."""
    if value is None:
        return "(empty)"
    if isinstance(value, frozenset):
        return ", ".join(sorted(value))
    return plain(value) if isinstance(value, Decimal) else str(value)


def plain(number: Decimal) -> str:
    """The number's exact digits, no exponent and no trailing zeros: ``Decimal("1E+1")`` -> ``10``.

    Written by hand because ``Decimal.normalize`` rounds to the context's precision.

    Raises:
        ValueError: if the number is not finite.
    """
    if not number.is_finite():
        message = f"{number} is not a finite number"
        raise ValueError(message)
    digits = format(number, "f")
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return "0" if digits in {"-0", ""} else digits


def to_json(value: Canonical) -> Json:
    """The value as self-describing JSON, for the ledger and the journal.

    Text, flags and empty stand for themselves; the rest is ``{"number": "10.5"}``,
    ``{"date": "2026-01-31"}``, ``{"instant": "2026-01-31T12:00:00Z"}`` or ``{"set": [sorted]}``.
    """
    value = normalise(value)
    if isinstance(value, Decimal):
        return {"number": plain(value)}
    if isinstance(value, datetime):
        return {"instant": value.isoformat().replace("+00:00", "Z")}
    if isinstance(value, date):
        return {"date": value.isoformat()}
    if isinstance(value, frozenset):
        return {"set": sorted(value)}
    return value


def from_json(stored: Json) -> Canonical:
    """What `to_json` wrote.

    Raises:
        ValueError: if it was not written by `to_json`.
    """
    if stored is None or isinstance(stored, (str, bool)):
        return normalise(stored)
    match stored:
        case {"number": str(digits)}:
            return Decimal(digits)
        case {"date": str(day)}:
            return date.fromisoformat(day)
        case {"instant": str(moment)}:
            return parse_instant(moment)
        case {"set": list()}:
            return normalise(frozenset(cast("list[str]", stored["set"])))
        case _:
            message = f"{stored!r} is not a stored canonical value"
            raise ValueError(message)


def parse_instant(text: str) -> datetime:
    """An ISO-8601 time with ``Z`` or an offset, as aware UTC.

    Raises:
        ValueError: if it is not one, or names no zone (it would be read in somebody's own).
    """
    # Python 3.10's fromisoformat does not know "Z".
    parsed = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    if parsed.tzinfo is None:
        message = f"{text!r} names no time zone"
        raise ValueError(message)
    return parsed.astimezone(timezone.utc)
