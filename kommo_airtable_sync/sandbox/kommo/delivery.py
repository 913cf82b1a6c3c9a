"""When webhooks go out, come again, and stop (reference 6.4). No sockets here."""

from __future__ import annotations

import heapq
import random
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kommo_airtable_sync.sandbox.kommo import hooks
from kommo_airtable_sync.sandbox.kommo.settings import Settings
from kommo_airtable_sync.sandbox.kommo.state import State, Webhook

INVALID_WINDOW_SECONDS = 7200.0
_RETRY_SECONDS = (300.0, 900.0, 900.0, 3600.0)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One POST to make.

    Args:
        destination: where to.
        body: form-encoded.
        headers: as captured; the request id differs on every attempt.
        attempt: 1 for the first.
        due_at: epoch seconds.
        codes: the subscription codes in the body; empty = a Digital Pipeline hook.
    """

    id: int
    destination: str
    body: bytes
    headers: dict[str, str]
    attempt: int
    due_at: float
    codes: tuple[str, ...] = ()


def is_ok(status: int) -> bool:
    """Kommo takes any code from 100 to 299; 0 = no answer in time."""
    return 100 <= status <= 299


def retry_delay_seconds(attempt: int, status: int) -> float | None:
    """How long after a failed attempt the next one comes; None = given up.

    Attempts 2 and 3 follow any failure, 4 and 5 only a 499 or 5xx (A-hooksfmt's table).
    """
    if is_ok(status) or attempt > len(_RETRY_SECONDS):
        return None
    if attempt >= 3 and status != 499 and not 500 <= status <= 599:
        return None
    return _RETRY_SECONDS[attempt - 1]


class Outbox:
    """Deliveries to come and a log of those made. Not thread-safe: the model's lock guards it.

    Args:
        state: holds the subscriptions.
        settings: knobs; read at each use.
        seed: for the knobs' dice and request ids.
        now: epoch seconds.
    """

    def __init__(
        self, state: State, settings: Settings, seed: int, now: Callable[[], float]
    ) -> None:
        self._state = state
        self._settings = settings
        self._dice = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self._now = now
        self._waiting: list[tuple[float, int, Delivery]] = []
        self._count = 0
        self.log: deque[dict[str, Any]] = deque(maxlen=100_000)

    def post(self, items: Sequence[hooks.HookItem]) -> None:
        """Queue the bodies that tell every live subscriber of these changes."""
        for webhook in self._state.webhooks.values():
            wanted = [each for each in items if each.code in webhook.settings]
            if webhook.disabled or not wanted:
                continue
            step = self._settings.hooks_per_post
            for start in range(0, len(wanted), step):
                self._queue_with_knobs(webhook, wanted[start : start + step])

    def post_digital_pipeline(self, body: bytes) -> None:
        """Queue a Digital Pipeline hook, if somebody wants them."""
        if self._settings.dp_destination:
            self._queue(self._settings.dp_destination, body, self._now(), ())

    def _queue_with_knobs(self, webhook: Webhook, items: list[hooks.HookItem]) -> None:
        codes = tuple(dict.fromkeys(each.code for each in items))
        body = hooks.body(items, self._state.account, account_last=self._settings.hook_account_last)
        may_lose = not self._settings.hook_lose_codes or any(
            code in self._settings.hook_lose_codes for code in codes
        )
        if may_lose and self._dice.random() < self._settings.hook_lose:
            return
        copies = 2 if self._dice.random() < self._settings.hook_duplicate else 1
        for _ in range(copies):
            due_at = self._now() + self._dice.uniform(0, self._settings.hook_reorder_seconds)
            if self._dice.random() < self._settings.hook_late:
                due_at += self._settings.hook_late_seconds
            self._queue(webhook.destination, body, due_at, codes)

    def _queue(self, to: str, body: bytes, due_at: float, codes: tuple[str, ...]) -> None:
        self._count += 1
        self._push(Delivery(self._count, to, body, {}, 1, due_at, codes))

    def _push(self, delivery: Delivery) -> None:
        headers = {
            "accept-encoding": "gzip",
            "x-amocrm-requestid": str(uuid.UUID(int=self._dice.getrandbits(128), version=4)),
            "content-type": "application/x-www-form-urlencoded",
            "content-length": str(len(delivery.body)),
            "user-agent": "amoCRM-Webhooks/3.0",
        }
        self._count += 1  # keeps the order of equal times
        entry = replace(delivery, headers=headers)
        heapq.heappush(self._waiting, (entry.due_at, self._count, entry))

    def next_due_at(self) -> float | None:
        """When the next delivery is due, if one waits."""
        return self._waiting[0][0] if self._waiting else None

    def __len__(self) -> int:
        return len(self._waiting)

    def take_due(self, most: int = 1000) -> list[Delivery]:
        """Take out what is due now, oldest first; what a disabled hook was to get is dropped."""
        now, due = self._now(), list[Delivery]()
        while self._waiting and self._waiting[0][0] <= now and len(due) < most:
            delivery = heapq.heappop(self._waiting)[2]
            webhook = self._state.webhooks.get(delivery.destination)
            if not delivery.codes or (webhook and not webhook.disabled):
                due.append(delivery)
        return due

    def settle(self, delivery: Delivery, status: int, sent_at: float) -> None:
        """Note an answer (0 = none in time): log it, plan the retry, count bad ones.

        Args:
            delivery: from ``take_due``.
            status: HTTP code, 0 for no answer.
            sent_at: epoch seconds at which it was sent.
        """
        now = self._now()
        self.log.append(
            {
                "id": delivery.id,
                "destination": delivery.destination,
                "codes": list(delivery.codes),
                "attempt": delivery.attempt,
                "status": status,
                "due_at": delivery.due_at,
                "sent_at": sent_at,
                "answered_at": now,
                "body": delivery.body.decode("ascii"),
            }
        )
        webhook = self._state.webhooks.get(delivery.destination)
        if is_ok(status) or not delivery.codes or webhook is None:
            return  # Digital Pipeline hooks are sent once (A-dp)
        self._count_invalid(webhook, now)
        delay = retry_delay_seconds(delivery.attempt, status)
        if delay is not None and not webhook.disabled:
            due_at = now + delay * self._settings.hook_retry_scale
            self._push(replace(delivery, attempt=delivery.attempt + 1, due_at=due_at))

    def _count_invalid(self, webhook: Webhook, now: float) -> None:
        since = now - INVALID_WINDOW_SECONDS
        webhook.invalid_at = [at for at in webhook.invalid_at if at > since] + [now]
        if len(webhook.invalid_at) > self._settings.hook_invalid_limit:
            webhook.disabled = True

    def enable(self, webhook: Webhook) -> None:
        """What an admin does by hand after a hook was switched off."""
        webhook.disabled = False
        webhook.invalid_at = []
