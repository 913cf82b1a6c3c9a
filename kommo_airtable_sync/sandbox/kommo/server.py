"""The Kommo stand-in on a socket."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timezone

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from kommo_airtable_sync.sandbox.deliverer import WebhookDeliverer
from kommo_airtable_sync.sandbox.faults import ConnectionDropped, DroppingProtocol
from kommo_airtable_sync.sandbox.kommo.model import KommoModel


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The present, aware UTC."""
        return datetime.now(timezone.utc)

    def sleep(self, seconds: float) -> None:
        """Block this thread."""
        time.sleep(seconds)


class _Endpoint:
    """Every path and method: hands the call to the model, waits its delay without a thread."""

    def __init__(self, model: KommoModel) -> None:
        self._model = model

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        arrival = self._model.arrive(
            request.method, scope["path"], scope["query_string"].decode("ascii"), request.headers
        )
        body = await request.body()
        if arrival.delay_seconds:
            await asyncio.sleep(arrival.delay_seconds)
        try:
            answer = self._model.apply(arrival, body)
        except ConnectionDropped:
            scope["state"]["abort"]()
            await receive()  # until uvicorn has seen the disconnect: it then sends no 500
            return
        await Response(answer.body, answer.status, answer.headers)(scope, receive, send)


def create_app(model: KommoModel) -> Starlette:
    """The model as an ASGI app; dropped connections need ``http=DroppingProtocol``."""
    return Starlette(routes=[Route("/{path:path}", _Endpoint(model))])


def create_server(model: KommoModel, host: str, port: int) -> uvicorn.Server:
    """A server that is not running yet: ``run()`` serves, ``should_exit`` ends it."""
    config = uvicorn.Config(
        create_app(model),
        host=host,
        port=port,
        http=DroppingProtocol,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)


def serve(model: KommoModel, host: str = "127.0.0.1", port: int = 8010) -> None:
    """Serve the API and deliver its webhooks until a signal ends it."""
    with WebhookDeliverer(model):
        create_server(model, host, port).run()
