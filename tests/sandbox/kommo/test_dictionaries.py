"""Pipelines, users, account, tags, linked entities, events and webhook subscriptions."""

from __future__ import annotations

from kommo_airtable_sync.sandbox.kommo.seed import SALES_ID
from tests.sandbox.kommo.conftest import Caller

HOOK = {"destination": "https://example.test/a?token=1", "settings": ["add_lead"]}


def test_every_pipeline_has_unsorted_won_and_lost(call: Caller):
    pipelines = call("GET", "leads/pipelines").rows("pipelines")
    assert [(each["name"], each["is_main"]) for each in pipelines] == [
        ("Sales", True),
        ("Enterprise", False),
    ]
    assert set(call("GET", "leads/pipelines").json) == {"_total_items", "_links", "_embedded"}
    for each in pipelines:
        statuses = each["_embedded"]["statuses"]
        assert [s["type"] for s in statuses] == [1] + [0] * (len(statuses) - 1)
        assert [(s["id"], s["sort"], s["color"], s["is_editable"]) for s in statuses[-2:]] == [
            (142, 10000, "#CCFF66", False),
            (143, 11000, "#D5D8DB", False),
        ]
        assert 4 <= len(statuses) - 3 <= 5


def test_users_need_admin_rights(call: Caller):
    users = call("GET", "users").json
    assert users["_total_items"] == 4
    active = [each["rights"]["is_active"] for each in users["_embedded"]["users"]]
    assert active.count(False) == 1
    call.model.settings.token_is_admin = False
    refused = call("GET", "users")
    assert (refused.status, refused.json["title"]) == (403, "Forbidden")


def test_the_account_tells_its_zone_only_via_with(call: Caller):
    assert "_embedded" not in call("GET", "account").json
    shown = call("GET", "account?with=datetime_settings").json
    assert shown["_embedded"]["datetime_settings"]["timezone"] == "Europe/Berlin"
    assert shown["current_user_id"] == 11087001


def test_loss_reasons_are_listed(call: Caller):
    names = [each["name"] for each in call("GET", "leads/loss_reasons").rows("loss_reasons")]
    assert names == ["Too expensive", "No budget", "Chose a competitor"]


def test_tags_are_listed_per_entity_type(call: Caller):
    assert call("GET", "leads/tags").status == 204
    lead_id = call.lead(tags_to_add=[{"name": "hot"}, {"name": "new"}])
    hot = call("GET", f"leads/{lead_id}").json["_embedded"]["tags"][0]
    assert call("GET", "leads/tags?filter[name]=hot").rows("tags")[0]["id"] == hot["id"]
    assert call("GET", "leads/tags?query=ne").rows("tags")[0]["name"] == "new"
    assert call("GET", "leads/tags?filter[name]=cold").status == 204
    assert call("GET", "contacts/tags").status == 204


def test_links_are_seen_from_both_ends_and_one_contact_is_main(call: Caller):
    made = call("POST", "contacts", [{"name": "A"}, {"name": "B"}]).rows("contacts")
    one, two = (each["id"] for each in made)
    lead_id = call.lead(_embedded={"contacts": [{"id": one, "is_main": True}]})
    call("PATCH", f"leads/{lead_id}", {"_embedded": {"contacts": [{"id": two, "is_main": True}]}})
    shown = call("GET", f"leads/{lead_id}?with=contacts").json["_embedded"]["contacts"]
    assert {each["id"]: each["is_main"] for each in shown} == {one: False, two: True}
    back = call("GET", f"contacts/{one}?with=leads").json["_embedded"]["leads"]
    assert [each["id"] for each in back] == [lead_id]
    call.control("DELETE", f"contacts/{two}")
    left = call("GET", f"leads/{lead_id}?with=contacts").json["_embedded"]["contacts"]
    assert [each["id"] for each in left] == [one]


def test_contacts_and_companies_work_like_leads(call: Caller):
    made = call("POST", "companies", [{"name": "Acme"}]).rows("companies")[0]["id"]
    assert call("PATCH", "companies", [{"id": made, "name": "Acme 2"}]).status == 200
    assert call("GET", f"companies/{made}").json["name"] == "Acme 2"
    assert call("GET", "companies?query=acme").rows("companies")[0]["id"] == made
    assert call("GET", "companies/5").status == 204
    patched = call("POST", "contacts", [{"name": "P"}]).rows("contacts")[0]
    assert (patched["is_deleted"], patched["is_unsorted"]) == (False, False)


def test_events_come_from_the_change_log(call: Caller):
    lead_id = call.lead(name="a")
    call.clock.sleep(5)
    moved = {"status_id": SALES_ID * 10 + 2, "responsible_user_id": 11087002, "price": 5}
    call("PATCH", f"leads/{lead_id}", moved | {"tags_to_add": [{"name": "t"}]})
    call.control("DELETE", f"leads/{lead_id}")
    events = call("GET", "events").rows("events")
    assert {each["type"] for each in events} == {
        "lead_added",
        "lead_status_changed",
        "entity_responsible_changed",
        "sale_field_changed",
        "entity_tag_added",
        "lead_deleted",
    }
    assert all(len(each["id"]) == 26 for each in events)
    (status,) = call("GET", "events?filter[type][]=lead_status_changed").rows("events")
    assert (status["entity_id"], status["created_at"]) == (lead_id, 1772452805)
    query = f"events?filter[entity][]=lead&filter[entity_id][]={lead_id}&filter[created_at][to]=1772452800"
    assert [each["type"] for each in call("GET", query).rows("events")] == ["lead_added"]
    assert call("GET", "events?filter[entity][]=contact").status == 204


def test_at_most_100_events_a_page(call: Caller):
    call("POST", "leads", [{"name": str(n)} for n in range(120)])
    assert len(call("GET", "events?limit=250").rows("events")) == 100


def test_webhooks_are_keyed_by_destination(call: Caller):
    made = call("POST", "webhooks", HOOK)
    assert made.status == 201
    assert made.json.items() >= HOOK.items()
    assert made.json["disabled"] is False
    again = call("POST", "webhooks", HOOK | {"settings": ["update_lead"]})
    assert (again.status, again.json["id"]) == (201, made.json["id"])
    listed = call("GET", "webhooks").json
    assert listed["_total_items"] == 1
    assert listed["_embedded"]["webhooks"][0]["settings"] == ["update_lead"]
    assert call("GET", "webhooks?filter[destination]=x").json["_total_items"] == 0
    body = {"destination": HOOK["destination"]}
    assert call("DELETE", "webhooks", body).status == 204
    assert call("DELETE", "webhooks", body).status == 404


def test_bad_subscriptions_are_refused(call: Caller):
    assert call("POST", "webhooks", {"destination": "https://x"}).status == 400
    assert call("POST", "webhooks", {"destination": 5, "settings": [[]]}).status == 400
    unknown = call("POST", "webhooks", HOOK | {"settings": ["lead_exploded"]})
    assert unknown.json["validation-errors"][0]["errors"][0]["path"] == "settings.0"
    for n in range(100):
        assert call("POST", "webhooks", HOOK | {"destination": f"https://x/{n}"}).status == 201
    assert call("POST", "webhooks", HOOK).status == 422
    call.model.settings.token_is_admin = False
    for method in ("GET", "POST", "DELETE"):
        assert call(method, "webhooks", HOOK).status == 403
