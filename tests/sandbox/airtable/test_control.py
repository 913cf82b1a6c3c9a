from __future__ import annotations

from tests.sandbox.airtable.caller import Caller

DEALS = [("table", "Deals")]


def writes(api: Caller, **query) -> list:
    return api.control("GET", "writes", query=query.items())[1]["writes"]


def test_a_person_creates_edits_and_deletes_records(api: Caller) -> None:
    _, made = api.control("POST", "records", {"fields": {"Kommo Deal ID": 7, "Seats": 1}}, DEALS)
    path = f"records/{made['id']}"
    _, edited = api.control("PATCH", path, {"fields": {"Seats": 2, "Kommo Deal ID": 7}})
    assert edited["fields"]["Seats"] == 2
    assert api.control("DELETE", path)[1] == {"id": made["id"], "deleted": True}
    assert api.control("DELETE", path)[0] == 404
    assert [(each["kind"], each["source"]) for each in writes(api)] == [
        ("create", "client"),
        ("update", "client"),
        ("delete", "client"),
    ]


def test_any_number_of_records_is_put_in_place_at_once(api: Caller) -> None:
    rows = [{"fields": {"Kommo Deal ID": n}} for n in range(1, 24)]
    _, made = api.control("POST", "records", {"records": rows}, DEALS)
    assert [each["fields"]["Kommo Deal ID"] for each in made["records"]] == list(range(1, 24))
    assert len(writes(api)) == 23


def test_writes_tell_record_key_old_and_new_source_and_time(api: Caller) -> None:
    record = api.create(Kommo_Deal_ID=7, Seats=1)
    api.clock.sleep(1.5)
    api.control("PATCH", f"records/{record}", {"fields": {"Seats": None, "Deal Name": "x"}})
    shown = writes(api, since=1)
    assert shown == [
        {
            "sequence": 2,
            "kind": "update",
            "table": "Deals",
            "record": record,
            "key": 7,
            "source": "client",
            "user": "usrPerson00000000",
            "applied_at": api.clock.now().timestamp(),
            "fields": {
                "Seats": {"old": 1, "new": None},
                "Deal Name": {"old": None, "new": "x"},
            },
        }
    ]
    assert [each["sequence"] for each in writes(api, source="publicApi")] == [1]
    assert writes(api, table="Clients") == []
    api.control("DELETE", "writes")
    api.set(record, {"Seats": 3})
    assert [each["sequence"] for each in writes(api, since=1)] == [3]


def test_all_records_are_shown_with_fields_by_name(api: Caller) -> None:
    api.model.settings.rate_limit = "strict"
    record = api.create(Seats=1)
    for _ in range(10):
        shown = api.control("GET", "records", query=DEALS)[1]["records"]
    assert [(each["id"], each["fields"]["Seats"]) for each in shown] == [(record, 1)]
    assert api.control("GET", "records")[0] == 404


def test_requests_are_counted_by_route_and_status_and_can_be_reset(api: Caller) -> None:
    api.model.settings.rate_limit = "soft"
    record = api.create(Seats=1)
    for _ in range(6):
        api.call("GET", f"Deals/{record}")
    shown = api.control("GET", "requests")[1]
    assert shown["by_route"] == {"GET /v0/{base}/{table}/{record}": 6, "POST /v0/{base}/{table}": 1}
    assert (shown["by_status"], shown["too_many_requests"]) == ({"200": 5, "429": 2}, 2)
    assert [each["at"] for each in shown["log"]] == [api.clock.now().timestamp()] * 7
    assert api.control("GET", "requests", query=[("log", 0)])[1]["log"] == []
    api.control("DELETE", "requests")
    assert api.control("GET", "requests")[1]["total"] == 0


def test_a_renamed_field_keeps_its_id_and_values(api: Caller) -> None:
    record, field = api.create(Seats=3), api.field("Seats")
    shown = api.control("PATCH", "fields/Seats", {"name": "Chairs"}, DEALS)[1]
    assert shown["id"] == field.id
    assert api.get(record)["Chairs"] == 3
    assert api.control("PATCH", "fields/Chairs", {"name": "Stage"}, DEALS)[0] == 422


def test_a_retyped_field_keeps_what_the_new_type_can_take(api: Caller) -> None:
    texts = [api.create(Region_Code=each) for each in ("UK", "x")]
    api.upsert({"Region Code": "UK"}, on=["Region Code"])
    select = {"type": "singleSelect", "options": {"choices": [{"name": "UK"}]}}
    api.control("PATCH", "fields/Region Code", select, DEALS)
    assert api.get(texts[0])["Region Code"] == "UK"
    assert "Region Code" not in api.get(texts[1])
    upserted = api.upsert({"Region Code": "UK"}, on=["Region Code"])[1]
    assert upserted["updatedRecords"] == [texts[0]]
    for wrong in ({"type": "nonsense"}, {"type": "number"}, {"type": "multipleRecordLinks"}):
        assert api.control("PATCH", "fields/Region Code", wrong, DEALS)[0] == 422
    assert api.get(texts[0])["Region Code"] == "UK"
    number = {"type": "number", "options": {"precision": 0}}
    api.control("PATCH", "fields/Region Code", number, DEALS)
    assert "Region Code" not in api.get(texts[0])
    assert api.refused("PATCH", f"Deals/{texts[0]}", body={"fields": {"Region Code": "a"}})


def test_a_deleted_field_is_unknown_and_takes_its_inverse_along(api: Caller) -> None:
    deal = api.create(Seats=3)
    client = api.create("Clients", Deals=[deal])
    api.control("DELETE", "fields/Seats", query=DEALS)
    assert api.refused("POST", "Deals", body={"fields": {"Seats": 1}})[1] == "UNKNOWN_FIELD_NAME"
    assert "Seats" not in api.get(deal)
    api.control("DELETE", "fields/Client", query=DEALS)
    assert api.table("Clients").find_field("Deals") is None
    assert api.get(client, "Clients") == {}
    assert api.control("DELETE", "fields/Deal Name", query=DEALS)[0] == 422
    assert "fldNone" not in str(writes(api))


def test_a_person_adds_fields_of_any_type_and_options(api: Caller) -> None:
    assert api.control("POST", "fields", {"name": "No", "type": "autoNumber"}, DEALS)[0] == 200
    api.control("POST", "options/Stage", {"name": "Paused"}, DEALS)
    assert api.get(api.create(Stage="Paused"))["No"] == 1


def test_faults_and_settings_are_set_shown_and_cleared(api: Caller) -> None:
    fault = {"kind": "status", "status": 502, "route": "*/Deals", "times": 3}
    shown = api.control("POST", "faults", fault)[1]["faults"]
    assert (shown[0]["status"], shown[0]["times"]) == (502, 3)
    assert api.call("GET", "Deals")[0] == 502
    assert api.control("DELETE", "faults")[1] == {"faults": []}
    assert api.call("GET", "Deals")[0] == 200
    assert api.control("POST", "faults", {"kind": "nonsense"})[0] == 422
    api.control("PATCH", "settings", {"latency_seconds": 0.5, "rate_limit": "soft"})
    assert api.control("GET", "settings")[1]["latency_seconds"] == 0.5
    for wrong in ({"nonsense": 1}, {"rate_limit": "medium"}, {"requests_per_second": 0}):
        assert api.control("PATCH", "settings", wrong)[0] == 422
    assert api.model.settings.rate_limit == "soft"


def test_tokens_can_be_issued(api: Caller) -> None:
    api.control("POST", "tokens", {"token": "patNew", "scopes": ["schema.bases:read"]})
    api.token = "patNew"
    assert api.refused("GET", "Deals")[:2] == (403, "INVALID_PERMISSIONS")
    assert api.ok("GET", "/v0/meta/bases")["bases"]


def test_reset_brings_the_seeded_base_back_with_the_same_ids(api: Caller) -> None:
    before = [each.id for each in api.table().fields.values()]
    api.create(Seats=1)
    api.control("PATCH", "settings", {"monthly_quota": 0})
    api.control("POST", "faults", {"kind": "drop_before"})
    api.control("POST", "reset")
    api.base = api.model.bases[api.base.id]
    assert api.ok("GET", "Deals") == {"records": []}
    assert [each.id for each in api.table().fields.values()] == before
    assert writes(api) == []
    assert api.control("GET", "requests")[1]["total"] == 1


def test_unknown_paths_and_bad_bodies_are_refused(api: Caller) -> None:
    for method, path in (
        ("GET", "nonsense"),
        ("PUT", "records"),
        ("GET", "reset"),
        ("PATCH", "records"),
    ):
        assert api.control(method, path)[0] == 404
    assert api.control("POST", "tokens", [1])[0] == 422
