from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sandbox.airtable.caller import Caller

WRONG = "INVALID_VALUE_FOR_COLUMN"


def written(api: Caller, name: str, value, **more):
    return api.get(api.ok("POST", "Deals", body={"fields": {name: value}, **more})["id"]).get(name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Deal Name", "Żółw ☕"),
        ("Notes", "two\nlines"),
        ("Manager Email", "a@example.com"),
        ("Website", "https://example.com"),
        ("Kommo Deal ID", 42),
        ("Seats", 0),
        ("Amount", 10.55),
        ("Stage", "Won"),
        ("Tags", ["test", "VIP"]),
        ("Contract Date", "2026-02-28"),
        ("Kickoff", "2026-02-28T07:00:00.000Z"),
        ("VIP", True),
    ],
)
def test_a_value_reads_back_as_it_was_written(api: Caller, name: str, value) -> None:
    assert written(api, name, value) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [("Deal Name", ""), ("Tags", []), ("VIP", False), ("Stage", None), ("Seats", None)],
)
def test_an_empty_cell_is_absent_when_read(api: Caller, name: str, value) -> None:
    assert name not in api.get(api.ok("POST", "Deals", body={"fields": {name: value}})["id"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Deal Name", 5),
        ("Seats", "5"),
        ("Seats", True),
        ("Amount", "10"),
        ("Contract Date", "2026-02-30"),
        ("Kickoff", "tomorrow"),
        ("VIP", "true"),
        ("Tags", "VIP"),
        ("Stage", 5),
        ("Stage", ["Won"]),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(api: Caller, name: str, value) -> None:
    message = f'Field "{name}" cannot accept the provided value'
    assert api.refused_value(name, value) == (422, WRONG, message)
    assert not api.table().records


def test_an_unknown_option_is_refused_with_the_extra_quotes_and_created_by_typecast(
    api: Caller,
) -> None:
    message = 'Insufficient permissions to create new select option "\\"won\\""'.replace("\\", "")
    refused = api.refused_value("Stage", "won")
    assert refused[:2] == (422, "INVALID_MULTIPLE_CHOICE_OPTIONS")
    assert refused[2].replace("\\", "") == message
    assert written(api, "Stage", "won", typecast=True) == "won"
    assert written(api, "Stage", "won") == "won"
    assert api.field("Stage").choice_names().count("won") == 1


def test_a_refused_typecast_batch_creates_no_option(api: Caller) -> None:
    rows = [{"fields": {"Stage": "brand new"}}, {"fields": {"Seats": {}}}]
    status, _, _ = api.refused("POST", "Deals", body={"records": rows, "typecast": True})
    assert status == 422
    assert "brand new" not in api.field("Stage").choice_names()


def test_numbers_are_doubles_without_a_fraction_where_they_are_whole(api: Caller) -> None:
    assert written(api, "Kommo Deal ID", 2**53 + 1) == 2**53
    assert repr(written(api, "Amount", 10.0)) == "10"


def test_a_percent_is_a_fraction_stored_as_sent(api: Caller) -> None:
    api.add_field("percent", "Share", {"precision": 1})
    assert written(api, "Share", 33.3) == 33.3


def test_a_rating_takes_one_to_its_maximum_and_not_zero(api: Caller) -> None:
    api.add_field("rating", "Stars", {"max": 3, "icon": "star", "color": "yellowBright"})
    assert written(api, "Stars", 3) == 3
    for wrong in (0, 4, 1.5, -1):
        assert api.refused_value("Stars", wrong)[1] == WRONG
    assert written(api, "Stars", None) is None


def test_a_duration_is_seconds(api: Caller) -> None:
    api.add_field("duration", "Took", {"durationFormat": "h:mm:ss"})
    assert written(api, "Took", 90.5) == 90.5


def test_richtext_is_normalised_and_reads_as_a_line_break_once_cleared(api: Caller) -> None:
    api.add_field("richText", "Story")
    record = api.create(Story="#header\n* bullet")
    assert api.get(record)["Story"] == "#header\n- bullet\n"
    assert api.set(record, {"Story": None})["Story"] == "\n"
    assert "Story" not in api.get(api.create(Deal_Name="never had one"))


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2020-09-05T07:00:00", "2020-09-05T05:00:00.000Z"),
        ("2020-12-08", "2020-12-07T23:00:00.000Z"),
        ("2020-09-05T07:00:00Z", "2020-09-05T07:00:00.000Z"),
        ("2020-09-05T07:00:00.1239+02:00", "2020-09-05T05:00:00.123Z"),
        ("2020-09-05 07:00", "2020-09-05T05:00:00.000Z"),
        (1599289200000, "2020-09-05T07:00:00.000Z"),
    ],
)
def test_a_string_without_zone_is_read_in_the_zone_of_its_field(
    api: Caller, text, instant: str
) -> None:
    api.add_field("dateTime", "Local", {"timeZone": "Europe/Berlin"})
    assert written(api, "Local", text) == instant


def test_with_zone_utc_or_client_a_string_without_zone_is_utc(api: Caller) -> None:
    api.add_field("dateTime", "Mine", {"timeZone": "client"})
    assert written(api, "Mine", "2020-09-05T07:00:00") == "2020-09-05T07:00:00.000Z"
    assert written(api, "Kickoff", "2020-09-05") == "2020-09-05T00:00:00.000Z"


def test_collaborators_are_known_users(api: Caller) -> None:
    api.add_field("singleCollaborator", "Owner")
    api.add_field("multipleCollaborators", "Team")
    sync = {"id": "usrSandbox0000000", "email": "sync@example.com", "name": "Sync"}
    assert written(api, "Owner", {"email": "sync@example.com"}) == sync
    assert written(api, "Team", ["usrSandbox0000000"]) == [sync]
    assert written(api, "Team", [{"id": "usrSandbox0000000"}]) == [sync]
    for wrong in ({"email": "nobody@example.com"}, {}, "usrSandbox0000000"):
        assert api.refused_value("Owner", wrong)[1] == WRONG


def test_attachment_addresses_change_and_their_ids_do_not(api: Caller) -> None:
    api.add_field("multipleAttachments", "Files")
    record = api.create(Files=[{"url": "https://example.com/a.pdf"}])
    first = api.get(record)["Files"][0]
    api.clock.sleep(60)
    second = api.get(record)["Files"][0]
    assert (first["id"], first["filename"]) == (second["id"], "a.pdf")
    assert first["url"] != second["url"]
    assert api.set(record, {"Files": [{"id": first["id"]}]})["Files"][0]["id"] == first["id"]
    for wrong in ({"url": "ftp://example.com/a"}, "https://example.com/a", {}):
        assert api.refused_value("Files", [wrong])[1] == WRONG


def test_writing_a_computed_field_is_refused_in_its_own_words(api: Caller) -> None:
    message = 'Field "Last Modified" cannot accept a value because the field is computed'
    assert api.refused_value("Last Modified", "2026-01-01") == (422, WRONG, message)
    assert api.refused_value("Last Modified", None) == (422, WRONG, message)


def test_autonumbers_are_not_burnt_by_refused_requests(api: Caller) -> None:
    api.add_field("autoNumber", "No")
    assert api.get(api.create(Seats=1))["No"] == 1
    rows = [{"fields": {"Seats": 2}}, {"fields": {"Seats": "bad"}}]
    assert api.refused("POST", "Deals", body={"records": rows})[0] == 422
    assert api.get(api.create(Seats=3))["No"] == 2


def test_times_and_users_of_creation_and_change_are_kept(api: Caller) -> None:
    for kind in ("createdTime", "createdBy", "lastModifiedBy"):
        api.add_field(kind, kind)
    record = api.create(Seats=1)
    api.clock.sleep(86_400)
    api.control("PATCH", f"records/{record}", {"fields": {"Seats": 2}})
    shown = api.get(record)
    assert shown["createdTime"] == "2026-03-01T12:00:00.000Z"
    assert shown["createdBy"] == {"id": "usrSandbox0000000"}
    assert shown["Last Modified"] == "2026-03-02T12:00:00.250Z"
    assert shown["lastModifiedBy"] == {"id": "usrPerson00000000"}


def test_writing_the_same_value_again_is_no_modification(api: Caller) -> None:
    record = api.create(Seats=1)
    api.clock.sleep(10)
    assert api.set(record, {"Seats": 1})["Last Modified"] == "2026-03-01T12:00:00.250Z"
    assert len(api.model.data.changes) == 1


def test_links_keep_both_sides_in_step(api: Caller) -> None:
    deal, other = api.create(Deal_Name="one"), api.create(Deal_Name="two")
    client = api.create("Clients", Name="Ada", Deals=[deal])
    assert api.get(deal)["Client"] == [client]
    api.ok("PATCH", f"Clients/{client}", body={"fields": {"Deals": [other]}})
    assert "Client" not in api.get(deal)
    assert api.get(other)["Client"] == [client]
    api.set(other, {"Client": []})
    assert "Deals" not in api.get(client, "Clients")


def test_a_deleted_record_leaves_every_link_cell(api: Caller) -> None:
    api.add_field("multipleRecordLinks", "Parent", {"linkedTableId": api.table().id})
    deal = api.create(Deal_Name="one")
    client = api.create("Clients", Deals=[deal])
    child = api.create(Parent=[deal])
    api.ok("DELETE", f"Deals/{deal}")
    assert "Deals" not in api.get(client, "Clients")
    assert "Parent" not in api.get(child)


def test_a_link_goes_by_the_id_of_a_living_record_only(api: Caller) -> None:
    dead = "rec00000000000000"
    message = f"Record ID {dead} does not exist in this table"
    assert api.refused_value("Client", [dead]) == (422, "ROW_DOES_NOT_EXIST", message)
    assert api.refused_value("Client", ["Ada"])[1] == WRONG


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("formula", {"error": "#ERROR!"}),
        ("rollup", {"specialValue": "NaN"}),
        ("multipleLookupValues", ["looked up"]),
        ("count", 0),
        ("button", {"label": "Open", "url": None}),
        ("aiText", {"state": "empty", "isStale": False, "value": None}),
    ],
)
def test_what_is_computed_elsewhere_shows_its_shape_and_takes_no_value(
    api: Caller, kind: str, shown
) -> None:
    api.add_field(kind, "Elsewhere")
    assert api.get(api.create(Seats=1))["Elsewhere"] == shown
    assert api.refused_value("Elsewhere", 1)[2].endswith("because the field is computed")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_finite_number_survives_a_number_field(number: float) -> None:
    api = Caller()
    assert written(api, "Amount", number) == number


def test_a_number_that_json_cannot_hold_is_refused(api: Caller) -> None:
    assert api.refused_value("Amount", math.inf)[1] == WRONG
