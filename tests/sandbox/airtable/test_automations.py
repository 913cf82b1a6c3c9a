"""Automations that POST each change from a script (reference section 6)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.sandbox.airtable.caller import Caller

Json = Any
URL = "https://sync.example.com/hooks/airtable"


def automate(api: Caller, **given: Json) -> str:
    body = {"url": URL, "secret": "a-secret-for-tests", **given}
    status, shown = api.control("POST", "automations", body)
    assert status == 200, shown
    return shown["automations"][-1]["id"]


def runs(api: Caller, status: int = 200) -> list[Json]:
    due = api.model.take_due_hooks()
    for each in due:
        api.model.settle_hook(each, status, api.model.now())
    return [json.loads(each.body) for each in due]


def test_a_run_posts_the_record_with_a_bearer_secret(api: Caller) -> None:
    automate(api, send=["Onboarding Status", "Seats"])
    record = api.create(Kommo_Deal_ID=7, Onboarding_Status="Done")
    (delivery,) = api.model.take_due_hooks()
    assert delivery.headers["Authorization"] == "Bearer a-secret-for-tests"
    assert delivery.headers["Content-Type"] == "application/json"
    assert api.model.outbox.timeout_seconds(delivery) == 12
    assert json.loads(delivery.body) == {
        "recordId": record,
        "kommoDealId": 7,
        "changedAt": "2026-03-01T12:00:00.250Z",
        "fields": {"Onboarding Status": "Done", "Seats": None},
    }


def test_the_barest_script_sends_two_things(api: Caller) -> None:
    automate(api, send_key=False)
    api.create(Kommo_Deal_ID=7)
    api.create("Clients", Name="Ann")
    (told,) = runs(api)
    assert told.keys() == {"recordId", "changedAt"}


def test_only_watched_fields_and_chosen_triggers_count(api: Caller) -> None:
    automate(api, watch=["Seats"], on=["update"])
    record = api.create(Seats=1)
    api.set(record, {"Notes": "n"})
    assert runs(api) == []
    api.control("PATCH", "fields/Seats", {"name": "Chairs"}, [("table", "Deals")])
    api.set(record, {"Chairs": 2})
    assert [each["recordId"] for each in runs(api)] == [record]


def test_deletions_trigger_nothing(api: Caller) -> None:
    automate(api)
    record = api.create(Seats=1)
    runs(api)
    api.control("DELETE", f"records/{record}")
    assert runs(api) == []


def test_writes_by_api_trigger_unless_that_is_switched_off(api: Caller) -> None:
    usual = automate(api)
    record = api.create(Seats=1)
    assert len(runs(api)) == 1
    api.control("DELETE", f"automations/{usual}")
    automate(api, on_api=False)
    api.set(record, {"Seats": 2})
    assert runs(api) == []
    api.control("PATCH", f"records/{record}", {"fields": {"Seats": 3}})
    assert len(runs(api)) == 1


def test_a_failed_run_is_not_repeated(api: Caller) -> None:
    automate(api)
    api.create(Seats=1)
    assert len(runs(api, status=500)) == 1
    assert api.model.next_hook_at() is None


def burst(seed: int = 0, **knobs: Json) -> list[int]:
    """The seats of twenty changed deals, as their runs arrive."""
    api = Caller(seed)
    automate(api, send=["Seats"])
    assert api.control("PATCH", "settings", knobs)[0] == 200
    for n in range(20):
        api.create(Seats=n)
    api.clock.sleep(100)
    return [each["fields"]["Seats"] for each in runs(api)]


def test_runs_may_come_twice_never_or_in_another_order_and_a_seed_repeats_it() -> None:
    assert burst() == list(range(20))
    assert burst(automation_lose=1) == []
    assert burst(automation_duplicate=1) == [n for n in range(20) for _ in range(2)]
    mixed = burst(automation_reorder_seconds=60)
    assert mixed != sorted(mixed)
    assert sorted(mixed) == list(range(20))
    assert mixed == burst(automation_reorder_seconds=60) != burst(1, automation_reorder_seconds=60)
    assert 0 < len(burst(automation_lose=0.5)) < 20


def test_runs_come_some_time_after_the_change(api: Caller) -> None:
    api.model.settings.automation_seconds = 3.0
    automate(api)
    api.create(Seats=1)
    assert api.model.next_hook_at() == api.model.now() + 3
    assert runs(api) == []
    api.clock.sleep(3)
    assert runs(api)[0]["changedAt"] == "2026-03-01T12:00:00.250Z"


def test_automations_are_listed_and_switched_off(api: Caller) -> None:
    first, second = automate(api), automate(api, table=api.table("Clients").id)
    _, shown = api.control("GET", "automations")
    assert [each["id"] for each in shown["automations"]] == [first, second]
    assert api.control("DELETE", f"automations/{first}")[1]["automations"][0]["id"] == second
    assert api.control("DELETE", "automations")[1] == {"automations": []}
    assert api.control("DELETE", f"automations/{first}")[0] == 422


@pytest.mark.parametrize(
    ("wrong", "status"),
    [({"table": "Nowhere"}, 404), ({"watch": ["Nothing"]}, 422), ({"junk": 1}, 422)],
)
def test_an_automation_that_cannot_work_is_refused(api: Caller, wrong: Json, status: int) -> None:
    body = {"url": URL, "secret": "s", **wrong}
    assert api.control("POST", "automations", body)[0] == status
    assert api.control("GET", "automations")[1] == {"automations": []}


def test_every_delivery_is_in_the_log(api: Caller) -> None:
    automation = automate(api)
    api.create(Seats=1)
    (delivery,) = api.model.take_due_hooks()
    api.clock.sleep(1)
    api.model.settle_hook(delivery, 0, api.model.now() - 1)
    api.create(Seats=2)
    _, shown = api.control("GET", "deliveries")
    (entry,) = shown["deliveries"]
    assert (entry["kind"], entry["sender"], entry["status"]) == ("automation", automation, 0)
    assert entry["answered_at"] - entry["sent_at"] == 1
    assert entry["body"] == delivery.body.decode()
    assert shown["waiting"] == 1
    assert api.control("DELETE", "deliveries")[1]["deliveries"] == []
