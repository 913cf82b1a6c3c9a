"""Instants and days as Airtable reads and spells them (reference section 3, dateTime)."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?\s*(Z|[+-]\d\d:?\d\d)?"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def spell(instant: datetime) -> str:
    """``2022-09-05T07:00:00.000Z``, the only form in which the API returns instants."""
    utc = instant.astimezone(timezone.utc)
    return f"{utc:%Y-%m-%dT%H:%M:%S}.{utc.microsecond // 1000:03d}Z"


def field_zone(options: dict[str, object]) -> tzinfo:
    """The zone in which a dateTime field reads strings without one: its own, or UTC."""
    name = str(options.get("timeZone") or "utc")
    return timezone.utc if name in ("utc", "client") else ZoneInfo(name)


def parse(value: object, zone: tzinfo = timezone.utc) -> datetime | None:
    """An instant from ISO text or from epoch milliseconds (recorded to be accepted).

    Args:
        value: what the caller sent.
        zone: how text without ``Z`` or offset is read.

    Returns:
        Aware UTC, or None if it is neither.
    """
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return _EPOCH + timedelta(milliseconds=value)
        found = _ISO.fullmatch(value) if isinstance(value, str) else None
        return None if found is None else _build(found, zone)
    except (ValueError, OverflowError):
        return None


def _build(found: re.Match[str], zone: tzinfo) -> datetime:
    day, minutes, seconds, fraction, offset = found.groups()
    naive = datetime.fromisoformat(f"{day}T{minutes or '00:00'}:{seconds or '00'}")
    exact = naive.replace(microsecond=int(f"{fraction or '0':0<6.6}"))
    return exact.replace(tzinfo=_offset(offset) if offset else zone).astimezone(timezone.utc)


def _offset(text: str) -> tzinfo:
    if text == "Z":
        return timezone.utc
    minutes = int(text[1:3]) * 60 + int(text[-2:])
    return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))


def day(value: object) -> str | None:
    """``YYYY-MM-DD`` from such text or from an instant's text; None if it is neither."""
    if not isinstance(value, str):
        return None
    found = parse(value)
    return None if found is None else date.fromisoformat(value[:10]).isoformat()
