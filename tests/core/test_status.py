from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.config import parse_config
from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.core.mapping import resolve
from kommo_airtable_sync.core.schemas import AirtableField
from kommo_airtable_sync.core.status import LENGTH_MAX, status_cell, status_text
from tests.core.accounts import airtable_schema, config_text, kommo_schema


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({}, "ok"),
        ({"held": {"Stage": "conflict", "Amount": "conflict"}}, "conflict: Amount, Stage"),
        ({"held": {"Amount": "loop"}}, "loop: Amount"),
        ({"problems": ["Stage", "Stage"]}, "refused: Stage"),
        (
            {"held": {"b": "loop", "a": "conflict"}, "problems": ["c"]},
            "conflict: a; loop: b; refused: c",
        ),
        ({"state": "excluded", "excluded": "tag x is excluded"}, "excluded: tag x is excluded"),
        ({"state": "excluded", "problems": ["c"]}, "excluded"),
        ({"state": "deleted", "held": {"Amount": "loop"}}, "deleted in Kommo"),
        ({"problems": [f"f{i}" for i in range(10)]},
         "refused: f0, f1, f2, f3, f4, f5, f6, f7 and 2 more"),
    ],
)  # fmt: skip
def test_the_status_says_in_words_how_a_record_stands(facts, text):
    assert status_text(**facts) == text


names = st.lists(st.text(min_size=1, max_size=300), unique=True, max_size=12)


@given(names, names, st.text(max_size=2000), st.sampled_from(["synced", "excluded", "deleted"]))
def test_a_status_is_one_bounded_line_whatever_the_order_of_the_facts(held, wrong, why, state):
    def text(turn: int) -> str:
        reasons = {name: ("conflict", "loop")[len(name) % 2] for name in held[::turn]}
        return status_text(held=reasons, problems=wrong[::turn], state=state, excluded=why)

    assert text(1) == text(-1)
    assert 0 < len(text(1)) <= LENGTH_MAX
    assert text(1) == " ".join(text(1).split())


def field(type_: str) -> AirtableField:
    return AirtableField(id="fldS", name="Status", type=type_)


def test_a_single_select_has_few_options():
    assert status_cell("conflict: Amount; loop: Stage", field("singleSelect")) == "conflict"
    assert status_cell("deleted in Kommo", field("singleSelect")) == "deleted in Kommo"
    assert status_cell("conflict: Amount", field("multilineText")) == "conflict: Amount"


def resolved(name: str):
    text = config_text("airtable: Deal Name, kommo: name", airtable=f", status_field: {name}")
    return resolve(parse_config(text), kommo_schema(), airtable_schema())


@pytest.mark.parametrize("name", ["Sync Status", "Notes", "Risk"])
def test_the_status_field_is_known(name):
    status = resolved(name).status
    assert status is not None
    assert status.name == name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Amount", "'Amount' is a currency field; it must be singleLineText or multilineText"),
        ("Nope", "'Nope' is not a field"),
        ("Kommo Deal ID", "already the field of airtable.key_field"),
    ],
)
def test_a_status_field_that_cannot_hold_it_is_refused_by_path(name, said):
    with pytest.raises(ConfigurationError) as caught:
        resolved(name)
    assert "airtable.status_field: " in caught.value.message
    assert said in caught.value.message


def test_there_need_be_no_status_field():
    text = config_text("airtable: Deal Name, kommo: name")
    assert resolve(parse_config(text), kommo_schema(), airtable_schema()).status is None
