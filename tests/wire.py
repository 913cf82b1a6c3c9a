"""HTTP without sockets: a transport adapter that carries a client's calls to a stand-in's model."""

from __future__ import annotations

import heapq
import io
import itertools
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import requests
import urllib3.exceptions
from requests.adapters import BaseAdapter

from kommo_airtable_sync.sandbox.faults import ConnectionDropped
from tests.conftest import HandClock

Begin = Callable[[requests.PreparedRequest], tuple[float, Callable[[], tuple[int, Any, bytes]]]]


class Wire(BaseAdapter):
    """Carries one API's calls to its model, and loses them as a network does.

    A call that outlasts the client's time-out is applied nevertheless, when its delay is over.

    Args:
        begin: a request's arrival at the model: (its delay in seconds, what applies it).
        clock: turned while a call is under way.
    """

    def __init__(self, begin: Begin, clock: HandClock) -> None:
        super().__init__()
        self.begin = begin
        self.clock = clock
        self.unreachable = False
        self._late: list[tuple[float, int, Callable[[], object]]] = []
        self._count = itertools.count()

    def send(
        self, request: requests.PreparedRequest, timeout: Any = None, **_: Any
    ) -> requests.Response:
        self.catch_up()
        if self.unreachable:
            refused = urllib3.exceptions.NewConnectionError(None, "refused")  # type: ignore[arg-type]
            cause = urllib3.exceptions.MaxRetryError(None, "", refused)  # type: ignore[arg-type]
            raise requests.ConnectionError(cause, request=request)
        delay, apply = self.begin(request)
        most = timeout[1]
        if delay > most:
            due_at = self.clock.now().timestamp() + delay
            heapq.heappush(self._late, (due_at, next(self._count), apply))
            self.clock.advance(most)
            raise requests.ReadTimeout(request=request)
        self.clock.advance(delay)
        try:
            return _response(request, *apply())
        except ConnectionDropped as dropped:
            cut = urllib3.exceptions.ProtocolError("Connection aborted.")
            raise requests.ConnectionError(cut, request=request) from dropped

    def catch_up(self) -> None:
        """Apply what its client has given up, as far as its time has come."""
        while self._late and self._late[0][0] <= self.clock.now().timestamp():
            # Whoever asked has hung up long ago: he cannot be cut off again.
            with suppress(ConnectionDropped):
                heapq.heappop(self._late)[2]()

    def close(self) -> None:
        pass


def _response(
    request: requests.PreparedRequest, status: int, headers: Mapping[str, str], body: bytes
) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response.headers.update(headers)
    response.request, response.url = request, str(request.url)
    response.raw = io.BytesIO(body)
    return response


def body_of(request: requests.PreparedRequest) -> bytes:
    return (request.body.encode() if isinstance(request.body, str) else request.body) or b""
