"""The threads that deliver a stand-in's webhooks over HTTP."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol

import requests

from kommo_airtable_sync.sandbox.outgoing import Post, PostT

DELIVERY_THREADS = 16
_IDLE_SECONDS = 0.2


class Sender(Protocol[PostT]):
    """What a stand-in's model offers to whoever delivers for it; safe to share between threads."""

    @property
    def hooks_waiting(self) -> threading.Event:
        """Set when something new waits."""
        ...

    def now(self) -> float:
        """Epoch seconds."""
        ...

    def take_due_hooks(self) -> list[PostT]:
        """The deliveries to make now; tell each answer to ``settle_hook``."""
        ...

    def next_hook_at(self) -> float | None:
        """Epoch seconds at which the next delivery is due, if one waits."""
        ...

    def hook_timeout_seconds(self, delivery: PostT, /) -> float:
        """A slower answer counts as none."""
        ...

    def settle_hook(self, delivery: PostT, status: int, sent_at: float) -> None:
        """Report what a delivery was answered; 0 = nothing within the time-out."""
        ...


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
        now = self._model.now()
        due_at = self._model.next_hook_at() or now + _IDLE_SECONDS
        return min(_IDLE_SECONDS, max(0.0, due_at - now))

    def _deliver(self, delivery: PostT) -> None:
        sent_at = self._model.now()
        timeout_seconds = self._model.hook_timeout_seconds(delivery)
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
