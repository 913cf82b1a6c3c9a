"""The status page's sentence."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core import headline as module
from kommo_airtable_sync.core.alerts import OVERDUE_SECONDS_MAX
from kommo_airtable_sync.core.backoff import PAUSE_SECONDS
from kommo_airtable_sync.core.headline import Facts, ago, headline

CASES = [
    (Facts(), "good", "No change has come yet"),
    (Facts(last_change_seconds=4.2), "good", "The last change was 4 s ago"),
    (Facts(conflicts=1), "waits", "1 conflict waits for you"),
    (Facts(conflicts=2, dead=1), "waits", "2 conflicts and 1 failed change wait for you"),
    (Facts(conflicts=1, dead=2, holds=3, quarantined=4), "waits",
     "1 conflict, 2 failed changes, 3 held changes and 4 unreadable messages wait"),
    (Facts(is_loaded=False), "waits", "nothing was loaded yet"),
    (Facts(oldest_seconds=OVERDUE_SECONDS_MAX + 60), "bad", "waiting for 6 min"),
    (Facts(pauses={"airtable": "unauthorized"}, dead=5), "bad",
     "Airtable is paused. It refuses the token"),
    (Facts(pauses={"kommo": "timeout"}, oldest_seconds=1e4), "bad", "Kommo is paused"),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "tone", "says"), CASES)
def test_the_gravest_thing_is_said_first(facts: Facts, tone: str, says: str) -> None:
    assert headline(facts)[0] == tone
    assert says in headline(facts)[1]


@pytest.mark.parametrize("reason", PAUSE_SECONDS)
def test_every_pause_says_what_to_do(reason: str) -> None:
    sentence = headline(Facts(pauses={"kommo": reason}))[1]
    assert "is paused.  " not in sentence
    assert sentence.count(".") >= 2


@given(
    st.builds(Facts, conflicts=st.integers(0, 9), dead=st.integers(0, 9), holds=st.integers(0, 9))
)
def test_all_is_well_only_if_nothing_waits(facts: Facts) -> None:
    well = "All is well" in headline(facts)[1]
    assert well == (not facts.conflicts and not facts.dead and not facts.holds)


@given(st.floats(0, 1e9))
def test_times_are_short(seconds: float) -> None:
    assert len(ago(seconds)) <= 12


def test_the_examples_are_right() -> None:
    assert doctest.testmod(module).failed == 0
