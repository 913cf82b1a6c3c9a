"""GET /leads and GET /leads/{id}: reference 3.1 to 3.3."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.sandbox.kommo.query import Query
from kommo_airtable_sync.sandbox.kommo.seed import ENTERPRISE_ID, SALES_ID, lead_field_id
from tests.sandbox.kommo.conftest import Caller


def ids(reply) -> list[int]:
    return [each["id"] for each in reply.rows()] if reply.status == 200 else []


def test_nothing_found_is_204_with_an_empty_body(call: Caller):
    assert call("GET", "leads")[::2] == (204, b"")
    assert call("GET", "leads/1")[::2] == (204, b"")


def test_a_page_past_the_end_is_204(call: Caller):
    call.lead(name="one")
    assert call("GET", "leads?page=1").status == 200
    assert call("GET", "leads?page=2").status == 204


def test_pages_hang_together_by_next_and_hold_every_lead_once(call: Caller):
    made = [call.lead(name=f"n{n}") for n in range(5)]
    seen, url = [], "/api/v4/leads?limit=2&filter[created_at][from]=0"
    while url:
        reply = call("GET", url)
        assert "_total_items" not in reply.json
        seen += ids(reply)
        following = reply.json["_links"].get("next")
        parts = urlsplit(following["href"]) if following else None
        url = f"{parts.path}?{parts.query}" if parts else ""
    assert seen == made
    assert set(reply.json["_links"]) == {"self", "first", "prev"}


def test_the_default_limit_is_50(call: Caller):
    call.control("POST", "seed", {"count": 51})
    reply = call("GET", "leads")
    assert len(reply.rows()) == 50
    assert reply.json["_links"]["next"]["href"].endswith("?page=2&limit=50")


def test_links_of_listed_leads_repeat_the_query(call: Caller):
    call.lead(name="Anna")
    lead = call("GET", "leads?query=anna&limit=250").rows()[0]
    href = lead["_links"]["self"]["href"]
    assert href == (
        f"https://sandbox.kommo.com/api/v4/leads/{lead['id']}?query=anna&page=1&limit=250"
    )


def test_links_lead_back_to_the_host_that_was_called(call: Caller):
    call.lead(name="Anna")
    lead = call("GET", "leads", Host="127.0.0.1:99").rows()[0]
    assert lead["_links"]["self"]["href"].startswith("http://127.0.0.1:99/api/v4/leads/")


def test_more_than_250_a_page_is_422(call: Caller):
    reply = call("GET", "leads?limit=251")
    assert (reply.status, reply.json["detail"]) == (422, "Limit 250 per page")


def test_a_bare_lead_has_the_documented_keys(call: Caller):
    lead_id = call.lead(name="Anna", price=7)
    lead = call("GET", f"leads/{lead_id}").json
    assert lead == {
        "id": lead_id,
        "name": "Anna",
        "price": 7,
        "responsible_user_id": 11087001,
        "group_id": 0,
        "status_id": SALES_ID * 10 + 1,
        "pipeline_id": SALES_ID,
        "loss_reason_id": None,
        "created_by": 11087001,
        "updated_by": 11087001,
        "created_at": 1772452800,
        "updated_at": 1772452800,
        "closed_at": None,
        "closest_task_at": None,
        "is_deleted": False,
        "custom_fields_values": None,
        "score": None,
        "account_id": 35379952,
        "labor_cost": None,
        "is_price_computed": False,
        "_links": {"self": {"href": f"https://sandbox.kommo.com/api/v4/leads/{lead_id}"}},
        "_embedded": {"tags": [], "companies": []},
    }


def test_contacts_and_loss_reasons_show_only_via_with(call: Caller):
    contact = call("POST", "contacts", [{"name": "C"}]).rows("contacts")[0]["id"]
    company = call("POST", "companies", [{"name": "Co"}]).rows("companies")[0]["id"]
    lead_id = call.lead(
        status_id=143,
        loss_reason_id=19002,
        _embedded={"contacts": [{"id": contact, "is_main": True}], "companies": [{"id": company}]},
    )
    plain = call("GET", f"leads/{lead_id}").json["_embedded"]
    assert set(plain) == {"tags", "companies"}
    assert plain["companies"][0]["id"] == company
    full = call("GET", f"leads/{lead_id}?with=contacts,loss_reason").json
    assert full["_embedded"]["contacts"][0].items() >= {"id": contact, "is_main": True}.items()
    assert full["_embedded"]["loss_reason"][0]["name"] == "No budget"


@pytest.mark.parametrize(
    "form", ["filter[id][]={}&filter[id][]={}", "filter[id][0]={}&filter[id][1]={}"]
)
def test_both_bracket_forms_filter_by_id(call: Caller, form: str):
    one, _, three = (call.lead(name=str(n)) for n in range(3))
    assert ids(call("GET", "leads?" + form.format(one, three))) == [one, three]
    escaped = form.format(one, three).replace("[", "%5B").replace("]", "%5D")
    assert ids(call("GET", "leads?" + escaped)) == [one, three]


def test_time_bounds_are_inclusive_and_a_scalar_is_exact(call: Caller):
    made = []
    for _ in range(3):
        made.append(call.lead(name="x"))
        call.clock.sleep(10)
    start = 1772452800
    between = f"leads?filter[updated_at][from]={start}&filter[updated_at][to]={start + 10}"
    assert ids(call("GET", between)) == made[:2]
    assert ids(call("GET", f"leads?filter[updated_at]={start + 10}")) == [made[1]]
    assert call("GET", f"leads?filter[updated_at]={start + 5}").status == 204


def test_stages_filter_as_pairs(call: Caller):
    sales = call.lead(pipeline_id=SALES_ID, status_id=142)
    enterprise = call.lead(pipeline_id=ENTERPRISE_ID, status_id=142)
    pair = "leads?filter[statuses][0][pipeline_id]={}&filter[statuses][0][status_id]=142"
    assert ids(call("GET", pair.format(SALES_ID))) == [sales]
    assert ids(call("GET", "leads?filter[statuses][0][status_id]=142")) == [sales, enterprise]


def test_the_other_filters(call: Caller):
    region, seats, vip = (lead_field_id(name) for name in ("Region", "Seats", "VIP"))
    rich = call.lead(
        name="Rich",
        price=900,
        responsible_user_id=11087002,
        custom_fields_values=[
            {"field_id": region, "values": [{"value": "UK"}]},
            {"field_id": seats, "values": [{"value": "12"}]},
            {"field_id": vip, "values": [{"value": True}]},
        ],
    )
    call.lead(name="Poor")
    for query in (
        "filter[name][]=Rich",
        "filter[price]=900",
        "filter[price][from]=1&filter[price][to]=900",
        "filter[responsible_user_id][]=11087002",
        f"filter[custom_fields_values][{region}][]={region * 10 + 1}",
        f"filter[custom_fields_values][{seats}][from]=12",
        f"filter[custom_fields_values][{vip}][]=1",
        "query=rich",
    ):
        assert ids(call("GET", f"leads?{query}")) == [rich], query


def test_a_filter_that_is_no_number_is_400(call: Caller):
    assert call("GET", "leads?filter[id][]=abc").status == 400


def test_leads_come_in_the_order_asked_for(call: Caller):
    made = [call.lead(name=str(n)) for n in range(3)]
    call.clock.sleep(5)
    call("PATCH", f"leads/{made[0]}", {"price": 1})
    assert ids(call("GET", "leads?order[updated_at]=asc")) == [made[1], made[2], made[0]]
    assert ids(call("GET", "leads?order[id]=desc")) == made[::-1]
    assert ids(call("GET", "leads")) == made


def test_deleted_leads_show_only_in_the_trash_and_null_filled(call: Caller):
    lead_id = call.lead(name="Gone", price=5)
    call.clock.sleep(3)
    call.control("DELETE", f"leads/{lead_id}")
    assert call("GET", f"leads/{lead_id}").status == 204
    assert call("GET", "leads").status == 204
    trashed = call("GET", "leads?with=only_deleted").rows()[0]
    assert (trashed["id"], trashed["is_deleted"], trashed["updated_at"]) == (
        lead_id,
        True,
        1772452803,
    )
    for key in ("name", "price", "created_at", "pipeline_id", "custom_fields_values"):
        assert trashed[key] is None


def test_leads_cannot_be_deleted_by_api(call: Caller):
    reply = call("DELETE", f"leads/{call.lead(name='x')}")
    assert (reply.status, reply.json["title"]) == (405, "Method Not Allowed")
    assert reply.headers["content-type"] == "application/problem+json"


def test_an_unknown_path_is_404(call: Caller):
    reply = call("GET", "example")
    assert (reply.status, reply.json["detail"]) == (
        404,
        "Cannot GET https://sandbox.kommo.com/api/v4/example",
    )


@given(st.lists(st.integers(0, 10**9), max_size=5), st.booleans())
def test_every_filter_value_is_read_back(numbers: list[int], indexed: bool):
    raw = "&".join(f"filter[id][{n if indexed else ''}]={v}" for n, v in enumerate(numbers))
    assert Query(raw).numbers("filter", "id") == set(numbers)
