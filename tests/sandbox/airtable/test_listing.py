from __future__ import annotations

import re

import pytest

from tests.sandbox.airtable.caller import Caller


def fill(api: Caller, count: int) -> list[str]:
    found: list[str] = []
    for start in range(0, count, 10):
        numbers = range(start, min(start + 10, count))
        rows = [{"fields": {"Kommo Deal ID": n, "Deal Name": f"d{n:03}"}} for n in numbers]
        shown = api.ok("POST", "Deals", body={"records": rows})
        found += [each["id"] for each in shown["records"]]
    return found


def sizes(api: Caller, **query) -> list[int]:
    found: list[int] = []
    offset = ""
    while True:
        shown = api.ok("GET", "Deals", {**query, "offset": offset}.items())
        found.append(len(shown["records"]))
        offset = shown.get("offset", "")
        if not offset:
            return found


def test_pages_hold_a_hundred_records_at_most(api: Caller) -> None:
    fill(api, 205)
    assert sizes(api) == [100, 100, 5]
    assert sizes(api, pageSize=500) == [100, 100, 5]
    assert sizes(api, pageSize=100, maxRecords=100) == [100]


def test_max_records_caps_all_pages_together(api: Caller) -> None:
    fill(api, 30)
    assert sizes(api, pageSize=10, maxRecords=25) == [10, 10, 5]


@pytest.mark.parametrize("name", ["pageSize", "maxRecords"])
@pytest.mark.parametrize("value", ["0", "-1", "x"])
def test_a_bad_number_is_a_bad_parameter(api: Caller, name: str, value: str) -> None:
    refused = api.refused("GET", "Deals", [(name, value)])
    assert refused[:2] == (422, "INVALID_REQUEST_UNKNOWN")


def test_an_offset_has_airtables_shape_can_be_repeated_and_dies_of_disuse(api: Caller) -> None:
    ids = fill(api, 7)
    offset = api.ok("GET", "Deals", [("pageSize", 3)])["offset"]
    assert re.fullmatch(r"itr\w{14}/rec\w{14}", offset)
    for _ in range(2):
        shown = api.ok("GET", "Deals", [("pageSize", 3), ("offset", offset)])
        assert [each["id"] for each in shown["records"]] == ids[3:6]
        api.clock.sleep(api.model.settings.offset_life_seconds - 1)
    api.clock.sleep(1)
    status, shown = api.call("GET", "Deals", [("offset", offset)])
    assert (status, shown) == (422, {"error": {"type": "LIST_RECORDS_ITERATOR_NOT_AVAILABLE"}})


def test_an_offset_that_never_was_is_invalid(api: Caller) -> None:
    refused = api.refused("GET", "Deals", [("offset", "abc")])
    assert refused == (422, "INVALID_OFFSET_VALUE", "The value of offset abc is invalid")


def test_pages_are_no_snapshot(api: Caller) -> None:
    ids = fill(api, 4)
    offset = api.ok("GET", "Deals", [("pageSize", 2)])["offset"]
    api.ok("DELETE", f"Deals/{ids[2]}")
    api.set(ids[3], {"Seats": 9})
    shown = api.ok("GET", "Deals", [("offset", offset)])["records"]
    assert [(each["id"], each["fields"]["Seats"]) for each in shown] == [(ids[3], 9)]


def test_fields_can_be_chosen_and_keyed_by_id_with_1_or_true(api: Caller) -> None:
    api.create(Deal_Name="x", Seats=3)
    seats = api.field("Seats").id
    for flag in ("1", "true"):
        query = [("fields[]", "Seats"), ("returnFieldsByFieldId", flag)]
        assert api.ok("GET", "Deals", query)["records"][0]["fields"] == {seats: 3}
    query = [("fields[]", seats), ("fields[]", "Deal Name"), ("returnFieldsByFieldId", "0")]
    assert api.ok("GET", "Deals", query)["records"][0]["fields"] == {"Seats": 3, "Deal Name": "x"}
    refused = api.refused("GET", "Deals", [("fields[]", "Nope")])
    assert refused == (422, "UNKNOWN_FIELD_NAME", 'Unknown field name: "Nope"')


def test_empty_and_needless_parameters_do_no_harm(api: Caller) -> None:
    query = [("offset", ""), ("timeZone", "utc"), ("userLocale", "en-ie"), ("filterByFormula", "")]
    assert api.ok("GET", "Deals", query) == {"records": []}


def test_a_list_by_post_takes_the_same_parameters_as_json(api: Caller) -> None:
    ids = fill(api, 5)
    formula = ",".join(f"{{Kommo Deal ID}}={n}" for n in range(4))
    body = {
        "pageSize": 2,
        "fields": ["Kommo Deal ID"],
        "returnFieldsByFieldId": True,
        "filterByFormula": f"OR({formula})",
    }
    first = api.ok("POST", "Deals/listRecords", body=body)
    assert [each["id"] for each in first["records"]] == ids[:2]
    assert first["records"][0]["fields"] == {api.field("Kommo Deal ID").id: 0}
    rest = api.ok("POST", "Deals/listRecords", body={**body, "offset": first["offset"]})
    assert [each["id"] for each in rest["records"]] == ids[2:4]
    assert "offset" not in rest


@pytest.mark.parametrize(
    ("name", "value"),
    [("view", "Grid view"), ("sort[0][field]", "Seats"), ("cellFormat", "string")],
)
def test_what_a_listing_does_not_know_is_refused_and_not_ignored(api: Caller, name, value) -> None:
    assert api.refused("GET", "Deals", [(name, value)])[:2] == (422, "INVALID_REQUEST_UNKNOWN")
