"""The Kommo stand-in on a socket, and the threads that deliver its webhooks."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

import requests
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from kommo_airtable_sync.sandbox.faults import ConnectionDropped, DroppingProtocol
from kommo_airtable_sync.sandbox.kommo.delivery import Delivery
from kommo_airtable_sync.sandbox.kommo.model import KommoModel

DELIVERY_THREADS = 16
_IDLE_SECONDS = 0.2


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


class WebhookDeliverer:
    """Sends the model's webhooks as they fall due, some at once. A context manager."""

    def __init__(self, model: KommoModel, threads: int = DELIVERY_THREADS) -> None:
        self._model = model
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="kommo-hook")
        self._thread = threading.Thread(target=self._run, name="kommo-hooks", daemon=True)

    def __enter__(self) -> WebhookDeliverer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._model.hooks_waiting.set()
        self._thread.join()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._model.hooks_waiting.clear()
            for delivery in self._model.take_due_hooks():
                self._pool.submit(self._deliver, delivery)
            self._model.hooks_waiting.wait(self._idle_seconds())

    def _idle_seconds(self) -> float:
        now = self._model.now()
        due_at = self._model.next_hook_at() or now + _IDLE_SECONDS
        return min(_IDLE_SECONDS, max(0.0, due_at - now))

    def _deliver(self, delivery: Delivery) -> None:
        sent_at = self._model.now()
        self._model.settle_hook(delivery, self._post(delivery), sent_at)

    def _post(self, delivery: Delivery) -> int:
        """One attempt on a connection of its own, following no redirect; 0 = no answer in time.

        A kept connection could be closed by the receiver just as the next hook goes out, and the
        stand-in would count a failure that is nobody's.
        """
        with requests.Session() as session:
            session.trust_env = False
            session.headers.clear()  # only the captured headers go out
            try:
                response = session.post(
                    delivery.destination,
                    data=delivery.body,
                    headers=delivery.headers,
                    timeout=self._model.settings.hook_timeout_seconds,
                    allow_redirects=False,
                )
            except requests.RequestException:
                return 0
            return response.status_code
