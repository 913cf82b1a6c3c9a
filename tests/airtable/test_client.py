from __future__ import annotations

import json
import traceback
from datetime import datetime, timedelta, timezone

import pytest

from kommo_airtable_sync.airtable.client import AirtableClient, UpsertAnswer
from kommo_airtable_sync.airtable.errors import OffsetExpired
from kommo_airtable_sync.core.errors import BatchRefused, ConfigurationError, SideUnavailable
from tests.kommo.loopback import CountingBudget, Loopback, Reply, Seen, refused_url, silent_url

TOKEN = "patSecret.0123456789"
BASE, TABLE, KEY, NAME = "appAAAAAAAAAAAAAA", "tblBBBBBBBBBBBBBB", "fldKEY", "fldNAME"
NOW = datetime(2026, 3, 2, 9, 0, tzinfo=timezone.utc)


class FixedClock:
    def now(self) -> datetime:
        return NOW

    def sleep(self, seconds: float) -> None:
        raise AssertionError("the client never pauses")


@pytest.fixture
def airtable():
    server = Loopback()
    yield server
    server.close()


@pytest.fixture
def budget():
    return CountingBudget()


def client_for(url: str, budget: CountingBudget, **options) -> AirtableClient:
    return AirtableClient(TOKEN, BASE, url, budget, FixedClock(), **options)


@pytest.fixture
def client(airtable, budget):
    return client_for(airtable.url, budget)


def record(record_id: str, **fields) -> dict:
    return {"id": record_id, "createdTime": "2026-03-02T09:00:00.000Z", "fields": fields}


def refusal(status: int, code: str, message: str = "No") -> Reply:
    return Reply(status, {"error": {"type": code, "message": message}})


def test_tables_are_the_raw_schema(airtable, client):
    airtable.script.append(Reply(200, {"tables": [{"id": TABLE, "fields": []}]}))
    assert client.tables() == [{"id": TABLE, "fields": []}]
    [seen] = airtable.seen
    assert seen.path == f"/v0/meta/bases/{BASE}/tables"
    assert seen.headers["authorization"] == f"Bearer {TOKEN}"


def test_known_and_unknown_records_go_in_one_patch(airtable, client, budget):
    def store(seen: Seen) -> Reply:
        assert budget.open == 1
        answer = {"records": [record("recOLD"), record("recNEW")], "createdRecords": ["recNEW"]}
        return Reply(200, {**answer, "updatedRecords": ["recOLD"]})

    airtable.script.append(store)
    answer = client.upsert(TABLE, KEY, [("recOLD", {NAME: "a"}), (None, {KEY: 7, NAME: "b"})])

    assert [item["id"] for item in answer.records] == ["recOLD", "recNEW"]
    assert answer.created_ids == {"recNEW"}
    [seen] = airtable.seen
    assert (seen.method, seen.path) == ("PATCH", f"/v0/{BASE}/{TABLE}")
    assert seen.body == {
        "performUpsert": {"fieldsToMergeOn": [KEY]},
        "records": [
            {"id": "recOLD", "fields": {NAME: "a"}},
            {"fields": {KEY: 7, NAME: "b"}},
        ],
        "typecast": False,
        "returnFieldsByFieldId": True,
    }
    assert budget.slots == 1


def test_rows_that_are_all_known_are_a_plain_update(airtable, client):
    airtable.script.append(Reply(200, {"records": [record("rec1")]}))
    answer = client.upsert(TABLE, KEY, [("rec1", {NAME: None})], typecast=True)
    assert answer.created_ids == frozenset()
    assert "performUpsert" not in airtable.seen[0].body
    assert airtable.seen[0].body["typecast"] is True


def test_no_rows_make_no_call(airtable, client):
    assert client.upsert(TABLE, KEY, []) == UpsertAnswer([], frozenset())
    assert client.find_records(TABLE, [], KEY, []) == []
    client.delete_records(TABLE, [])
    assert airtable.seen == []


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([(None, {KEY: n}) for n in range(11)], "takes 10"),
        ([(None, {KEY: 1}), (None, {KEY: 1})], "same key"),
        ([(None, {KEY: 1}), (None, {KEY: "1"})], "same key"),
        ([("rec1", {KEY: 1}), (None, {KEY: 1})], "same key"),
        ([("rec1", {NAME: "a"}), ("rec1", {NAME: "b"})], "same key or record"),
        ([(None, {NAME: "a"})], "neither"),
        ([(None, {KEY: None})], "neither"),
        ([(None, {KEY: ""})], "neither"),
        ([(None, {KEY: 1, NAME: float("inf")})], "JSON compliant"),
    ],
)
def test_what_airtable_leaves_undefined_is_refused_before_it_is_sent(
    airtable, client, rows, reason
):
    with pytest.raises(ValueError, match=reason):
        client.upsert(TABLE, KEY, rows)
    assert airtable.seen == []


@pytest.mark.parametrize(
    "records", [[], [record("rec1"), record("rec3")], [record("rec2"), record("rec1")], None]
)
def test_an_answer_about_other_records_is_not_believed(airtable, client, records):
    airtable.script.append(Reply(200, {"records": records}))
    with pytest.raises(SideUnavailable, match="server_error"):
        client.upsert(TABLE, KEY, [("rec1", {NAME: "a"}), ("rec2", {NAME: "b"})])


def test_records_are_found_by_key_duplicates_included(airtable, client):
    found = [record("rec1", fldKEY=7), record("rec2", fldKEY=7)]
    airtable.script.append(Reply(200, {"records": found}))
    assert client.find_records(TABLE, [], KEY, [7, 8]) == found
    [seen] = airtable.seen
    assert (seen.method, seen.path) == ("GET", f"/v0/{BASE}/{TABLE}")
    assert dict(seen.query) == {
        "filterByFormula": "OR({fldKEY}=7, {fldKEY}=8)",
        "pageSize": "100",
        "returnFieldsByFieldId": "1",
    }


def test_a_text_key_is_quoted(airtable, client):
    airtable.script.append(Reply(200, {"records": []}))
    client.find_records(TABLE, [], KEY, ["7", "it's"])
    assert dict(airtable.seen[0].query)["filterByFormula"] == (
        r"OR({fldKEY}='7', {fldKEY}='it\'s')"
    )


def test_a_formula_too_long_for_an_address_goes_in_a_body(airtable, client):
    airtable.script.append(Reply(200, {"records": [], "offset": "itrX/recX"}))
    airtable.script.append(Reply(200, {"records": []}))
    client.find_records(TABLE, [], KEY, [10**12 + n for n in range(900)])
    first, second = airtable.seen
    assert (first.method, first.path) == ("POST", f"/v0/{BASE}/{TABLE}/listRecords")
    assert first.body["filterByFormula"].startswith("OR({fldKEY}=1000000000000,")
    assert first.body["returnFieldsByFieldId"] is True
    assert second.body["offset"] == "itrX/recX"


def test_records_are_found_by_their_ids_in_this_table_only(airtable, client):
    airtable.script.append(Reply(200, {"records": [record("rec1")]}))
    assert client.find_records(TABLE, ["rec1", "rec2"], KEY, [7]) == [record("rec1")]
    assert dict(airtable.seen[0].query)["filterByFormula"] == (
        "OR(RECORD_ID()='rec1', RECORD_ID()='rec2', {fldKEY}=7)"
    )


FORMULA_REFUSED = refusal(422, "INVALID_FILTER_BY_FORMULA")


def test_where_the_formula_is_refused_all_are_read_and_picked_from(airtable, client):
    rows = [record("recA", fldKEY=7), record("recB", fldKEY=8), record("recC"), record("recD")]
    airtable.script += [
        FORMULA_REFUSED,
        Reply(200, {"records": rows[:2], "offset": "itr/rec"}),
        Reply(200, {"records": rows[2:]}),
    ]
    assert client.find_records(TABLE, ["recC"], KEY, [7]) == [rows[0], rows[2]]
    assert ["filterByFormula" in dict(seen.query) for seen in airtable.seen] == [True, False, False]


def test_where_the_time_formula_is_refused_all_records_come(airtable, client):
    airtable.script += [FORMULA_REFUSED, Reply(200, {"records": [record("recA")]})]
    pages = client.changed_record_pages(TABLE, [NAME], "fldMODIFIED", NOW)
    assert list(pages) == [[record("recA")]]
    assert [("fields[]", NAME) in seen.query for seen in airtable.seen] == [True, True]


def test_any_other_refusal_of_a_search_is_one(airtable, client):
    airtable.script.append(refusal(422, "INVALID_REQUEST_UNKNOWN"))
    with pytest.raises(BatchRefused):
        client.find_records(TABLE, [], KEY, [7])


def test_up_to_ten_records_are_deleted_in_one_call(airtable, client):
    airtable.script.append(Reply(200, {"records": [{"id": "rec1", "deleted": True}]}))
    client.delete_records(TABLE, ["rec1", "rec2"])
    [seen] = airtable.seen
    assert (seen.method, seen.path) == ("DELETE", f"/v0/{BASE}/{TABLE}")
    assert [value for name, value in seen.query if name == "records[]"] == ["rec1", "rec2"]
    with pytest.raises(ValueError, match="takes 10"):
        client.delete_records(TABLE, [f"rec{n}" for n in range(11)])


def test_pages_follow_the_offset_each_in_a_slot_of_its_own(airtable, client, budget):
    airtable.script.append(Reply(200, {"records": [record("rec1")], "offset": "itrX/rec1"}))
    airtable.script.append(Reply(200, {"records": [record("rec2")]}))
    pages = client.record_pages(TABLE, [KEY, NAME])

    assert next(pages) == [record("rec1")]
    assert budget.open == 0  # the caller may take its time between pages
    assert list(pages) == [[record("rec2")]]
    assert sorted(airtable.seen[0].query) == [
        ("fields[]", KEY),
        ("fields[]", NAME),
        ("pageSize", "100"),
        ("returnFieldsByFieldId", "1"),
    ]
    assert dict(airtable.seen[1].query)["offset"] == "itrX/rec1"
    assert budget.slots == 2


def test_an_expired_offset_is_told_apart(airtable, client):
    airtable.script.append(Reply(200, {"records": [], "offset": "itrX/rec1"}))
    airtable.script.append(Reply(422, {"error": {"type": "LIST_RECORDS_ITERATOR_NOT_AVAILABLE"}}))
    with pytest.raises(OffsetExpired):
        list(client.record_pages(TABLE, [KEY]))


def test_a_page_that_gives_itself_as_the_next_does_not_go_on_for_ever(airtable, client):
    airtable.script.extend([Reply(200, {"records": [], "offset": "same"})] * 2)
    with pytest.raises(SideUnavailable, match="same page"):
        list(client.record_pages(TABLE, []))


@pytest.mark.parametrize("body", [{}, [], b"", b"<html>", {"records": {}}])
def test_an_answer_without_its_list_is_not_an_empty_list(airtable, client, body):
    airtable.script.append(Reply(200, body))
    with pytest.raises(SideUnavailable, match="server_error"):
        list(client.record_pages(TABLE, []))


def test_a_rate_429_pauses_the_shared_budget_and_is_not_retried(airtable, client, budget):
    body = {"errors": [{"error": "RATE_LIMIT_REACHED", "message": "Rate limit exceeded"}]}
    airtable.script.append(Reply(429, body))
    with pytest.raises(SideUnavailable, match=r"rate_limited.*Rate limit exceeded"):
        client.upsert(TABLE, KEY, [(None, {KEY: 1})])
    assert budget.throttles == [30.0]
    assert len(airtable.seen) == 1
    assert budget.open == 0


def test_an_exhausted_quota_is_not_a_throttle(airtable, client, budget):
    body = {"errors": [{"error": "PUBLIC_API_BILLING_LIMIT_EXCEEDED", "message": "Month"}]}
    airtable.script.append(Reply(429, body))
    with pytest.raises(SideUnavailable) as caught:
        client.tables()
    assert caught.value.reason == "quota"
    assert budget.throttles == []


def test_a_refused_batch_keeps_the_code_and_the_message(airtable, client):
    airtable.script.append(refusal(422, "INVALID_VALUE_FOR_COLUMN", 'Field "X" cannot'))
    with pytest.raises(BatchRefused) as caught:
        client.upsert(TABLE, KEY, [(None, {KEY: 1})])
    assert (caught.value.code, caught.value.detail) == (
        "INVALID_VALUE_FOR_COLUMN",
        'Field "X" cannot',
    )


@pytest.mark.parametrize("body", [5, "text", ["error"], None])
def test_an_error_of_no_known_shape_is_still_an_error(airtable, client, body):
    airtable.script.append(Reply(500, body))
    with pytest.raises(SideUnavailable, match="server_error"):
        client.tables()


def test_a_redirect_is_not_followed(airtable, client):
    airtable.script.append(Reply(302, None, {"Location": "https://elsewhere.example/"}))
    with pytest.raises(ConfigurationError, match="AIRTABLE_ENDPOINT_URL"):
        client.tables()
    assert len(airtable.seen) == 1


@pytest.mark.parametrize("how", ["drop", "cut"])
def test_a_get_whose_connection_broke_off_is_tried_once_more(airtable, client, budget, how):
    airtable.script.append(Reply(200, {"tables": []}, how=how))
    airtable.script.append(Reply(200, {"tables": []}))
    assert client.tables() == []
    assert budget.slots == len(airtable.seen) == 2


def test_a_get_is_not_tried_a_third_time(airtable, client):
    airtable.script.extend([Reply(how="drop")] * 3)
    with pytest.raises(SideUnavailable, match="unreachable"):
        client.tables()
    assert len(airtable.seen) == 2


def test_a_write_whose_connection_broke_off_is_never_repeated(airtable, client):
    airtable.script.append(Reply(how="drop"))
    with pytest.raises(SideUnavailable) as caught:
        client.upsert(TABLE, KEY, [(None, {KEY: 1})])
    assert (caught.value.reason, caught.value.sent) == ("unreachable", True)
    assert len(airtable.seen) == 1


def test_a_write_that_hangs_is_a_timeout_and_may_have_got_there(airtable, budget):
    airtable.script.append(Reply(how="hang"))
    client = client_for(airtable.url, budget, timeout=(1.0, 0.2))
    with pytest.raises(SideUnavailable) as caught:
        client.upsert(TABLE, KEY, [(None, {KEY: 1})])
    assert (caught.value.reason, caught.value.sent) == ("timeout", True)
    assert len(airtable.seen) == 1


def test_a_refused_connection_proves_that_nothing_was_sent(budget):
    with pytest.raises(SideUnavailable) as caught:
        client_for(refused_url(), budget).upsert(TABLE, KEY, [(None, {KEY: 1})])
    assert (caught.value.reason, caught.value.sent) == ("unreachable", False)


def test_a_connection_that_never_comes_about_proves_it_too(budget):
    with silent_url() as url, pytest.raises(SideUnavailable) as caught:
        client_for(url, budget, timeout=(0.2, 1.0)).upsert(TABLE, KEY, [(None, {KEY: 1})])
    assert (caught.value.reason, caught.value.sent) == ("timeout", False)


def test_an_address_that_is_none_is_a_matter_of_configuration(budget):
    with pytest.raises(ConfigurationError, match="AIRTABLE_ENDPOINT_URL"):
        client_for("api.airtable.com", budget).tables()


@pytest.mark.parametrize("token", ["", "line\nbreak", "two words", "tökén"])
def test_a_token_that_http_cannot_carry_is_named_but_not_shown(budget, token):
    with pytest.raises(ConfigurationError, match="AIRTABLE_TOKEN") as caught:
        AirtableClient(token, BASE, "http://127.0.0.1:1", budget, FixedClock())
    assert not token or token not in str(caught.value)


def test_netrc_does_not_replace_the_token(airtable, client, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    airtable.script.append(Reply(200, {"tables": []}))
    client.tables()
    assert airtable.seen[0].headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(how="drop"),
        Reply(how="hang"),
        Reply(500, json.dumps({"error": {"type": TOKEN, "message": f"Bearer {TOKEN}"}}).encode()),
        Reply(422, {"error": {"type": "X", "message": f"no {TOKEN}"}}),
        Reply(200, b"<html>"),
    ],
)
def test_the_token_is_in_no_error_and_no_repr(airtable, budget, reply):
    client = client_for(airtable.url, budget, timeout=(1.0, 0.2))
    airtable.script.extend([reply] * 2)
    with pytest.raises((SideUnavailable, BatchRefused)) as caught:
        client.tables()
    error = caught.value
    assert error.__context__ is None  # requests' own error holds the request, and so the header
    assert TOKEN not in "".join(traceback.format_exception(error)) + repr(error) + repr(client)


def test_the_difference_of_the_clocks_is_known_after_an_answer(airtable, client):
    behind = (NOW - timedelta(seconds=90)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    airtable.script.append(Reply(200, {"tables": []}, {"Date": behind}))
    client.tables()
    assert client.server_ahead_seconds == -90
