"""An inbox that remembers, blocks and fails on demand, and the receiver on a real port."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message

from kommo_airtable_sync.core.types import IncomingEvent
from kommo_airtable_sync.receiver.app import create_app


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come about"
        time.sleep(0.002)


class FakeInbox:
    def __init__(self) -> None:
        self.commits: list[list[IncomingEvent]] = []
        self.calls = 0
        self.threads: set[str] = set()
        self.error: Exception | None = None
        self.poison_key = ""
        self.is_writable = True
        self.gate = threading.Event()
        self.gate.set()

    def receive(self, incoming: Sequence[IncomingEvent], /) -> None:
        self.calls += 1
        self.threads.add(threading.current_thread().name)
        assert self.gate.wait(20)
        if self.error is not None:
            raise self.error
        if self.poison_key and any(event.key == self.poison_key for event in incoming):
            raise ValueError("a value that the database cannot hold")
        self.commits.append(list(incoming))

    def writable(self) -> bool:
        return self.is_writable

    @property
    def events(self) -> list[IncomingEvent]:
        return [event for commit in self.commits for event in commit]


SECRET = "correct-horse-battery-staple"
BEARER = "an-automation-knows-this-one"


def app_for(inbox: FakeInbox, **changes: Any) -> Starlette:
    """The receiver's application around this inbox, as by ``create_app``."""
    given: dict[str, Any] = {
        "kommo_secret": SECRET,
        "airtable_secret": BEARER,
        "airtable_webhooks": dict,
        "metrics": lambda: b"up 1\n",
    }
    return create_app(inbox, **{**given, **changes})


async def ask(
    app: ASGIApp, path: str, body: bytes, headers: Mapping[str, str]
) -> tuple[int, bytes]:
    """POST to the application without a socket: (status, body) of its answer."""
    sent: list[Message] = []
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [
            (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
            for name, value in headers.items()
        ],
        "client": ("192.0.2.1", 1),
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


@contextmanager
def running(app: ASGIApp) -> Iterator[str]:
    """The application behind a real port; gives its URL."""
    config = uvicorn.Config(
        app, "127.0.0.1", 0, log_config=None, access_log=False, proxy_headers=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)
