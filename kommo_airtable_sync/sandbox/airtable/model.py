"""The Airtable stand-in without sockets: one call in, one answer out, time from a clock."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from kommo_airtable_sync.core.ports import Clock
from kommo_airtable_sync.sandbox.airtable.access import Token, bearer
from kommo_airtable_sync.sandbox.airtable.answers import (
    Answer,
    faulty_answer,
    json_answer,
    refusal_answer,
)
from kommo_airtable_sync.sandbox.airtable.data import Data
from kommo_airtable_sync.sandbox.airtable.limits import Limits
from kommo_airtable_sync.sandbox.airtable.listing import Listings, query_parameters
from kommo_airtable_sync.sandbox.airtable.meta import list_bases, on_schema, whoami
from kommo_airtable_sync.sandbox.airtable.records_api import RecordsApi, RecordsCall
from kommo_airtable_sync.sandbox.airtable.refusal import Refusal, not_found, not_yours, typed
from kommo_airtable_sync.sandbox.airtable.routes import Route, route_of
from kommo_airtable_sync.sandbox.airtable.schema import Base, Ids
from kommo_airtable_sync.sandbox.airtable.seed import sandbox_base
from kommo_airtable_sync.sandbox.airtable.settings import Settings
from kommo_airtable_sync.sandbox.airtable.writing import Writing
from kommo_airtable_sync.sandbox.faults import ConnectionDropped, Fault, Faults, Verdict
from kommo_airtable_sync.sandbox.http_log import Call, RequestLog

Json = Any
SANDBOX_TOKEN = "patSandbox0000000.sandbox"  # noqa: S105 - opens only the stand-in
SYNC_USER = {"id": "usrSandbox0000000", "email": "sync@example.com", "name": "Sync"}
PERSON = {"id": "usrPerson00000000", "email": "person@example.com", "name": "A Person"}
_URL_LENGTH_MAX = 16_000
_HOST = "https://api.airtable.com"
_NOTHING_WRONG = Verdict()


@dataclass(slots=True)
class Arrival:
    """A call that has arrived and waits ``delay_seconds`` before it is applied."""

    method: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    route: Route | None
    call: Call
    delay_seconds: float = 0.0
    verdict: Verdict = _NOTHING_WRONG
    refusal: Refusal | None = None
    matches: Mapping[int, list[str]] | None = None


class AirtableModel:
    """The whole of the stand-in's state and behaviour; safe to share between threads.

    Args:
        clock: all times come from it, and ``handle`` sleeps by it.
        seed: the same seed and calls give the same ids and faults.
        settings: to start from; ``reset`` comes back to them.
    """

    def __init__(self, clock: Clock, *, seed: int = 0, settings: Settings | None = None) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self._seed = seed
        self._settings = settings or Settings()
        self._seeded = False
        self._start()

    def _start(self) -> None:
        self.settings = self._settings.model_copy(deep=True)
        self.ids = Ids(self._seed)
        self.data = Data(self.ids)
        self.bases: dict[str, Base] = {}
        self.users = {each["id"]: each for each in (SYNC_USER, PERSON)}
        self.tokens = {SANDBOX_TOKEN: Token(user=SYNC_USER["id"])}
        self.faults = Faults(self._seed)
        self.refused: set[tuple[str, str]] = set()
        self.requests = RequestLog()
        self._listings = Listings(self.data, self.ids)
        self._limits = Limits(self.settings)

    def seed_base(self) -> Base:
        """Add the base ``appSandbox0000000`` with its tables "Deals" and "Clients", empty."""
        base = sandbox_base(self.ids)
        self.bases[base.id] = base
        self._seeded = True
        return base

    def reset(self) -> None:
        """Forget everything but the clock; the sandbox base comes back empty if it was there."""
        with self.lock:
            self._start()
            if self._seeded:
                self.seed_base()

    def handle(
        self,
        method: str,
        path: str,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        """Answer one call, sleeping its latency by the clock.

        Args:
            method: HTTP method.
            path: still percent-encoded, without the query.
            query: the raw query string.
            headers: any case.
            body: the raw body.

        Raises:
            ConnectionDropped: by a fault; the caller sees a cut connection.
        """
        arrival = self.arrive(method, path, query, headers or {}, body)
        if arrival.delay_seconds:
            self.clock.sleep(arrival.delay_seconds)
        return self.finish(arrival)

    def arrive(
        self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> Arrival:
        """The moment of arrival: limits count, faults are drawn; nothing is applied."""
        with self.lock:
            at, route = self.clock.now().timestamp(), route_of(path)
            lower = {name.lower(): value for name, value in headers.items()}
            call = self.requests.arrived(at, method, path, route.name if route else "unknown")
            arrival = Arrival(method, query, lower, body, route, call)
            arrival.refusal = self._refuse_early(at, path, arrival)
            if arrival.refusal is None:
                arrival.verdict = self.faults.verdict(method, path)
                self._match_early(arrival)
            latency = self.settings.latency_seconds
            arrival.delay_seconds = latency + arrival.verdict.delay_seconds
            return arrival

    def finish(self, arrival: Arrival) -> Answer:
        """Apply the call and answer it.

        Raises:
            ConnectionDropped: by a fault, before or after it was applied.
        """
        with self.lock:
            verdict = arrival.verdict
            answer = self._answer(arrival) if verdict.applies else None
            if verdict.drop is not None:
                self.requests.answered(arrival.call, 0)
                raise ConnectionDropped(applied=verdict.applies)
            if verdict.fault is not None or answer is None:
                fault = verdict.fault or Fault(kind="status")
                answer = faulty_answer(fault.status, fault.variant)
            self.requests.answered(arrival.call, answer.status)
            return answer

    def _answer(self, arrival: Arrival) -> Answer:
        try:
            if arrival.refusal is not None:
                raise arrival.refusal
            return json_answer(200, self._serve(arrival))
        except Refusal as refusal:
            return refusal_answer(refusal)

    def _refuse_early(self, at: float, path: str, arrival: Arrival) -> Refusal | None:
        if len(f"{_HOST}{path}?{arrival.query}") > _URL_LENGTH_MAX:
            return typed(self.settings.long_url_status, "URI_TOO_LONG", "The URL is too long")
        route, token = arrival.route, arrival.headers.get("authorization", "")
        on_records = route is not None and not route.is_meta
        return self._limits.check(
            at, route.base if route else "", token, counts_for_quota=on_records
        )

    def _match_early(self, arrival: Arrival) -> None:
        """Without serialised upserts, a concurrent call's new rows are not seen (section 8)."""
        upsert = b'"performUpsert"' in arrival.body
        if self.settings.serialised_upserts or not upsert or arrival.route is None:
            return
        # What is wrong with the call is said when it is applied, after the token was checked.
        with contextlib.suppress(Refusal):
            arrival.matches = self._records().matches(arrival.route, self._json(arrival.body))

    def _records(self) -> RecordsApi:
        writing = Writing(self.data, self.ids, self.users, self.settings, self.refused)
        return RecordsApi(self.bases, self.users, self.settings, self._listings, writing)

    def _json(self, body: bytes) -> Json:
        if len(body) > self.settings.max_body_bytes:
            raise typed(413, "REQUEST_BODY_TOO_LARGE", "The request payload is too large")
        try:
            return json.loads(body)
        except ValueError:
            status = self.settings.unparseable_status
            raise typed(status, "INVALID_REQUEST_BODY", "Could not parse request body") from None

    def _serve(self, arrival: Arrival) -> Json:
        token = bearer(self.tokens, arrival.headers)
        route, method = arrival.route, arrival.method
        if route is None:
            raise not_found()
        if route.name == "/v0/meta/whoami" and method == "GET":
            return whoami(token, self.users)
        if route.name == "/v0/meta/bases" and method == "GET":
            return list_bases(token, self.bases.values())
        if not route.base:
            raise not_found()
        base = self.bases.get(route.base)
        if base is None or not token.sees(base.id):
            raise not_yours()
        if route.is_meta:
            return self._schema(arrival, route, base, token)
        return self._records().serve(
            RecordsCall(
                arrival.method,
                route,
                query_parameters(parse_qsl(arrival.query, keep_blank_values=True)),
                self._json(arrival.body) if arrival.body else None,
                token,
                self.clock.now(),
            ),
            base,
            arrival.matches,
        )

    def _schema(self, arrival: Arrival, route: Route, base: Base, token: Token) -> Json:
        if arrival.method == "GET" and not route.table:
            token.require(base.id, "schema.bases:read")
            include = {value for _, value in parse_qsl(arrival.query)}
            visible = "visibleFieldIds" in include
            return {"tables": [t.json(visible_field_ids=visible) for t in base.tables.values()]}
        if arrival.method not in ("POST", "PATCH"):
            raise not_found()
        token.require(base.id, "schema.bases:write", "create")
        leaf, body = route.name.rpartition("/")[2], self._json(arrival.body)
        return on_schema(self.ids, base, arrival.method, route.table, route.item, leaf, body)
