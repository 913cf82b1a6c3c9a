from __future__ import annotations

import json
from datetime import date, datetime, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.canonical import same
from kommo_airtable_sync.core.codecs import (
    CELL_KINDS,
    COMPUTED,
    CONVERTERS,
    as_double,
    fit,
    from_cell,
    shift,
    targets_of,
    to_cell,
)
from kommo_airtable_sync.core.schemas import AirtableField
from kommo_airtable_sync.core.sources import Kind, UnfitError

# Naive, as Hypothesis wants its bounds.
FIRST, LAST = datetime.fromisoformat("0002-01-01"), datetime.fromisoformat("9998-01-01")
MOSCOW = ZoneInfo("Europe/Moscow")
names = st.text(min_size=1).map(str.strip).filter(bool)
VALUES: dict[Kind, st.SearchStrategy] = {
    "text": st.text(min_size=1),
    "option": names,
    "number": st.decimals(min_value=-(2**53), max_value=2**53, allow_nan=False),
    "flag": st.booleans(),
    "date": st.dates(min_value=date(2, 1, 1), max_value=date(9998, 1, 1)),
    "instant": st.datetimes(min_value=FIRST, max_value=LAST, timezones=st.just(timezone.utc)).map(
        lambda moment: moment.replace(microsecond=0)
    ),
    "set": st.frozensets(names, min_size=1),
    "person": st.emails().map(str.lower),
    "link": st.frozensets(st.from_regex(r"rec[0-9A-Za-z]{14}", fullmatch=True), min_size=1),
}
# Random text is no amount and no address; files come back by their ids.
PAIRS = sorted(CONVERTERS.keys() - {("text", "number"), ("text", "attachment")})


def field(type_: str, *choices: str, max: int | None = None) -> AirtableField:
    return AirtableField(id="fldX", name="X", type=type_, choices=choices, max=max)


def over_the_wire(cell):
    return json.loads(json.dumps(cell))


@st.composite
def pairs(draw):
    """Any Kommo value that any Airtable type can hold."""
    kind, held = draw(st.sampled_from(PAIRS))
    type_ = draw(st.sampled_from([t for t, k in CELL_KINDS.items() if k == held and t != "rating"]))
    return draw(st.none() | VALUES[kind]), kind, field(type_)


@given(pairs())
def test_what_you_put_is_what_you_get(pair):
    value, kind, target = pair
    fitted = fit(value, kind, target, MOSCOW)
    assert same(from_cell(over_the_wire(to_cell(fitted, target)), target), fitted)


@given(pairs())
def test_fitting_twice_changes_nothing_more(pair):
    value, kind, target = pair
    fitted = fit(value, kind, target, MOSCOW)
    assert same(fit(fitted, CELL_KINDS[target.type], target, MOSCOW), fitted)


@given(st.none() | st.integers(-3, 12).map(Decimal))
def test_a_rating_is_a_whole_number_in_bounds_or_refused(value):
    target = field("rating", max=5)
    if value is None or value == 0:
        assert fit(value, "number", target, MOSCOW) is None
    elif 1 <= value <= 5:
        assert to_cell(fit(value, "number", target, MOSCOW), target) == int(value)
    else:
        with pytest.raises(UnfitError, match="from 1 to 5"):
            fit(value, "number", target, MOSCOW)


def test_every_airtable_type_is_either_writable_or_computed():
    assert not CELL_KINDS.keys() & COMPUTED
    assert set(targets_of("set")) == {
        "multipleSelects", "singleLineText", "multilineText", "richText", "email", "url",
        "phoneNumber", "barcode",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("type_", "value", "cell"),
    [
        ("number", Decimal("10"), 10),
        ("number", Decimal("10.50"), 10.5),
        ("number", Decimal("0"), 0),
        ("currency", Decimal("0.1"), 0.1),
        ("percent", Decimal("12.5"), 0.125),
        ("percent", Decimal("100"), 1),
        ("percent", Decimal("7"), 0.07),
        ("duration", Decimal("90"), 90),
        ("date", date(2026, 1, 31), "2026-01-31"),
        ("dateTime", datetime(2026, 1, 31, 9, tzinfo=timezone.utc), "2026-01-31T09:00:00.000Z"),
        ("checkbox", False, False),
        ("checkbox", True, True),
        ("multipleSelects", frozenset({"b", "a"}), ["a", "b"]),
        ("singleLineText", None, None),
        ("barcode", "4006381333931", {"text": "4006381333931"}),
        ("singleCollaborator", "ana@acme.example", {"email": "ana@acme.example"}),
        ("singleCollaborator", None, None),
    ],
)
def test_cells_are_written_as_airtable_spells_them(type_, value, cell):
    written = to_cell(value, field(type_))
    assert written == cell
    assert type(written) is type(cell)


@pytest.mark.parametrize(
    ("type_", "cell", "value"),
    [
        ("number", 0, Decimal(0)),
        ("number", 42.1, Decimal("42.1")),
        ("percent", 0.07, Decimal(7)),
        ("checkbox", None, False),
        ("richText", "\n", None),
        ("richText", "a\n", "a"),
        ("singleLineText", "", None),
        ("multipleSelects", [], None),
        ("barcode", {"text": "12", "type": "ean8"}, "12"),
        ("singleCollaborator", {"id": "usr1", "email": "Ana@Acme.example"}, "ana@acme.example"),
        ("dateTime", "2026-01-31T09:00:00.500Z",
         datetime(2026, 1, 31, 9, 0, 0, 500000, tzinfo=timezone.utc)),
    ],
)  # fmt: skip
def test_cells_are_read_with_absent_as_empty(type_, cell, value):
    assert from_cell(cell, field(type_)) == value


@pytest.mark.parametrize(
    ("type_", "cell"),
    [
        ("number", "12"),
        ("number", True),
        ("number", {"specialValue": "NaN"}),
        ("date", "31.01.2026"),
        ("dateTime", "2026-01-31T09:00:00"),
        ("singleSelect", ["a"]),
        ("multipleSelects", "a"),
        ("singleLineText", 5),
        ("singleCollaborator", {"id": "usr1"}),
        ("barcode", "12"),
    ],
)
def test_a_cell_of_another_type_is_refused_not_guessed(type_, cell):
    with pytest.raises(UnfitError, match=f"is not a value of an Airtable {type_} field"):
        from_cell(cell, field(type_))


def test_an_option_is_sent_exactly_as_airtable_has_it():
    assert to_cell("Won", field("singleSelect", "Won ", "Lost")) == "Won "
    assert from_cell("Won ", field("singleSelect", "Won ")) == "Won"
    assert to_cell(frozenset({"a"}), field("multipleSelects", " a")) == [" a"]


def test_a_number_that_json_cannot_hold_exactly_is_refused():
    with pytest.raises(UnfitError, match="map it to a text field"):
        fit(Decimal(2**53 + 1), "number", field("number"), MOSCOW)
    assert fit(Decimal(2**53 + 1), "number", field("singleLineText"), MOSCOW) == str(2**53 + 1)


def test_a_fraction_is_the_one_that_will_be_read_back():
    fitted = fit(Decimal("0.12345678901234567890"), "number", field("number"), MOSCOW)
    assert fitted == as_double(fitted) == Decimal("0.12345678901234568")


def test_the_point_moves_exactly():
    digits = "1234567890123456789012345678901234567890.1"
    assert str(shift(Decimal(digits), -2)) == "12345678901234567890123456789012345678.901"
    assert shift(shift(Decimal(digits), -2), 2) == Decimal(digits)


def test_an_amount_in_text_becomes_a_number():
    assert fit("15 000,50", "text", field("currency"), MOSCOW) == Decimal("15000.5")
    assert fit("12,5 %", "text", field("percent"), MOSCOW) == Decimal("12.5")
    for refused, type_ in [("1,500", "currency"), ("12,5 %", "number")]:
        with pytest.raises(UnfitError):
            fit(refused, "text", field(type_), MOSCOW)


def test_a_day_off_the_calendar_is_refused():
    with pytest.raises(UnfitError, match="outside the years"):
        fit(date(1, 1, 1), "date", field("dateTime"), MOSCOW)


def test_days_are_days_in_the_accounts_zone():
    late = datetime(2026, 1, 31, 22, tzinfo=timezone.utc)
    assert fit(late, "instant", field("date"), MOSCOW) == date(2026, 2, 1)
    midnight = fit(date(2026, 2, 1), "date", field("dateTime"), MOSCOW)
    assert midnight == datetime(2026, 1, 31, 21, tzinfo=timezone.utc)


def test_values_are_written_out_in_text_fields():
    target = field("singleLineText")
    assert fit(frozenset({"b", "a"}), "set", target, MOSCOW) == "a, b"
    assert fit(Decimal("10.50"), "number", target, MOSCOW) == "10.5"
    assert fit(date(2026, 1, 31), "date", target, MOSCOW) == "2026-01-31"
    noon = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
    assert fit(noon, "instant", target, MOSCOW) == "2026-01-31T12:00:00Z"
    assert fit("EU", "option", field("multipleSelects"), MOSCOW) == frozenset({"EU"})


def test_a_file_is_sent_by_its_address_and_shown_by_its_id():
    field = AirtableField(id="fldX", name="X", type="multipleAttachments")
    address = fit(" https://example.com/a%20b.pdf?x=1 ", "text", field, MOSCOW)
    assert to_cell(address, field) == [{"url": "https://example.com/a%20b.pdf?x=1"}]
    shown = [{"id": "attB", "url": "https://x/2"}, {"id": "attA", "url": "https://x/1"}]
    assert from_cell(shown, field) == frozenset({"attA", "attB"})
    assert to_cell(None, field) is None
    for text in ("a.pdf", "ftp://example.com/a", "https://", "see https://example.com"):
        with pytest.raises(UnfitError, match="not a web address"):
            fit(text, "text", field, MOSCOW)
