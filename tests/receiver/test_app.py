from __future__ import annotations

import base64
import socket
import threading
from pathlib import Path

import pytest
import requests
from starlette.requests import Request

from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.receiver.app import BODY_BYTES_MAX, _from_loopback
from tests.receiver.fakes import SECRET, FakeInbox, app_for, running, wait_until

FORM = "application/x-www-form-urlencoded"
LEAD = b"leads%5Bupdate%5D%5B0%5D%5Bid%5D=5&leads%5Bupdate%5D%5B0%5D%5Bupdated_at%5D=1700000000"
SAMPLES = Path(__file__).parents[1] / "data" / "webhook-samples"


@pytest.fixture
def inbox():
    return FakeInbox()


@pytest.fixture
def url(inbox):
    with running(app_for(inbox)) as base:
        yield base


def post(url: str, body, secret: str = SECRET, content_type: str = FORM) -> requests.Response:
    headers = {"Content-Type": content_type} if content_type else {}
    return requests.post(f"{url}/hooks/kommo/{secret}", data=body, headers=headers, timeout=10)


def test_a_lead_is_committed_before_it_is_accepted(url, inbox):
    answer = post(url, LEAD)
    assert (answer.status_code, answer.json()) == (200, {"accepted": 1})
    [event] = inbox.events
    assert (event.key, event.kind, event.state) == ("lead:5", "update", "pending")


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.form")), ids=lambda path: path.stem)
def test_every_captured_body_is_taken(url, inbox, sample):
    answer = post(url, sample.read_bytes())
    about_lead = "-contact-" not in sample.stem
    assert (answer.status_code, answer.json()) == (200, {"accepted": int(about_lead)})
    assert [event.state for event in inbox.events] == ["pending" if about_lead else "ignored"]


def test_contacts_count_if_links_are_mapped(inbox):
    app = app_for(inbox, links=True)
    with running(app) as url:
        answer = post(url, (SAMPLES / "cap-1-contact-add.form").read_bytes())
    assert answer.json() == {"accepted": 1}


def test_a_body_about_nothing_of_ours_is_accepted_and_stores_nothing(url, inbox):
    answer = post(url, b"account[id]=1&task[add][0][id]=7")
    assert (answer.status_code, answer.json()) == (200, {"accepted": 0})
    assert inbox.calls == 0


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (b"hello", {"body": "hello"}),
        (b"", {"body": ""}),
        ("привет".encode(), {"body": "привет"}),
        (b"\xff\x00", {"body": base64.b64encode(b"\xff\x00").decode(), "encoding": "base64"}),
        (b"a\x00b", {"body": base64.b64encode(b"a\x00b").decode(), "encoding": "base64"}),
    ],
)
def test_an_unreadable_body_is_kept_whole_and_answered_200(url, inbox, body, payload):
    answer = post(url, body)
    assert (answer.status_code, answer.json()) == (200, {"accepted": 0, "quarantined": 1})
    [event] = inbox.events
    assert (event.key, event.kind, event.state) == ("", "unreadable", "quarantined")
    assert event.payload is not None
    assert event.payload["error"]
    assert {key: event.payload[key] for key in event.payload if key != "error"} == payload


def test_one_odd_lead_does_not_cost_its_neighbour(url, inbox):
    answer = post(url, b"leads[add][0][id]=x&" + LEAD)
    assert answer.json() == {"accepted": 1, "quarantined": 1}
    assert [event.state for event in inbox.events] == ["quarantined", "pending"]


@pytest.mark.parametrize("path", ["wrong", "", SECRET + "x", SECRET[:-1], SECRET + "/", "%FF", "ü"])
def test_a_stranger_gets_401_and_leaves_nothing(url, inbox, path, caplog):
    answer = post(url, LEAD, secret=path)
    assert answer.status_code == 401
    assert inbox.calls == 0
    assert [record.getMessage() for record in caplog.records if "secret" in record.msg] == [
        "refused a webhook with a wrong secret"
    ]
    assert not path or path not in caplog.text.replace("wrong secret", "")


def test_a_missing_secret_is_a_wrong_one(url, inbox):
    answer = requests.post(f"{url}/hooks/kommo", data=LEAD, timeout=10)
    assert answer.status_code == 401


def test_the_secret_is_compared_before_the_body_is_looked_at(url):
    assert post(url, b"x" * (BODY_BYTES_MAX + 1), secret="wrong").status_code == 401
    assert post(url, LEAD, secret="wrong", content_type="text/plain").status_code == 401


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", ""])
def test_another_content_type_is_415(url, inbox, content_type):
    assert post(url, LEAD, content_type=content_type).status_code == 415
    assert inbox.calls == 0


def test_a_content_type_may_name_its_charset(url):
    assert post(url, LEAD, content_type=f"{FORM.upper()}; charset=UTF-8").status_code == 200


def test_a_body_of_just_the_limit_is_read(url, inbox):
    body = LEAD + b"&leads%5Bupdate%5D%5B0%5D%5Bname%5D="
    answer = post(url, body + b"x" * (BODY_BYTES_MAX - len(body)))
    assert (answer.status_code, answer.json()) == (200, {"accepted": 1})


def test_a_body_over_the_limit_is_413(url, inbox):
    assert post(url, b"x" * (BODY_BYTES_MAX + 1)).status_code == 413
    assert inbox.calls == 0


def test_a_chunked_body_is_read_no_further_than_the_limit(url, inbox):
    answer = post(url, (b"x" * 65536 for _ in range(40)))
    assert answer.status_code == 413
    assert inbox.calls == 0


def test_a_chunked_body_without_an_end_is_answered_all_the_same(url):
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(
            f"POST /hooks/kommo/{SECRET} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        for _ in range(BODY_BYTES_MAX // 65536 + 1):
            client.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_declared_length_over_the_limit_is_answered_before_the_body(url):
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(
            f"POST /hooks/kommo/{SECRET} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\n"
            f"Content-Length: {BODY_BYTES_MAX + 1}\r\n\r\n".encode()
        )
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_sender_that_leaves_in_the_middle_stores_nothing(url, inbox, caplog):
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(
            f"POST /hooks/kommo/{SECRET} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\n"
            "Content-Length: 100\r\n\r\nleads".encode()
        )
    assert post(url, LEAD).status_code == 200
    assert len(inbox.events) == 1
    assert "Traceback" not in caplog.text


def test_an_inbox_that_cannot_be_written_is_503_and_then_works_again(url, inbox):
    inbox.error = OSError("disk full")
    assert post(url, LEAD).status_code == 503
    inbox.error = None
    assert post(url, LEAD).status_code == 200


def test_requests_that_come_together_share_a_commit(url, inbox):
    inbox.gate.clear()
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(post(url, LEAD).status_code))
        for _ in range(8)
    ]
    threads[0].start()
    wait_until(lambda: inbox.calls == 1)
    for thread in threads[1:]:
        thread.start()
    # A health check answered later shows that the loop has seen what was sent before.
    for _ in range(20):
        requests.get(f"{url}/healthz", timeout=10)
    assert statuses == []
    inbox.gate.set()
    for thread in threads:
        thread.join(20)
    assert statuses == [200] * 8
    assert len(inbox.events) == 8
    assert len(inbox.commits) < 8


def test_health_and_readiness_are_different_questions(url, inbox):
    inbox.is_writable = False
    assert requests.get(f"{url}/healthz", timeout=10).status_code == 200
    assert requests.get(f"{url}/readyz", timeout=10).status_code == 503
    inbox.is_writable = True
    assert requests.get(f"{url}/readyz", timeout=10).status_code == 200


def test_metrics_without_a_token_answer_loopback_only(url):
    answer = requests.get(f"{url}/metrics", timeout=10)
    assert (answer.status_code, answer.content) == (200, b"up 1\n")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    through_proxy = {"X-Forwarded-For": "127.0.0.1"}
    assert requests.get(f"{url}/metrics", headers=through_proxy, timeout=10).status_code == 404


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("10.0.0.5", False), ("", False)],
)
def test_loopback_is_told_from_the_peers_address(host, local):
    request = Request({"type": "http", "headers": [], "client": (host, 1)})
    assert _from_loopback(request) is local


def test_metrics_with_a_token_ask_everybody_for_it(inbox):
    app = app_for(inbox, metrics_token="m-token")
    with running(app) as url:
        for header in ("", "Bearer wrong", "Basic m-token", "Bearer"):
            answer = requests.get(f"{url}/metrics", headers={"Authorization": header}, timeout=10)
            assert answer.status_code == 401
        good = {"Authorization": "bearer m-token"}
        assert requests.get(f"{url}/metrics", headers=good, timeout=10).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/hooks/kommo/{SECRET}", 405),
        ("GET", "/hooks/airtable", 405),
        ("GET", "/hooks/airtable/ping", 405),
        ("POST", "/hooks/airtable/", 404),
        ("GET", "/", 404),
        ("GET", "/healthz/", 404),
    ],
)
def test_nothing_else_is_served_and_no_answer_repeats_the_secret(url, method, path, status):
    answer = requests.request(method, url + path, timeout=10, allow_redirects=False)
    assert answer.status_code == status
    assert SECRET not in answer.text + str(answer.headers)


@pytest.mark.parametrize("side", ["kommo", "airtable"])
def test_a_short_secret_is_refused_by_name(side):
    with pytest.raises(ConfigurationError, match=f"{side.upper()}_WEBHOOK_SECRET"):
        app_for(FakeInbox(), **{f"{side}_secret": "short"})
