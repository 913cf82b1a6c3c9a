from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

import pytest

from kommo_airtable_sync.sandbox.kommo.model import KommoModel
from kommo_airtable_sync.sandbox.kommo.settings import SANDBOX_TOKEN, Settings


class TurnedClock:
    """Stands still until it is turned."""

    def __init__(self) -> None:
        self.at = datetime(2026, 3, 2, 12, 0, 0, 250_000, tzinfo=timezone.utc)

    def now(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def rows(self, name: str = "leads") -> list[Any]:
        return self.json["_embedded"][name]


class Caller:
    """Calls the model's HTTP-shaped door."""

    def __init__(self, model: KommoModel, clock: TurnedClock) -> None:
        self.model = model
        self.clock = clock
        self.headers = {"Authorization": f"Bearer {SANDBOX_TOKEN}"}

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        path, _, query = path.partition("?")
        if not path.startswith("/"):
            path = f"/api/v4/{path}"
        raw = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        return Reply(*self.model.handle(method, path, query, self.headers | headers, raw))

    def lead(self, **attributes: Any) -> int:
        """Create one lead; its id."""
        reply = self("POST", "leads", [attributes])
        assert reply.status == 200, reply.body
        return reply.rows()[0]["id"]

    def control(self, method: str, path: str, body: Any = None) -> Any:
        reply = self(method, f"/_control/{path}", body)
        assert reply.status == 200, reply.body
        return reply.json


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def model(clock: TurnedClock) -> KommoModel:
    model = KommoModel(clock, settings=Settings(requests_per_second=1000))
    model.seed_account()
    return model


@pytest.fixture
def call(model: KommoModel, clock: TurnedClock) -> Caller:
    return Caller(model, clock)
