"""The Kommo stand-in as one object: no sockets, an injected clock, deterministic under a seed."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kommo_airtable_sync.core.ports import Clock
from kommo_airtable_sync.sandbox.faults import ConnectionDropped, Faults, Verdict
from kommo_airtable_sync.sandbox.http_log import Call, RateWindow, RequestLog
from kommo_airtable_sync.sandbox.kommo.api import EntityApi, Request
from kommo_airtable_sync.sandbox.kommo.changes import Changes
from kommo_airtable_sync.sandbox.kommo.control import Control
from kommo_airtable_sync.sandbox.kommo.delivery import Delivery, Outbox
from kommo_airtable_sync.sandbox.kommo.dictionaries import DictionaryApi
from kommo_airtable_sync.sandbox.kommo.problems import (
    Answer,
    Refused,
    blocked,
    fault_answer,
    problem,
    too_many,
)
from kommo_airtable_sync.sandbox.kommo.query import Query
from kommo_airtable_sync.sandbox.kommo.seed import ADMIN_ID, seed_account
from kommo_airtable_sync.sandbox.kommo.settings import SANDBOX_TOKEN, Account, Settings
from kommo_airtable_sync.sandbox.kommo.shapes import Shapes
from kommo_airtable_sync.sandbox.kommo.state import State

CONTROL_PREFIX = "/_control/"
Handler = Callable[..., Answer]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A call that has come in and is not applied yet.

    Args:
        call: its line in the request log; None for control calls.
        refusal: answered without applying anything, once the delay is over.
        delay_seconds: to wait first.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    call: Call | None = None
    refusal: Answer | None = None
    verdict: Verdict = field(default_factory=Verdict)
    delay_seconds: float = 0.0


class KommoModel:
    """One Kommo account.

    Thread-safe: one lock guards everything, and is never held while time passes.

    Args:
        clock: where "now" comes from, and what sleeps in ``handle``.
        seed: of faults, webhook knobs and generated deals.
        account: whom to pretend to be.
        settings: limits and switches, kept by reference.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        seed: int = 0,
        account: Account | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.clock = clock
        self.seed = seed
        self.account = account or Account()
        self.settings = settings or Settings()
        self.lock = threading.RLock()
        self.hooks_waiting = threading.Event()
        self.tokens: dict[str, int] = {SANDBOX_TOKEN: ADMIN_ID}
        self.reset()

    def reset(self) -> None:
        """Back to an empty account without faults, counts or hooks; settings and tokens stay."""
        with self.lock:
            self.state = State(self.account)
            self.faults = Faults(self.seed)
            self.requests = RequestLog()
            self.window = RateWindow(self.settings.requests_per_second)
            self.outbox = Outbox(self.state, self.settings, self.seed, self.now)
            self.changes = Changes(self.state, self.settings, self.outbox)
            self.violations = 0
            self._routes = _routes(
                EntityApi(self.state, self.settings, self.changes),
                DictionaryApi(self.state, self.settings, self.changes, self.outbox),
            )
            self._control = Control(self)

    def seed_account(self) -> None:
        """Fill in pipelines, users, loss reasons and custom fields (see ``seed``)."""
        with self.lock:
            seed_account(self.state)

    def now(self) -> float:
        """Epoch seconds."""
        return self.clock.now().timestamp()

    def handle(
        self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """One call from arrival to answer, on this thread.

        Args:
            method: upper case.
            path: without the query.
            query: raw query string.
            headers: any case.
            body: raw.

        Raises:
            ConnectionDropped: if a fault cuts the connection.
        """
        arrival = self.arrive(method, path, query, headers)
        if arrival.delay_seconds:
            self.clock.sleep(arrival.delay_seconds)
        return self.apply(arrival, body)

    def arrive(self, method: str, path: str, query: str, headers: Mapping[str, str]) -> Arrival:
        """Take a call in: log it, count it against the limit, decide its fate. Changes no data."""
        lowered = {key.lower(): value for key, value in headers.items()}
        if path.startswith(CONTROL_PREFIX):
            return Arrival(method, path, query, lowered)
        with self.lock:
            now = self.now()
            call = self.requests.arrived(now, method, path, re.sub(r"/\d+", "/{id}", path))
            verdict = self.faults.verdict(method, path)
            refusal = self._limit(now)
            if refusal is None and verdict.status is not None and not verdict.applies:
                refusal = self._fault_answer(verdict)
            delay = self.settings.latency_seconds + verdict.delay_seconds
            return Arrival(method, path, query, lowered, call, refusal, verdict, delay)

    def _limit(self, now: float) -> Answer | None:
        most = self.settings.violations_before_block
        if most and self.violations >= most:
            return blocked()
        self.window.limit = self.settings.requests_per_second
        if self.window.admit(now):
            return None
        self.violations += 1
        return too_many(self.settings)

    def _fault_answer(self, verdict: Verdict) -> Answer:
        variant = verdict.fault.variant if verdict.fault else ""
        return fault_answer(verdict.status or 500, variant, self.settings)

    def apply(self, arrival: Arrival, body: bytes) -> Answer:
        """Carry out a call that has waited its delay.

        Raises:
            ConnectionDropped: if a fault cuts the connection.
        """
        with self.lock:
            if arrival.call is None:
                return self._control_answer(arrival, body)
            try:
                answer = self._applied(arrival, body)
            except ConnectionDropped:
                self.requests.answered(arrival.call, 0)
                raise
            self.requests.answered(arrival.call, answer.status)
            return answer

    def _control_answer(self, arrival: Arrival, body: bytes) -> Answer:
        query = Query(arrival.query)
        try:
            answer = self._control.answer(arrival.method, arrival.path, query, body)
        except Refused as refused:
            answer = refused.answer
        self._wake()
        return answer

    def _applied(self, arrival: Arrival, body: bytes) -> Answer:
        if arrival.verdict.drop == "before":
            raise ConnectionDropped(applied=False)
        if arrival.refusal is not None:
            return arrival.refusal
        answer = self._routed(arrival, body)
        self._wake()
        if arrival.verdict.drop == "after":
            raise ConnectionDropped(applied=True)
        if arrival.verdict.status is not None:
            return self._fault_answer(arrival.verdict)
        return answer

    def _routed(self, arrival: Arrival, body: bytes) -> Answer:
        token = arrival.headers.get("authorization", "").removeprefix("Bearer ")
        user_id = self.tokens.get(token)
        if user_id is None:
            return problem(401)
        matches = [(found, methods) for pattern, methods in self._routes
                   if (found := pattern.fullmatch(arrival.path))]  # fmt: skip
        base = self.settings.base_url or _base(arrival.headers, self.account)
        if not matches:
            return problem(404, f"Cannot {arrival.method} {base}{arrival.path}")
        found, methods = matches[0]
        handler = methods.get(arrival.method)
        if handler is None:
            return problem(405)
        shapes = Shapes(self.state, self.settings, base)
        args = [int(each) if each.isdigit() else each for each in found.groups()]
        try:
            request = Request(
                arrival.method,
                arrival.path,
                Query(arrival.query),
                body,
                shapes,
                self._acting_user(arrival, user_id),
                self.now(),
            )
            return handler(request, *args)
        except Refused as refused:
            return refused.answer

    def _acting_user(self, arrival: Arrival, token_user: int) -> int:
        asked = arrival.headers.get("x-context-user-id", "")
        return int(asked) if asked.isdigit() and int(asked) in self.state.users else token_user

    def _wake(self) -> None:
        if len(self.outbox):
            self.hooks_waiting.set()

    def take_due_hooks(self) -> list[Delivery]:
        """The webhook deliveries to make now; tell each answer to ``settle_hook``."""
        with self.lock:
            return self.outbox.take_due()

    def next_hook_at(self) -> float | None:
        """Epoch seconds at which the next delivery is due, if one waits."""
        with self.lock:
            return self.outbox.next_due_at()

    def settle_hook(self, delivery: Delivery, status: int, sent_at: float) -> None:
        """Report what a delivery was answered; 0 = nothing within the time-out."""
        with self.lock:
            self.outbox.settle(delivery, status, sent_at)


def _base(headers: Mapping[str, str], account: Account) -> str:
    return f"http://{headers['host']}" if "host" in headers else account.url


def _routes(
    entities: EntityApi, others: DictionaryApi
) -> list[tuple[re.Pattern[str], dict[str, Handler]]]:
    """Path patterns with their handlers by method; the first match counts."""
    kinds = "(leads|contacts|companies)"

    def unlink(request: Request, kind: str, entity_id: int) -> Answer:
        return others.link(request, kind, entity_id, undo=True)

    table: dict[str, dict[str, Any]] = {
        "account": {"GET": others.account},
        "users": {"GET": others.users},
        "events": {"GET": others.events},
        "webhooks": {
            "GET": others.webhooks,
            "POST": others.subscribe,
            "DELETE": others.unsubscribe,
        },
        "leads/pipelines": {"GET": others.pipelines},
        r"leads/pipelines/(\d+)": {"GET": others.pipeline},
        "leads/loss_reasons": {"GET": others.loss_reasons},
        f"{kinds}/custom_fields": {"GET": others.custom_fields},
        rf"{kinds}/custom_fields/(\d+)": {"GET": others.custom_field},
        f"{kinds}/tags": {"GET": others.tags, "POST": others.add_tags},
        f"{kinds}/notes": {"GET": others.notes, "POST": others.add_notes},
        rf"{kinds}/(\d+)/notes": {"GET": others.notes, "POST": others.add_notes},
        rf"{kinds}/(\d+)/links": {"GET": others.links},
        rf"{kinds}/(\d+)/link": {"POST": others.link},
        rf"{kinds}/(\d+)/unlink": {"POST": unlink},
        kinds: {"GET": entities.list, "POST": entities.create, "PATCH": entities.update},
        rf"{kinds}/(\d+)": {"GET": entities.get, "PATCH": entities.update_one},
    }
    return [(re.compile(f"/api/v4/{path}"), methods) for path, methods in table.items()]
