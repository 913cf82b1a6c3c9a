"""The Kommo stand-in as one object: no sockets, an injected clock, deterministic under a seed."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from kommo_airtable_sync.core.ports import Clock
from kommo_airtable_sync.sandbox.faults import ConnectionDropped, Faults, Verdict
from kommo_airtable_sync.sandbox.http_log import Call, RateWindow, RequestLog
from kommo_airtable_sync.sandbox.kommo.answers import (
    Answer,
    Refused,
    fault_answer,
    page,
    problem,
    too_many,
)
from kommo_airtable_sync.sandbox.kommo.api import Api, Request
from kommo_airtable_sync.sandbox.kommo.control import Control
from kommo_airtable_sync.sandbox.kommo.delivery import Delivery, Outbox
from kommo_airtable_sync.sandbox.kommo.oauth import TOKEN_PATH, OAuth
from kommo_airtable_sync.sandbox.kommo.query import Query
from kommo_airtable_sync.sandbox.kommo.seed import ADMIN_ID, seed_account
from kommo_airtable_sync.sandbox.kommo.settings import SANDBOX_TOKEN, Account, Settings
from kommo_airtable_sync.sandbox.kommo.state import State
from kommo_airtable_sync.sandbox.kommo.writes import Writer
from kommo_airtable_sync.sandbox.outgoing import Sender

CONTROL_PREFIX, API_PREFIX = "/_control/", "/api/v4/"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A call that has come in and is not applied yet.

    Args:
        headers: with names in lower case.
        call: its line in the request log; None for control calls.
        refusal: answered without applying anything, once the delay is over.
        delay_seconds: to wait first.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    call: Call | None = None
    refusal: Answer | None = None
    verdict: Verdict = field(default_factory=Verdict)
    delay_seconds: float = 0.0


class KommoModel(Sender[Delivery]):
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
        self.oauth = OAuth(self.settings, self.tokens)
        self.reset()

    def reset(self) -> None:
        """Back to an empty account without faults, counts or hooks; settings and tokens stay."""
        with self.lock:
            self.state = State(self.account)
            self.faults = Faults(self.seed)
            self.requests = RequestLog()
            self.window = RateWindow(self.settings.requests_per_second)
            self.outbox = Outbox(self.state, self.settings, self.seed, self.now)
            self.writer = Writer(self.state, self.settings, self.outbox)
            self.violations = 0

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
        """One call from arrival to answer on this thread; ``query`` is raw, headers in any case.

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
            if refusal is None and not verdict.applies:
                refusal = self._fault_answer(verdict)
            delay = self.settings.latency_seconds + verdict.delay_seconds
            return Arrival(method, path, query, lowered, call, refusal, verdict, delay)

    def _limit(self, now: float) -> Answer | None:
        if 0 < self.settings.violations_before_block <= self.violations:
            return page(403)
        self.window.limit = self.settings.requests_per_second
        if self.window.admit(now):
            return None
        self.violations += 1
        return too_many(self.settings)

    def _fault_answer(self, verdict: Verdict) -> Answer | None:
        """What a status fault answers; None if there is none."""
        if verdict.fault is None or verdict.status is None:
            return None
        return fault_answer(verdict.status, verdict.fault.variant, self.settings)

    def apply(self, arrival: Arrival, body: bytes) -> Answer:
        """Carry out a call that has waited its delay.

        Raises:
            ConnectionDropped: if a fault cuts the connection.
        """
        with self.lock:
            status = 0
            try:
                answer = self._applied(arrival, body)
                status = answer.status
            finally:
                if arrival.call:
                    self.requests.answered(arrival.call, status)
            if len(self.outbox):
                self.hooks_waiting.set()
            return answer

    def _applied(self, arrival: Arrival, body: bytes) -> Answer:
        verdict = arrival.verdict
        if verdict.drop == "before":
            raise ConnectionDropped(applied=False)
        if arrival.refusal:
            return arrival.refusal
        try:
            answer = self._routed(arrival, body)
        except Refused as refused:
            answer = refused.answer
        if verdict.drop == "after":
            raise ConnectionDropped(applied=True)
        return self._fault_answer(verdict) or answer

    def _routed(self, arrival: Arrival, body: bytes) -> Answer:
        query = Query(arrival.query)
        if arrival.call is None:
            return Control(self).answer(arrival.method, arrival.path, query, body)
        if (arrival.method, arrival.path) == ("POST", TOKEN_PATH):
            return self.oauth.answer(body, self.now())
        token = arrival.headers.get("authorization", "").removeprefix("Bearer ")
        user_id = self.tokens.get(token)
        if user_id is None or not self.oauth.opens(token, self.now()):
            return problem(401)
        host = arrival.headers.get("host")
        base = f"http://{host}" if host else self.account.url
        if not arrival.path.startswith(API_PREFIX):
            return problem(404, f"Cannot {arrival.method} {base}{arrival.path}")
        path = arrival.path.removeprefix(API_PREFIX)
        request = Request(arrival.method, path, query, body, base, user_id, self.now())
        return Api(self.state, self.settings, self.writer, request).answer()
