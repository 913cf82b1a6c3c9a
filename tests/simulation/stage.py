"""The world of a story: as `World`, but it counts, listens at the wires, and has clocks to set."""

from __future__ import annotations

import functools
import sqlite3
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import sqlalchemy as sa

from kommo_airtable_sync.core.canonical import same
from kommo_airtable_sync.core.types import Canonical
from kommo_airtable_sync.sandbox.airtable.listing import show_record
from kommo_airtable_sync.sandbox.airtable.schema import Table
from kommo_airtable_sync.sandbox.airtable.seed import BASE_ID
from kommo_airtable_sync.sandbox.rounding import Rounding
from kommo_airtable_sync.store.database import Database
from tests.simulated import Json, World
from tests.simulation.turns import OurClock, TheirClock, Turns
from tests.two_way import BOTH_WAYS
from tests.wire import body_of

RECORDS_A_PAGE = 5
"""So small that a listing of a story's few records has pages, and offsets that can expire."""
ROUNDED_TO = 5
"""In some stories Kommo keeps prices in such steps."""
LOCK_SECONDS = 32.0
"""Airtable's lock after one call too many, and a little."""
LANDS_SECONDS_MAX = 19.0
"""What is carried out, is so by then: the promise rests on it (CALL_SECONDS_MAX)."""


CAMPAIGN_ID = 1190001
"""A field of Kommo's leads that nobody mapped: an edit of it makes news and no work."""


class Broken(AssertionError):
    """An invariant does not hold.

    Args:
        invariant: its name, as the tables have it.
    """

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant


class Stage(World):
    """Both accounts and the store of one story.

    Args:
        seed: decides everything.
        path: of the store on disk; None: in memory.
    """

    tokens_run_out = True

    def __init__(self, seed: int, path: Path | None = None) -> None:
        clock = OurClock()
        self.turns = Turns(clock)
        self.happened: Counter[str] = Counter()
        self.trace: list[str] = []
        # Until then a 429 is not of our making, by side.
        self.disturbed: dict[str, datetime] = {}
        database = migrated(clock, path)
        super().__init__(database, clock, parts=BOTH_WAYS, seed=seed, servers=TheirClock(clock))
        self.airtable.settings.page_records = RECORDS_A_PAGE
        self.kommo.state.add_field("leads", CAMPAIGN_ID, "Campaign", "text")
        # What is not known of the real accounts is so in one story and otherwise in another.
        self.airtable.settings.serialised_upserts = seed % 2 == 1
        if seed % 4 == 2:
            self.kommo.settings.price_rounding = Rounding(step=ROUNDED_TO)
        self.fields = {each.name: each for each in self.engine.directory.mapping().fields}
        self.turns.wires = (self.kommo_wire, self.airtable_wire)
        self.happened.clear()
        self.trace.clear()

    def new_limiter(self) -> Database:
        limiter = _in_memory("limiter")
        limiter.clock = self.clock
        with limiter.write() as connection:
            for name in sa.inspect(connection).get_table_names():
                connection.execute(sa.text(f"DELETE FROM {name}"))
        return limiter

    def close(self) -> None:
        self.turns.kill_all()
        if self.database.engine.url.database != ":memory:":
            self.database.close()

    # ------------------------------------------------------------------ what is told of it

    def say(self, line: str) -> None:
        self.trace.append(f"{self.servers.now():%d %H:%M:%S.%f}"[:-3] + f" {line}")

    def disturb(self, seconds: float, *sides: str) -> None:
        """For so long what the limits do is not our fault."""
        until = self.servers.now() + timedelta(seconds=seconds)
        for side in sides or ("kommo", "airtable"):
            self.disturbed[side] = max(until, self.disturbed.get(side, until))

    def _begin_kommo(self, request: requests.PreparedRequest) -> tuple[float, Callable[[], Any]]:
        url = urlsplit(str(request.url))
        arrival = self.kommo.arrive(str(request.method), url.path, url.query, request.headers)
        throttled = (
            arrival.refusal is not None
            and arrival.refusal.status == 429
            and arrival.verdict.fault is None
        )
        self._note_call("kommo", request, arrival.verdict, throttled=throttled)
        return _capped(arrival.delay_seconds), lambda: self.kommo.apply(arrival, body_of(request))

    def _begin_airtable(self, request: requests.PreparedRequest) -> tuple[float, Callable[[], Any]]:
        url = urlsplit(str(request.url))
        arrival = self.airtable.arrive(
            str(request.method), url.path, url.query, request.headers, body_of(request)
        )
        throttled = arrival.refusal is not None and arrival.refusal.status == 429
        self._note_call("airtable", request, arrival.verdict, throttled=throttled)
        return _capped(arrival.delay_seconds), lambda: self.airtable.finish(arrival)

    def _note_call(
        self, side: str, request: requests.PreparedRequest, verdict: Any, *, throttled: bool
    ) -> None:
        who = self.turns.current.name if self.turns.current else "run"
        self.happened[f"calls to {side}"] += 1
        fault = ""
        if verdict.fault is not None:
            fault = verdict.fault.kind
            if fault == "status":
                fault += f" {verdict.fault.status}" + " applied" * verdict.fault.applied
        elif verdict.delay_seconds:
            fault = f"delay {_capped(verdict.delay_seconds):g} s"
        elif throttled:
            fault = "429 for foreign traffic"
        if fault:
            self.happened[f"fault: {fault}"] += 1
        path = urlsplit(str(request.url)).path
        self.say(f"  {who}: {request.method} {path} {fault}".rstrip())
        now = self.servers.now()
        if throttled and now >= self.disturbed.get(side, now):
            raise Broken("limits", f"a 429 of {side}'s of our own making")

    # ------------------------------------------------------------------ looks and hands of people

    @functools.cached_property
    def table(self) -> Table:
        table = self.airtable.bases[BASE_ID].find_table("Deals")
        assert table is not None
        return table

    def records(self) -> list[Json]:
        return [show_record(self.airtable, self.table, r, {}) for r in self._records()]

    def _records(self) -> list[Any]:
        self.airtable_wire.catch_up()
        return list(self.table.records.values())

    def by_lead(self) -> dict[int, Json]:
        try:
            return super().by_lead()
        except AssertionError as error:
            raise Broken("one record", str(error)) from error

    def lead(self, lead_id: int) -> Json:
        self.kommo_wire.catch_up()
        return super().lead(lead_id)

    def record_ids(self) -> dict[int, str]:
        """The record of each lead that has one."""
        key = self.table.key_field
        return {int(r.cells[key]): r.id for r in self._records() if r.cells.get(key) is not None}

    def shown(self, side: str, lead: int, name: str) -> Canonical:
        """A field's value as the mapping reads it."""
        field = self.fields[name]
        if side == "kommo":
            return field.from_kommo(self.lead(lead), final=True)
        record = self.table.records[self.record_ids()[lead]]
        return field.from_cell(
            show_record(self.airtable, self.table, record, {"fields": [field.id]})["fields"].get(
                self.table.fields[field.id].name
            )
        )

    def alike(self, name: str, one: Canonical, other: Canonical) -> bool:
        """Whether both sides may show these at rest."""
        if name == "Amount" and isinstance(one, Decimal) and isinstance(other, Decimal):
            return one == other or (
                self.kommo.settings.price_rounding is not None
                and abs(one - other) <= Decimal(ROUNDED_TO) / 2
            )
        return same(one, other)

    def refuse_kommo(self) -> int:
        """What Kommo has to tell finds no receiver; it tries again later. How many."""
        taken = self.kommo.take_due_hooks()
        for delivery in taken:
            self.kommo.settle_hook(delivery, 0, self.servers.now().timestamp())
        return len(taken)

    def foreign_call(self, side: str) -> None:
        """Somebody else's program asks the same account for something."""
        if side == "kommo":
            self.kommo.arrive("GET", "/api/v4/account", "", {})
        else:
            headers = {"authorization": "Bearer patForeign"}
            self.airtable.arrive("GET", f"/v0/{BASE_ID}/Deals", "", headers, b"")
        self.happened[f"foreign calls to {side}"] += 1


def _capped(delay_seconds: float) -> float:
    """Several faults may hit one call."""
    return min(delay_seconds, LANDS_SECONDS_MAX)


@functools.cache
def _in_memory(_use: str) -> Database:
    """One for all stories of this process: what SQLAlchemy has compiled once, it keeps."""
    return Database("sqlite:///:memory:", OurClock(), durable=False)


@functools.cache
def _template() -> sqlite3.Connection:
    """A migrated database, made once a process."""
    made = _in_memory("template")
    made.migrate()
    with made.engine.connect() as connection:
        return connection.connection.driver_connection  # type: ignore[return-value]


def migrated(clock: OurClock, path: Path | None) -> Database:
    """A fresh store with all tables."""
    if path is not None:
        file = sqlite3.connect(path)
        _template().backup(file)
        file.close()
        return Database(f"sqlite:///{path}", clock, durable=False)
    database = _in_memory("store")
    database.clock = clock
    with database.engine.connect() as connection:
        _template().backup(connection.connection.driver_connection)  # type: ignore[arg-type]
    return database
