"""The stand-ins on sockets: each behind Starlette and uvicorn, and both in one process."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Mapping

import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kommo_airtable_sync.opening import SystemClock
from kommo_airtable_sync.sandbox.airtable.control import begin_airtable
from kommo_airtable_sync.sandbox.airtable.model import AirtableModel
from kommo_airtable_sync.sandbox.deliverer import WebhookDeliverer
from kommo_airtable_sync.sandbox.faults import ConnectionDropped, DroppingProtocol
from kommo_airtable_sync.sandbox.kommo.model import KommoModel
from kommo_airtable_sync.sandbox.kommo.seed import seed_leads

LATENCY_SECONDS = 0.12
FAST_LOCK_SCALE = 1 / 30

Finish = Callable[[], tuple[int, Mapping[str, str], bytes]]


class _Endpoint:
    """Every path and method: a call arrives, waits its delay without a thread, and is applied."""

    def __init__(self, model: KommoModel | AirtableModel) -> None:
        self._model = model

    def _begin(self, request: Request, body: bytes) -> tuple[float, Finish]:
        """The moment of arrival: the delay, and what applies the call."""
        # As sent: Airtable's table names are told apart from slashes by their encoding.
        path = request.scope["raw_path"].partition(b"?")[0].decode("ascii")
        query = request.scope["query_string"].decode("ascii")
        model, method, headers = self._model, request.method, request.headers
        if isinstance(model, AirtableModel):
            return begin_airtable(model, method, path, query, headers, body)
        arrival = model.arrive(method, path, query, headers)
        return arrival.delay_seconds, lambda: model.apply(arrival, body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        delay_seconds, finish = self._begin(request, await request.body())
        if delay_seconds:
            await asyncio.sleep(delay_seconds)
        try:
            status, headers, content = finish()
        except ConnectionDropped:
            scope["state"]["abort"]()
            await receive()  # until uvicorn has seen the disconnect: it then sends no 500
            return
        await Response(content, status, headers)(scope, receive, send)


def create_server(model: KommoModel | AirtableModel, port: int) -> uvicorn.Server:
    """A server on loopback that is not running yet; port 0 takes a free one.

    ``run()`` serves, ``should_exit`` ends it.
    """
    config = uvicorn.Config(
        _Endpoint(model),
        host="127.0.0.1",
        port=port,
        http=DroppingProtocol,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)


def serve_both(kommo_port: int, airtable_port: int, *, fast: bool, leads: int = 0) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        kommo_port: Kommo's stand-in listens here, on loopback.
        airtable_port: Airtable's stand-in listens here, on loopback.
        fast: no latency, and a short rate lock; else 120 ms a call and the real limits.
        leads: deals to begin with.
    """
    clock = SystemClock()
    kommo = KommoModel(clock)
    kommo.seed_account()
    airtable = AirtableModel(clock)
    airtable.seed_base()
    if fast:
        airtable.settings.lock_scale = FAST_LOCK_SCALE
    else:
        kommo.settings.latency_seconds = LATENCY_SECONDS
        airtable.settings.latency_seconds = LATENCY_SECONDS
    if leads:
        seed_leads(kommo.state, leads, kommo.seed, kommo.now())
    servers = (create_server(kommo, kommo_port), create_server(airtable, airtable_port))

    def stop(*_: object) -> None:
        for server in servers:
            server.should_exit = True

    threads = [threading.Thread(target=server.run) for server in servers]
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    with WebhookDeliverer(kommo), WebhookDeliverer(airtable):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
