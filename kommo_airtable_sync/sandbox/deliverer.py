"""The threads that deliver a stand-in's webhooks over HTTP."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Generic

import requests

from kommo_airtable_sync.sandbox.outgoing import Post, PostT, Sender

DELIVERY_THREADS = 16
_IDLE_SECONDS = 0.2


class WebhookDeliverer(Generic[PostT]):
    """Sends a model's webhooks as they fall due, some at once. A context manager."""

    def __init__(self, model: Sender[PostT], threads: int = DELIVERY_THREADS) -> None:
        self._model = model
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="hook")
        self._thread = threading.Thread(target=self._run, name="hooks", daemon=True)

    def __enter__(self) -> WebhookDeliverer[PostT]:
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
        now = self._model.outbox.now()
        due_at = self._model.next_hook_at() or now + _IDLE_SECONDS
        return min(_IDLE_SECONDS, max(0.0, due_at - now))

    def _deliver(self, delivery: PostT) -> None:
        sent_at = self._model.outbox.now()
        timeout_seconds = self._model.outbox.timeout_seconds(delivery)
        self._model.settle_hook(delivery, _post(delivery, timeout_seconds), sent_at)


def _post(delivery: Post, timeout_seconds: float) -> int:
    """One attempt on a connection of its own, following no redirect; 0 = no answer in time.

    A kept connection could be closed by the receiver just as the next hook goes out, and the
    stand-in would count a failure that is nobody's.
    """
    with requests.Session() as session:
        session.trust_env = False
        session.headers.clear()  # only the delivery's own headers go out
        try:
            response = session.post(
                delivery.destination,
                data=delivery.body,
                headers=delivery.headers,
                timeout=timeout_seconds,
                allow_redirects=False,
            )
        except requests.RequestException:
            return 0
        return response.status_code
