"""When webhooks go out, come again, and stop (reference 6.4). No sockets here."""

from __future__ import annotations

import random
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kommo_airtable_sync.sandbox.kommo import hooks
from kommo_airtable_sync.sandbox.kommo.settings import Settings
from kommo_airtable_sync.sandbox.kommo.state import State
from kommo_airtable_sync.sandbox.outgoing import Outgoing, Post, fates

INVALID_WINDOW_SECONDS = 7200.0
_RETRY_SECONDS = (300.0, 900.0, 900.0, 3600.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(Post):
    """One form-encoded POST to make; its request id differs on every attempt.

    ``codes`` are the subscription codes in the body; empty = a Digital Pipeline hook.
    """

    codes: tuple[str, ...]


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


class Outbox(Outgoing[Delivery]):
    """Kommo's deliveries. Not thread-safe: the model's lock guards it.

    Args:
        state: holds the subscriptions.
        settings: knobs; read at each use.
        seed: for the knobs' dice and request ids.
        now: epoch seconds.
    """

    def __init__(
        self, state: State, settings: Settings, seed: int, now: Callable[[], float]
    ) -> None:
        super().__init__(now)
        self._state = state
        self._settings = settings
        self._dice = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self._invalid_at: dict[str, list[float]] = defaultdict(list)

    def post(self, items: Sequence[hooks.HookItem]) -> None:
        """Queue the bodies that tell every live subscriber of these changes."""
        step = self._settings.hooks_per_post
        for webhook in self._state.rows["webhooks"].values():
            wanted = [each for each in items if each.code in webhook["settings"]]
            for start in range(0, 0 if webhook["disabled"] else len(wanted), step):
                self._queue(webhook["destination"], wanted[start : start + step])

    def post_digital_pipeline(self, body: bytes) -> None:
        """Queue a Digital Pipeline hook, if somebody wants them."""
        if self._settings.dp_destination:
            self._send(self._settings.dp_destination, body, (), self.now())

    def _queue(self, destination: str, items: list[hooks.HookItem]) -> None:
        """Queue a body, or not, or twice, or for later, as the knobs and dice say."""
        knobs = self._settings
        codes = tuple(dict.fromkeys(each.code for each in items))
        body = hooks.body(items, self._state.account, account_last=knobs.hook_account_last)
        may_lose = not knobs.hook_lose_codes or set(knobs.hook_lose_codes) & set(codes)
        held = fates(
            self._dice,
            lose=knobs.hook_lose if may_lose else 0.0,
            duplicate=knobs.hook_duplicate,
            reorder_seconds=knobs.hook_reorder_seconds,
            late=knobs.hook_late,
            late_seconds=knobs.hook_late_seconds,
        )
        for seconds in held:
            self._send(destination, body, codes, self.now() + seconds)

    def _send(
        self, to: str, body: bytes, codes: tuple[str, ...], due_at: float, attempt: int = 1
    ) -> None:
        headers = {
            "accept-encoding": "gzip",
            "x-amocrm-requestid": str(uuid.UUID(int=self._dice.getrandbits(128), version=4)),
            "content-type": "application/x-www-form-urlencoded",
            "content-length": str(len(body)),
            "user-agent": "amoCRM-Webhooks/3.0",
        }
        self.push(
            Delivery(
                destination=to,
                body=body,
                headers=headers,
                due_at=due_at,
                attempt=attempt,
                codes=codes,
            )
        )

    def take_due(self, most: int = 1000) -> list[Delivery]:
        """Take out what is due now; what a disabled hook was to get is dropped."""
        due = super().take_due(most)
        return [each for each in due if not each.codes or self._is_live(each.destination)]

    def _is_live(self, destination: str) -> bool:
        return not self._state.rows["webhooks"].get(destination, {"disabled": True})["disabled"]

    def settle(self, delivery: Delivery, status: int, sent_at: float) -> None:
        """Note an answer: log it, plan the retry, count bad ones."""
        now, to = self.now(), delivery.destination
        self.note(delivery, status, sent_at)
        if is_ok(status) or not delivery.codes or not self._is_live(to):
            return  # Digital Pipeline hooks are sent once (A-dp)
        since = now - INVALID_WINDOW_SECONDS
        self._invalid_at[to] = [at for at in self._invalid_at[to] if at > since] + [now]
        delay = retry_delay_seconds(delivery.attempt, status)
        if len(self._invalid_at[to]) > self._settings.hook_invalid_limit:
            self._state.rows["webhooks"][to]["disabled"] = True
            del self._invalid_at[to]  # whoever switches it on again starts afresh
        elif delay is not None:
            due_at = now + delay * self._settings.hook_retry_scale
            self._send(to, delivery.body, delivery.codes, due_at, delivery.attempt + 1)

    def timeout_seconds(self, delivery: Delivery) -> float:  # noqa: ARG002 - all alike
        """A slower answer counts as none."""
        return self._settings.hook_timeout_seconds
