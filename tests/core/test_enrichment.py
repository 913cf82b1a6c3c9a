from __future__ import annotations

import contextlib
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.canonical import same
from kommo_airtable_sync.core.config import parse_config
from kommo_airtable_sync.core.enrichment import PYTHON_TYPES, enriched_fields, kind_of
from kommo_airtable_sync.core.errors import LeadFailed
from kommo_airtable_sync.core.field_mapping import OptionMissing
from kommo_airtable_sync.core.mapping import resolve
from kommo_airtable_sync.core.sources import UnfitError
from tests.core.accounts import FIELD_IDS, airtable_schema, config_text, kommo_schema, lead

TEXT = config_text("airtable: Deal Name, kommo: name", airtable=", status_field: Sync Status")
MAPPING = resolve(parse_config(TEXT), kommo_schema(), airtable_schema())
NOON = datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=3)))


def one(name: str, value: object):
    [(field, given)] = enriched_fields({name: value}, MAPPING)
    return field, given


@pytest.mark.parametrize(
    ("name", "value", "given"),
    [
        ("Notes", "línea\nzwei", "línea\nzwei"),
        ("Notes", "", None),
        ("Notes", None, None),
        ("Notes", 10.50, "10.5"),
        ("Notes", ["b", "a"], "a, b"),
        ("Notes", "half \ud83d", "half ?"),
        ("fld16", "by id", "by id"),
        ("Amount", 1500, Decimal(1500)),
        ("Amount", 0.1, Decimal("0.1")),
        ("Amount", Decimal("2.50"), Decimal("2.5")),
        ("Amount", None, None),
        ("Share", 12.5, Decimal("12.5")),
        ("VIP", True, True),
        ("VIP", None, False),
        ("Contract Date", date(2024, 2, 29), date(2024, 2, 29)),
        ("Contract Date", NOON, date(2026, 1, 31)),
        ("Kickoff", NOON.replace(microsecond=7), datetime(2026, 1, 31, 9, tzinfo=timezone.utc)),
        ("Risk", " low ", "low"),
        ("Tags", {"hot", " cold ", ""}, frozenset({"hot", "cold"})),
        ("Tags", [], None),
        ("Owner", "Ana@Acme.example", "ana@acme.example"),
        ("Stars", 3, Decimal(3)),
    ],
)
def test_a_value_is_taken_in_the_terms_of_its_field(name, value, given):
    field, found = one(name, value)
    assert found == given
    assert type(found) is type(given)
    assert field.id == FIELD_IDS.get(name, name)
    assert field.owner == "kommo"
    assert field.from_kommo(lead()) == found


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("Nots", "x", "did you mean 'Notes'"),
        ("Deal Name", "x", "nothing else fills"),
        ("Kommo Deal ID", 1, "nothing else fills"),
        ("Sync Status", "x", "nothing else fills"),
        ("Sum", 1, "'Sum' is not a writable field"),
        ("Files", "x", "not a web address"),
        ("Client", ["rec1"], "'Client' is not a writable field"),
        ("Amount", "1500", "Amount: a currency field cannot hold '1500'; "
         "allowed: int, float or Decimal"),
        ("VIP", 1, "VIP: a checkbox field cannot hold 1; allowed: bool"),
        ("Contract Date", "2026-01-31", "allowed: date, datetime with a time zone"),
        ("Owner", 7, "allowed: str"),
        ("Kickoff", datetime(2026, 1, 1), "datetime with a time zone"),  # noqa: DTZ001
        ("Kickoff", datetime.max.replace(tzinfo=timezone.utc), "no value for a cell"),
        ("Amount", float("nan"), "nan is not a number"),
        pytest.param("Amount", 10**5000, "is not a number", id="huge"),
        ("Amount", Decimal("1E+999999"), "is not a number"),
        ("Stars", 9, "Stars: 9 is not a whole rating from 1 to 5"),
        ("Tags", ["a", 1], "list is no value for a cell"),
        ("Notes", {"a": 1}, "dict is no value for a cell"),
        ("Notes", b"x", "bytes is no value for a cell"),
    ],
)  # fmt: skip
def test_what_does_not_fit_fails_the_lead_and_says_what_is_allowed(name, value, said):
    with pytest.raises(LeadFailed) as caught:
        one(name, value)
    assert caught.value.reason.startswith("enrich: ")
    assert said in caught.value.reason
    assert caught.value.permanent


def test_a_field_is_given_once():
    with pytest.raises(LeadFailed, match="given twice"):
        enriched_fields({"Notes": "a", FIELD_IDS["Notes"]: "b"}, MAPPING)


def test_a_missing_option_asks_for_a_newer_schema():
    field, value = one("Risk", "middling")
    with pytest.raises(OptionMissing, match="middling"):
        field.to_cell(value)


def test_the_fingerprint_is_of_the_field_and_not_of_the_value():
    assert one("Notes", "a")[0].fingerprint == one("Notes", "b")[0].fingerprint
    assert one("Notes", "a")[0].fingerprint != one("Website", "a")[0].fingerprint


values = st.one_of(
    st.none(), st.text(), st.integers(), st.floats(), st.booleans(), st.decimals(), st.dates(),
    st.datetimes(), st.datetimes(timezones=st.timezones()), st.lists(st.text()), st.binary(),
    st.frozensets(st.text()), st.lists(st.integers()), st.complex_numbers(),
)  # fmt: skip


@given(st.sampled_from(sorted(FIELD_IDS)), values)
def test_any_value_for_any_field_is_taken_or_fails_its_lead(name, value):
    with contextlib.suppress(LeadFailed):
        field, given = one(name, value)
        assert same(field.from_cell(field.to_cell(given)), given)


@given(values)
def test_any_value_has_a_kind_or_is_refused(value):
    with contextlib.suppress(UnfitError):
        kind, given = kind_of(value)
        assert kind in PYTHON_TYPES
        assert same(given, given)
