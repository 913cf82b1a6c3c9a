"""The control surface under /_control/."""

from __future__ import annotations

import json

import pytest

from kommo_airtable_sync.sandbox.kommo.seed import SALES_ID
from tests.sandbox.kommo.conftest import Caller, TurnedClock


def subscribe(call: Caller) -> None:
    codes = ["add_lead", "update_lead", "status_lead", "delete_lead", "restore_lead", "note_lead"]
    call("POST", "webhooks", {"destination": "https://x.test", "settings": codes})


def test_a_person_creates_edits_deletes_and_restores_with_hooks(call: Caller):
    subscribe(call)
    made = call.control("POST", "leads", {"name": "by hand"})
    lead_id = made["lead"]["id"]
    assert (made["lead"]["created_by"], made["changed_at"]) == (11087002, 1772452800.25)
    call.clock.sleep(0.5)
    edited = call.control("PATCH", f"leads/{lead_id}", {"price": 5})
    assert (edited["lead"]["price"], edited["changed_at"]) == (5, 1772452800.75)
    assert call.control("DELETE", f"leads/{lead_id}")["lead"]["is_deleted"]
    assert not call.control("POST", f"leads/{lead_id}/restore")["lead"]["is_deleted"]
    call.control("POST", f"leads/{lead_id}/notes", {"text": "hi"})
    codes = [each.codes[0] for each in call.model.take_due_hooks()]
    assert codes == ["add_lead", "update_lead", "delete_lead", "restore_lead", "note_lead"]
    assert call("GET", f"leads/{lead_id}").json["price"] == 5


def test_a_person_is_refused_what_the_api_refuses(call: Caller):
    assert call("POST", "/_control/leads", {"nmae": "x"}).status == 400
    assert call("PATCH", "/_control/leads/5", {"name": "x"}).status == 404
    lead_id = call.lead(name="a")
    assert call("PUT", f"/_control/leads/{lead_id}").status == 404
    assert call("PUT", "/_control/settings").status == 404
    assert call.control("GET", f"leads/{lead_id}")["lead"]["name"] == "a"
    assert call("GET", "/_control/nonsense").status == 404
    assert call("PATCH", "/_control/leads/bulk", {"ids": []}).status == 404


def test_many_leads_are_edited_at_once_with_hooks(call: Caller):
    subscribe(call)
    ids = call.control("POST", "seed", {"count": 3})["ids"]
    rows = call.control("POST", "leads/bulk", {"ids": ids, "changes": {"price": 777_777}})["leads"]
    assert [each["lead"]["price"] for each in rows] == [777_777] * 3
    single = [{"id": ids[0], "name": "one"}, {"id": ids[1], "name": "two"}]
    rows = call.control("POST", "leads/bulk", {"leads": single})["leads"]
    assert [each["lead"]["name"] for each in rows] == ["one", "two"]
    assert len(call.model.take_due_hooks()) == 5


def test_seeded_deals_are_realistic_silent_and_repeatable(call: Caller):
    subscribe(call)
    call.control("POST", "seed", {"count": 200})
    assert call.model.take_due_hooks() == []
    leads = call("GET", "leads?limit=250&with=loss_reason").rows()
    assert len(leads) == 200
    assert {each["pipeline_id"] for each in leads} == {SALES_ID, SALES_ID + 1}
    assert len({each["status_id"] for each in leads}) > 8
    assert len({each["responsible_user_id"] for each in leads}) == 3
    text = json.dumps([each["name"] for each in leads], ensure_ascii=False)
    assert all(piece in text for piece in ("Müller", "Ромашка", "🚀"))
    assert any(each["_embedded"]["tags"] for each in leads)
    types = {f["field_type"] for each in leads for f in each["custom_fields_values"] or []}
    assert len(types) == 11
    assert all(
        (each["closed_at"] is None) == (each["status_id"] not in (142, 143)) for each in leads
    )
    call.control("POST", "reset")
    subscribe(call)
    call.control("POST", "seed", {"count": 200})
    assert call("GET", "leads?limit=250&with=loss_reason").rows() == leads


def test_most_seeded_deals_have_a_main_contact_which_some_share(call: Caller):
    call.control("POST", "seed", {"count": 40})
    linked = [each["_embedded"]["contacts"] for each in call("GET", "leads?with=contacts").rows()]
    assert {len(each) for each in linked} == {0, 1}
    ids = [contact["id"] for each in linked for contact in each if contact["is_main"]]
    assert len(set(ids)) < len(ids) < 40
    named = {each["id"]: each for each in call("GET", "contacts").rows("contacts")}
    assert named.keys() >= set(ids)
    for each in named.values():
        assert each["name"] == f"{each['first_name']} {each['last_name']}"
        codes = [field["field_code"] for field in each["custom_fields_values"]]
        assert codes == ["PHONE", "EMAIL"]


@pytest.mark.parametrize("kind", ["leads", "contacts"])
def test_what_is_seeded_can_be_written_back_field_by_field(call: Caller, kind: str):
    """What GET shows, PATCH takes: seeded values are of the API's own making."""
    call.control("POST", "seed", {"count": 40})
    for row in call("GET", kind).rows(kind):
        fields = [
            {"field_id": each["field_id"], "values": each["values"]}
            for each in row["custom_fields_values"] or []
        ]
        body = {"custom_fields_values": fields, "name": row["name"]}
        assert call("PATCH", f"{kind}/{row['id']}", body).status == 200
        assert call("GET", f"{kind}/{row['id']}").json["updated_at"] == row["updated_at"]


def test_requests_are_counted_by_route_and_status(call: Caller):
    lead_id = call.lead(name="a")
    call("GET", f"leads/{lead_id}")
    call("GET", "leads/5")
    shown = call.control("GET", "requests")
    assert shown["by_route"] == {"GET /api/v4/leads/{id}": 2, "POST /api/v4/leads": 1}
    assert shown["by_status"] == {"200": 2, "204": 1}
    assert (shown["total"], shown["too_many_requests"]) == (3, 0)
    assert [each["at"] for each in shown["log"]] == [1772452800.25] * 3
    call.control("DELETE", "requests")
    assert call.control("GET", "requests")["total"] == 0


def test_changes_name_the_fields_and_both_times(call: Caller):
    lead_id = call.lead(name="a")
    values = [{"field_id": 1100001, "values": [{"value": "x"}]}]
    call("PATCH", f"leads/{lead_id}", {"price": 1, "custom_fields_values": values})
    log = call.control("GET", "changes")
    assert log["changes"][1] == {
        "lead_id": lead_id,
        "entity_type": "leads",
        "kind": "update",
        "changed_at": 1772452800.25,
        "updated_at": 1772452800,
        "by": 11087001,
        "fields": ["price", "cf_1100001"],
    }
    assert call.control("GET", f"changes?since={log['next']}")["changes"] == []


def test_settings_are_read_patched_and_checked(call: Caller):
    shown = call.control("PATCH", "settings", {"latency_seconds": 0.1, "hooks_per_post": 3})
    assert (shown["latency_seconds"], shown["hooks_per_post"]) == (0.1, 3)
    assert call.control("GET", "settings") == shown
    assert call("PATCH", "/_control/settings", {"latency": 1}).status == 400
    assert call("PATCH", "/_control/settings", {"latency_seconds": -1}).status == 400


def test_control_is_neither_limited_nor_authenticated_nor_slowed(call: Caller, clock: TurnedClock):
    call.model.settings.requests_per_second = 1
    call.model.settings.latency_seconds = 5
    call.headers = {}
    before = clock.now()
    for _ in range(20):
        call.control("GET", "settings")
    assert clock.now() == before
    assert call.control("GET", "requests")["total"] == 0


def test_the_whole_account_is_shown_without_a_call_being_counted(call: Caller):
    kept, gone = call.lead(name="kept"), call.lead(name="gone")
    call.control("DELETE", f"leads/{gone}")
    call.control("DELETE", "requests")
    account = call.control("GET", "account")
    assert [each["id"] for each in account["leads"]] == [kept]
    assert account["leads"][0] == call.control("GET", f"leads/{kept}")["lead"]
    assert [each["name"] for each in account["pipelines"]] == ["Sales", "Enterprise"]
    assert len(account["users"]) == 4
    assert call.control("GET", "requests")["total"] == 0
