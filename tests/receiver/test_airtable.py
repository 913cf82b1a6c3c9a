"""What Airtable sends: an automation's POST with its bearer, and pings with their MAC."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from sqlalchemy.exc import OperationalError

from kommo_airtable_sync.receiver.app import BODY_BYTES_MAX, PING_BYTES_MAX
from kommo_airtable_sync.receiver.ping_senders import (
    FRESH_SECONDS,
    MISS_SECONDS,
    PingSenders,
    mac_of,
)
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.reports import Reports
from tests.receiver.fakes import BEARER, SECRET, FakeInbox, app_for, ask, running

RECORD = b'{"recordId": "rec00000000000001", "changedAt": "2026-03-02T09:00:00.000Z"}'
SECRETS = {"ach1": b"first-mac-secret", "ach2": b"second-mac-secret"}
PING = b'{"base":{"id":"app1"},"webhook":{"id":"ach2"},"timestamp":"2026-03-02T09:00:00.000Z"}'
AUTOMATION = {"Authorization": f"Bearer {BEARER}", "Content-Type": "application/json"}
MUTATED = 10_000


@pytest.fixture
def inbox() -> FakeInbox:
    return FakeInbox()


@pytest.fixture
def url(inbox: FakeInbox) -> Iterator[str]:
    with running(app_for(inbox, airtable_webhooks=lambda: SECRETS)) as base:
        yield base


def tell(url: str, body: Any = RECORD, **headers: str) -> requests.Response:
    given = {**AUTOMATION, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return requests.post(f"{url}/hooks/airtable", data=body, headers=given, timeout=10)


def mac(secret: bytes, body: bytes = PING) -> str:
    return f"hmac-sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}"


def ping(url: str, signature: str, body: bytes = PING) -> requests.Response:
    headers = {"X-Airtable-Content-MAC": signature}
    return requests.post(f"{url}/hooks/airtable/ping", data=body, headers=headers, timeout=10)


# ------------------------------------------------------------------ automations


def test_a_changed_record_is_committed_before_it_is_accepted(url: str, inbox: FakeInbox) -> None:
    answer = tell(url)
    assert (answer.status_code, answer.json()) == (200, {"accepted": 1})
    [event] = inbox.events
    assert (event.key, event.kind, event.state) == (
        "record:rec00000000000001", "automation", "pending",
    )  # fmt: skip


def test_a_list_is_counted_and_its_odd_ones_are_kept_apart(url: str, inbox: FakeInbox) -> None:
    answer = tell(url, json.dumps([json.loads(RECORD), {"recordId": 5}, json.loads(RECORD)]))
    assert answer.json() == {"accepted": 2, "quarantined": 1}
    assert [event.state for event in inbox.events] == ["pending", "quarantined", "pending"]


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer wrong", BEARER, f"Basic {BEARER}", f"Bearer {SECRET}"]
)
def test_a_wrong_bearer_leaves_nothing_but_the_fact(
    url: str, inbox: FakeInbox, header: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = tell(url, Authorization=header)
    assert answer.status_code == 401
    assert inbox.calls == 0
    shown = [record.getMessage() for record in caplog.records if "refused" in record.msg]
    assert shown == ["refused a webhook with a wrong secret"]
    assert "rec00000000000001" not in caplog.text
    assert BEARER not in caplog.text + answer.text


def test_the_bearer_is_compared_before_the_body_is_looked_at(url: str) -> None:
    long = b"x" * (BODY_BYTES_MAX + 1)
    assert tell(url, long, Authorization="Bearer wrong").status_code == 401
    assert tell(url, Authorization="Bearer wrong", Content_Type="text/plain").status_code == 401


@pytest.mark.parametrize("media_type", ["application/x-www-form-urlencoded", "text/plain", ""])
def test_another_content_type_is_415(url: str, inbox: FakeInbox, media_type: str) -> None:
    assert tell(url, Content_Type=media_type).status_code == 415
    assert inbox.calls == 0


def test_a_body_over_the_limit_is_413(url: str, inbox: FakeInbox) -> None:
    assert tell(url, b"x" * (BODY_BYTES_MAX + 1)).status_code == 413
    assert inbox.calls == 0


def test_a_large_body_is_read(url: str, inbox: FakeInbox) -> None:
    assert tell(url, RECORD[:-1] + b', "fields": {"a": "' + b"x" * 900_000 + b'"}}').json() == {
        "accepted": 1
    }


def test_an_inbox_that_cannot_be_written_is_503(url: str, inbox: FakeInbox) -> None:
    inbox.error = OSError("disk full")
    assert tell(url).status_code == 503
    assert ping(url, mac(SECRETS["ach2"])).status_code == 503


def test_a_body_that_nobody_can_read_is_kept_whole(url: str, inbox: FakeInbox) -> None:
    body = b"\xff\x00 neither JSON nor UTF-8"
    answer = tell(url, body)
    assert (answer.status_code, answer.json()) == (200, {"accepted": 0, "quarantined": 1})
    [event] = inbox.events
    assert (event.source, event.kind, event.state) == ("airtable", "unreadable", "quarantined")
    assert event.payload is not None
    assert base64.b64decode(event.payload["body"]) == body


# ------------------------------------------------------------------ pings


def test_a_ping_is_known_by_its_mac_and_wakes_its_webhook(url: str, inbox: FakeInbox) -> None:
    answer = ping(url, mac(SECRETS["ach2"]))
    assert (answer.status_code, answer.content) == (204, b"")
    [event] = inbox.events
    assert (event.key, event.kind, event.always_read) == ("webhook:ach2", "ping", True)


def test_the_body_does_not_say_whose_ping_it_is(url: str, inbox: FakeInbox) -> None:
    body = b"\xff not even text"
    assert ping(url, mac(SECRETS["ach1"], body), body).status_code == 204
    assert [event.key for event in inbox.events] == ["webhook:ach1"]


def test_a_replayed_ping_only_asks_again_for_what_a_cursor_guards(
    url: str, database: Database
) -> None:
    with running(app_for(Inbox(database), airtable_webhooks=lambda: SECRETS)) as base:  # type: ignore[arg-type]
        for _ in range(5):
            assert ping(base, mac(SECRETS["ach2"])).status_code == 204
    claim = Inbox(database).claim(0, 10, "run", 60.0)
    assert claim is not None
    assert claim.keys == ["webhook:ach2"]


@pytest.mark.parametrize(
    "signature",
    [
        "",
        mac(b"a guess"),
        mac(SECRETS["ach2"], b"another body"),
        mac(SECRETS["ach2"]).removeprefix("hmac-sha256="),
        mac(SECRETS["ach2"]).replace("sha256", "sha1"),
        mac(SECRETS["ach2"])[:-1],
        mac(SECRETS["ach2"]) + "0",
        "hmac-sha256=" + base64.b64encode(b"x" * 48).decode(),
        "hmac-sha256=" + "é" * 64,
    ],
)
def test_a_wrong_mac_leaves_nothing(url: str, inbox: FakeInbox, signature: str) -> None:
    headers = {"X-Airtable-Content-MAC": signature.encode("latin-1")}
    answer = requests.post(f"{url}/hooks/airtable/ping", data=PING, headers=headers, timeout=10)
    assert answer.status_code == 401
    assert inbox.calls == 0


def test_no_webhook_means_no_ping(inbox: FakeInbox) -> None:
    with running(app_for(inbox)) as url:
        assert ping(url, mac(b"")).status_code == 401


def test_a_stranger_gets_no_more_hashed_than_a_ping_can_hold(url: str, inbox: FakeInbox) -> None:
    body = b"x" * (PING_BYTES_MAX + 1)
    assert ping(url, mac(SECRETS["ach1"], body), body).status_code == 413
    assert inbox.calls == 0


def test_secrets_that_cannot_be_read_make_airtable_come_again(inbox: FakeInbox) -> None:
    def locked() -> Any:
        raise OperationalError("select", {}, Exception("database is locked"))

    with running(app_for(inbox, airtable_webhooks=locked)) as url:
        assert ping(url, mac(SECRETS["ach1"])).status_code == 503


def test_a_digest_may_be_written_in_capitals() -> None:
    assert mac_of(" HMAC-SHA256=" + "AB" * 32) == "ab" * 32


class Shelf:
    """Counts how often the secrets are read, and lets time pass."""

    def __init__(self) -> None:
        self.secrets = dict(SECRETS)
        self.reads = 0
        self.time = 0.0
        self.threads: set[int] = set()
        self.senders = PingSenders(self.read, lambda: self.time)

    def read(self) -> dict[str, bytes]:
        self.reads += 1
        self.threads.add(threading.get_ident())
        return dict(self.secrets)

    async def find(self, secret: bytes) -> str | None:
        given = mac_of(mac(secret))
        assert given is not None
        return await self.senders.find(PING, given)


def test_strangers_cannot_make_us_read_the_database_for_each_request() -> None:
    async def many() -> None:
        shelf = Shelf()
        assert await asyncio.gather(*(shelf.find(b"a guess") for _ in range(200))) == [None] * 200
        assert shelf.reads == 1
        shelf.time += MISS_SECONDS
        assert await asyncio.gather(*(shelf.find(b"a guess") for _ in range(200))) == [None] * 200
        assert shelf.reads == 2
        assert threading.get_ident() not in shelf.threads

    asyncio.run(many())


def test_a_webhook_registered_a_moment_ago_is_found_and_a_removed_one_forgotten() -> None:
    async def some() -> None:
        shelf = Shelf()
        assert await shelf.find(SECRETS["ach1"]) == "ach1"
        shelf.secrets = {"ach3": b"third"}
        shelf.time += MISS_SECONDS
        assert await shelf.find(b"third") == "ach3"
        shelf.secrets = {}
        shelf.time += FRESH_SECONDS
        assert await shelf.find(b"third") is None

    asyncio.run(some())


# ------------------------------------------------------------------ whatever comes


def mutated(dice: random.Random) -> bytes:
    """A body that was one of an automation's, more or less."""
    body = bytearray(dice.choice([RECORD, b"[" + RECORD + b"," + RECORD + b"]", PING]))
    for _ in range(dice.randrange(6)):
        at = dice.randrange(len(body) + 1)
        match dice.randrange(6):
            case 0:
                body[at : at + 1] = dice.randbytes(1)
            case 1:
                del body[at : at + dice.randrange(1, 12)]
            case 2:
                body[at:at] = body[: dice.randrange(len(body) + 1)]
            case 3:
                body[at:at] = dice.choice([b"\x00", b"\xff", b'"\\ud800"', b"1e999", b"\\u0000"])
            case 4:
                body[at:at] = b"[" * dice.choice([1, 20, 5_000])
            case _:
                del body[at:]
    return bytes(body)


@pytest.fixture(scope="module")
def mutated_were_sent() -> tuple[FakeInbox, dict[tuple[str, int], int]]:
    """What was stored of ten thousand bodies, and how many were answered how at each path.

    No 5xx; nothing is stored for a stranger, something for each who knows a secret.
    """
    dice = random.Random(11)
    inbox = FakeInbox()
    app = app_for(inbox, airtable_webhooks=lambda: SECRETS)
    outcomes: dict[tuple[str, int], int] = {}

    async def send_all() -> None:
        for _ in range(MUTATED):
            body, before = mutated(dice), len(inbox.events)
            known = dice.random() < 0.7
            if dice.random() < 0.7:
                path = "/hooks/airtable"
                headers = {**AUTOMATION, **({} if known else {"Authorization": "Bearer guess"})}
                expected = 200 if known else 401
            else:
                path = "/hooks/airtable/ping"
                secret = SECRETS["ach1"] if known else b"guess"
                headers = {"X-Airtable-Content-MAC": mac(secret, body)}
                expected = (204 if known else 401) if len(body) <= PING_BYTES_MAX else 413
            status, _ = await ask(app, path, body, headers)
            assert status == expected, body
            assert (len(inbox.events) > before) == (status in (200, 204)), body
            outcomes[path, status] = outcomes.get((path, status), 0) + 1

    asyncio.run(send_all())
    return inbox, outcomes


def test_ten_thousand_mutated_bodies(
    mutated_were_sent: tuple[FakeInbox, dict[tuple[str, int], int]], database: Database
) -> None:
    inbox, outcomes = mutated_were_sent
    assert min(outcomes.get(each, 0) for each in [
        ("/hooks/airtable", 200), ("/hooks/airtable", 401),
        ("/hooks/airtable/ping", 204), ("/hooks/airtable/ping", 401),
    ]) > 500  # fmt: skip
    # What was taken can be stored, by either engine.
    Inbox(database).receive(inbox.events)
    counts = Reports(database).inbox_counts()
    assert int(str(counts["quarantined"])) > 500
    assert int(str(counts["pending"])) > 500
