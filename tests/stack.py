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

from kommo_airtable_sync.assembly import SystemClock
from kommo_airtable_sync.runtime.up import free_port
from kommo_airtable_sync.sandbox.observe import StandIns
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.reports import Reports

SECRET = "a-secret-for-tests-0123456789"
ROOT = Path(__file__).parent.parent
HOOKS = [
    "add_lead",
    "update_lead",
    "delete_lead",
    "restore_lead",
    "status_lead",
    "responsible_lead",
]


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
        self._reports: Reports | None = None
        (folder / "sync.yaml").write_text(config or (ROOT / "sync.example.yaml").read_text())
        self.home = folder / "home"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SYNC_")},
            "KOMMO_BASE_URL": self.kommo,
            "KOMMO_TOKEN": "sandbox-kommo-token",
            "AIRTABLE_ENDPOINT_URL": self.airtable,
            "AIRTABLE_TOKEN": "patSandbox0000000.sandbox",
            "AIRTABLE_BASE_ID": "appSandbox0000000",
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

    def spawn(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start one of our commands; its output goes to a file of the folder."""
        with (self.folder / f"{name}.out").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "kommo_airtable_sync", *arguments],
                env=self.environment,
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
        """Start everything and register the webhook."""
        self.start_sandbox(leads)
        self.spawn("up", "up")
        self.wait_ready()
        self.register()

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
        wait_until(lambda: all(readiness(settings).values()), 40, "the stack is ready", 0.2)

    def register(self) -> None:
        """Subscribe the receiver to Kommo's webhooks."""
        self._session.post(
            f"{self.kommo}/api/v4/webhooks",
            json={"destination": self.hook_url, "settings": HOOKS},
            headers={"Authorization": "Bearer sandbox-kommo-token"},
            timeout=10,
        ).raise_for_status()

    def stop(self) -> None:
        """Stop everything, the product first."""
        for name in sorted(self.processes, key=lambda name: name == "sandbox"):
            process = self.processes[name]
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait(5)
        self.processes.clear()

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

    def reports(self) -> Reports:
        """The product's store, read from outside."""
        if self._reports is None:
            own = f"sqlite:///{self.home / 'sync.db'}"
            url = self.environment.get("SYNC_DATABASE_URL", own)
            self._reports = Reports(Database(url, SystemClock()))
        return self._reports

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
        found = self.control("airtable", "GET", "records?table=Deals")["records"]
        return [record["fields"] for record in found]

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
