"""A wire on which every call gets the same answer, and a budget without bounds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import requests
from requests.adapters import BaseAdapter

from tests.wire import _response


class Answering(BaseAdapter):
    """Answers every request alike."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__()
        self.status, self.body = status, body

    def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:
        return _response(request, self.status, {"Content-Type": "application/json"}, self.body)

    def close(self) -> None:
        pass


class Free:
    """Every call may go at once."""

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        yield

    def throttled(self, seconds: float) -> None:
        pass
