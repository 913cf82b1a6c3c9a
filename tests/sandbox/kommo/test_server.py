"""The stand-in on real sockets: answers, cut connections, load, and delivered webhooks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from kommo_airtable_sync.opening import SystemClock
from kommo_airtable_sync.sandbox.deliverer import WebhookDeliverer
from kommo_airtable_sync.sandbox.kommo.model import KommoModel
from kommo_airtable_sync.sandbox.kommo.settings import SANDBOX_TOKEN, Settings
from kommo_airtable_sync.sandbox.serving import create_server

HEADERS = {"Authorization": f"Bearer {SANDBOX_TOKEN}"}


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


class Running:
    def __init__(self) -> None:
        self.model = KommoModel(SystemClock(), settings=Settings(requests_per_second=100_000))
        self.model.seed_account()
        self.server = create_server(self.model, 0)
        self.thread = threading.Thread(target=self.server.run)

    def __enter__(self) -> Running:
        self.thread.start()
        until(lambda: self.server.started)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture
def running() -> Iterator[Running]:
    with Running() as running:
        yield running


class Receiver(ThreadingHTTPServer):
    """Keeps what it is sent and answers the next of ``answers``, else 200."""

    request_queue_size = 256  # a burst of connections must not be refused by the kernel

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        self.pause = threading.Event()
        self.pause.set()
        super().__init__(("127.0.0.1", 0), _Hook)


class _Hook(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((dict(self.headers), body))
        status = self.server.answers.pop(0) if self.server.answers else 200
        self.server.pause.wait(10)
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def receiver(running: Running) -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    body = {
        "destination": f"http://127.0.0.1:{server.server_port}/hook",
        "settings": ["add_lead"],
    }
    assert requests.post(f"{running.url}/api/v4/webhooks", json=body, headers=HEADERS).ok
    with WebhookDeliverer(running.model):
        yield server
        server.pause.set()
    server.shutdown()
    thread.join()
    server.server_close()


def create(running: Running, name: str = "a") -> None:
    reply = requests.post(f"{running.url}/_control/leads", json={"name": name})
    assert reply.status_code == 200


def test_answers_travel_with_their_links(running: Running):
    create(running, "Müller ☕")
    reply = requests.get(f"{running.url}/api/v4/leads?filter[id][]=20000001", headers=HEADERS)
    assert reply.headers["content-type"] == "application/hal+json"
    (lead,) = reply.json()["_embedded"]["leads"]
    assert lead["name"] == "Müller ☕"
    assert lead["_links"]["self"]["href"].startswith(f"{running.url}/api/v4/leads/20000001?filter")
    empty = requests.get(f"{running.url}/api/v4/leads?page=9", headers=HEADERS)
    assert (empty.status_code, empty.content) == (204, b"")


def test_dropped_connections_bring_not_one_byte_of_an_answer(running: Running):
    for kind, count in (("drop_before", 0), ("drop_after", 1)):
        spec = {"kind": kind, "method": "POST", "times": 1}
        requests.post(f"{running.url}/_control/faults", json=spec)
        with pytest.raises(requests.ConnectionError):
            requests.post(f"{running.url}/api/v4/leads", json=[{"name": "x"}], headers=HEADERS)
        assert len(running.model.state.rows["leads"]) == count


def test_200_calls_a_second_at_120_ms_latency_wait_side_by_side(running: Running):
    running.model.settings.latency_seconds = 0.12
    sessions = threading.local()

    def get(_: int) -> int:
        if not hasattr(sessions, "own"):
            sessions.own = requests.Session()
        return sessions.own.get(f"{running.url}/api/v4/account", headers=HEADERS).status_code

    with ThreadPoolExecutor(30) as pool:
        list(pool.map(get, range(30)))
        started = time.monotonic()
        assert list(pool.map(get, range(300))) == [200] * 300
        took = time.monotonic() - started
    assert took < 12, "one after another this takes 36 s"


def test_hooks_arrive_with_the_captured_headers(running: Running, receiver: Receiver):
    create(running)
    until(lambda: len(receiver.got) == 1)
    headers, body = receiver.got[0]
    lowered = {key.lower(): value for key, value in headers.items()}
    assert set(lowered) == {
        "host",
        "accept-encoding",
        "x-amocrm-requestid",
        "content-type",
        "content-length",
        "user-agent",
    }
    assert lowered["user-agent"] == "amoCRM-Webhooks/3.0"
    assert body.startswith(
        b"account%5Bsubdomain%5D=sandbox&account%5Bid%5D=35379952&account%5B_links"
    )


def test_a_refused_hook_comes_again(running: Running, receiver: Receiver):
    running.model.settings.hook_retry_scale = 0.0001
    receiver.answers = [500, 302, 404]
    create(running)
    until(lambda: len(running.model.outbox.log) == 3)
    assert [each["status"] for each in running.model.outbox.log] == [500, 302, 404]
    assert len({body for _, body in receiver.got}) == 1


def test_a_slow_receiver_counts_as_silent_and_others_do_not_wait(
    running: Running, receiver: Receiver
):
    running.model.settings.hook_timeout_seconds = 0.3
    receiver.pause.clear()
    for n in range(5):
        create(running, str(n))
    until(lambda: len(receiver.got) == 5)
    until(lambda: len(running.model.outbox.log) == 5)
    assert {each["status"] for each in running.model.outbox.log} == {0}


def test_a_burst_of_hooks_is_delivered_whole(running: Running, receiver: Receiver):
    leads = [{"name": str(n)} for n in range(250)]
    requests.post(f"{running.url}/api/v4/leads", json=leads, headers=HEADERS)
    until(lambda: len(running.model.outbox.log) == 250)
    assert {each["status"] for each in running.model.outbox.log} == {200}
    assert len({body for _, body in receiver.got}) == 250


def test_the_samples_the_bodies_are_compared_with_are_there():
    samples = Path(__file__).parents[2] / "data" / "webhook-samples"
    assert len(list(samples.glob("*.form"))) == 9
