"""When nobody listened: the receiver's heartbeat, and the gap that it finds."""

from __future__ import annotations

import pytest

from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.gaps import BEAT_SECONDS, GAP_SECONDS, Gaps
from tests.conftest import HandClock


@pytest.fixture
def gaps(database: Database) -> Gaps:
    return Gaps(database)


def test_the_very_first_beat_finds_no_gap(gaps: Gaps) -> None:
    gaps.beat()
    assert gaps.since() is None


def test_a_receiver_that_beats_on_or_restarts_leaves_no_gap(gaps: Gaps, clock: HandClock) -> None:
    for seconds in (0.0, BEAT_SECONDS, GAP_SECONDS - 1):
        clock.advance(seconds)
        gaps.beat()
    assert gaps.since() is None


def test_a_long_silence_is_a_gap_since_the_last_beat(gaps: Gaps, clock: HandClock) -> None:
    gaps.beat()
    silent_since = clock.now().timestamp()
    clock.advance(GAP_SECONDS + 1)
    gaps.beat()
    clock.advance(BEAT_SECONDS)
    gaps.beat()
    assert gaps.since() == pytest.approx(silent_since, abs=0.01)


def test_of_two_gaps_the_earlier_beginning_counts(gaps: Gaps) -> None:
    gaps.note(200.0)
    gaps.note(100.0)
    gaps.note(300.0)
    assert gaps.since() == 100.0


def test_only_the_gap_that_was_looked_through_is_cleared(gaps: Gaps) -> None:
    gaps.note(200.0)
    seen = gaps.since()
    assert seen is not None
    gaps.note(100.0)
    gaps.clear(seen)
    assert gaps.since() == 100.0
    gaps.clear(100.0)
    assert gaps.since() is None
