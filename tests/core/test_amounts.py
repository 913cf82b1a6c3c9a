from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.amounts import parse_amount
from kommo_airtable_sync.core.sources import UnfitError


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("15 000,50", "15000.5"),
        ("15\u00a0000,50 ₽", "15000.5"),
        ("15\u202f000", "15000"),
        ("$1,500.00", "1500"),
        ("US$1,500.00", "1500"),
        ("1.500,00 EUR", "1500"),
        ("EUR 1.500.000", "1500000"),
        ("1'500.25 CHF", "1500.25"),
        ("1’500", "1500"),
        ("1500 руб.", "1500"),
        ("0.500", "0.5"),
        ("1500,500", "1500.5"),
        ("15 000,500", "15000.5"),
        ("1,234,567.891", "1234567.891"),
        ("-$5.5", "-5.5"),
        ("$-5.5", "-5.5"),
        ("−7,25 €", "-7.25"),
        ("007", "7"),
        ("0", "0"),
    ],
)
def test_amounts_are_read_as_people_write_them(text, amount):
    assert parse_amount(text) == Decimal(amount)


@pytest.mark.parametrize("text", ["1,500", "1.500", "$12,345", "-999.999", "1.500 EUR"])
def test_what_could_be_thousands_or_decimals_is_refused(text):
    with pytest.raises(UnfitError, match="; write it without a thousands separator"):
        parse_amount(text)


@pytest.mark.parametrize(
    "text",
    ["", "many", "15k", "1,50,000", "1 50", "1.2.3", "1,5.000,0", "1..5", "12,", ".5", "5 %", "1e5",
     "--5", "-$-5", "1-5", "(5)", "٣", "5 or 6", "1 500 000 000,0,0", "$", "1,500.00.00", "1.500 000"],
)  # fmt: skip
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(UnfitError, match="is not a number"):
        parse_amount(text)


def test_a_long_text_is_named_by_its_beginning():
    with pytest.raises(UnfitError) as caught:
        parse_amount("x" * 100_000)
    assert len(str(caught.value)) < 200


STYLES = [(" ", ","), (" ", "."), (",", "."), (".", ","), ("'", "."), ("", "."), ("", ",")]


@given(
    st.decimals(-(10**12), 10**12, places=2),
    st.sampled_from(STYLES),
    st.sampled_from(["{}", "{} EUR", "${}", "€ {}", " {}\u00a0₽ "]),
)
def test_an_amount_with_cents_is_read_from_every_style(amount, style, dress):
    written = f"{amount:,.2f}".translate({ord(","): style[0], ord("."): style[1]})
    assert parse_amount(dress.format(written)) == amount


@given(st.integers(0, 10**9), st.integers(0, 4), st.sampled_from(STYLES))
def test_an_amount_is_refused_exactly_where_it_could_be_two(units, places, style):
    amount = Decimal(units).scaleb(-places)
    written = f"{amount:,.{places}f}".translate({ord(","): style[0], ord("."): style[1]})
    one_mark = places == 3 or (places == 0 and style[0] in {".", ","})
    if one_mark and 1_000 <= units < 1_000_000:
        with pytest.raises(UnfitError, match="could be"):
            parse_amount(written)
    else:
        assert parse_amount(written) == amount
