from __future__ import annotations

import json

import pytest

from kommo_airtable_sync.sandbox.airtable.seed import BASE_ID
from kommo_airtable_sync.sandbox.airtable.state import Token
from kommo_airtable_sync.sandbox.faults import ConnectionDropped, Fault
from tests.sandbox.airtable.caller import Caller

DEALS = f"/v0/{BASE_ID}/Deals"
HIDDEN = (403, "INVALID_PERMISSIONS_OR_MODEL_NOT_FOUND")


def grant(api: Caller, **token) -> None:
    api.token = "patOther"
    api.model.tokens["patOther"] = Token(user="usrPerson00000000", **token)


@pytest.mark.parametrize("header", [None, "", "Bearer ", "Basic abc", "patSandbox"])
def test_without_a_bearer_token_it_is_401(api: Caller, header) -> None:
    headers = {} if header is None else {"AUTHORIZATION": header}
    answer = api.model.handle("GET", DEALS, "", headers)
    body = {"error": {"type": "AUTHENTICATION_REQUIRED", "message": "Authentication required"}}
    assert (answer.status, json.loads(answer.body)) == (401, body)
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"


def test_a_wrong_token_is_401_in_other_words(api: Caller) -> None:
    api.token = "patWrong"
    assert api.refused("GET", "Deals")[:2] == (401, "UNAUTHORIZED")


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "Deals", "data.records:read"),
        ("POST", "Deals/listRecords", "data.records:read"),
        ("POST", "Deals", "data.records:write"),
        ("PATCH", "Deals", "data.records:write"),
        ("DELETE", "Deals", "data.records:write"),
        ("GET", "/v0/meta/bases", "schema.bases:read"),
        ("GET", f"/v0/meta/bases/{BASE_ID}/tables", "schema.bases:read"),
    ],
)
def test_every_call_needs_its_scope(api: Caller, method: str, path: str, scope: str) -> None:
    grant(api, scopes=Token(user="x").scopes - {scope})
    refused = (403, "INVALID_PERMISSIONS", "You are not permitted to perform this operation")
    assert api.refused(method, path, body={}) == refused
    grant(api, scopes=[scope])
    status, shown = api.call(method, path, body={})
    assert status != 403, shown


def test_unknown_and_ungranted_bases_and_tables_look_the_same(api: Caller) -> None:
    assert api.refused("GET", "/v0/appUnknown0000000/Deals")[:2] == HIDDEN
    assert api.refused("GET", "Nowhere")[:2] == HIDDEN
    grant(api, bases=[])
    assert api.refused("GET", "Deals")[:2] == HIDDEN
    assert api.ok("GET", "/v0/meta/bases") == {"bases": []}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v1/x"),
        ("GET", "/v0/meta/bases/junk/tables"),
        ("GET", "/v0/junk/Deals"),
        ("GET", f"{DEALS}/recShort"),
        ("GET", f"/v0/{BASE_ID}/"),
        ("GET", f"{DEALS}/listRecords"),
        ("POST", f"{DEALS}/rec00000000000000"),
        ("DELETE", f"/v0/meta/bases/{BASE_ID}/tables"),
        ("POST", "/v0/meta/whoami"),
    ],
)
def test_an_unknown_route_or_a_malformed_id_is_404_with_a_string(api, method, path) -> None:
    assert api.call(method, path, body={}) == (404, {"error": "NOT_FOUND"})


def test_a_table_name_may_hold_a_slash_and_an_emoji(api: Caller) -> None:
    api.table().name = "📣 A/B"
    assert api.call("GET", f"/v0/{BASE_ID}/%F0%9F%93%A3%20a%2Fb") == (200, {"records": []})


def test_a_body_that_is_not_json_is_400(api: Caller) -> None:
    assert api.refused("POST", "Deals", body=b"{")[:2] == (400, "INVALID_REQUEST_BODY")


@pytest.mark.parametrize("body", [b"", b"[]", b"5"])
def test_a_body_that_is_no_object_is_a_bad_request(api: Caller, body: bytes) -> None:
    for method, path in (("POST", "Deals"), ("PATCH", "Deals")):
        assert api.refused(method, path, body=body)[:2] == (422, "INVALID_REQUEST_UNKNOWN")


def test_a_url_may_have_16000_characters(api: Caller) -> None:
    room = 16_000 - len(f"https://api.airtable.com{DEALS}?fields[]=&offset=")
    assert api.raw("GET", DEALS, "fields[]=&offset=" + "x" * (room + 1)).status == 414
    assert api.raw("GET", DEALS, "fields[]=&offset=" + "x" * room).status == 422


def test_a_sixth_call_in_a_second_locks_the_base_for_thirty(api: Caller) -> None:
    api.model.settings.rate_limit = "strict"
    for _ in range(5):
        api.ok("GET", "Deals")
        api.clock.sleep(0.1)
    message = "Rate limit exceeded. Please try again later"
    body = {"errors": [{"error": "RATE_LIMIT_REACHED", "message": message}]}
    assert api.call("GET", "Deals") == (429, body)
    assert api.ok("GET", "/v0/meta/whoami")
    api.clock.sleep(29.9)
    assert api.call("GET", f"/v0/meta/bases/{BASE_ID}/tables")[0] == 429
    api.clock.sleep(0.2)
    assert api.ok("GET", "Deals")


def test_the_limit_is_of_the_base_whatever_the_token_and_counts_at_arrival(api: Caller) -> None:
    api.model.settings.rate_limit = "strict"
    api.model.settings.latency_seconds = 10.0
    first = api.token
    grant(api)
    headers = [{"Authorization": f"Bearer {each}"} for each in (first, api.token)]
    arrived = [api.model.arrive("GET", DEALS, "", headers[n % 2], b"") for n in range(6)]
    api.clock.sleep(10)
    assert [api.model.finish(each).status for each in arrived] == [200] * 5 + [429]


def test_the_lock_can_be_scaled(api: Caller) -> None:
    settings = api.model.settings
    settings.rate_limit, settings.lock_scale = "strict", 0.1
    assert [api.raw("GET", DEALS).status for _ in range(6)] == [200] * 5 + [429]
    api.clock.sleep(3.01)
    assert api.ok("GET", "Deals")


def test_the_soft_mode_refuses_only_the_excess(api: Caller) -> None:
    api.model.settings.rate_limit = "soft"
    assert [api.raw("GET", DEALS).status for _ in range(7)] == [200] * 5 + [429] * 2
    assert "Retry-After" not in api.raw("GET", DEALS).headers
    api.clock.sleep(1)
    assert api.ok("GET", "Deals")


def test_a_token_has_fifty_calls_a_second_over_all_bases(api: Caller) -> None:
    api.model.settings.rate_limit = "soft"
    assert {api.raw("GET", "/v0/meta/whoami").status for _ in range(50)} == {200}
    assert api.raw("GET", "/v0/meta/whoami").status == 429


def test_a_spent_monthly_quota_stops_records_and_not_the_schema(api: Caller) -> None:
    api.model.settings.monthly_quota = 2
    assert [api.raw("GET", DEALS).status for _ in range(3)] == [200, 200, 429]
    error = api.call("GET", "Deals")[1]["errors"][0]
    assert error["error"] == "PUBLIC_API_BILLING_LIMIT_EXCEEDED"
    assert api.ok("GET", f"/v0/meta/bases/{BASE_ID}/tables")["tables"]
    assert api.model.settings.quota_used == 2


def test_latency_passes_before_the_request_is_applied(api: Caller) -> None:
    api.model.settings.latency_seconds = 0.12
    before = api.clock.now().timestamp()
    api.create(Seats=1)
    assert api.model.data.changes[0].actor.at.timestamp() == pytest.approx(before + 0.12)


@pytest.mark.parametrize(
    ("status", "variant", "kind"),
    [
        (500, "", "SERVER_ERROR"),
        (502, "", "BAD_GATEWAY"),
        (503, "retry-after", "RETRIABLE_ERROR"),
        (401, "", "UNAUTHORIZED"),
        (403, "", HIDDEN[1]),
        (429, "error", "RATE_LIMIT_REACHED"),
        (418, "", "INJECTED_FAULT"),
    ],
)
def test_a_fault_answers_any_status_the_next_n_times(api, status, variant, kind) -> None:
    fault = Fault(kind="status", status=status, variant=variant, times=2, route="*/Deals")
    api.model.faults.add(fault)
    for _ in range(2):
        answer = api.raw("POST", DEALS, body={"fields": {}})
        assert (answer.status, json.loads(answer.body)["error"]["type"]) == (status, kind)
        assert ("Retry-After" in answer.headers) == (variant == "retry-after")
    assert not api.table().records
    assert api.ok("POST", "Deals", body={"fields": {}})


@pytest.mark.parametrize(("variant", "kind"), [
    ("errors", "RATE_LIMIT_REACHED"),
    ("quota", "PUBLIC_API_BILLING_LIMIT_EXCEEDED"),
])  # fmt: skip
def test_a_fault_can_be_either_429(api: Caller, variant: str, kind: str) -> None:
    api.model.faults.add(Fault(kind="status", status=429, variant=variant))
    assert api.call("GET", "Deals")[1]["errors"][0]["error"] == kind


def test_a_fault_can_be_a_html_page_or_lose_only_the_answer(api: Caller) -> None:
    fault = Fault(kind="status", status=502, variant="html", applied=True, times=1)
    api.model.faults.add(fault)
    answer = api.raw("POST", DEALS, body={"fields": {}})
    assert answer.headers["Content-Type"].startswith("text/html")
    assert answer.body.startswith(b"<html>")
    assert len(api.table().records) == 1


@pytest.mark.parametrize(("kind", "records"), [("drop_before", 0), ("drop_after", 1)])
def test_a_dropped_call_is_applied_or_not(api: Caller, kind, records: int) -> None:
    api.model.faults.add(Fault(kind=kind, times=1))
    with pytest.raises(ConnectionDropped) as caught:
        api.raw("POST", DEALS, body={"fields": {}})
    assert caught.value.applied == bool(records)
    assert len(api.table().records) == records
    assert api.model.requests.as_json()["by_status"] == {"0": 1}


def test_a_delay_adds_to_the_latency(api: Caller) -> None:
    api.model.settings.latency_seconds = 1.0
    api.model.faults.add(Fault(kind="delay", seconds=2.0))
    before = api.clock.now()
    api.ok("GET", "Deals")
    assert (api.clock.now() - before).total_seconds() == 3.0


def history(seed: int) -> tuple:
    api = Caller(seed)
    api.model.faults.add(Fault(kind="status", status=500, probability=0.5))
    statuses = [api.upsert({"Kommo Deal ID": n})[0] for n in range(20)]
    return statuses, list(api.table().records)


def test_a_seed_gives_the_same_ids_and_faults_again() -> None:
    assert history(1) == history(1)
    assert history(1) != history(2)
    assert set(history(1)[0]) == {200, 500}
