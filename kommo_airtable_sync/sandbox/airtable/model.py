"""The Airtable stand-in without sockets: one call in, one answer out, time from a clock."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from kommo_airtable_sync.core.ports import Clock
from kommo_airtable_sync.sandbox.airtable.api import Call, route_of, serve
from kommo_airtable_sync.sandbox.airtable.listing import query_parameters
from kommo_airtable_sync.sandbox.airtable.notifying import Outbox, tell
from kommo_airtable_sync.sandbox.airtable.refusal import (
    Answer,
    Refusal,
    faulty_answer,
    json_answer,
    refusal_answer,
    refuse,
)
from kommo_airtable_sync.sandbox.airtable.settings import Settings
from kommo_airtable_sync.sandbox.airtable.state import SYNC_USER, State, Token
from kommo_airtable_sync.sandbox.airtable.webhooks import sweep
from kommo_airtable_sync.sandbox.faults import ConnectionDropped, Verdict
from kommo_airtable_sync.sandbox.http_log import Call as LoggedCall

SANDBOX_TOKEN = "patSandbox0000000.sandbox"  # noqa: S105 - opens only the stand-in
_URL_LENGTH_MAX = 16_000
_HOST = "https://api.airtable.com"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A call that has arrived and waits ``delay_seconds`` before it is applied."""

    call: Call
    logged: LoggedCall
    refusal: Refusal | None
    verdict: Verdict
    delay_seconds: float


class AirtableModel(State):
    """The whole of the stand-in's state and behaviour; safe to share between threads."""

    def __init__(self, clock: Clock, *, seed: int = 0, settings: Settings | None = None) -> None:
        super().__init__(clock, seed=seed, settings=settings)
        self.lock = threading.RLock()
        self.hooks_waiting = threading.Event()

    def _start(self) -> None:
        super()._start()
        self.outbox = Outbox(self)
        self.tokens[SANDBOX_TOKEN] = Token(user=SYNC_USER["id"])

    def handle(
        self,
        method: str,
        path: str,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        """Answer one call, sleeping its latency by the clock; like ``arrive`` and ``finish``."""
        arrival = self.arrive(method, path, query, headers or {}, body)
        if arrival.delay_seconds:
            self.clock.sleep(arrival.delay_seconds)
        return self.finish(arrival)

    def arrive(
        self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> Arrival:
        """The moment of arrival: limits count, faults are drawn; nothing is applied.

        ``path`` is still percent-encoded, ``query`` raw, ``headers`` go by any case.
        """
        with self.lock:
            at, (route, ids) = self.clock.now().timestamp(), route_of(path)
            lower = {name.lower(): value for name, value in headers.items()}
            seen = None if self.settings.serialised_upserts else self.data.sequence
            call = Call(self, method, route, ids, query_parameters(query), lower, body, seen)
            logged = self.requests.arrived(at, method, path, route)
            refusal = self._refuse_early(at, call, len(f"{_HOST}{path}?{query}"))
            verdict = self.faults.verdict(method, path) if refusal is None else Verdict()
            delay = self.settings.latency_seconds + verdict.delay_seconds
            return Arrival(call, logged, refusal, verdict, delay)

    def _refuse_early(self, at: float, call: Call, url_length: int) -> Refusal | None:
        if url_length > _URL_LENGTH_MAX:
            return refuse("URI_TOO_LONG")
        base, token = call.ids.get("base", ""), call.headers.get("authorization", "")
        # The monthly quota leaves schema calls alone.
        counts = "base" in call.ids and not call.route.startswith("/v0/meta/")
        return self.limits.check(at, base, token, counts_for_quota=counts)

    def finish(self, arrival: Arrival) -> Answer:
        """Apply the call and answer it.

        Raises:
            ConnectionDropped: by a fault, before or after it was applied.
        """
        with self.lock:
            verdict = arrival.verdict
            answer = self._answer(arrival) if verdict.applies else None
            self.tell()
            if verdict.drop is not None:
                self.requests.answered(arrival.logged, 0)
                raise ConnectionDropped(applied=verdict.applies)
            if answer is None or verdict.fault is not None:
                variant = verdict.fault.variant if verdict.fault else ""
                answer = faulty_answer(verdict.status or 500, variant)
            self.requests.answered(arrival.logged, answer.status)
            return answer

    def _answer(self, arrival: Arrival) -> Answer:
        try:
            if arrival.refusal is not None:
                raise arrival.refusal
            sweep(self)
            shown = serve(arrival.call)
            # Seen in client code: some endpoints answer 200 with nothing.
            return Answer(200, {}, b"") if shown is None else json_answer(200, shown)
        except Refusal as refusal:
            return refusal_answer(refusal)

    def tell(self) -> None:
        """Let webhooks and automations know what has changed; the lock is held."""
        tell(self)
        if len(self.outbox):
            self.hooks_waiting.set()
