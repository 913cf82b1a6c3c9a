"""The whole product as real processes on free ports: stand-ins, `up`, and hands on both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from kommo_airtable_sync.core.config import parse_config
from kommo_airtable_sync.opening import SystemClock
from kommo_airtable_sync.runtime.ports import free_port
from kommo_airtable_sync.sandbox.stand_ins import StandIns, settings_for
from kommo_airtable_sync.sandbox.traffic import WATCHED
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.reports import Reports

SECRET = "a-secret-for-tests-0123456789"
ROOT = Path(__file__).parent.parent


def wait_until(
    condition: Callable[[], object], seconds: float, what: str, every: float = 0.05
) -> Any:
    """Wait for a condition; its truthy value, or a failure that says what did not come."""
    ends_at = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > ends_at:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(every)


class Stack:
    """Sandbox and product in one folder.

    Args:
        folder: DAGSTER_HOME, logs and sync.yaml go here.
        config: text of sync.yaml; the example by default.
        environment: settings on top of the stand-ins' own.
        fast: stand-ins without latency.
    """

    def __init__(
        self,
        folder: Path,
        *,
        config: str | None = None,
        environment: dict[str, str] | None = None,
        fast: bool = False,
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.kommo_port, self.airtable_port = free_port(), free_port()
        self.receiver_port, self.dagster_port = free_port(), free_port()
        self.kommo = f"http://127.0.0.1:{self.kommo_port}"
        self.airtable = f"http://127.0.0.1:{self.airtable_port}"
        self.receiver = f"http://127.0.0.1:{self.receiver_port}"
        self.dagster = f"http://127.0.0.1:{self.dagster_port}"
        self.hook_url = f"{self.receiver}/hooks/kommo/{SECRET}"
        self.stand_ins = StandIns(self.kommo, self.airtable)
        self.fast = fast
        self._session = requests.Session()
        self._database: Database | None = None
        (folder / "sync.yaml").write_text(config or (ROOT / "sync.example.yaml").read_text())
        self.home = folder / "home"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SYNC_")},
            **settings_for(self.kommo, self.airtable),
            "KOMMO_WEBHOOK_SECRET": SECRET,
            "AIRTABLE_WEBHOOK_SECRET": SECRET,
            "DAGSTER_HOME": str(self.home),
            "SYNC_CONFIG": str(folder / "sync.yaml"),
            "RECEIVER_PORT": str(self.receiver_port),
            "DAGSTER_PORT": str(self.dagster_port),
            **(environment or {}),
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    # ---------------------------------------------------------------- processes

    def spawn(self, name: str, *arguments: str, **settings: str) -> subprocess.Popen[bytes]:
        """Start one of our commands; its output goes to a file of the folder."""
        with (self.folder / f"{name}.out").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "kommo_airtable_sync", *arguments],
                env={**self.environment, **settings},
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def start_sandbox(self, leads: int = 0) -> None:
        """Start both stand-ins."""
        arguments = ["--kommo-port", str(self.kommo_port), "--airtable-port"]
        arguments += [str(self.airtable_port), "--leads", str(leads)]
        self.spawn("sandbox", "sandbox", *arguments, *(["--fast"] if self.fast else []))
        for url in (self.kommo, self.airtable):
            wait_until(lambda url=url: self.answers(f"{url}/_control/settings"), 20, url)

    def start(self, leads: int = 0) -> None:
        """Start everything and let both sides tell the product of every change."""
        self.start_sandbox(leads)
        self.connect()  # before the product runs: it counts on having Kommo's rate for itself
        self.start_product()

    def start_product(self) -> None:
        """Start what is measured or tested, and wait until it works."""
        self.spawn("up", "up")
        self.wait_ready()

    def wait_ready(self) -> None:
        """Until `status` says ready."""
        from kommo_airtable_sync.runtime.up import readiness
        from kommo_airtable_sync.settings import Settings

        settings = Settings(
            dagster_home=self.home,
            receiver_port=self.receiver_port,
            dagster_port=self.dagster_port,
            _env_file=None,
        )
        wait_until(lambda: all(readiness(settings).values()), 240, "the stack is ready", 0.2)

    def connect(self) -> None:
        """Kommo's webhooks, and an Airtable automation that API writes trigger, too."""
        fields = parse_config((self.folder / "sync.yaml").read_text(encoding="utf-8")).fields
        shared = any(field.owner != "kommo" for field in fields)
        self.stand_ins.connect(self.receiver, SECRET, watch=WATCHED if shared else ())

    def stop(self) -> None:
        """Stop everything, the product first."""
        self.stop_product()
        self._end("sandbox")

    def stop_product(self) -> None:
        """Stop all but the stand-ins."""
        for name in [each for each in self.processes if each != "sandbox"]:
            self._end(name)

    def _end(self, name: str) -> None:
        process = self.processes.pop(name, None)
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(5)

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of our commands to its end."""
        return subprocess.run(
            [sys.executable, "-m", "kommo_airtable_sync", *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    # ---------------------------------------------------------------- hands

    def database(self) -> Database:
        """The product's store, looked at from outside."""
        if self._database is None:
            own = f"sqlite:///{self.home / 'sync.db'}"
            url = self.environment.get("SYNC_DATABASE_URL", own)
            self._database = Database(url, SystemClock())
        return self._database

    def reports(self) -> Reports:
        """What people ask the inbox."""
        return Reports(self.database())

    def quiet(self) -> bool:
        """Nothing is on its way to the product, and nothing waits or is worked on there."""
        # Looked at before and after: a post may arrive in between.
        return not self._waits() and not self.stand_ins.waiting() and not self._waits()

    def _waits(self) -> int:
        counts = self.reports().inbox_counts()
        return counts["pending"] + counts["claimed"] + counts["retrying"]

    def answers(self, url: str) -> bool:
        """Whether something answers there."""
        try:
            return self._session.get(url, timeout=2).ok
        except requests.RequestException:
            return False

    def control(self, side: str, method: str, path: str, body: Any = None) -> Any:
        """Use a stand-in's control surface."""
        return self.stand_ins.control(side, method, path, body)

    def records(self) -> list[dict[str, Any]]:
        """Every record of the Deals table, as fields by name."""
        return [record["fields"] for record in self.stand_ins.records()]

    def edit_record(self, lead_id: int, **fields: Any) -> None:
        """Somebody changes cells of a lead's record; underscores stand for blanks."""
        record = next(
            each
            for each in self.stand_ins.records()
            if each["fields"].get("Kommo Deal ID") == lead_id
        )
        spelled = {name.replace("_", " "): value for name, value in fields.items()}
        self.stand_ins.edit_record(record["id"], spelled)

    def wait_for_record(self, lead_id: int, seconds: float = 60, **fields: Any) -> dict[str, Any]:
        """Until a lead's record shows these fields; all its fields."""
        wanted = {name.replace("_", " "): value for name, value in fields.items()}.items()

        def shown() -> dict[str, Any] | None:
            found = (r for r in self.records() if r.get("Kommo Deal ID") == lead_id)
            return next((r for r in found if all(r.get(k) == v for k, v in wanted)), None)

        return wait_until(shown, seconds, f"the record of lead {lead_id} shows {fields}")

    def wait_for_lead(self, lead_id: int, seconds: float = 60, **values: Any) -> dict[str, Any]:
        """Until a lead shows these values in Kommo: attributes, or ``tags`` as a set of names."""

        def shown() -> dict[str, Any] | None:
            lead = self.stand_ins.lead(lead_id)
            tags = {tag["name"] for tag in lead["_embedded"]["tags"]}
            now = lead | {"tags": tags}
            return lead if all(now[name] == value for name, value in values.items()) else None

        return wait_until(shown, seconds, f"lead {lead_id} shows {values}")

    def graphql(self, query: str, **variables: Any) -> Any:
        """Ask Dagster as the UI does."""
        answer = self._session.post(
            f"{self.dagster}/graphql",
            data=json.dumps({"query": query, "variables": variables}),
            headers={"Content-Type": "application/json"},
            timeout=30,
        )
        answer.raise_for_status()
        return answer.json()["data"]
