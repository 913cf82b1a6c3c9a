from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.errors import Side
from kommo_airtable_sync.core.loop_breaker import LOOP_SECONDS, continues_loop
from kommo_airtable_sync.core.types import Canonical

NOW = 1_700_000_000.0
OTHER: dict[Side, Side] = {"kommo": "airtable", "airtable": "kommo"}
SIDES: st.SearchStrategy[Side] = st.sampled_from(["kommo", "airtable"])
VALUES = st.sampled_from(["a", "b", True, Decimal(1), Decimal(2), None, frozenset({"t"})])


@dataclass(frozen=True)
class Write:
    side: Side
    field: str
    after: Canonical
    closed_at: float | None


WRITES = st.lists(
    st.builds(Write, SIDES, st.sampled_from(["f", "g"]), VALUES, st.floats(NOW - 120, NOW - 0.01)),
    max_size=8,
).map(lambda writes: sorted(writes, key=lambda write: write.closed_at))


def turns(wanted: list[tuple[Side, Canonical]], every: float = 2.0) -> int | None:
    """Plays writes of one field one after another; the number of the first that is held."""
    recent: list[Write] = []
    for number, (side, value) in enumerate(wanted, start=1):
        now = NOW + number * every
        if continues_loop(recent, side, "f", value, now):
            return number
        recent.append(Write(side, "f", value, now))
    return None


def toggled(side: Side, times: int) -> list[tuple[Side, Canonical]]:
    return [(side, n % 2 == 0) for n in range(times)]


def test_a_rounding_that_one_side_takes_back_is_stopped_after_three_bounces():
    exact, rounded = Decimal("10.5"), Decimal(10)
    bounces: list[tuple[Side, Canonical]] = [("kommo", exact), ("airtable", rounded)] * 5
    assert turns(bounces) == 4


def test_a_counter_that_never_repeats_itself_is_stopped_by_its_alternation():
    assert turns([(("kommo", "airtable")[n % 2], Decimal(n)) for n in range(9)]) == 4


def test_an_automation_that_resets_what_we_write_is_stopped_at_the_third_time():
    assert turns([("airtable", "ours")] * 9) == 3


@given(SIDES)
def test_a_person_who_toggles_a_field_four_times_is_no_loop(side: Side):
    assert turns(toggled(side, 4)) is None
    assert turns(toggled(side, 9)) == 5


@given(SIDES, st.integers(20, 300))
def test_edits_minutes_apart_are_no_loop(side: Side, seconds: int):
    pace = LOOP_SECONDS / 2 + seconds
    assert turns([(side, "a"), (OTHER[side], "b")] * 6, every=pace) is None
    assert turns([(side, "a")] * 6, every=pace) is None


@given(WRITES, SIDES, VALUES)
def test_writes_of_other_fields_play_no_part(recent: list[Write], side: Side, value: Canonical):
    others = [replace(write, field="g") for write in recent]
    assert not continues_loop(others, side, "f", value, NOW)
    mine = [write for write in recent if write.field == "f"]
    assert continues_loop(recent, side, "f", value, NOW) == continues_loop(
        mine, side, "f", value, NOW
    )


@given(WRITES, SIDES, VALUES)
def test_only_the_last_minute_counts(recent: list[Write], side: Side, value: Canonical):
    lately = [write for write in recent if NOW - write.closed_at < LOOP_SECONDS]
    assert continues_loop(recent, side, "f", value, NOW) == continues_loop(
        lately, side, "f", value, NOW
    )


@given(WRITES, SIDES, VALUES)
def test_the_sides_are_alike(recent: list[Write], side: Side, value: Canonical):
    mirrored = [replace(write, side=OTHER[write.side]) for write in recent]
    assert continues_loop(recent, side, "f", value, NOW) == continues_loop(
        mirrored, OTHER[side], "f", value, NOW
    )


@given(st.lists(st.tuples(SIDES, VALUES), max_size=2))
def test_two_writes_are_never_a_loop(wanted: list[tuple[Side, Canonical]]):
    assert turns(wanted) is None


@given(st.lists(st.tuples(SIDES, st.integers(0, 5).map(Decimal)), min_size=20, max_size=20))
def test_writes_without_an_end_are_always_stopped(wanted: list[tuple[Side, Canonical]]):
    """Twelve different (side, value), each twice, within the minute: the next is held."""
    assert turns([*wanted, *wanted], every=1.0) is not None


def test_a_write_that_is_not_confirmed_is_no_turn():
    open_one = Write("airtable", "f", "x", None)
    assert not continues_loop([open_one, open_one], "airtable", "f", "x", NOW)


def test_values_are_compared_as_they_mean():
    recent = [Write("airtable", "f", value, NOW - 1) for value in (Decimal("1.0"), Decimal("1.00"))]
    assert continues_loop(recent, "airtable", "f", Decimal(1), NOW)
