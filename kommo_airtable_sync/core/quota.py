"""Airtable's monthly quota of calls: how the month will end, and what bulk may still take. Pure.

The quota (Free 1,000, Team 100,000 a month) is the workspace's, over all its bases; what is counted
here is what we call ourselves. Live events never wait for it: bulk slows first, then stops.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

SLOWED_PERCENT = 80
STOPPED_PERCENT = 95
"""The rest is kept for live events."""
RESERVED = "reserved"
"""Why a bulk call is refused then (``SideUnavailable.reason``); nobody else is paused."""
# An initial load in a month's first hour says nothing of its last week.
JUDGED_DAYS_MIN = 1.0

BulkSpeed = Literal["full speed", "slowed", "stopped"]


@dataclass(frozen=True, slots=True)
class MonthlyQuota:
    """Whose calls are counted, and how many a month may have.

    Args:
        base: ``app...``.
        limit: calls a calendar month; None: counted, not governed.
    """

    base: str
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class BulkPace:
    """How fast bulk may go; ``seconds_between`` its calls, if it is slowed."""

    speed: BulkSpeed
    seconds_between: float = 0.0


@dataclass(frozen=True, slots=True)
class QuotaReport:
    """How a base's month (``2026-03``, UTC) stands; ``forecast`` is of the calls at its end."""

    month: str
    used: int
    limit: int | None
    forecast: int
    bulk: BulkSpeed


def month_of(now: datetime) -> str:
    """The calendar month of an aware UTC time, ``2026-03``; such names sort as the months do."""
    return f"{now:%Y-%m}"


def forecast(used: int, now: datetime) -> int:
    """Calls at the end of the month, if the rest of it goes on like its part that is over."""
    begin, end = _month(now)
    gone = max(now - begin, timedelta(days=JUDGED_DAYS_MIN))
    return max(used, round(used * ((end - begin) / gone)))


def bulk_pace(used: int, limit: int | None, now: datetime) -> BulkPace:
    """What bulk may do: past a share of the quota, what is left for it is spread over the month."""
    if limit is None or used * 100 < limit * SLOWED_PERCENT:
        return BulkPace("full speed")
    left = -(-limit * STOPPED_PERCENT // 100) - used
    if left <= 0:
        return BulkPace("stopped")
    return BulkPace("slowed", (_month(now)[1] - now).total_seconds() / left)


def quota_report(used: int, limit: int | None, now: datetime) -> QuotaReport:
    """All that people are shown of it."""
    return QuotaReport(
        month_of(now), used, limit, forecast(used, now), bulk_pace(used, limit, now).speed
    )


def _month(now: datetime) -> tuple[datetime, datetime]:
    """The month's first moment, and the next one's."""
    begin = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return begin, (begin + timedelta(days=31)).replace(day=1)
