"""POST and PATCH /leads: reference 3.4 to 3.6."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kommo_airtable_sync.sandbox.kommo.seed import ENTERPRISE_ID, SALES_ID
from tests.sandbox.kommo.conftest import Caller


def error(reply) -> tuple[str, str, str]:
    assert reply.status == 400, reply.body
    item = reply.json["validation-errors"][0]
    assert reply.json["detail"] == "Request validation failed"
    return item["request_id"], item["errors"][0]["code"], item["errors"][0]["path"]


def test_post_answers_ids_and_request_ids(call: Caller):
    reply = call("POST", "leads", [{"name": "a", "request_id": "mine"}, {"name": "b"}])
    assert [each["request_id"] for each in reply.rows()] == ["mine", "1"]
    assert set(reply.rows()[0]) == {"id", "request_id", "_links"}
    assert reply.headers["content-type"] == "application/hal+json"


def test_batch_patch_is_wrapped_and_single_patch_bare(call: Caller):
    lead_id = call.lead(name="a")
    batch = call("PATCH", "leads", [{"id": lead_id, "price": 1}])
    assert batch.rows()[0].items() >= {"id": lead_id, "updated_at": 1772452800}.items()
    single = call("PATCH", f"leads/{lead_id}", {"price": 2}).json
    assert (single["id"], single["updated_at"]) == (lead_id, 1772452800)


def test_only_what_is_sent_changes(call: Caller):
    lead_id = call.lead(name="a", price=5, tags_to_add=[{"name": "t"}])
    call("PATCH", f"leads/{lead_id}", {"price": 6})
    lead = call("GET", f"leads/{lead_id}").json
    assert (lead["name"], lead["price"]) == ("a", 6)
    assert [tag["name"] for tag in lead["_embedded"]["tags"]] == ["t"]


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense"])
def test_an_empty_body_is_400(call: Caller, body: bytes):
    assert call("POST", "leads", body).json["detail"] == "Request data can not be empty"


def test_the_wrong_kind_of_body_is_400(call: Caller):
    lead_id = call.lead(name="a")
    assert error(call("POST", "leads", {"name": "b"}))[1] == "InvalidType"
    assert error(call("PATCH", f"leads/{lead_id}", [{"price": 1}]))[1] == "InvalidType"
    assert error(call("PATCH", "leads", {"id": lead_id, "price": 1}))[1] == "InvalidType"
    assert call("GET", f"leads/{lead_id}").json["price"] == 0


def test_more_than_250_items_is_422(call: Caller):
    assert call("POST", "leads", [{"name": "x"}] * 251).status == 422
    assert call("POST", "leads", [{"name": "x"}] * 250).status == 200


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"colour": 1}, "FieldNotExpected", "colour"),
    ({"price": "5"}, "InvalidType", "price"),
    ({"price": True}, "InvalidType", "price"),
    ({"price": 10.5}, "InvalidType", "price"),
    ({"name": None}, "InvalidType", "name"),
    ({"pipeline_id": 1}, "NotSupportedChoice", "pipeline_id"),
    ({"status_id": 1}, "NotSupportedChoice", "status_id"),
    ({"pipeline_id": SALES_ID, "status_id": ENTERPRISE_ID * 10 + 1}, "NotSupportedChoice", "status_id"),
    ({"created_by": 11087004}, "NotSupportedChoice", "created_by"),
    ({"updated_by": 5}, "NotSupportedChoice", "updated_by"),
    ({"responsible_user_id": 0}, "NotSupportedChoice", "responsible_user_id"),
    ({"loss_reason_id": 5}, "NotSupportedChoice", "loss_reason_id"),
    ({"custom_fields_values": 5}, "InvalidType", "custom_fields_values"),
    ({"custom_fields_values": [{"field_id": 5, "values": []}]}, "NotSupportedChoice", "custom_fields_values.0.field_id"),
    ({"custom_fields_values": [{"field_id": 1100001}]}, "FieldMissing", "custom_fields_values.0.values"),
    ({"custom_fields_values": [5]}, "InvalidType", "custom_fields_values.0"),
    ({"custom_fields_values": [{"field_id": 1100001, "values": 5}]}, "InvalidType", "custom_fields_values.0.values"),
    ({"custom_fields_values": [{"field_id": 1100002, "values": [{}]}]}, "InvalidType", "custom_fields_values.0.values.0.value"),
    ({"custom_fields_values": [{"field_id": 1100004, "values": [{"value": 1.5}]}]}, "InvalidType", "custom_fields_values.0.values.0.value"),
    ({"custom_fields_values": [{"field_id": 1100001, "value": "x", "values": None}]}, "FieldNotExpected", "custom_fields_values.0.value"),
    ({"custom_fields_values": [{"field_id": 1100003, "values": [{"value": "1e999999"}]}]}, "InvalidType", "custom_fields_values.0.values.0.value"),
    ({"custom_fields_values": [{"field_id": 1100004, "values": [{"value": 10**30}]}]}, "InvalidType", "custom_fields_values.0.values.0.value"),
    ({"tags_to_add": [{"id": []}]}, "InvalidType", "tags_to_add.0.id"),
    ({"tags_to_delete": [{"name": 5}]}, "InvalidType", "tags_to_delete.0.name"),
    ({"_embedded": 5}, "InvalidType", "_embedded"),
    ({"_embedded": {"contacts": [{"id": []}]}}, "InvalidType", "_embedded.contacts.0.id"),
    ({"tags_to_add": 5}, "InvalidType", "tags_to_add"),
    ({"_embedded": {"tags": [{"name": "t", "request_id": "0"}]}}, "FieldNotExpected", "_embedded.tags.0.request_id"),
    ({"_embedded": {"contacts": [{"id": 5}]}}, "NotSupportedChoice", "_embedded.contacts.0.id"),
]  # fmt: skip


@pytest.mark.parametrize(("item", "code", "path"), REFUSED)
def test_a_bad_item_refuses_the_whole_batch(
    call: Caller, item: dict[str, Any], code: str, path: str
):
    good, bad = call.lead(name="good"), call.lead(name="bad")
    reply = call("PATCH", "leads", [{"id": good, "price": 9}, {"id": bad, **item}])
    assert error(reply) == ("1", code, path)
    assert call("GET", f"leads/{good}").json["price"] == 0


def test_a_lead_that_is_gone_refuses_the_batch_or_is_left_out(call: Caller):
    lead_id = call.lead(name="a")
    body = [{"id": 5, "price": 1}, {"id": lead_id, "price": 1}]
    assert error(call("PATCH", "leads", body)) == ("0", "NotSupportedChoice", "id")
    call.model.settings.patch_missing = "skip"
    assert [each["id"] for each in call("PATCH", "leads", body).rows()] == [lead_id]
    assert call("PATCH", "leads/5", {"price": 1}).status == 404


def test_decimal_prices_by_switch(call: Caller):
    assert call("POST", "leads", [{"price": 10.5}]).status == 400
    call.model.settings.decimal_price = True
    assert call("GET", f"leads/{call.lead(price=10.5)}").json["price_with_minor_units"] == 10.5


def test_a_pipeline_alone_means_its_first_stage(call: Caller):
    lead_id = call.lead(name="a")
    call("PATCH", f"leads/{lead_id}", {"pipeline_id": ENTERPRISE_ID})
    lead = call("GET", f"leads/{lead_id}").json
    assert (lead["pipeline_id"], lead["status_id"]) == (ENTERPRISE_ID, ENTERPRISE_ID * 10 + 1)


def test_closing_stamps_closed_at_and_reopening_clears_it(call: Caller):
    lead_id = call.lead(name="a")
    call("PATCH", f"leads/{lead_id}", {"status_id": 143, "loss_reason_id": 19001})
    lead = call("GET", f"leads/{lead_id}").json
    assert (lead["closed_at"], lead["loss_reason_id"]) == (1772452800, 19001)
    call("PATCH", f"leads/{lead_id}", {"loss_reason_id": None})
    assert call("GET", f"leads/{lead_id}").json["loss_reason_id"] is None
    call("PATCH", f"leads/{lead_id}", {"status_id": SALES_ID * 10 + 2})
    lead = call("GET", f"leads/{lead_id}").json
    assert (lead["closed_at"], lead["loss_reason_id"]) == (None, None)


def test_updated_by_is_the_token_user_or_as_sent_and_0_is_the_robot(call: Caller):
    lead_id = call.lead(name="a")
    for sent, kept in ((0, 0), (11087002, 11087002)):
        call("PATCH", f"leads/{lead_id}", {"price": kept % 7 + 1, "updated_by": sent})
        assert call("GET", f"leads/{lead_id}").json["updated_by"] == kept
    call("PATCH", f"leads/{lead_id}", {"price": 99})
    assert call("GET", f"leads/{lead_id}").json["updated_by"] == 11087001


def test_several_writes_share_one_second(call: Caller):
    lead_id = call.lead(name="a")
    stamps = set()
    for price in range(1, 4):
        call.clock.sleep(0.2)
        stamps.add(call("PATCH", f"leads/{lead_id}", {"price": price}).json["updated_at"])
    assert stamps == {1772452800}


def test_a_write_that_changes_nothing_touches_nothing_unless_switched(call: Caller):
    lead_id = call.lead(name="a", price=1)
    call.clock.sleep(5)
    assert call("PATCH", f"leads/{lead_id}", {"price": 1}).json["updated_at"] == 1772452800
    call.model.settings.noop_touches = True
    assert call("PATCH", f"leads/{lead_id}", {"price": 1}).json["updated_at"] == 1772452805


def tags(call: Caller, lead_id: int) -> list[str]:
    return [each["name"] for each in call("GET", f"leads/{lead_id}").json["_embedded"]["tags"]]


def test_tags_add_delete_replace_and_clear(call: Caller):
    lead_id = call.lead(tags_to_add=[{"name": "a"}, {"name": "b"}])
    known = call("GET", f"leads/{lead_id}").json["_embedded"]["tags"][0]["id"]
    steps = [
        ({"tags_to_add": [{"name": "c"}, {"name": "a"}]}, ["a", "b", "c"]),
        ({"tags_to_delete": [{"name": "b"}]}, ["a", "c"]),
        ({"tags_to_delete": [{"id": known}]}, ["c"]),
        ({"_embedded": {"tags": [{"id": known}, {"name": "x"}]}, "tags_to_add": [{"name": "y"}]}, ["a", "x"]),
        ({"price": 1}, ["a", "x"]),
        ({"_embedded": {"tags": None}}, []),
    ]  # fmt: skip
    for body, expected in steps:
        assert call("PATCH", f"leads/{lead_id}", body).status == 200
        assert tags(call, lead_id) == expected


def test_whether_tags_alone_move_updated_at_is_a_switch(call: Caller):
    lead_id = call.lead(name="a")
    call.clock.sleep(5)
    call.model.settings.tags_touch = False
    call("PATCH", f"leads/{lead_id}", {"tags_to_add": [{"name": "t"}]})
    assert call("GET", f"leads/{lead_id}").json["updated_at"] == 1772452800
    assert tags(call, lead_id) == ["t"]
    call.model.settings.tags_touch = True
    call("PATCH", f"leads/{lead_id}", {"tags_to_add": [{"name": "u"}]})
    assert call("GET", f"leads/{lead_id}").json["updated_at"] == 1772452805


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["id", "name", "tags", "contacts", "value", "enum_id", "is_main", "x"]),
            inner,
            max_size=2,
        )
    ),
    max_leaves=5,
)
FIELD = st.fixed_dictionaries(
    {
        "field_id": st.integers(1100001, 1100011) | ANYTHING,
        "values": st.lists(st.fixed_dictionaries({"value": ANYTHING}), max_size=2) | ANYTHING,
    }
)
ITEM = st.dictionaries(
    st.sampled_from(["name", "price", "status_id", "created_by", "closed_at", "loss_reason_id", "tags_to_add", "_embedded", "request_id", "x"]),
    ANYTHING,
    max_size=3,
) | st.fixed_dictionaries({"custom_fields_values": st.lists(FIELD, max_size=2) | ANYTHING})  # fmt: skip


@given(st.lists(ITEM, min_size=1, max_size=2))
@settings(
    max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_any_json_is_taken_or_refused_and_a_refusal_stores_nothing(call: Caller, items: list[Any]):
    before = call.model.state.version, len(call.model.state.rows["leads"])
    reply = call("POST", "leads", items)
    assert reply.status in (200, 400)
    if reply.status == 400:
        assert (call.model.state.version, len(call.model.state.rows["leads"])) == before
    elif call("GET", "leads?limit=250").status == 200:
        call("GET", "events")


def test_a_token_without_the_right_sees_no_lead_and_changes_none(call: Caller):
    lead_id = call.lead(name="a")
    call.model.settings.token_sees_leads = False
    for path in ("leads", f"leads/{lead_id}", f"leads?filter[id][]={lead_id}", "leads?with=only_deleted"):  # fmt: skip
        assert call("GET", path).status == 204
    assert call("PATCH", "leads", [{"id": lead_id, "name": "b"}]).status == 400
    assert call("GET", "leads/pipelines").status == 200
    call.model.settings.token_sees_leads = True
    assert call("GET", f"leads/{lead_id}").json["name"] == "a"


def test_prices_may_be_kept_rounded(call: Caller):
    lead_id = call.lead(name="a")
    call.control("PATCH", "settings", {"price_rounding": {"step": 10, "plus": 5}})
    call("PATCH", "leads", [{"id": lead_id, "price": 14}])
    assert call("GET", f"leads/{lead_id}").json["price"] == 15
    call("PATCH", "leads", [{"id": lead_id, "name": "b"}])
    assert call("GET", f"leads/{lead_id}").json["price"] == 15


def test_a_robot_may_round_prices_by_an_edit_that_is_told_of_like_any_other(call: Caller):
    lead_id = call.lead(name="a", price=3)
    call.control("PATCH", "settings", {"price_rounding": {"step": 10, "plus": 5, "robot": True}})
    before = len(call.model.state.changes)
    call("PATCH", "leads", [{"id": lead_id, "price": 14}])
    made = [(each["by"], each["fields"]) for each in call.model.state.changes[before:]]
    assert made == [(11087001, ["price"]), (0, ["price"])]
    assert call("GET", f"leads/{lead_id}").json["price"] == 15
    call("PATCH", "leads", [{"id": lead_id, "name": "b"}])
    assert len(call.model.state.changes) == before + 3
