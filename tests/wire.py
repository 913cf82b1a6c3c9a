"""HTTP without sockets: a transport adapter that carries a client's calls to a stand-in's model."""

from __future__ import annotations

import heapq
import io
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import requests
import urllib3.exceptions
from requests.adapters import BaseAdapter

from kommo_airtable_sync.sandbox.faults import ConnectionDropped
from tests.conftest import HandClock

Answer = tuple[int, Any, bytes]
Begin = Callable[[requests.PreparedRequest], tuple[float, Callable[[], Answer]]]


@dataclass(order=True)
class _UnderWay:
    """A call that has arrived; its answer once it was applied."""

    due_at: datetime
    number: int
    apply: Callable[[], Answer] = field(compare=False)
    answer: Answer | ConnectionDropped | None = field(default=None, compare=False)


class Wire(BaseAdapter):
    """Carries one API's calls to its model, and loses them as a network does.

    A call is applied when its delay is over, whatever has become of its client meanwhile.

    Args:
        begin: a request's arrival at the model: (its delay in seconds, what applies it).
        clock: turned while a call is under way.
    """

    def __init__(self, begin: Begin, clock: HandClock) -> None:
        super().__init__()
        self.begin = begin
        self.clock = clock
        self.unreachable = False
        self._under_way: list[_UnderWay] = []
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
        due_at = self.clock.now() + timedelta(seconds=delay)
        call = _UnderWay(due_at, next(self._count), apply)
        heapq.heappush(self._under_way, call)
        most = timeout[1]
        self.clock.advance(min(delay, most))
        if delay > most:
            raise requests.ReadTimeout(request=request)
        self.catch_up()
        if isinstance(call.answer, ConnectionDropped):
            cut = urllib3.exceptions.ProtocolError("Connection aborted.")
            raise requests.ConnectionError(cut, request=request) from call.answer
        assert call.answer is not None
        return _response(request, *call.answer)

    def next_due_at(self) -> datetime | None:
        """When the next call under way is to be applied."""
        return self._under_way[0].due_at if self._under_way else None

    def catch_up(self) -> None:
        """Apply what is under way, as far as its time has come."""
        while self._under_way and self._under_way[0].due_at <= self.clock.now():
            call = heapq.heappop(self._under_way)
            try:
                call.answer = call.apply()
            except ConnectionDropped as dropped:
                call.answer = dropped

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
