"""Custom fields: definitions (reference 4.1), value shapes and clearing (4.2)."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.sandbox.kommo.fields import KINDS, midnight, written
from kommo_airtable_sync.sandbox.kommo.seed import lead_field_id
from tests.sandbox.kommo.conftest import Caller

BERLIN = ZoneInfo("Europe/Berlin")
ENUMS = [{"id": 1, "value": "One", "code": "ONE"}, {"id": 2, "value": "Two", "code": "TWO"}]
ONE = {"value": "One", "enum_id": 1, "enum_code": "ONE"}
TWO = {"value": "Two", "enum_id": 2, "enum_code": "TWO"}
ENTITY = {"name": "Acme", "entity_type": 2}
# 2026-07-14 22:30 UTC is already the 15th in Berlin
LATE, THE_15TH = 1784068200, 1784066400


def field(kind: str) -> dict[str, Any]:
    return {"id": 1, "type": kind, "enums": ENUMS}


def write(kind: str, values: Any) -> tuple[list[Any] | None, list[tuple[str, str]]]:
    kept, wrong = written(field(kind), values, BERLIN)
    return kept, [(each.code, each.path) for each in wrong]


ROUND_TRIPS: list[tuple[str, list[Any], list[Any]]] = [
    *[(kind, [{"value": "txt"}], [{"value": "txt"}])
      for kind in ("text", "textarea", "streetaddress", "url", "tracking_data")],
    ("numeric", [{"value": "1.50"}], [{"value": "1.50"}]),
    ("numeric", [{"value": 7}], [{"value": "7"}]),
    ("monetary", [{"value": "200"}], [{"value": "200"}]),
    ("price", [{"value": "100"}], [{"value": "100"}]),
    ("checkbox", [{"value": False}], [{"value": False}]),
    ("select", [{"value": "One"}], [ONE]),
    ("select", [{"enum_id": 2}], [TWO]),
    ("radiobutton", [{"enum_code": "TWO"}], [TWO]),
    ("select", [{"enum_id": 1}, {"enum_id": 2}], [ONE]),
    ("multiselect", [{"value": "Two"}, {"enum_id": 1}], [TWO, ONE]),
    ("category", [{"value": "Two"}], [TWO]),
    ("date", [{"value": LATE}], [{"value": THE_15TH}]),
    ("date", [{"value": "2026-07-15T00:30:00+02:00"}], [{"value": THE_15TH}]),
    ("birthday", [{"value": LATE}], [{"value": THE_15TH}]),
    ("date_time", [{"value": LATE}], [{"value": LATE}]),
    ("date_time", [{"value": "2026-07-14T22:30:00Z"}], [{"value": LATE}]),
    ("multitext", [{"value": "+7", "enum_code": "TWO"}], [TWO | {"value": "+7"}]),
    ("smart_address", [{"value": "X", "enum_id": 1}], [ONE | {"value": "X"}]),
    ("legal_entity", [{"value": ENTITY}], [{"value": ENTITY}]),
    *[(kind, [{"value": {"any": 1}}], [{"value": {"any": 1}}])
      for kind in ("file", "linked_entity", "items", "payer", "supplier", "org_legal_name")],
    ("chained_list", [{"catalog_id": 1, "catalog_element_id": 2}], [{"catalog_id": 1, "catalog_element_id": 2}]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "sent", "read"), ROUND_TRIPS)
def test_each_type_keeps_what_is_written(kind: str, sent: list[Any], read: list[Any]):
    assert write(kind, sent) == (read, [])


def test_every_type_has_a_round_trip():
    assert {kind for kind, _, _ in ROUND_TRIPS} == set(KINDS)


@pytest.mark.parametrize(
    ("kind", "values", "code", "path"),
    [
        ("text", "txt", "InvalidType", ""),
        ("text", ["txt"], "InvalidType", "0"),
        ("text", [{"value": 5}], "InvalidType", "0.value"),
        ("numeric", [{"value": "five"}], "InvalidType", "0.value"),
        ("numeric", [{"value": True}], "InvalidType", "0.value"),
        ("numeric", [{"value": "NaN"}], "InvalidType", "0.value"),
        ("checkbox", [{"value": 1}], "InvalidType", "0.value"),
        ("select", [{"value": "Three"}], "NotSupportedChoice", "0.value"),
        ("select", [{"enum_id": 3}], "NotSupportedChoice", "0.enum_id"),
        ("multiselect", [{"value": "One"}, {"value": "Three"}], "NotSupportedChoice", "1.value"),
        ("date", [{"value": "2026-07-15"}], "InvalidType", "0.value"),
        ("date_time", [{"value": "tomorrow"}], "InvalidType", "0.value"),
        ("multitext", [{"value": "1", "enum_code": "CAR"}], "NotSupportedChoice", "0.enum_code"),
        ("legal_entity", [{"value": 1}], "InvalidType", "0.value"),
        ("chained_list", [{"value": 1}], "InvalidType", "0.catalog_id"),
    ],
)
def test_a_bad_value_is_named(kind: str, values: Any, code: str, path: str):
    assert write(kind, values)[1] == [(code, path)]


def test_null_clears_and_an_empty_string_leaves_unchanged():
    assert write("text", None)[0] == []
    assert write("text", [{"value": None}])[0] == []
    assert write("text", [{"value": ""}]) == (None, [])


@given(st.integers(0, 4_000_000_000))
def test_midnight_is_a_fixed_point_less_than_a_long_day_earlier(instant: int):
    snapped = midnight(instant, BERLIN)
    assert midnight(snapped, BERLIN) == snapped
    assert 0 <= instant - snapped < 25 * 3600


def test_values_show_in_field_order_with_the_documented_keys(call: Caller):
    region, seats = lead_field_id("Region"), lead_field_id("Seats")
    lead_id = call.lead(
        custom_fields_values=[
            {"field_id": seats, "values": [{"value": 3}]},
            {"field_id": region, "values": [{"value": "EU"}]},
        ]
    )
    shown = call("GET", f"leads/{lead_id}").json["custom_fields_values"]
    assert [each["field_id"] for each in shown] == [region, seats]
    assert shown[0] == {
        "field_id": region,
        "field_name": "Region",
        "field_code": None,
        "field_type": "select",
        "values": [{"value": "EU", "enum_id": region * 10, "enum_code": None}],
        "is_computed": False,
    }


def test_a_cleared_field_is_absent_and_the_last_one_leaves_null(call: Caller):
    notes, url = lead_field_id("Notes"), lead_field_id("Website")
    values = [{"field_id": each, "values": [{"value": "x"}]} for each in (notes, url)]
    lead_id = call.lead(custom_fields_values=values)

    def after(cleared: int) -> Any:
        body = {"custom_fields_values": [{"field_id": cleared, "values": None}]}
        assert call("PATCH", f"leads/{lead_id}", body).status == 200
        return call("GET", f"leads/{lead_id}").json["custom_fields_values"]

    assert [each["field_id"] for each in after(notes)] == [url]
    assert after(url) is None


def test_a_field_may_be_named_by_its_code(call: Caller):
    phone = {"field_code": "PHONE", "values": [{"value": "+49", "enum_code": "MOB"}]}
    made = call("POST", "contacts", [{"name": "A", "custom_fields_values": [phone]}])
    contact = call("GET", f"contacts/{made.rows('contacts')[0]['id']}").json
    assert contact["custom_fields_values"][0]["values"][0]["enum_code"] == "MOB"
    assert (contact["first_name"], contact["is_unsorted"]) == ("", False)


def test_definitions_come_50_a_page_whatever_the_limit(call: Caller):
    state = call.model.state
    state.rows["leads/custom_fields"].clear()
    for n in range(1, 61):
        state.add_field("leads", n, f"F{n}", "text", sort=200 - n)
    first = call("GET", "leads/custom_fields?limit=250").json
    assert (first["_total_items"], first["_page"], first["_page_count"]) == (60, 1, 2)
    assert len(first["_embedded"]["custom_fields"]) == 50
    assert first["_embedded"]["custom_fields"][0]["id"] == 60
    second = call("GET", "leads/custom_fields?limit=250&page=2")
    assert len(second.rows("custom_fields")) == 10
    assert "next" not in second.json["_links"]
    assert call("GET", "leads/custom_fields?page=3").status == 204


def test_a_definition_has_the_keys_of_the_documented_example(call: Caller):
    region = lead_field_id("Region")
    listed = call("GET", "leads/custom_fields").rows("custom_fields")
    defined = next(each for each in listed if each["id"] == region)
    assert [each["value"] for each in defined["enums"]] == ["EU", "UK", "US"]
    documented = (
        "id name type account_id code sort is_api_only enums group_id required_statuses "
        "is_deletable is_predefined entity_type tracking_callback remind triggers currency "
        "hidden_statuses chained_lists _links"
    )
    assert set(documented.split()) <= set(defined)
    only = call("GET", "leads/custom_fields?filter[type][0]=numeric&filter[type][1]=monetary")
    assert [(each["name"], each["currency"]) for each in only.rows("custom_fields")] == [
        ("Seats", None),
        ("Budget", "EUR"),
    ]
