from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyairtable import formulas

from tests.sandbox.airtable.caller import Caller


@pytest.fixture
def deals(api: Caller) -> Caller:
    api.create(Deal_Name="a", Seats=1, Stage="Won", VIP=True, Tags=["VIP", "test"])
    api.clock.sleep(60)
    api.create(Deal_Name="b", Seats=2, Kickoff="2026-05-01T00:00:00Z")
    api.create(Deal_Name='c"}', Amount=0)
    return api


@pytest.mark.parametrize(
    ("formula", "names"),
    [
        ("{Seats}=1", "a"),
        ("{Stage}='Won'", "a"),
        ('"Won"={Stage}', "a"),
        ("{Stage}='won'", ""),
        ("{Stage}=''", "bc"),
        ("OR({Seats}=1, {Seats}=2)", "ab"),
        ("OR(AND({Seats}=1,{Deal Name}='b'),{Deal Name}='b')", "b"),
        ("and({Seats}=1,({Deal Name}='a'))", "a"),
        ("{VIP}=1", "a"),
        ("{VIP}", "a"),
        ("{Amount}", ""),
        ("{Tags}='VIP, test'", "a"),
        ("{Deal Name}='c\"}'", "c"),
        ('{Deal Name}="c\\"}"', "c"),
        ("1", "abc"),
        ("0", ""),
        ("''", ""),
    ],
)
def test_a_formula_keeps_the_right_rows(deals: Caller, formula: str, names: str) -> None:
    assert "".join(each[0] for each in deals.names(formula)) == names


def test_fields_go_by_id_too_and_records_by_their_own(deals: Caller) -> None:
    assert deals.names(f"{{{deals.field('Seats').id}}}=1") == ["a"]
    ids = list(deals.table().records)
    formula = f"OR(RECORD_ID()='{ids[2]}', '{ids[0]}'=RECORD_ID(), RECORD_ID()='recNone')"
    assert sorted(deals.names(formula)) == ["a", 'c"}']


@pytest.mark.parametrize(
    "formula",
    [
        "{Seats}=",
        "{Seats",
        "Seats=1",
        "{Seats}=1)",
        "(1",
        "AND()",
        "NOT(1,2)",
        "RECORD_ID(1)",
        "FIND('a',{Deal Name})",
        "{Seats}+1",
        "'a' & 'b'",
        "#",
        "'open",
        "(" * 5000,
    ],
)
def test_anything_else_is_an_invalid_formula(deals: Caller, formula: str) -> None:
    status, kind, message = deals.refused("GET", "Deals", [("filterByFormula", formula)])
    assert (status, kind) == (422, "INVALID_FILTER_BY_FORMULA")
    assert message.startswith("The formula for filtering records is invalid: Invalid formula.")


def test_an_unknown_field_in_a_formula_is_named(deals: Caller) -> None:
    refused = deals.refused("GET", "Deals", [("filterByFormula", "{Nope}=1")])
    assert refused[1] == "INVALID_FILTER_BY_FORMULA"
    assert refused[2].endswith("Unknown field names: nope")


def test_look_ups_by_key_see_new_changed_and_deleted_records(deals: Caller) -> None:
    formula = "OR({Seats}=1,{Seats}=7)"
    assert deals.names(formula) == ["a"]
    a, b, _ = deals.table().records
    deals.create(Deal_Name="d", Seats=7)
    deals.set(b, {"Seats": 1})
    deals.ok("DELETE", f"Deals/{a}")
    assert sorted(deals.names(formula)) == ["b", "d"]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_text_quoted_by_pyairtable_finds_itself_alone(text: str) -> None:
    api = Caller()
    api.create(Deal_Name=text)
    api.create(Deal_Name="other" + text)
    assert api.names(str(formulas.match({"Deal Name": text}))) == [text]
