from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.airtable_hooks import (
    CELLS_CHARACTERS_MAX,
    Told,
    parse_automation,
    parse_payloads,
    ping_event,
)
from kommo_airtable_sync.core.webhooks import DEPTH_MAX, ENTITIES_MAX, Unreadable

Json = Any
TABLE, HOOK, US = "tblDeals00000000", "achHook0000000000", "usrSync0000000000"
AT = "2026-03-02T09:00:00.250Z"

ids = st.integers(0, 30).map(lambda n: f"rec{n:014d}")
cells = st.dictionaries(st.sampled_from(["fldA", "fldB", "fldC"]), st.text() | st.none())
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
odd_keys = st.sampled_from([
    "error", "code", "timestamp", "actionMetadata", "source", "sourceMetadata", "user", "id",
    "changedTablesById", TABLE, "createdRecordsById", "changedRecordsById", "destroyedRecordIds",
    "current", "cellValuesByFieldId", "recordId", "changedAt", "fields", "rec00000000000001",
])  # fmt: skip
nearly = st.recursive(
    st.none() | st.booleans() | st.text(max_size=3) | st.just(AT) | ids,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_keys, inner, max_size=5),
    max_leaves=30,
)


def payload(table: Json, source: str = "client", user: str = "usrPerson000000000") -> Json:
    return {
        "timestamp": AT,
        "baseTransactionNumber": 7,
        "payloadFormat": "v0",
        "actionMetadata": {"source": source, "sourceMetadata": {"user": {"id": user}}},
        "changedTablesById": {TABLE: table},
    }


def read(*payloads: Json, first: int = 1, user_id: str = US) -> Told:
    return parse_payloads(payloads, webhook_id=HOOK, first=first, table_id=TABLE, user_id=user_id)


# ------------------------------------------------------------------ automations


def test_an_automation_names_a_record_and_when_it_changed() -> None:
    body = {"recordId": "rec00000000000001", "changedAt": AT, "fields": {"Amount": 5}}
    [event] = parse_automation(json.dumps(body).encode())
    assert (event.key, event.source, event.kind) == (
        "record:rec00000000000001", "airtable", "automation",
    )  # fmt: skip
    assert event.occurred_at == datetime(2026, 3, 2, 9, 0, 0, 250_000, tzinfo=timezone.utc)
    assert event.payload == body
    assert (event.always_read, event.state) == (True, "pending")


@pytest.mark.parametrize(
    "when", [None, 5, "", "soon", "2026-03-02T09:00:00", "0001-01-01T00:00:00+14:00", "\x00"]
)
def test_a_time_that_is_none_is_left_out_and_the_record_read_all_the_same(when: Json) -> None:
    body = {"recordId": "rec00000000000001", "changedAt": when}
    [event] = parse_automation(json.dumps(body).encode())
    assert (event.occurred_at, event.state) == (None, "pending")


def test_a_record_without_an_id_does_not_cost_its_neighbours() -> None:
    items = [{"recordId": "rec1"}, {"recordId": "rec00000000000001"}, 5, {"fields": {}}, None]
    events = parse_automation(json.dumps(items).encode())
    assert [event.state for event in events] == [
        "quarantined", "pending", "quarantined", "quarantined", "quarantined",
    ]  # fmt: skip
    assert [event.payload["entity"] for event in events if event.state != "pending"] == [
        items[0], 5, items[3], None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"recordId=rec1", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[]", "empty list"),
        (b'{"recordId": NaN}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"9" * 5_000, "not JSON"),
        (b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1), "nested more than"),
        (json.dumps([{}] * (ENTITIES_MAX + 1)).encode(), "more than 1000 records"),
    ],
)
def test_what_is_no_automations_body_is_told_why(body: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        parse_automation(body)


@given(st.binary() | (anything | nearly).map(lambda value: json.dumps(value).encode()))
def test_any_body_is_events_or_unreadable(body: bytes) -> None:
    try:
        events = parse_automation(body)
    except Unreadable:
        return
    told = json.loads(body)
    assert len(events) == (len(told) if isinstance(told, list) else 1)
    assert all(event.key or event.state == "quarantined" for event in events)


# ------------------------------------------------------------------ payloads


@given(
    created=st.dictionaries(ids, cells, max_size=4),
    changed=st.dictionaries(ids, cells, max_size=4),
    destroyed=st.lists(ids, unique=True, max_size=4),
)
def test_each_record_of_a_payload_is_one_event_of_what_befell_it(
    created: Json, changed: Json, destroyed: list[str]
) -> None:
    table = {
        "createdRecordsById": {
            key: {"createdTime": AT, "cellValuesByFieldId": value} for key, value in created.items()
        },
        "changedRecordsById": {
            key: {"current": {"cellValuesByFieldId": value}} for key, value in changed.items()
        },
        "destroyedRecordIds": destroyed,
    }
    events = {event.key: event for event in read(payload(table)).events}
    assert events.keys() == {f"record:{key}" for key in [*created, *changed, *destroyed]}
    for record_id in (key.removeprefix("record:") for key in events):
        event = events[f"record:{record_id}"]
        kinds = [
            kind
            for kind, there in (("delete", destroyed), ("create", created), ("update", changed))
            if record_id in there
        ]
        assert event.kind == kinds[0]
        assert event.dedupe_key == f"{HOOK}:1:{record_id}"
        assert event.occurred_at is not None
        shown = {**created.get(record_id, {}), **changed.get(record_id, {})}
        assert event.payload["fields"] == ({} if event.kind == "delete" else shown)


@given(st.lists(nearly | nearly.map(lambda table: payload({"changedRecordsById": table}))))
def test_no_payload_however_odd_stops_the_others_or_is_dropped(odd: list[Json]) -> None:
    good = payload({"destroyedRecordIds": ["rec00000000000099"]})
    told = read(*odd, good, first=40)
    keys = [event.dedupe_key for event in told.events]
    assert len(keys) == len(set(keys))
    assert keys[-1] == f"{HOOK}:{40 + len(odd)}:rec00000000000099"
    for number, each in enumerate(odd, 40):
        mine = [event for event in told.events if event.dedupe_key == f"{HOOK}:{number}"]
        if not isinstance(each, dict | None):
            assert [event.state for event in mine] == ["quarantined"]


def test_changes_of_other_tables_are_passed_over() -> None:
    other = payload({"destroyedRecordIds": ["rec00000000000001"]})
    other["changedTablesById"] = {"tblOther": other["changedTablesById"][TABLE]}
    assert read(other) == Told([], frozenset(), "")


def test_what_an_api_call_of_our_user_did_is_marked_and_nothing_else() -> None:
    record = {"changedRecordsById": {"rec00000000000001": {}}}
    told = read(
        payload(record, "publicApi", US),
        payload(record, "publicApi", "usrOther000000000"),
        payload(record, "client", US),
        payload(record, "automation", ""),
    )
    assert told.own == {f"{HOOK}:1:rec00000000000001"}
    assert len(told.events) == 4
    assert read(payload(record, "publicApi", ""), user_id="").own == frozenset()


@pytest.mark.parametrize("code", ["INVALID_FILTERS", "INVALID_HOOK"])
def test_the_end_of_a_webhook_is_told_and_what_came_before_is_kept(code: str) -> None:
    before = payload({"destroyedRecordIds": ["rec00000000000001"]})
    told = read(before, {"error": True, "code": code, "timestamp": AT})
    assert (told.broken, [event.kind for event in told.events]) == (code, ["delete"])


def test_an_error_that_ends_nothing_is_quarantined() -> None:
    told = read({"error": True, "code": "INTERNAL_ERROR", "timestamp": AT})
    assert told.broken == ""
    [event] = told.events
    assert (event.state, event.key, event.dedupe_key) == ("quarantined", "", f"{HOOK}:1")
    assert "INTERNAL_ERROR" in event.payload["error"]


def test_cells_are_kept_whole_or_named_as_left_out() -> None:
    long = "x" * (CELLS_CHARACTERS_MAX - 100)
    current = {"fldLong": long, "fldLonger": long, "fldShort": "a", "fldNone": None}
    change = {"rec00000000000001": {"current": {"cellValuesByFieldId": current}}}
    [event] = read(payload({"changedRecordsById": change})).events
    assert event.payload["fields"] == {"fldLong": long, "fldShort": "a", "fldNone": None}
    assert event.payload["left_out"] == ["fldLonger"]


def test_a_ping_wakes_its_webhook() -> None:
    event = ping_event(HOOK)
    assert (event.key, event.kind, event.always_read) == (f"webhook:{HOOK}", "ping", True)
