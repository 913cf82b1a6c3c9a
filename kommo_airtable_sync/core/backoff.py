"""How long to wait before trying again. Pure: the caller brings the dice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

RETRY_SECONDS_FIRST = 5.0
RETRY_SECONDS_MAX = 900.0

# First pause, longest pause by reason. Short where the next call may well succeed; long where
# asking again makes it worse (a block, reference kommo 2) or a person has to act.
PAUSE_SECONDS: dict[str, tuple[float, float]] = {
    "unreachable": (1.0, 15.0),
    "timeout": (1.0, 15.0),
    "server_error": (1.0, 15.0),
    # Both APIs say how long, or their clients know: Airtable locks a base for 30 s.
    "rate_limited": (1.0, 300.0),
    "unauthorized": (15.0, 300.0),
    "configuration": (5.0, 60.0),
    "blocked": (300.0, 3600.0),
    "quota": (3600.0, 3600.0),
}


def retry_seconds(attempts: int, jitter: float) -> float:
    """Wait before attempt ``attempts + 1`` at one lead; ``jitter`` is in [0, 1)."""
    full = min(RETRY_SECONDS_MAX, RETRY_SECONDS_FIRST * 2.0 ** min(attempts, 20))
    return full * (0.5 + jitter / 2)


def pause_seconds(reason: str, failures: int, retry_after_seconds: float | None) -> float:
    """How long nobody calls a side after ``failures`` (>= 1) failures in a row."""
    first, longest = PAUSE_SECONDS.get(reason, PAUSE_SECONDS["server_error"])
    own = min(longest, first * 2.0 ** min(failures - 1, 20))
    return max(own, min(retry_after_seconds or 0.0, 3600.0))


def header_seconds(headers: Mapping[str, str]) -> float | None:
    """The wait of a Retry-After header: seconds, or until a date by the answer's own clock."""
    named = {name.lower(): value for name, value in headers.items()}
    value = named.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            until, now = (parsedate_to_datetime(each) for each in (value, named.get("date", "")))
            seconds = max(0.0, (until - now).total_seconds())
        except (TypeError, ValueError):
            return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
