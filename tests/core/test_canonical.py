from __future__ import annotations

import json
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.canonical import (
    from_json,
    is_blank,
    normalise,
    parse_instant,
    plain,
    same,
    to_json,
)

# Naive, as Hypothesis wants its bounds.
FIRST, LAST = datetime.fromisoformat("0002-01-01"), datetime.fromisoformat("9998-01-01")
zones = st.integers(-720, 840).map(lambda minutes: timezone(timedelta(minutes=minutes)))
values = st.one_of(
    st.none(),
    st.booleans(),
    st.text(),
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**40), max_value=10**40),
    st.dates(),
    st.datetimes(min_value=FIRST, max_value=LAST, timezones=zones),
    st.frozensets(st.text(min_size=1)),
)


@given(values)
def test_a_value_comes_back_from_json_as_it_was(value):
    stored = json.loads(json.dumps(to_json(value)))
    assert same(from_json(stored), value)
    assert from_json(stored) == normalise(value)
    assert type(from_json(stored)) is type(normalise(value))


@given(values, values)
def test_sameness_is_what_the_stored_form_says(a, b):
    # Equality of JSON texts is reflexive, symmetric and transitive; so then is sameness.
    assert same(a, b) == (json.dumps(to_json(a)) == json.dumps(to_json(b)))
    assert same(a, a)


@given(values)
def test_normalising_twice_changes_nothing_more(value):
    assert normalise(normalise(value)) == normalise(value)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (Decimal(1), True),
        (Decimal(0), False),
        (Decimal(0), None),
        (False, None),
        ("0", Decimal(0)),
        (date(2026, 1, 1), datetime(2026, 1, 1, tzinfo=timezone.utc)),
        ("a", frozenset({"a"})),
    ],
)
def test_values_of_different_kinds_are_never_the_same(a, b):
    assert not same(a, b)


def test_spellings_of_one_value_are_the_same():
    berlin = timezone(timedelta(hours=2))
    assert same(Decimal("10.50"), Decimal("10.5"))
    assert same(Decimal("1E+1"), Decimal(10))
    assert same(Decimal("-0.0"), Decimal(0))
    assert same("", None)
    assert same(frozenset(), None)
    assert same(
        datetime(2026, 1, 1, 12, tzinfo=berlin), datetime(2026, 1, 1, 10, tzinfo=timezone.utc)
    )


def test_only_empties_are_blank():
    assert [is_blank(v) for v in (None, "", frozenset())] == [True, True, True]
    assert [is_blank(v) for v in (False, Decimal(0), " ")] == [False, False, False]


def test_json_says_what_it_holds():
    assert to_json(Decimal("10.50")) == {"number": "10.5"}
    assert to_json(date(2026, 1, 31)) == {"date": "2026-01-31"}
    assert to_json(datetime(2026, 1, 31, 12, tzinfo=timezone.utc)) == {
        "instant": "2026-01-31T12:00:00Z"
    }
    assert to_json(frozenset({"b", "a"})) == {"set": ["a", "b"]}
    assert [to_json(v) for v in ("x", True, None)] == ["x", True, None]


def test_more_digits_than_the_decimal_context_keeps_are_kept():
    digits = "1234567890123456789012345678901234567890.5"
    assert plain(Decimal(digits + "0")) == digits
    assert from_json(to_json(Decimal(digits))) == Decimal(digits)


@pytest.mark.parametrize("bad", [{"number": 1}, {"x": "1"}, 5, ["a"]])
def test_json_of_another_make_is_refused(bad):
    with pytest.raises(ValueError, match="not a stored canonical value"):
        from_json(bad)


def test_a_time_without_zone_is_refused():
    with pytest.raises(ValueError, match="no time zone"):
        normalise(FIRST)
    with pytest.raises(ValueError, match="names no time zone"):
        parse_instant("2026-01-01T00:00:00")


def test_infinity_is_no_number():
    with pytest.raises(ValueError, match="not a finite number"):
        normalise(Decimal("Infinity"))
