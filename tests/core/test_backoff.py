from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.backoff import (
    PAUSE_SECONDS,
    RETRY_SECONDS_FIRST,
    RETRY_SECONDS_MAX,
    pause_seconds,
    retry_seconds,
)

ATTEMPTS = st.integers(0, 100_000)
JITTER = st.floats(0, 1, exclude_max=True)
REASONS = st.sampled_from(sorted(PAUSE_SECONDS))
ASKED = st.none() | st.floats(0, 1e9)


@given(ATTEMPTS, JITTER)
def test_a_retry_waits_for_at_least_half_of_what_is_due_and_never_beyond_the_most(
    attempts: int, jitter: float
):
    wait = retry_seconds(attempts, jitter)
    assert RETRY_SECONDS_FIRST / 2 <= wait <= RETRY_SECONDS_MAX


@given(ATTEMPTS, JITTER)
def test_each_retry_waits_no_shorter_than_the_one_before(attempts: int, jitter: float):
    assert retry_seconds(attempts, jitter) <= retry_seconds(attempts + 1, jitter)


def test_the_first_retries_double():
    assert [retry_seconds(n, 0.0) for n in range(4)] == [2.5, 5.0, 10.0, 20.0]


@given(ATTEMPTS, JITTER, JITTER)
def test_jitter_spreads_a_crowd_over_half_of_the_wait(attempts: int, one: float, other: float):
    full = 2 * retry_seconds(attempts, 0.0)
    spread = retry_seconds(attempts, one) - retry_seconds(attempts, other)
    assert spread == pytest.approx(full / 2 * (one - other), abs=1e-6)


@given(REASONS, st.integers(1, 100_000), ASKED)
def test_a_pause_lies_between_its_reasons_first_and_longest_or_as_asked(
    reason: str, failures: int, asked: float | None
):
    first, longest = PAUSE_SECONDS[reason]
    pause = pause_seconds(reason, failures, asked)
    assert first <= pause <= max(longest, 3600.0)
    assert pause <= max(longest, asked or 0.0)


@given(REASONS, st.integers(1, 1_000), ASKED)
def test_a_pause_never_shrinks_with_more_failures(reason: str, failures: int, asked: float | None):
    assert pause_seconds(reason, failures, asked) <= pause_seconds(reason, failures + 1, asked)


@given(REASONS, st.integers(1, 1_000), st.floats(0, 3600))
def test_what_the_api_asks_for_up_to_an_hour_is_honoured(reason: str, failures: int, asked: float):
    assert pause_seconds(reason, failures, asked) >= asked


def test_a_pause_doubles_up_to_its_longest():
    lasted = [pause_seconds("timeout", failures, None) for failures in range(1, 7)]
    assert lasted == [1, 2, 4, 8, 15, 15]


@given(st.text(), st.integers(1, 50))
def test_a_reason_nobody_knows_is_treated_as_a_server_error(reason: str, failures: int):
    if reason not in PAUSE_SECONDS:
        assert pause_seconds(reason, failures, None) == pause_seconds(
            "server_error", failures, None
        )


def test_a_block_and_a_spent_quota_are_left_alone_for_long():
    for reason in ("blocked", "quota"):
        assert pause_seconds(reason, 1, None) >= 300
