"""The baseline of a sync: the script that everybody writes first.

A webhook comes, the deal is read from Kommo, its record is written to Airtable: one GET and one
PATCH an event, one event after the other, no batches, no memory of what was written, and on a 429
a fixed sleep as Airtable's documentation asks for. What it has not worked off dies with it.
"""

from __future__ import annotations

import queue
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

import requests

from tests.stack import Stack

SLEEP_SECONDS = 30.0
BASE = "appSandbox0000000"


class Script:
    """The script, on a stack's stand-ins."""

    def __init__(self, stack: Stack) -> None:
        self.leads = f"{stack.kommo}/api/v4/leads"
        self.table = f"{stack.airtable}/v0/{BASE}/Deals"
        self.kommo, self.airtable = requests.Session(), requests.Session()
        self.kommo.headers["Authorization"] = f"Bearer {stack.environment['KOMMO_TOKEN']}"
        self.airtable.headers["Authorization"] = f"Bearer {stack.environment['AIRTABLE_TOKEN']}"

    def sync(self, lead_id: int) -> None:
        """One event."""
        lead = call(self.kommo, "GET", f"{self.leads}/{lead_id}")
        cells = {"Kommo Deal ID": lead["id"], "Deal Name": lead["name"], "Amount": lead["price"]}
        body = {
            "performUpsert": {"fieldsToMergeOn": ["Kommo Deal ID"]},
            "records": [{"fields": cells}],
        }
        call(self.airtable, "PATCH", self.table, body)


def call(session: requests.Session, method: str, url: str, body: Any = None) -> Any:
    """One call, again after a 429."""
    while True:
        answer = session.request(method, url, json=body, timeout=30)
        if answer.status_code != 429:
            answer.raise_for_status()
            return answer.json()
        time.sleep(SLEEP_SECONDS)


class NaiveStack(Stack):
    """The stand-ins, and the script in the product's place."""

    def start_product(self) -> None:
        """Listen to Kommo's webhooks."""
        todo: queue.SimpleQueue[int] = queue.SimpleQueue()
        script = Script(self)

        class Hook(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                for name, value in parse_qsl(body):
                    if name.startswith("leads[") and name.endswith("][id]"):
                        todo.put(int(value))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Be quiet."""

        def work() -> None:
            while True:
                script.sync(todo.get())

        self._server = ThreadingHTTPServer(("127.0.0.1", self.receiver_port), Hook)
        for target in (self._server.serve_forever, work):
            threading.Thread(target=target, daemon=True).start()

    def stop_product(self) -> None:
        """Stop listening."""
        self._server.shutdown()


def burst(stack: Stack, leads: list[int]) -> float:
    """Seconds that the script takes for these events."""
    script, began = Script(stack), time.monotonic()
    for lead in leads:
        script.sync(lead)
    return time.monotonic() - began
