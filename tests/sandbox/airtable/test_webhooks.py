"""The Webhooks API and its pings (reference section 5), by a clock turned by hand."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.sandbox.airtable.notifying import is_ok, retry_delay_seconds
from kommo_airtable_sync.sandbox.airtable.seed import BASE_ID
from kommo_airtable_sync.sandbox.airtable.state import Token
from tests.sandbox.airtable.caller import Caller

Json = Any
HOOKS = f"/v0/bases/{BASE_ID}/webhooks"
URL = "https://sync.example.com/hooks/airtable/ping"
DAY = 86_400


def subscribe(api: Caller, includes: Json = None, url: str | None = URL, **filters: Json) -> Json:
    options = {"filters": {"dataTypes": ["tableData"], **filters}}
    options |= {"includes": includes} if includes else {}
    body = {"notificationUrl": url, "specification": {"options": options}}
    return api.ok("POST", HOOKS, body=body)


def payloads(api: Caller, hook: Json, **query: int) -> Json:
    return api.ok("GET", f"{HOOKS}/{hook['id']}/payloads", query.items())


def only(api: Caller, hook: Json) -> Json:
    (payload,) = payloads(api, hook)["payloads"]
    return payload


def listed(api: Caller) -> Json:
    (hook,) = api.ok("GET", HOOKS)["webhooks"]
    return hook


def pings(api: Caller, status: int = 200) -> list:
    """Deliver what is due, answered so."""
    due = api.model.take_due_hooks()
    for each in due:
        api.model.settle_hook(each, status, api.model.now())
    return due


def by_hand(api: Caller, record: str, fields: Json, source: str = "client") -> None:
    status, shown = api.control(
        "PATCH", f"records/{record}", {"fields": fields}, [("source", source)]
    )
    assert status == 200, shown


# ------------------------------------------------------------------ the endpoints


def test_the_secret_is_shown_once_and_the_hook_lives_seven_days(api: Caller) -> None:
    made = subscribe(api)
    assert made["expirationTime"] == "2026-03-08T12:00:00.250Z"
    assert len(base64.b64decode(made["macSecretBase64"])) == 32
    hook = listed(api)
    assert made["macSecretBase64"] not in json.dumps(hook)
    assert hook == {
        "id": made["id"],
        "areNotificationsEnabled": True,
        "cursorForNextPayload": 1,
        "isHookEnabled": True,
        "lastSuccessfulNotificationTime": None,
        "lastNotificationResult": None,
        "notificationUrl": URL,
        "expirationTime": made["expirationTime"],
        "specification": {"options": {"filters": {"dataTypes": ["tableData"]}}},
    }


def test_a_seed_repeats_secrets_and_other_hooks_have_others(api: Caller) -> None:
    first = subscribe(api)
    assert first == subscribe(Caller())
    assert first["macSecretBase64"] != subscribe(api)["macSecretBase64"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"filters": {}},
        {"filters": {"dataTypes": []}},
        {"filters": {"dataTypes": ["tableFields"]}},
        {"filters": {"dataTypes": ["tableData"], "fromSources": ["kommo"]}},
        {"filters": {"dataTypes": ["tableData"], "changeTypes": ["create"]}},
        {"filters": {"dataTypes": ["tableData"], "recordChangeScope": "Deals"}},
        {"filters": {"dataTypes": ["tableData"], "recordChangeScope": "viw00000000000000"}},
        {"filters": {"dataTypes": ["tableData"], "recordChangeScope": "tbl00000000000000"}},
        {"filters": {"dataTypes": ["tableData"], "watchDataInFieldIds": ["Stage"]}},
        {"filters": {"dataTypes": ["tableData"]}, "includes": {"junk": True}},
    ],
)
def test_a_specification_that_is_not_understood_is_refused(api: Caller, options: Json) -> None:
    body = {"specification": {"options": options}}
    assert api.refused("POST", HOOKS, body=body)[:2] == (422, "INVALID_REQUEST_UNKNOWN")
    assert api.ok("GET", HOOKS) == {"webhooks": []}


def test_a_base_has_ten_webhooks_at_most(api: Caller) -> None:
    hooks = [subscribe(api) for _ in range(10)]
    body = {"specification": {"options": {"filters": {"dataTypes": ["tableData"]}}}}
    assert api.refused("POST", HOOKS, body=body)[1] == "TOO_MANY_WEBHOOKS_IN_BASE"
    answer = api.raw("DELETE", f"{HOOKS}/{hooks[0]['id']}")
    assert (answer.status, answer.body) == (200, b"")
    subscribe(api)


def test_a_webhook_that_is_gone_looks_like_any_other_missing_thing(api: Caller) -> None:
    hook = subscribe(api)
    api.raw("DELETE", f"{HOOKS}/{hook['id']}")
    path = f"{HOOKS}/{hook['id']}/payloads"
    assert api.refused("GET", path)[:2] == (403, "INVALID_PERMISSIONS_OR_MODEL_NOT_FOUND")
    api.model.settings.missing = "404"
    assert api.refused("GET", path)[0] == 404
    assert api.raw("GET", f"{HOOKS}/achShort/payloads").body == b'{"error": "NOT_FOUND"}'


@pytest.mark.parametrize("missing", ["webhook:manage", "data.records:read"])
def test_creating_and_reading_need_both_scopes(api: Caller, missing: str) -> None:
    hook = subscribe(api)
    api.token = "patOther"
    api.model.tokens["patOther"] = Token(scopes=Token().scopes - {missing})
    refused = (403, "INVALID_PERMISSIONS")
    assert api.refused("POST", HOOKS, body={})[:2] == refused
    assert api.refused("GET", f"{HOOKS}/{hook['id']}/payloads")[:2] == refused


# ------------------------------------------------------------------ payloads


def test_an_update_by_api_tells_what_changed_and_who_did_it(api: Caller) -> None:
    record = api.create(Kommo_Deal_ID=7, Stage="New", Seats=1)
    hook = subscribe(api)
    api.set(record, {"Stage": "Won", "Seats": None, "Kommo Deal ID": 7})
    stage, seats = api.field("Stage"), api.field("Seats")
    won = next(each for each in stage.options["choices"] if each["name"] == "Won")
    assert only(api, hook) == {
        "timestamp": "2026-03-01T12:00:00.250Z",
        "baseTransactionNumber": 2,
        "payloadFormat": "v0",
        "actionMetadata": {
            "source": "publicApi",
            "sourceMetadata": {
                "user": {
                    "id": "usrSandbox0000000",
                    "email": "sync@example.com",
                    "name": "Sync",
                    "permissionLevel": "create",
                }
            },
        },
        "changedTablesById": {
            api.table().id: {
                "changedRecordsById": {
                    record: {"current": {"cellValuesByFieldId": {stage.id: won, seats.id: None}}}
                }
            }
        },
    }


def test_a_cleared_cell_may_be_left_out(api: Caller) -> None:
    api.model.settings.cleared_cells = "absent"
    record = api.create(Seats=1)
    hook = subscribe(api)
    api.set(record, {"Seats": None})
    changed = only(api, hook)["changedTablesById"][api.table().id]["changedRecordsById"]
    assert changed == {record: {"current": {"cellValuesByFieldId": {}}}}


def test_creations_links_and_deletions(api: Caller) -> None:
    hook = subscribe(api)
    client = api.create("Clients", Name="Ann")
    deal = api.create(Deal_Name="d", Client=[client], Tags=["hot"], VIP=True, Seats=0)
    api.ok("DELETE", f"Deals/{deal}")
    _, made, gone = payloads(api, hook)["payloads"]
    deals, clients = api.table().id, api.table("Clients").id
    hot = api.field("Tags").options["choices"][0]
    assert made["changedTablesById"] == {
        deals: {
            "createdRecordsById": {
                deal: {
                    "createdTime": "2026-03-01T12:00:00.000Z",
                    "cellValuesByFieldId": {
                        api.field("Deal Name").id: "d",
                        api.field("Client").id: [{"id": client, "name": "Ann"}],
                        api.field("Tags").id: [hot],
                        api.field("VIP").id: True,
                        api.field("Seats").id: 0,
                    },
                }
            }
        },
        clients: {
            "changedRecordsById": {
                client: {
                    "current": {
                        "cellValuesByFieldId": {
                            api.field("Deals", "Clients").id: [{"id": deal, "name": "d"}]
                        }
                    }
                }
            }
        },
    }
    assert gone["changedTablesById"][deals] == {"destroyedRecordIds": [deal]}
    assert [each["baseTransactionNumber"] for each in (made, gone)] == [2, 3]


def test_previous_and_unchanged_values_come_if_asked_for(api: Caller) -> None:
    record = api.create(Seats=1, Deal_Name="d")
    seats, name, vip = (api.field(each).id for each in ("Seats", "Deal Name", "VIP"))
    ids = [name, seats, vip, "fldGone0000000000"]
    some = {"includePreviousCellValues": True, "includeCellValuesInFieldIds": ids}
    hooks = [subscribe(api, some), subscribe(api, {"includeCellValuesInFieldIds": "all"})]
    api.set(record, {"Seats": 2})
    shown, everything = (
        only(api, each)["changedTablesById"][api.table().id]["changedRecordsById"][record]
        for each in hooks
    )
    assert shown == {
        "current": {"cellValuesByFieldId": {seats: 2}},
        "previous": {"cellValuesByFieldId": {seats: 1}},
        "unchanged": {"cellValuesByFieldId": {name: "d"}},
    }
    modified = api.field("Last Modified").id
    assert everything["unchanged"]["cellValuesByFieldId"].keys() == {name, modified}
    assert "previous" not in everything


@pytest.mark.parametrize(
    ("kind", "options", "value", "shown"),
    [
        ("singleCollaborator", {}, {"id": "usrPerson00000000"}, {
            "id": "usrPerson00000000", "email": "person@example.com", "name": "A Person",
            "permissionLevel": "create",
        }),
        ("multipleCollaborators", {}, ["usrSandbox0000000"], [{
            "id": "usrSandbox0000000", "email": "sync@example.com", "name": "Sync",
            "permissionLevel": "create",
        }]),
        ("percent", {"precision": 1}, 0.5, 0.5),
        ("richText", {}, "* a", "- a\n"),
    ],
)  # fmt: skip
def test_values_have_the_form_of_webhooks(api: Caller, kind, options, value, shown) -> None:
    field = api.add_field(kind, "Extra", options)
    hook = subscribe(api)
    record = api.create(Extra=value)
    made = only(api, hook)["changedTablesById"][api.table().id]["createdRecordsById"][record]
    assert made["cellValuesByFieldId"] == {field.id: shown}


def test_a_lookup_is_a_map_by_linked_record(api: Caller) -> None:
    field = api.add_field("multipleLookupValues", "Looked")
    hook = subscribe(api, {"includeCellValuesInFieldIds": [field.id]})
    record = api.create()
    made = only(api, hook)["changedTablesById"][api.table().id]["createdRecordsById"][record]
    (looked,) = made["cellValuesByFieldId"].values()
    assert looked["valuesByLinkedRecordId"].keys() == set(looked["linkedRecordIds"])


def test_ten_records_of_one_call_are_one_payload_or_several_of_one_transaction(api) -> None:
    whole = subscribe(api)
    rows = [{"fields": {"Seats": n}} for n in range(10)]
    api.ok("POST", "Deals", body={"records": rows})
    only(api, whole)
    api.model.settings.payload_records = 4
    api.ok("POST", "Deals", body={"records": rows})
    _, *parts = payloads(api, whole)["payloads"]
    changed = [each.pop("changedTablesById")[api.table().id] for each in parts]
    assert [len(each["createdRecordsById"]) for each in changed] == [4, 4, 2]
    assert parts[0] == parts[1] == parts[2]
    assert len(pings(api)) == 1


def kinds(api: Caller, hook: Json) -> list[str]:
    tables = [each["changedTablesById"] for each in payloads(api, hook)["payloads"]]
    return [next(iter(table)) for each in tables for table in each.values()]


def test_filters_choose_by_kind_table_source_and_field(api: Caller) -> None:
    seats = api.field("Seats").id
    hooks = {
        "kind": subscribe(api, changeTypes=["update"]),
        "other table": subscribe(api, recordChangeScope=api.table("Clients").id),
        "people": subscribe(api, fromSources=["client", "automation"]),
        "field": subscribe(api, watchDataInFieldIds=[seats]),
    }
    record = api.create(Deal_Name="d")
    by_hand(api, record, {"Seats": 1, "Notes": "n"})
    api.set(record, {"Seats": 2})
    by_hand(api, record, {"Notes": "m"}, source="automation")
    api.control("DELETE", f"records/{record}")
    changed, gone = "changedRecordsById", "destroyedRecordIds"
    assert {name: kinds(api, hook) for name, hook in hooks.items()} == {
        "kind": [changed] * 3,
        "other table": [],
        "people": [changed, changed, gone],
        "field": [changed, changed, gone],
    }
    first = payloads(api, hooks["field"])["payloads"][0]["changedTablesById"][api.table().id]
    assert first[changed][record]["current"]["cellValuesByFieldId"] == {seats: 1}
    sources = [each["actionMetadata"] for each in payloads(api, hooks["kind"])["payloads"]]
    assert [each["source"] for each in sources] == ["client", "publicApi", "automation"]
    assert sources[0]["sourceMetadata"]["user"]["id"] == "usrPerson00000000"
    assert sources[2]["sourceMetadata"]["automationId"].startswith("wfl")


def test_what_a_refused_or_idle_call_did_makes_no_payload(api: Caller) -> None:
    record = api.create(Seats=1)
    hook = subscribe(api)
    api.refused("PATCH", f"Deals/{record}", body={"fields": {"Seats": "x"}})
    api.set(record, {"Seats": 1})
    assert payloads(api, hook) == {"payloads": [], "cursor": 1, "mightHaveMore": False}


def test_payloads_are_numbered_and_paged(api: Caller) -> None:
    hook = subscribe(api, url=None)
    for n in range(53):
        api.create(Seats=n)
    page = payloads(api, hook)
    assert (len(page["payloads"]), page["cursor"], page["mightHaveMore"]) == (50, 51, True)
    rest = payloads(api, hook, cursor=51, limit=500)
    assert (len(rest["payloads"]), rest["cursor"], rest["mightHaveMore"]) == (3, 54, False)
    assert payloads(api, hook, cursor=54) == {"payloads": [], "cursor": 54, "mightHaveMore": False}
    assert len(payloads(api, hook, cursor=2, limit=7)["payloads"]) == 7
    assert listed(api)["cursorForNextPayload"] == 54
    assert api.refused("GET", f"{HOOKS}/{hook['id']}/payloads", [("cursor", 0)])[0] == 422
    assert api.model.next_hook_at() is None


def test_payloads_die_after_seven_days_and_numbers_go_on(api: Caller) -> None:
    hook = subscribe(api)
    api.create(Seats=1)
    api.clock.sleep(4 * DAY)
    api.create(Seats=2)
    assert payloads(api, hook)["cursor"] == 3
    api.clock.sleep(3 * DAY)
    page = payloads(api, hook)
    assert (len(page["payloads"]), page["cursor"]) == (1, 3)
    assert page["payloads"][0]["timestamp"].startswith("2026-03-05")


def test_reading_or_refreshing_extends_its_life_and_the_end_is_final(api: Caller) -> None:
    hook = subscribe(api)
    for extend in (
        lambda: payloads(api, hook),
        lambda: api.ok("POST", f"{HOOKS}/{hook['id']}/refresh"),
    ):
        api.clock.sleep(6 * DAY)
        shown = extend()
        expires = listed(api)["expirationTime"]
        assert shown.get("expirationTime", expires) == expires
    assert expires.startswith("2026-03-20")
    api.create(Seats=1)
    api.clock.sleep(7 * DAY)
    api.create(Seats=2)
    assert not listed(api)["isHookEnabled"]
    assert listed(api)["cursorForNextPayload"] == 2
    assert payloads(api, hook)["cursor"] == 2
    assert api.refused("POST", f"{HOOKS}/{hook['id']}/refresh")[0] == 422
    api.clock.sleep(7 * DAY)
    assert api.ok("GET", HOOKS) == {"webhooks": []}


def test_a_watched_field_that_is_deleted_kills_the_webhook(api: Caller) -> None:
    hook = subscribe(api, watchDataInFieldIds=[api.field("Seats").id])
    api.control("DELETE", "fields/Seats", query=[("table", "Deals")])
    payload = only(api, hook)
    assert (payload["error"], payload["code"]) == (True, "INVALID_FILTERS")
    assert len(pings(api)) == 1
    api.create(Deal_Name="d")
    assert not listed(api)["isHookEnabled"]
    assert payloads(api, hook)["cursor"] == 2


def test_an_error_comes_on_demand(api: Caller) -> None:
    hook = subscribe(api)
    assert api.control("POST", f"webhooks/{hook['id']}/error", {"code": "INVALID_HOOK"})[0] == 200
    assert only(api, hook)["code"] == "INVALID_HOOK"
    assert api.control("POST", "webhooks/ach/error", {"code": "INVALID_HOOK"})[0] == 422


# ------------------------------------------------------------------ pings


def test_a_ping_is_signed_over_its_exact_bytes(api: Caller) -> None:
    hook = subscribe(api)
    api.create(Seats=1)
    (ping,) = pings(api)
    assert json.loads(ping.body) == {
        "base": {"id": BASE_ID},
        "webhook": {"id": hook["id"]},
        "timestamp": "2026-03-01T12:00:00.250Z",
    }
    key = base64.b64decode(hook["macSecretBase64"])
    code = hmac.new(key, ping.body, hashlib.sha256).hexdigest()
    assert ping.headers["X-Airtable-Content-MAC"] == f"hmac-sha256={code}"
    assert (ping.destination, ping.kind) == (URL, "ping")
    assert api.model.outbox.timeout_seconds(ping) == 25


def test_changes_share_a_ping_and_one_under_way_is_followed_by_another(api: Caller) -> None:
    subscribe(api)
    api.model.settings.ping_seconds = 2.0
    for n in range(3):
        api.create(Seats=n)
    assert api.model.take_due_hooks() == []
    api.clock.sleep(2)
    (ping,) = api.model.take_due_hooks()
    api.create(Seats=3)
    api.create(Seats=4)
    assert api.model.next_hook_at() is None
    api.model.settle_hook(ping, 204, api.model.now())
    api.clock.sleep(2)
    assert len(pings(api)) == 1
    assert api.model.next_hook_at() is None


def attempts(api: Caller, status: int) -> list[float]:
    start, found = api.model.now(), list[float]()
    while (due_at := api.model.next_hook_at()) is not None:
        api.clock.sleep(max(0.0, due_at - api.model.now()) + 0.001)
        found += [round(api.model.now() - start) for _ in pings(api, status)]
    return found


@pytest.mark.parametrize("status", [200, 204])
def test_only_two_statuses_are_an_answer(api: Caller, status: int) -> None:
    subscribe(api)
    api.create(Seats=1)
    assert attempts(api, status) == [0]
    result = listed(api)["lastNotificationResult"]
    assert (result["success"], result["retryNumber"]) == (True, 0)
    assert listed(api)["lastSuccessfulNotificationTime"] == result["completionTimestamp"]


@pytest.mark.parametrize("status", [0, 201, 202, 302, 404, 500])
def test_a_failing_ping_is_tried_13_times_more_and_then_switched_off(api: Caller, status) -> None:
    hook = subscribe(api)
    api.create(Seats=1)
    times = attempts(api, status)
    assert times == [10 * (2**n - 1) for n in range(14)]
    shown = listed(api)
    assert (shown["areNotificationsEnabled"], shown["isHookEnabled"]) == (False, True)
    result = shown["lastNotificationResult"]
    assert (result["success"], result["retryNumber"], result["willBeRetried"]) == (False, 13, False)
    api.create(Seats=2)
    assert api.model.next_hook_at() is None
    assert payloads(api, hook)["cursor"] == 3
    api.raw("POST", f"{HOOKS}/{hook['id']}/enableNotifications", body={"enable": True})
    api.create(Seats=3)
    assert len(pings(api)) == 1


def test_the_ladder_can_be_shortened(api: Caller) -> None:
    api.model.settings.ping_retry_scale = 0.1
    subscribe(api)
    api.create(Seats=1)
    assert attempts(api, 500)[:4] == [0, 1, 3, 7]


@given(st.integers(1, 20), st.integers(0, 599))
def test_retries_always_end_and_grow(attempt: int, status: int) -> None:
    delay = retry_delay_seconds(attempt)
    assert (delay is None) == (attempt > 13)
    assert delay is None or attempt == 1 or delay == 2 * (retry_delay_seconds(attempt - 1) or 0)
    assert is_ok(status) == (status in {200, 204})


def test_notifications_that_are_switched_off_drop_what_waits(api: Caller) -> None:
    hook = subscribe(api)
    api.create(Seats=1)
    path = f"{HOOKS}/{hook['id']}/enableNotifications"
    assert api.refused("POST", path, body={})[0] == 422
    assert api.raw("POST", path, body={"enable": False}).status == 200
    assert pings(api) == []
    api.raw("POST", path, body={"enable": True})
    api.create(Seats=2)
    assert len(pings(api)) == 1


def test_a_ping_of_a_deleted_webhook_is_dropped(api: Caller) -> None:
    hook = subscribe(api)
    api.create(Seats=1)
    api.raw("DELETE", f"{HOOKS}/{hook['id']}")
    assert pings(api) == []


def test_a_change_is_told_although_its_answer_was_lost(api: Caller) -> None:
    from kommo_airtable_sync.sandbox.faults import ConnectionDropped, Fault

    hook = subscribe(api)
    api.model.faults.add(Fault(kind="drop_after", times=1))
    with pytest.raises(ConnectionDropped):
        api.create(Seats=1)
    assert only(api, hook)
    assert api.model.hooks_waiting.is_set()


def test_reset_forgets_webhooks(api: Caller) -> None:
    subscribe(api)
    api.create(Seats=1)
    api.control("POST", "reset")
    assert pings(api) == []
    assert api.ok("GET", HOOKS) == {"webhooks": []}
