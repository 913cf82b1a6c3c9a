"""What is a condition, and what is news of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.alerts import (
    FORECAST,
    FORECAST_OVER_SHARE,
    NUDGES_MIN,
    OVERDUE_SECONDS_MAX,
    PAUSE_SECONDS_MIN,
    RUN,
    RUNS_TOLD_MAX,
    WAITING,
    View,
    changes,
    conditions,
)
from kommo_airtable_sync.core.backoff import PAUSE_SECONDS
from kommo_airtable_sync.core.quota import QuotaReport

names = st.sampled_from([*WAITING, "backlog", *(f"{RUN}{number}" for number in range(6))])
standing = st.dictionaries(names, st.text(min_size=1))
views = st.builds(
    View,
    waiting=st.dictionaries(st.sampled_from(sorted(WAITING)), st.integers(0, 5)),
    pauses=st.dictionaries(
        st.sampled_from(["kommo", "airtable", "settings"]),
        st.tuples(st.sampled_from(sorted(PAUSE_SECONDS)), st.floats(0, 7200)),
    ),
    overdue_seconds=st.floats(0, 7200),
    nudges=st.dictionaries(st.sampled_from(["live", "bulk"]), st.integers(0, 9)),
    failed_runs=st.dictionaries(st.text("0123456789abcdef", min_size=8), st.just("sync_changes")),
)


@given(st.lists(standing, max_size=6))
def test_whoever_follows_the_changes_knows_what_stands_and_each_is_told_once(
    moments: list[dict[str, str]],
) -> None:
    told: set[str] = set()
    for now in moments:
        found = changes(told, now)
        touched = [name for change in found for name in change.names]
        assert sorted(touched) == sorted(told.symmetric_difference(now))
        for change in found:
            told = told.union(change.names) if change.stands else told.difference(change.names)
        assert told == set(now)
        assert changes(told, now) == []


@given(views, views)
def test_every_change_is_one_line_and_one_message(before: View, now: View) -> None:
    found = changes(conditions(before), conditions(now))
    silent = [change for change in found if not change.message]
    assert all(name.startswith(RUN) for change in silent for name in change.names)
    for change in found:
        assert "\n" not in change.message
        assert change.stands or change in silent or change.message.endswith("this is over.")


@given(views, st.integers(1, 1000))
def test_a_count_that_grows_is_no_news(view: View, more: int) -> None:
    grown = View(waiting={name: n + more for name, n in view.waiting.items() if n})
    fewer = View(waiting={name: n for name, n in view.waiting.items() if n})
    assert changes(conditions(fewer), conditions(grown)) == []


def test_nothing_is_wrong_with_nothing() -> None:
    assert conditions(View()) == {}


@pytest.mark.parametrize("reason", sorted(PAUSE_SECONDS))
def test_a_short_pause_is_no_condition_and_a_long_one_has_a_remedy(reason: str) -> None:
    assert conditions(View(pauses={"kommo": (reason, PAUSE_SECONDS_MIN)})) == {}
    [(name, text)] = conditions(View(pauses={"kommo": (reason, PAUSE_SECONDS_MIN + 1)})).items()
    assert name.startswith("kommo paused, ")
    assert not text.startswith(" "), "no remedy"


def test_an_outage_that_changes_its_face_is_one_and_a_refused_token_is_another() -> None:
    timeout, error, refused = (
        conditions(View(pauses={"airtable": (reason, 600)}))
        for reason in ("timeout", "server_error", "unauthorized")
    )
    assert changes(timeout, error) == []
    assert [change.stands for change in changes(error, refused)] == [False, True]


def test_a_backlog_counts_only_while_nothing_is_paused() -> None:
    late = OVERDUE_SECONDS_MAX + 1
    assert set(conditions(View(overdue_seconds=late))) == {"backlog"}
    assert conditions(View(overdue_seconds=OVERDUE_SECONDS_MAX)) == {}
    assert conditions(View(overdue_seconds=late, pauses={"kommo": ("timeout", 1)})) == {}


def test_nudges_that_nobody_answers_mean_that_a_worker_is_missing() -> None:
    view = View(nudges={"live": NUDGES_MIN, "bulk": NUDGES_MIN - 1})
    assert set(conditions(view)) == {"no live worker"}


def test_of_many_failed_runs_a_few_are_named() -> None:
    failed = {f"{number:08x}": "sync_changes" for number in range(RUNS_TOLD_MAX + 4)}
    found = changes([], conditions(View(failed_runs=failed)))
    assert len(found) == RUNS_TOLD_MAX + 1
    assert found[-1].message == "4 more runs failed meanwhile."


def quota(forecast: int, *, bulk: str = "full speed", limit: int | None = 1000) -> View:
    return View(quota=QuotaReport("2026-03", 500, limit, forecast, bulk))  # type: ignore[arg-type]


def test_a_forecast_beyond_the_quota_is_told_once_however_it_sways() -> None:
    told: set[str] = set()
    messages = 0
    for expected in (900, 1001, 990, 1010, 950, 1100):
        now = conditions(quota(expected), told)
        messages += len(changes(told, now))
        told = set(now)
    assert (told, messages) == ({FORECAST}, 1)
    assert conditions(quota(int(1000 * FORECAST_OVER_SHARE)), told) == {}


def test_bulk_that_stopped_is_a_condition_and_a_month_without_limit_is_none() -> None:
    assert set(conditions(quota(960, bulk="stopped"))) == {"bulk stopped"}
    assert conditions(quota(960, bulk="slowed")) == {}
    assert conditions(quota(10**9, limit=None)) == {}
