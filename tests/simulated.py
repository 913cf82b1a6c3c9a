"""The real engine, clients, store and parsers over both stand-ins, in one process, by hand's time.

No sockets and no sleeping: a transport adapter hands every HTTP call to a stand-in's model, and
whoever waits turns the clock. Everything that happens is decided by the calls and the seed.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import requests
import sqlalchemy as sa
import yaml

from kommo_airtable_sync.airtable.client import AirtableClient
from kommo_airtable_sync.core.airtable_hooks import parse_automation
from kommo_airtable_sync.core.canonical import is_blank
from kommo_airtable_sync.core.config import parse_config
from kommo_airtable_sync.core.mapping import Mapping as FieldMappings
from kommo_airtable_sync.core.quota import MonthlyQuota
from kommo_airtable_sync.core.registration import kommo_hooks
from kommo_airtable_sync.core.types import LIVE, Canonical, IncomingEvent, Priority, lead_key
from kommo_airtable_sync.engine.batch import BatchReport
from kommo_airtable_sync.engine.claim import claim_batch
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.engine.directory import Directory
from kommo_airtable_sync.engine.enrich import Enricher, load_functions
from kommo_airtable_sync.engine.follow import work_batch
from kommo_airtable_sync.kommo.client import KommoClient
from kommo_airtable_sync.receiver.app import kommo_events
from kommo_airtable_sync.sandbox.airtable.control import handle_control
from kommo_airtable_sync.sandbox.airtable.model import SANDBOX_TOKEN as AIRTABLE_TOKEN
from kommo_airtable_sync.sandbox.airtable.model import AirtableModel
from kommo_airtable_sync.sandbox.airtable.seed import BASE_ID
from kommo_airtable_sync.sandbox.faults import Fault
from kommo_airtable_sync.sandbox.kommo.model import KommoModel
from kommo_airtable_sync.sandbox.kommo.settings import SANDBOX_TOKEN as KOMMO_TOKEN
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.documents import Documents
from kommo_airtable_sync.store.entries import LedgerEntry
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.journal import Journal
from kommo_airtable_sync.store.limiter import SqlBudget
from kommo_airtable_sync.store.runners import Runners
from kommo_airtable_sync.store.schema import due, events, journal, sides
from tests.conftest import HandClock
from tests.wire import Wire, body_of

KOMMO_URL = "https://sandbox.kommo.com"
AIRTABLE_URL = "https://api.airtable.com"
HOOK_URL = "https://sync.example.com/hooks/kommo/a-secret-for-tests"
AUTOMATION_URL = "https://sync.example.com/hooks/airtable"
LATENCY_SECONDS = 0.12
EXAMPLE = yaml.safe_load(
    (Path(__file__).parent.parent / "sync.example.yaml").read_text(encoding="utf-8")
)
# A world is built for nearly every test, and most with the same sync.yaml.
parsed = functools.cache(parse_config)

Json = Any


class Inline(Executor):
    """Makes each call at once, where it is asked for: one thread, one order."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 (the future's own business)
            future.set_exception(error)
        return future


def fields_with(**changes: Mapping[str, Json]) -> list[Json]:
    """The example's ``fields``, some with other keys: ``fields_with(Amount={"owner": "both"})``."""
    by_name = {name.replace("_", " "): change for name, change in changes.items()}
    known = [{**each, **by_name.pop(each["airtable"], {})} for each in EXAMPLE["fields"]]
    return known + [{"airtable": name, **change} for name, change in by_name.items()]


def kommo_owned() -> dict[str, Json]:
    """Parts of sync.yaml with which Kommo owns every field and nothing else is asked for."""
    fields = [{**each, "owner": "kommo"} for each in EXAMPLE["fields"]]
    return {
        "fields": [each for each in fields if each["airtable"] != "Onboarding Status"],
        "airtable": {"table": "Deals", "key_field": "Kommo Deal ID"},
        "links": None,
    }


KOMMO_OWNED = kommo_owned()


def config_text(**parts: Json) -> str:
    """The example's ``sync.yaml`` with some of its top-level parts replaced or, if None, left out."""
    whole = EXAMPLE | parts
    return json.dumps({name: part for name, part in whole.items() if part is not None})  # is YAML


class _Token:
    """The access token as one process holds it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._held = world.kommo_token

    def token(self) -> str:
        return self._held

    def renew(self, _refused: str) -> None:
        self._held = self._world.kommo_token


class World:
    """Both accounts, the store, and as many engines as a test asks for.

    Args:
        database: migrated, its time turned by ``clock``.
        clock: of everything.
        parts: of the example's sync.yaml, replaced or, if None, left out.
        seed: of the stand-ins and of everything shuffled.
        monthly_calls: Airtable's quota, if it is governed.
        servers: the clock of both services, if it is not ours.
    """

    tokens_run_out = False

    def __init__(
        self,
        database: Database,
        clock: HandClock,
        *,
        parts: Mapping[str, Json] | None = None,
        seed: int = 0,
        monthly_calls: int | None = None,
        servers: HandClock | None = None,
    ) -> None:
        self.database, self.clock = database, clock
        self.servers = servers or clock
        self.quota = MonthlyQuota(BASE_ID, monthly_calls)
        self._parts = dict(parts or {})
        self.config = parsed(config_text(**self._parts))
        self.dice = random.Random(seed)
        self.kommo = KommoModel(self.servers, seed=seed)
        self.kommo.seed_account()
        self.airtable = AirtableModel(self.servers, seed=seed)
        self.airtable.seed_base()
        self.kommo.settings.latency_seconds = LATENCY_SECONDS
        self.airtable.settings.latency_seconds = LATENCY_SECONDS
        self.kommo_wire = Wire(self._begin_kommo, self.servers)
        self.airtable_wire = Wire(self._begin_airtable, self.servers)
        self.kommo_token = KOMMO_TOKEN
        self.limiter = self.new_limiter()
        self.inbox, self.journal = Inbox(database), Journal(database)
        self.engine = self.new_engine()
        self.engine.kommo.subscribe(HOOK_URL, kommo_hooks(self.config))
        if any(field.owner != "kommo" for field in self.config.fields):
            automation = {"url": AUTOMATION_URL, "secret": "a-secret-for-tests"}
            self._in_airtable("POST", "automations", automation)

    def new_limiter(self) -> Database:
        return Database("sqlite:///:memory:", self.clock, durable=False)

    def close(self) -> None:
        self.limiter.close()

    def restart(self, **parts: Json) -> None:
        """All processes start again under a sync.yaml with these parts replaced."""
        self.config = parsed(config_text(**{**self._parts, **parts}))
        self.engine = self.new_engine()

    def new_engine(self, lane: Priority = LIVE) -> Engine:
        """An engine as another process would build it: it shares nothing but the store."""
        kommo_budget = SqlBudget(self.limiter, "kommo", 7, lane)
        airtable_budget = SqlBudget(self.limiter, "airtable", 5, lane, self.quota)
        session = requests.Session()
        session.mount(KOMMO_URL, self.kommo_wire)
        held = _Token(self)
        kommo = KommoClient(
            KOMMO_URL,
            held.token,
            kommo_budget,
            clock=self.clock,
            renew=held.renew if self.tokens_run_out else None,
            session=session,
        )
        airtable = AirtableClient(
            AIRTABLE_TOKEN, BASE_ID, AIRTABLE_URL, airtable_budget, self.clock
        )
        airtable._api.session.mount(AIRTABLE_URL, self.airtable_wire)
        session.trust_env = airtable._api.session.trust_env = False  # no proxy is asked for
        documents = Documents(self.database)
        return Engine(
            config=self.config,
            lane=lane,
            clock=self.clock,
            database=self.database,
            limiter=self.limiter,
            kommo=kommo,
            airtable=airtable,
            kommo_budget=kommo_budget,
            airtable_budget=airtable_budget,
            inbox=Inbox(self.database),
            journal=Journal(self.database),
            runners=Runners(self.database),
            directory=Directory(
                self.config, kommo, airtable, documents, kommo_url=KOMMO_URL, base_id=BASE_ID
            ),
            executor=Inline(),
            enricher=Enricher(load_functions(self.config.enrich)),
            jitter=self.dice.random,
        )

    def renew_token(self) -> None:
        """Kommo's access token has run out; whoever asks gets another one."""
        user_id = self.kommo.tokens.pop(self.kommo_token)
        self.kommo_token = f"{KOMMO_TOKEN}-{self.servers.now():%d%H%M%S%f}"
        self.kommo.tokens[self.kommo_token] = user_id

    def _begin_kommo(self, request: requests.PreparedRequest) -> tuple[float, Callable[[], Any]]:
        url = urlsplit(str(request.url))
        arrival = self.kommo.arrive(str(request.method), url.path, url.query, request.headers)
        return arrival.delay_seconds, lambda: self.kommo.apply(arrival, body_of(request))

    def _begin_airtable(self, request: requests.PreparedRequest) -> tuple[float, Callable[[], Any]]:
        url = urlsplit(str(request.url))
        arrival = self.airtable.arrive(
            str(request.method), url.path, url.query, request.headers, body_of(request)
        )
        return arrival.delay_seconds, lambda: self.airtable.finish(arrival)

    # ------------------------------------------------------------------ people in Kommo

    def add_lead(self, **attributes: Json) -> int:
        """Somebody creates a lead; its id."""
        return self.add_leads([attributes])[0]

    def add_leads(self, attributes: Sequence[Mapping[str, Json]]) -> list[int]:
        shown = self._in_kommo("POST", "leads", [dict(each) for each in attributes])
        return [int(row["lead"]["id"]) for row in shown["leads"]]

    def edit_lead(self, lead_id: int, **changes: Json) -> None:
        self._in_kommo("PATCH", f"leads/{lead_id}", changes)

    def edit_leads(self, lead_ids: Iterable[int], **changes: Json) -> None:
        """Somebody marks many leads in a list and changes all the same way."""
        self._in_kommo("POST", "leads/bulk", {"ids": list(lead_ids), "changes": changes})

    def delete_lead(self, lead_id: int) -> None:
        self._in_kommo("DELETE", f"leads/{lead_id}")

    def lead(self, lead_id: int) -> Json:
        return self._in_kommo("GET", f"leads/{lead_id}")["lead"]

    def _in_kommo(self, method: str, path: str, body: Json = None) -> Json:
        raw = b"" if body is None else json.dumps(body).encode()
        status, _, answer = self.kommo.handle(method, f"/_control/{path}", "", {}, raw)
        assert status == 200, answer
        return json.loads(answer)

    # ------------------------------------------------------------------ people in Airtable

    def records(self) -> list[Json]:
        """Every record of the table, fields by name."""
        self.airtable_wire.catch_up()
        return self._in_airtable("GET", "records")["records"]

    def by_lead(self) -> dict[int, Json]:
        """The one record of each lead; two for one lead are a failure, none with no lead."""
        found: dict[int, Json] = {}
        for record in self.records():
            if record["fields"].get("Kommo Deal ID") is None:
                continue
            key = int(record["fields"]["Kommo Deal ID"])
            assert key not in found, f"two records for lead {key}"
            found[key] = record
        return found

    def record(self, lead_id: int) -> Json:
        """The fields of a lead's record, by name."""
        return self.by_lead()[lead_id]["fields"]

    def edit_record(self, record_id: str, **fields: Json) -> None:
        spelled = {name.replace("_", " "): value for name, value in fields.items()}
        self._in_airtable("PATCH", f"records/{record_id}", {"fields": spelled})

    def add_record(self, **fields: Json) -> str:
        spelled = {name.replace("_", " "): value for name, value in fields.items()}
        return self._in_airtable("POST", "records", {"fields": spelled})["id"]

    def delete_record(self, record_id: str) -> None:
        self._in_airtable("DELETE", f"records/{record_id}")

    def alter_field(self, field: str, **changes: Json) -> None:
        self._in_airtable("PATCH", f"fields/{quote(field)}", changes)

    def delete_field(self, field: str) -> None:
        self._in_airtable("DELETE", f"fields/{quote(field)}")

    def add_option(self, field: str, name: str) -> None:
        self._in_airtable("POST", f"options/{quote(field)}", {"name": name})

    def cells_written(self) -> list[tuple[int, str, Json]]:
        """Every cell that the sync has written so far: (lead, field name, value)."""
        writes = self._in_airtable("GET", "writes", source="publicApi")["writes"]
        return [
            (int(write["key"]), name, cell["new"])
            for write in writes
            for name, cell in write["fields"].items()
            if name != "Last Modified"
        ]

    def _in_airtable(self, method: str, path: str, body: Json = None, **query: str) -> Json:
        raw = b"" if body is None else json.dumps(body).encode()
        asked = urlencode({"table": "Deals", **query})
        answer = handle_control(self.airtable, method, f"/_control/{path}", asked, raw)
        assert answer.status == 200, answer
        return json.loads(answer.body)

    # ------------------------------------------------------------------ events and work

    def take_hooks(self) -> list[bytes]:
        """The bodies of Kommo's due webhooks, as posted; Kommo is told that they arrived."""
        taken = self.kommo.take_due_hooks()
        for delivery in taken:
            self.kommo.settle_hook(delivery, 200, self.servers.now().timestamp())
        return [delivery.body for delivery in taken]

    def receive(self, bodies: Iterable[bytes]) -> None:
        """As the receiver does: each body is stored before it is answered."""
        for body in bodies:
            self.inbox.receive(kommo_events(body, links=bool(self.config.clients)))

    def deliver_hooks(self) -> int:
        """Post Kommo's due webhooks and Airtable's due automations to the receiver; how many."""
        bodies = self.take_hooks()
        self.receive(bodies)
        scripts = self.take_automations()
        for body in scripts:
            self.inbox.receive(parse_automation(body))
        return len(bodies) + len(scripts)

    def take_automations(self) -> list[bytes]:
        """What Airtable's automations have to tell; each runs once, whatever becomes of it."""
        taken = self.airtable.take_due_hooks()
        for delivery in taken:
            self.airtable.settle_hook(delivery, 200, self.servers.now().timestamp())
        return [delivery.body for delivery in taken if delivery.kind == "automation"]

    def hint(self, lead_id: int, priority: Priority = LIVE, *, always_read: bool = True) -> None:
        """Somebody other than Kommo says that the lead may have changed."""
        event = IncomingEvent(
            f"lead:{lead_id}", "retry", "update", priority=priority, always_read=always_read
        )
        self.inbox.receive([event])

    def work(
        self, engine: Engine | None = None, run_id: str = "run", *, patience: float = 0.0
    ) -> list[BatchReport]:
        """Work until nothing is due, waiting up to ``patience`` seconds in all for what comes due.

        Fails rather than go on for ever.
        """
        worker = engine or self.engine
        reports: list[BatchReport] = []
        ends_at = self.clock.now().timestamp() + patience
        for _ in range(10_000):
            batch = claim_batch(worker, run_id)
            if batch is not None:
                reports.append(work_batch(worker, batch))
                continue
            at = self.next_due_at(worker.lane)
            if at is None or at > ends_at:
                return reports
            self.clock.advance(max(0.001, at - self.clock.now().timestamp()))
            self.kommo_wire.catch_up()
            self.airtable_wire.catch_up()
        raise AssertionError("the work does not come to an end")

    def sync(self, *, patience: float = 0.0) -> list[BatchReport]:
        """Deliver what Kommo has to say, and work it off; a second passes, as Kommo counts them."""
        self.deliver_hooks()
        reports = self.work(patience=patience)
        self.clock.advance(1)
        return reports

    def next_due_at(self, lane: Priority = LIVE) -> float | None:
        """When the lane's next key can be claimed, seconds since the epoch; None if none waits."""
        free_at = sa.func.coalesce(due.c.lease_until, 0.0)
        with self.database.read() as connection:
            waiting = sa.select(due.c.due_at, free_at).where(due.c.priority == lane)
            rows = connection.execute(waiting).all()
            paused = connection.scalar(sa.select(sa.func.max(sides.c.paused_until)))
        return max(min(max(row) for row in rows), paused or 0.0) if rows else None

    # ------------------------------------------------------------------ what stands

    def fail(self, side: str, kind: str, **details: Json) -> None:
        """Let calls to a side go wrong (see ``sandbox.faults``)."""
        model = self.kommo if side == "kommo" else self.airtable
        model.faults.add(Fault.model_validate({"kind": kind, **details}))

    def mend(self) -> None:
        """Nothing goes wrong any more."""
        for wire, model in ((self.kommo_wire, self.kommo), (self.airtable_wire, self.airtable)):
            wire.unreachable = False
            model.faults.clear()

    def calls(self, side: str, *, method: str = "", route: str = "") -> int:
        """API calls that a side has seen."""
        model = self.kommo if side == "kommo" else self.airtable
        by_route = model.requests.as_json()["by_route"].items()
        return sum(n for name, n in by_route if name.startswith(method) and route in name)

    def throttled(self) -> int:
        """429s that both sides have answered."""
        return sum(
            model.requests.as_json()["too_many_requests"] for model in (self.kommo, self.airtable)
        )

    def events(self, *states: str) -> list[Any]:
        """Events in these states, or all, oldest first."""
        wanted = events.c.state.in_(states) if states else sa.true()
        with self.database.read() as connection:
            rows = connection.execute(sa.select(events).where(wanted).order_by(events.c.id))
            return list(rows.all())

    def errors(self) -> list[str]:
        """Why events are dead."""
        return [event.error for event in self.events("dead")]

    def journal_rows(self, *states: str) -> list[Any]:
        """Journal rows in these states, or all, oldest first."""
        wanted = journal.c.state.in_(states) if states else sa.true()
        with self.database.read() as connection:
            rows = connection.execute(sa.select(journal).where(wanted).order_by(journal.c.id))
            return list(rows.all())

    def ledger(self, lead_id: int) -> LedgerEntry | None:
        key = lead_key(lead_id)
        entry = self.journal.load([key])[key].entry
        return None if entry == LedgerEntry(key) else entry

    def assert_in_step(
        self,
        lead_ids: Iterable[int],
        *,
        may_keep: bool = False,
        alike: Callable[[str, Canonical, Canonical], bool] = lambda _, one, other: one == other,
    ) -> None:
        """Nothing waits or is open, and each lead has one record that shows it, as the ledger says.

        Fields that are held for a person are left out.

        Args:
            lead_ids: all that have a record.
            may_keep: an Airtable value may have met with a blank of Kommo's, which owns the field
                but overwrites nothing with a blank; the ledger must know of it.
            alike: whether both sides may show these of a field, where one of them rounds.
        """
        assert not self.events("pending", "claimed"), "events wait"
        assert not self.journal_rows("open"), "an intent is open"
        mapping: FieldMappings = self.engine.directory.mapping()
        records = self.by_lead()
        assert sorted(records) == sorted(lead_ids)
        known = self.journal.load([lead_key(lead_id) for lead_id in records])
        for lead_id, record in records.items():
            lead, entry = self.lead(lead_id), known[lead_key(lead_id)].entry
            assert entry.record_id == record["id"]
            for field in mapping.fields:
                if field.id in known[lead_key(lead_id)].held:
                    continue
                wanted = field.from_kommo(lead, final=True)
                shown = field.from_cell(record["fields"].get(field.name))
                agreed = entry.fields[field.id]
                met_blank = may_keep and field.owner == "kommo" and is_blank(wanted)
                assert alike(field.name, shown, wanted) or met_blank, (
                    f"{field.name} of lead {lead_id}"
                )
                # What was sent to Kommo, and not seen there yet, it may keep otherwise.
                known_there = agreed.kommo == wanted or (
                    agreed.expected and alike(field.name, agreed.kommo, wanted)
                )
                assert known_there, f"ledger of Kommo: {field.name}"
                assert agreed.airtable == shown, f"ledger of Airtable: {field.name}"
