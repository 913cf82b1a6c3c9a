"""Webhooks as nobody sends them: events or `Unreadable`, and from the receiver never a 500."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.airtable_hooks import parse_automation, parse_payloads
from kommo_airtable_sync.core.types import IncomingEvent
from kommo_airtable_sync.core.webhooks import Unreadable, parse_kommo
from tests.receiver.fakes import BEARER, SECRET, FakeInbox, app_for

FORM, JSON = "application/x-www-form-urlencoded", "application/json"
SAMPLES = [
    path.read_bytes()
    for path in sorted((Path(__file__).parents[1] / "data" / "webhook-samples").glob("*.form"))
]
STATES = {"pending", "quarantined", "ignored"}
RECORD = "rec00000000000001"
parts = st.sampled_from(
    [b"leads", b"contacts", b"[update]", b"[0]", b"[id]", b"[]", b"[note]", b"%5B", b"%00", b"&",
     b"=", b"7", b"%ff", b"+", b";", b"[" * 40, b"[a]" * 20, b"9" * 30, "\u0663".encode()]
)  # fmt: skip
forms = st.lists(parts, max_size=30).map(b"".join) | st.binary(max_size=200)
names = st.sampled_from(
    ["recordId", "changedAt", "fields", "timestamp", "changedTablesById", "tbl1", RECORD,
     "createdRecordsById", "changedRecordsById", "destroyedRecordIds", "current", "previous",
     "cellValuesByFieldId", "actionMetadata", "source", "sourceMetadata", "user", "id", "error",
     "code"]
)  # fmt: skip
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=10)
    | st.sampled_from([RECORD, "2026-01-01T00:00:00Z", "0000-00-00", 10**400, "\ud800", "\0"])
)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5),
    max_leaves=15,
)


def tell(events: list[IncomingEvent]) -> None:
    assert all(event.state in STATES for event in events)
    json.dumps([event.payload for event in events])


def cut(sample: bytes, start: int, length: int, piece: bytes) -> bytes:
    start %= len(sample)
    return sample[:start] + piece + sample[start + length :]


mutated = st.builds(
    cut, st.sampled_from(SAMPLES), st.integers(0, 10_000), st.integers(0, 30), st.binary(max_size=9)
)


@given(forms | mutated, st.booleans())
def test_any_form(body: bytes, links: bool) -> None:
    try:
        tell(parse_kommo(body, links=links))
    except Unreadable:
        return


@given(st.binary(max_size=100) | trees.map(lambda tree: json.dumps(tree).encode()))
def test_any_body_of_an_automation(body: bytes) -> None:
    try:
        tell(parse_automation(body))
    except Unreadable:
        return


@given(st.lists(trees, max_size=4))
def test_any_payloads(payloads: list[Any]) -> None:
    told = parse_payloads(payloads, webhook_id="ach1", first=1, table_id="tbl1", user_id="usr1")
    tell(told.events)


TABLE = {
    "timestamp": "2026-01-01T00:00:00Z",
    "actionMetadata": {"source": "publicApi", "sourceMetadata": {"user": {"id": "usr1"}}},
}


@given(
    st.dictionaries(
        st.sampled_from(["createdRecordsById", "changedRecordsById", "destroyedRecordIds"]),
        trees | st.dictionaries(st.just(RECORD), trees) | st.lists(trees, max_size=3),
    ),
    st.dictionaries(st.sampled_from(["timestamp", "actionMetadata"]), trees),
)
def test_a_payload_of_our_table_with_anything_in_it(
    table: dict[str, Any], rest: dict[str, Any]
) -> None:
    payload = {**TABLE, **rest, "changedTablesById": {"tbl1": table}}
    told = parse_payloads([payload], webhook_id="ach1", first=1, table_id="tbl1", user_id="usr1")
    tell(told.events)


# ------------------------------------------------------------------ through the receiver


def ask(inbox: FakeInbox, path: str, body: bytes, headers: list[tuple[bytes, bytes]]) -> Any:
    """Status and JSON of one POST to the application itself."""
    sent: list[Any] = []
    pieces = [body[at : at + 64] for at in range(0, len(body), 64)] or [b""]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "headers": headers, "client": ("127.0.0.1", 1), "server": ("x", 1),
    }  # fmt: skip
    application = app_for(inbox)

    async def once() -> None:
        async with application.router.lifespan_context(application):
            await application(scope, receive, send)

    asyncio.run(once())
    text = b"".join(each.get("body", b"") for each in sent[1:])
    return sent[0]["status"], text


kinds = st.sampled_from([FORM, JSON, "", "text/plain", FORM + "; charset=\xff", JSON + ";"])
codings = st.sampled_from([b"", b"gzip", b"deflate", b"br", b"\xff"])
lengths = st.sampled_from([None, b"", b"-1", b"9" * 40, b"1e3", b"\xb2", b"0"])


@given(forms | mutated | trees.map(lambda t: json.dumps(t).encode()), kinds, codings, lengths)
def test_the_receiver_never_answers_500_and_keeps_what_it_cannot_read(
    body: bytes, kind: str, coding: bytes, length: bytes | None
) -> None:
    for path, wanted in ((f"/hooks/kommo/{SECRET}", FORM), ("/hooks/airtable", JSON)):
        inbox = FakeInbox()
        headers = [(b"content-type", kind.encode("latin-1")), (b"content-encoding", coding)]
        headers.append((b"authorization", f"Bearer {BEARER}".encode()))
        headers += [(b"content-length", length)] if length is not None else []
        status, text = ask(inbox, path, body, headers)
        assert status in {200, 413, 415}, (status, text)
        if kind.partition(";")[0] == wanted and status == 200:
            counts = json.loads(text)
            states = [event.state for event in inbox.events]
            assert counts["accepted"] == states.count("pending")
            assert counts.get("quarantined", 0) == states.count("quarantined")


@given(forms, kinds)
def test_a_stranger_leaves_nothing_behind(body: bytes, kind: str) -> None:
    for path in ("/hooks/kommo/wrong", "/hooks/kommo", "/hooks/airtable"):
        inbox = FakeInbox()
        headers = [(b"content-type", kind.encode("latin-1"))]
        assert ask(inbox, path, body, headers)[0] == 401
        assert not inbox.calls
