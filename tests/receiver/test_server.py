from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests

from kommo_airtable_sync.receiver.server import shown_path
from tests.receiver.fakes import wait_until

pytestmark = pytest.mark.process
ROOT = Path(__file__).parents[2]
SECRET = "s3cret-s3cret-s3cret"
FORM = "application/x-www-form-urlencoded"
LEAD = b"leads[update][0][id]=5"

PROGRAM = """
import sys, time
from kommo_airtable_sync.receiver.app import create_app
from kommo_airtable_sync.receiver.server import serve

class Inbox:
    def receive(self, incoming, /):
        if incoming[0].key == "lead:13":
            raise OSError("cannot store " + repr(incoming) + SECRET)
        if incoming[0].key == "lead:99":
            print("storing", flush=True)
            time.sleep(0.5)
        print("stored", incoming[0].key, flush=True)

    def writable(self):
        raise RuntimeError("crashed at /hooks/kommo/" + SECRET)

SECRET = sys.argv[2]

def metrics():
    raise RuntimeError("crashed at /hooks/kommo/" + SECRET)

app = create_app(
    Inbox(),
    kommo_secret=SECRET,
    airtable_secret=SECRET,
    airtable_webhooks=dict,
    metrics=metrics,
)
serve(app, "127.0.0.1", int(sys.argv[1]))
print("returned", flush=True)
"""


class Process:
    """The receiver in a process of its own, all its output in one file."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._output = folder / "output"
        with self._output.open("wb") as output:
            self.popen = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(self.port), SECRET],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        wait_until(self._answers, 30)

    def _answers(self) -> bool:
        assert self.popen.poll() is None, self.output
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{self.url}/healthz", timeout=5).ok
        return False

    @property
    def output(self) -> str:
        return self._output.read_text("utf-8", "replace")

    def post(self, path: str, body: bytes = LEAD) -> int:
        headers = {"Content-Type": FORM}
        return requests.post(self.url + path, data=body, headers=headers, timeout=10).status_code

    def raw(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as client:
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            return client.recv(4096)

    def stop(self, number: int) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(20)


@pytest.fixture
def process(tmp_path):
    started = Process(tmp_path)
    yield started
    if started.popen.poll() is None:
        started.popen.kill()
        started.popen.wait(20)


def test_no_output_ever_holds_the_secret(process):
    hook = f"/hooks/kommo/{SECRET}"
    encoded = "/hooks/kommo/" + "".join(f"%{byte:02X}" for byte in SECRET.encode())

    assert process.post(hook) == 200
    assert process.post(encoded) == 200
    assert process.post(hook, b"leads[update][0][id]=13") == 503
    assert process.post(hook, b"x" * 2_000_000) == 413
    assert process.post(hook + "/") == 401
    assert process.post(hook + "x?secret=" + SECRET) == 401
    assert process.post(f"/hook/{SECRET}") == 404
    assert requests.get(process.url + hook, timeout=10).status_code == 405
    assert requests.get(process.url + "/readyz", timeout=10).status_code == 500
    crashed = requests.get(process.url + "/metrics", timeout=10)
    assert crashed.status_code == 500
    assert SECRET not in crashed.text
    assert b" 400 " in process.raw(f"POST {hook} HTTP/9.9 {SECRET}\r\n\r\n".encode())
    process.raw(f"POST {hook} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab".encode())
    process.stop(signal.SIGTERM)

    assert SECRET not in process.output
    assert encoded not in process.output
    assert "POST /hooks/kommo/*** 200" in process.output
    assert "POST /hooks/kommo/*** 503" in process.output
    assert "POST (another path) 404" in process.output
    assert "GET /metrics 500" in process.output
    assert "RuntimeError while answering" in process.output
    assert "OSError" in process.output
    assert "wrong secret" in process.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_finishes_the_request_that_has_begun(process, number):
    statuses: list[int] = []
    path = f"/hooks/kommo/{SECRET}"
    sender = threading.Thread(
        target=lambda: statuses.append(process.post(path, b"leads[update][0][id]=99"))
    )
    sender.start()
    wait_until(lambda: "storing" in process.output)
    code = process.stop(number)
    sender.join(20)

    assert statuses == [200]
    assert "stored lead:99" in process.output
    assert "Traceback" not in process.output
    assert (code, "returned" in process.output) == (0, True)


def test_the_log_names_what_we_serve_and_nothing_else():
    assert shown_path("/healthz") == "/healthz"
    assert shown_path(f"/hooks/kommo/{SECRET}") == "/hooks/kommo/***"
    assert shown_path("/hooks/airtable") == "/hooks/airtable"
    assert shown_path("/hooks/airtable/ping") == "/hooks/airtable/ping"
    assert shown_path(f"/hooks/airtable/{SECRET}") == "(another path)"
    assert shown_path(f"/{SECRET}") == "(another path)"
