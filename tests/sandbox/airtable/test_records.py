from __future__ import annotations

import pytest

from tests.sandbox.airtable.caller import Caller, upsert_body

DEAD = "rec00000000000000"


def rows(*fields) -> dict:
    return {"records": [{"fields": each} for each in fields]}


def test_a_record_is_created_alone_or_among_ten(api: Caller) -> None:
    one = api.ok("POST", "Deals", body={"fields": {"Deal Name": "x"}})
    assert set(one) == {"id", "createdTime", "fields"}
    assert len(one["id"]) == 17
    assert one["createdTime"] == "2026-03-01T12:00:00.000Z"
    ten = api.ok("POST", "Deals", body=rows(*[{"Seats": n} for n in range(10)]))["records"]
    assert [each["fields"]["Seats"] for each in ten] == list(range(10))


@pytest.mark.parametrize("body", [rows(*[{}] * 11), {"records": []}, {"records": {}}, {}])
def test_more_than_ten_or_no_records_are_invalid_records(api: Caller, body) -> None:
    status, kind, message = api.refused("POST", "Deals", body=body)
    assert (status, kind) == (422, "INVALID_RECORDS")
    assert message.startswith("You must provide an array of up to 10 record objects")
    assert not api.table().records


def test_fields_and_tables_go_by_name_or_id_and_table_names_by_any_case(api: Caller) -> None:
    fields = {api.field("Seats").id: 3, "Deal Name": "x"}
    record = api.ok("POST", api.table().id, body={"fields": fields})
    assert api.ok("GET", f"dEALS/{record['id']}")["fields"]["Seats"] == 3


def test_an_unknown_field_fails_the_whole_batch(api: Caller) -> None:
    refused = api.refused("POST", "Deals", body=rows({"Seats": 1}, {"seats": 2}))
    assert refused == (422, "UNKNOWN_FIELD_NAME", 'Unknown field name: "seats"')
    assert not api.table().records


def test_patch_changes_what_is_given_and_put_clears_the_rest(api: Caller) -> None:
    record = api.create(Deal_Name="x", Seats=3, Tags=["VIP"])
    assert api.set(record, {"Tags": ["test"]})["Tags"] == ["test"]
    assert api.set(record, {"Seats": None}).keys() == {"Deal Name", "Tags", "Last Modified"}
    put = api.set(record, {"Seats": 5}, method="PUT")
    assert put.keys() == {"Seats", "Last Modified"}


def test_ten_are_updated_in_the_order_of_the_request(api: Caller) -> None:
    ids = [api.create(Seats=n) for n in range(10)]
    asked = [{"id": each, "fields": {"Seats": 9 - n}} for n, each in enumerate(ids)]
    shown = api.ok("PATCH", "Deals", body={"records": asked[::-1]})["records"]
    assert [each["id"] for each in shown] == ids[::-1]
    assert api.get(ids[0])["Seats"] == 9


def test_a_dead_id_fails_the_batch_and_changes_nothing(api: Caller) -> None:
    record = api.create(Seats=1)
    asked = [{"id": record, "fields": {"Seats": 2}}, {"id": DEAD, "fields": {"Seats": 3}}]
    message = f"Record ID {DEAD} does not exist in this table"
    refused = api.refused("PATCH", "Deals", body={"records": asked})
    assert refused == (422, "ROW_DOES_NOT_EXIST", message)
    assert api.get(record)["Seats"] == 1
    assert api.refused("PATCH", f"Deals/{DEAD}", body={"fields": {}})[1] == "ROW_DOES_NOT_EXIST"


def test_the_same_record_twice_is_invalid_records(api: Caller) -> None:
    record = api.create(Seats=1)
    asked = [{"id": record, "fields": {"Seats": n}} for n in (2, 3)]
    message = "You cannot update the same record multiple times in a single request."
    refused = api.refused("PATCH", "Deals", body={"records": asked})
    assert refused == (422, "INVALID_RECORDS", message)
    assert api.get(record)["Seats"] == 1


@pytest.mark.parametrize("record_id", ["nonsense", 5, None])
def test_an_update_with_no_or_a_malformed_id_is_invalid_records(api: Caller, record_id) -> None:
    asked = {"records": [{"id": record_id, "fields": {}}]}
    assert api.refused("PATCH", "Deals", body=asked)[:2] == (422, "INVALID_RECORDS")


def test_get_falls_back_to_the_whole_base(api: Caller) -> None:
    client = api.create("Clients", Name="Ada")
    assert api.get(client)["Name"] == "Ada"


@pytest.mark.parametrize(("missing", "status", "kind"), [
    ("403", 403, "INVALID_PERMISSIONS_OR_MODEL_NOT_FOUND"),
    ("404", 404, "MODEL_ID_NOT_FOUND"),
])  # fmt: skip
def test_a_missing_record_answers_as_set(api: Caller, missing, status, kind) -> None:
    api.model.settings.missing = missing
    assert api.refused("GET", f"Deals/{DEAD}")[:2] == (status, kind)
    assert api.refused("DELETE", f"Deals/{DEAD}")[:2] == (status, kind)
    assert api.refused("GET", "Nowhere")[0] == status


def test_records_are_deleted_alone_or_up_to_ten(api: Caller) -> None:
    ids = [api.create(Seats=n) for n in range(12)]
    assert api.ok("DELETE", f"Deals/{ids[0]}") == {"id": ids[0], "deleted": True}
    eleven = [("records[]", each) for each in ids[1:]]
    assert api.refused("DELETE", "Deals", eleven)[1] == "INVALID_RECORDS"
    dead = api.refused("DELETE", "Deals", [*eleven[:2], ("records[]", DEAD)])
    assert dead[1] == "ROW_DOES_NOT_EXIST"
    assert len(api.table().records) == 11
    shown = api.ok("DELETE", "Deals", eleven[:10])["records"]
    assert shown == [{"id": each, "deleted": True} for each in ids[1:11]]
    assert list(api.table().records) == ids[11:]


def test_answers_can_be_keyed_by_field_id(api: Caller) -> None:
    body = {"fields": {"Seats": 1}, "returnFieldsByFieldId": True}
    assert api.ok("POST", "Deals", body=body)["fields"][api.field("Seats").id] == 1


def test_upsert_creates_and_updates_and_tells_which(api: Caller) -> None:
    old = api.create(Kommo_Deal_ID=1, Deal_Name="old")
    status, shown = api.upsert({"Kommo Deal ID": 2, "Seats": 2}, {"Kommo Deal ID": 1, "Seats": 1})
    new = shown["records"][0]["id"]
    assert status == 200
    assert [each["id"] for each in shown["records"]] == [new, old]
    assert (shown["createdRecords"], shown["updatedRecords"]) == ([new], [old])
    assert api.get(old)["Deal Name"] == "old"
    assert api.upsert({"Kommo Deal ID": 2})[1]["updatedRecords"] == [new]


def test_upsert_follows_keys_that_changed_or_went(api: Caller) -> None:
    first = api.create(Kommo_Deal_ID=1)
    api.upsert({"Kommo Deal ID": 1})
    api.set(first, {"Kommo Deal ID": 5})
    assert api.upsert({"Kommo Deal ID": 5})[1]["updatedRecords"] == [first]
    assert api.upsert({"Kommo Deal ID": 1})[1]["updatedRecords"] == []
    api.ok("DELETE", f"Deals/{first}")
    assert len(api.upsert({"Kommo Deal ID": 5})[1]["createdRecords"]) == 1


def test_several_matches_fail_the_whole_upsert(api: Caller) -> None:
    for _ in range(2):
        api.create(Kommo_Deal_ID=1)
    status, shown = api.upsert({"Kommo Deal ID": 2}, {"Kommo Deal ID": 1})
    assert (status, shown["error"]["type"]) == (422, "INVALID_RECORDS")
    assert "Cannot update more than one record" in shown["error"]["message"]
    assert len(api.table().records) == 2


def test_a_record_with_id_bypasses_matching_and_is_never_created_again(api: Caller) -> None:
    record = api.create(Kommo_Deal_ID=1)
    status, shown = api.upsert({"id": record, "fields": {"Seats": 7}})
    assert (status, shown["createdRecords"], shown["updatedRecords"]) == (200, [], [record])
    status, shown = api.upsert({"id": DEAD, "fields": {"Kommo Deal ID": 9}})
    assert (status, shown["error"]["type"]) == (422, "ROW_DOES_NOT_EXIST")


def test_a_missing_key_is_refused_and_a_null_key_creates(api: Caller) -> None:
    assert api.upsert({"Seats": 1})[0] == 422
    for _ in range(2):
        assert len(api.upsert({"Kommo Deal ID": None, "Seats": 1})[1]["createdRecords"]) == 1


def test_two_rows_of_one_upsert_that_match_one_record_are_invalid_records(api: Caller) -> None:
    api.create(Kommo_Deal_ID=1)
    status, shown = api.upsert({"Kommo Deal ID": 1}, {"Kommo Deal ID": 1})
    assert (status, shown["error"]["type"]) == (422, "INVALID_RECORDS")


def test_two_rows_with_the_same_new_key_create_both(api: Caller) -> None:
    twice = [{"Kommo Deal ID": 1}, {"Kommo Deal ID": 1}]
    assert len(api.upsert(*twice)[1]["createdRecords"]) == 2


def test_put_with_upsert_clears_the_other_fields_of_the_match(api: Caller) -> None:
    record = api.create(Kommo_Deal_ID=1, Seats=3)
    api.upsert({"Kommo Deal ID": 1, "Deal Name": "x"}, method="PUT")
    assert api.get(record).keys() == {"Kommo Deal ID", "Deal Name", "Last Modified"}


def test_up_to_three_merge_fields_must_all_match(api: Caller) -> None:
    record = api.create(Region="EU", Tags=["VIP"], Contract_Date="2026-01-01", Seats=1)
    on = ("Region", "Tags", "Contract Date")
    same = {"Region": "EU", "Tags": ["VIP"], "Contract Date": "2026-01-01"}
    assert api.upsert({**same, "Seats": 2}, on=on)[1]["updatedRecords"] == [record]
    assert api.upsert({**same, "Region": "US"}, on=on)[1]["updatedRecords"] == []
    assert api.upsert(same, on=())[0] == 422
    assert api.upsert({**same, "Seats": 1}, on=(*on, "Seats"))[0] == 422


@pytest.mark.parametrize("name", ["Manager Email", "Kickoff", "Amount", "Last Modified", "Client"])
def test_upsert_merges_on_the_documented_types_only(api: Caller, name: str) -> None:
    assert api.upsert({"Deal Name": "x"}, on=(name,))[0] == 422


def concurrent_upserts(api: Caller) -> int:
    headers = {"Authorization": f"Bearer {api.token}"}
    import json

    body = json.dumps(upsert_body({"Kommo Deal ID": 1})).encode()
    path = "/v0/appSandbox0000000/Deals"
    arrived = [api.model.arrive("PATCH", path, "", headers, body) for _ in range(2)]
    return sum(b'"createdRecords": ["rec' in api.model.finish(each).body for each in arrived)


def test_concurrent_upserts_of_a_new_key_duplicate_unless_serialised(api: Caller) -> None:
    api.model.settings.serialised_upserts = False
    assert concurrent_upserts(api) == 2
    other = Caller()
    assert concurrent_upserts(other) == 1


def test_one_leads_field_can_be_refused_while_its_neighbours_pass(api: Caller) -> None:
    api.control("POST", "refusals", {"field": "Seats", "key": 2})
    status, shown = api.upsert({"Kommo Deal ID": 1, "Seats": 1}, {"Kommo Deal ID": 2, "Seats": 1})
    assert (status, shown["error"]["type"]) == (422, "INVALID_VALUE_FOR_COLUMN")
    assert api.upsert({"Kommo Deal ID": 1, "Seats": 1}, {"Kommo Deal ID": 2})[0] == 200
    record = api.upsert({"Kommo Deal ID": 2})[1]["records"][0]["id"]
    assert api.refused("PATCH", f"Deals/{record}", body={"fields": {"Seats": 1}})[0] == 422
    by_hand = api.control("PATCH", f"records/{record}", {"fields": {"Seats": 5}})
    assert by_hand[1]["fields"]["Seats"] == 5
    api.control("DELETE", "refusals")
    assert api.upsert({"Kommo Deal ID": 2, "Seats": 1})[0] == 200


def test_a_hundred_thousand_records_upsert_by_index_and_not_by_scan(api: Caller) -> None:
    import time

    table, data = api.table(), api.model.data
    from kommo_airtable_sync.sandbox.airtable.data import Actor

    key, actor = api.field("Kommo Deal ID").id, Actor("client", "usr", api.clock.now())
    for number in range(100_000):
        data.create(table, {key: number}, actor)
    api.upsert({"Kommo Deal ID": 1})
    started = time.process_time()
    for number in range(0, 1000, 10):
        batch = [{"Kommo Deal ID": number + each, "Seats": 1} for each in range(10)]
        assert api.upsert(*batch)[0] == 200
    formula = "OR({Kommo Deal ID}=5,{Kommo Deal ID}=99999)"
    for _ in range(100):
        assert len(api.names(formula)) == 2
    # 200 calls; the promise is 100 a second, scanning would take minutes.
    assert time.process_time() - started < 2
