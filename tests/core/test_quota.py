"""The month's quota: what is forecast, and what bulk may take of it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.quota import (
    STOPPED_PERCENT,
    bulk_pace,
    forecast,
    month_of,
    quota_report,
)

BEGIN = datetime(2020, 1, 1, tzinfo=timezone.utc)
moments = st.floats(0, 16 * 365 * 86_400.0).map(lambda late: BEGIN + timedelta(seconds=late))
used_calls = st.integers(0, 10**7)
limits = st.integers(1, 10**6)


def month_end(now: datetime) -> datetime:
    later = now.replace(day=28, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=4)
    return later.replace(day=1)


@given(used_calls, st.integers(0, 10**4), moments, st.floats(0, 31))
def test_a_forecast_is_no_less_than_what_is_used_grows_with_it_and_falls_while_nothing_comes(
    used: int, more: int, now: datetime, days: float
) -> None:
    expected = forecast(used, now)
    assert used <= expected <= used * 31
    assert forecast(used + more, now) >= expected
    later = min(now + timedelta(days=days), month_end(now) - timedelta(microseconds=1))
    assert forecast(used, later) <= expected


@given(st.integers(1, 10**5), moments)
def test_a_steady_rate_is_forecast_as_it_is_from_the_second_day_on(
    calls_a_day: int, now: datetime
) -> None:
    begin = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    gone = max((now - begin) / timedelta(days=1), 1.0)
    month = (month_end(now) - begin).days
    assert abs(forecast(round(calls_a_day * gone), now) - calls_a_day * month) <= month


def test_the_first_hour_of_a_month_is_not_taken_for_the_pace_of_the_rest() -> None:
    assert forecast(1000, datetime(2026, 3, 1, 1, tzinfo=timezone.utc)) == 31_000
    assert forecast(1000, datetime(2026, 3, 31, 23, 59, 59, tzinfo=timezone.utc)) == 1000


@given(used_calls, moments)
def test_without_a_limit_bulk_goes_at_full_speed(used: int, now: datetime) -> None:
    assert bulk_pace(used, None, now).speed == "full speed"
    assert quota_report(used, None, now).month == month_of(now) == now.strftime("%Y-%m")


@given(used_calls, limits, moments)
def test_bulk_is_slowed_past_four_fifths_and_the_last_twentieth_is_not_for_it(
    used: int, limit: int, now: datetime
) -> None:
    pace = bulk_pace(used, limit, now)
    share = used / limit
    assert (pace.speed == "full speed") == (share < 0.8)
    assert (pace.speed == "stopped") == (share >= 0.95)
    assert (pace.seconds_between > 0) == (pace.speed == "slowed")


@given(st.integers(20, 2000), moments, st.floats(0, 1), st.integers(0, 3))
def test_bulk_that_keeps_the_pace_lasts_the_month_and_leaves_the_reserve(
    limit: int, now: datetime, share: float, live_each_time: int
) -> None:
    end, used = month_end(now), int(limit * (0.8 + share * 0.15))
    waits = list[float]()
    while now < end and (pace := bulk_pace(used, limit, now)).speed == "slowed":
        used += 1
        assert used * 100 < limit * STOPPED_PERCENT + 100
        waits.append(pace.seconds_between)
        now += timedelta(seconds=pace.seconds_between)
        used += live_each_time
    if waits and live_each_time == 0:
        # Evenly, to the very end.
        assert max(waits) - min(waits) < 0.01
        assert abs(end - now) < timedelta(seconds=1)
