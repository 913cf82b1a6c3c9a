"""A real HTTP server on loopback that answers by script, and a budget that keeps count."""

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass
class Reply:
    """One answer; ``how`` is ``answer``, ``drop`` (close unanswered), ``cut`` or ``hang``."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    how: str = "answer"

    def encoded(self) -> bytes:
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass
class Seen:
    method: str
    path: str
    raw_query: str
    headers: dict[str, str]
    body: Any

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(self.raw_query, keep_blank_values=True)


class Loopback:
    """Answers with the scripted replies in turn; a callable makes its reply from the request."""

    def __init__(self) -> None:
        self.script: deque[Reply | Callable[[Seen], Reply]] = deque()
        self.seen: list[Seen] = []
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(loopback: Loopback) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            seen = Seen(
                self.command,
                parts.path,
                parts.query,
                {name.lower(): value for name, value in self.headers.items()},
                json.loads(content) if content else None,
            )
            loopback.seen.append(seen)
            scripted = loopback.script.popleft()
            reply = scripted if isinstance(scripted, Reply) else scripted(seen)
            if reply.how == "hang":
                loopback.released.wait(30)
            if reply.how in {"hang", "drop"}:
                self.close_connection = True
                return
            body = reply.encoded()
            self.send_response_only(reply.status)
            defaults = {"Content-Type": "application/hal+json"} if body else {}
            for name, value in {**defaults, **reply.headers}.items():
                self.send_header(name, value)
            if reply.status != 204:
                length = len(body) + (10 if reply.how == "cut" else 0)
                self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = reply.how == "cut"

        do_GET = do_POST = do_PATCH = do_DELETE = _answer

        def log_message(self, format: str, *args: Any) -> None:
            return

    return Handler


class CountingBudget:
    """A ``core.ports.Budget`` that never waits, and knows whether a call is being made."""

    def __init__(self) -> None:
        self.slots = 0
        self.open = 0
        self.throttles: list[float] = []

    @contextmanager
    def slot(self) -> Iterator[None]:
        self.slots += 1
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1

    def throttled(self, retry_after_seconds: float) -> None:
        self.throttles.append(retry_after_seconds)


def refused_url() -> str:
    """An address on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def silent_url() -> Iterator[str]:
    """An address whose connections are never accepted: its queue of one is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(3):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            waiting.append(client)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for client in waiting:
                client.close()
