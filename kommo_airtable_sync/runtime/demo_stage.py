"""The demo's stage: stand-ins and product as processes in one folder, and what is played there."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import requests
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from kommo_airtable_sync.core.errors import SyncError
from kommo_airtable_sync.opening import open_database
from kommo_airtable_sync.runtime.up import free_port, readiness
from kommo_airtable_sync.sandbox.observe import agreement, quantiles, see
from kommo_airtable_sync.sandbox.stand_ins import StandIns, settings_for
from kommo_airtable_sync.sandbox.traffic import WATCHED, People
from kommo_airtable_sync.settings import Settings
from kommo_airtable_sync.store.reports import Reports

SECRET = "demo-secret-0123456789"  # noqa: S105 - guards a receiver on loopback for minutes
EXAMPLE_CONFIG = Path(__file__).parent.parent / "sandbox" / "sync.example.yaml"
READY_SECONDS_MAX = 120.0
QUIET_SECONDS_MAX = 300.0


class Stage:
    """Everything the demo runs.

    Args:
        folder: takes logs, databases and sync.yaml.
        console: for progress and the summary.
    """

    def __init__(self, folder: Path, console: Console) -> None:
        self._folder = folder
        self._console = console
        self._processes: list[subprocess.Popen[bytes]] = []
        self._ports = (free_port(), free_port())
        self._stand_ins = StandIns(*(f"http://127.0.0.1:{port}" for port in self._ports))
        self._settings = Settings.model_validate(
            {
                "dagster_home": folder / "dagster_home",
                "receiver_port": port_or_free(8080),
                "dagster_port": port_or_free(3000),
                "sync_config": folder / "sync.yaml",
                "sync_database_url": "",
            }
        )
        self.dagster = f"http://127.0.0.1:{self._settings.dagster_port}"

    def start(self, leads: int) -> None:
        """Start stand-ins and product, subscribe to webhooks, load the deals that are there."""
        self._folder.joinpath("sync.yaml").write_text(EXAMPLE_CONFIG.read_text(encoding="utf-8"))
        kommo_port, airtable_port = (str(port) for port in self._ports)
        self._console.print("starting the stand-ins of Kommo and Airtable (120 ms a call) ...")
        self._spawn(
            "sandbox",
            *("--kommo-port", kommo_port, "--airtable-port", airtable_port),
            *("--leads", str(leads)),
        )
        self._wait(self._stand_ins_answer, 30, "the stand-ins")
        # Before the product runs, which counts on having Kommo's rate for itself.
        receiver = f"http://127.0.0.1:{self._settings.receiver_port}"
        self._stand_ins.connect(receiver, SECRET, watch=WATCHED)
        self._console.print("starting receiver, Dagster and workers ...")
        self._spawn("up")
        self._wait(
            lambda: all(readiness(self._settings).values()), READY_SECONDS_MAX, "the product"
        )
        self._console.print(f"Dagster UI: {self.dagster}")
        if leads:
            done = subprocess.run(  # noqa: S603 - our own command
                self._command("reconcile"), env=self._environment(), check=False
            )
            if done.returncode:
                raise SyncError("The initial load failed; see above.")

    def play(self, events: int) -> bool:
        """Make edits, wait until they have arrived, print the summary; True if both sides agree."""
        began = time.time()
        people = People(self._stand_ins)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task("edits in Kommo and Airtable", total=events)
            for _ in range(events):
                people.act()
                progress.advance(task)
                time.sleep(people.pause_seconds())
            progress.update(task, description="edits in Kommo and Airtable, all synced")
            reports = Reports(open_database(self._settings))
            self._wait(lambda: self._quiet(reports), QUIET_SECONDS_MAX, "the inbox to empty")
        return self._summarise(began)

    def stop(self) -> None:
        """Stop all processes, the product first."""
        for process in reversed(self._processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in reversed(self._processes):
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        self._processes.clear()

    def _summarise(self, began: float) -> bool:
        seen, comparison = see(self._stand_ins, began), agreement(self._stand_ins)
        table = Table(title="What happened, by the stand-ins' own logs", title_justify="left")
        for column in ("what", "Kommo to Airtable", "Airtable to Kommo"):
            table.add_column(column, justify="left" if column == "what" else "right", no_wrap=True)
        latency = "p50 / p95 / max seconds"
        rows: dict[str, tuple[object, object]] = {
            "edits": (len(seen.edits), len(seen.record_edits)),
            "created": (len(seen.created), "-"),
            "updated": (len(seen.updated), len(seen.lead_updates)),
            latency: (_latency(seen.there()), _latency(seen.back())),
        }
        for name, (there, back) in rows.items():
            table.add_row(name, str(there), str(back))
        table.add_section()
        for name, figure in {
            "duplicates": comparison.duplicates,
            "differences": len(comparison.differences),
            "API calls to Kommo": self._calls("kommo"),
            "API calls to Airtable": self._calls("airtable"),
            "records in Airtable": len(self._stand_ins.records()),
            "seconds": f"{time.time() - began:.0f}",
        }.items():
            table.add_row(name, str(figure), "")
        Console().print(table)
        for line in comparison.differences[:10]:
            self._console.print(line, markup=False)
        return comparison.duplicates == 0 and not comparison.differences

    def _calls(self, side: str) -> int:
        return self._stand_ins.control(side, "GET", "requests?log=0")["total"]

    def _quiet(self, reports: Reports) -> bool:
        """Nothing on its way to us, nothing waiting here."""
        counts = reports.inbox_counts()
        waits = counts["pending"] + counts["claimed"] + counts["retrying"]
        return not waits and not self._stand_ins.waiting()

    def _stand_ins_answer(self) -> bool:
        try:
            self._stand_ins.control("kommo", "GET", "settings")
            self._stand_ins.control("airtable", "GET", "settings")
        except requests.ConnectionError:
            return False
        return True

    def _wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        ends_at = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > ends_at:
                message = f"Waited {seconds:.0f} s for {what} in vain; logs are in {self._folder}."
                raise SyncError(message)
            if any(process.poll() is not None for process in self._processes):
                message = f"A process ended too soon; its output is in {self._folder}."
                raise SyncError(message)
            time.sleep(0.1)

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "kommo_airtable_sync", *arguments]

    def _spawn(self, *arguments: str) -> None:
        with (self._folder / f"{arguments[0]}.log").open("wb") as output:
            self._processes.append(
                subprocess.Popen(  # noqa: S603 - our own command
                    self._command(*arguments),
                    env=self._environment(),
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def _environment(self) -> dict[str, str]:
        settings = self._settings
        return {
            **os.environ,
            **settings_for(self._stand_ins.kommo, self._stand_ins.airtable),
            "KOMMO_WEBHOOK_SECRET": SECRET,
            "AIRTABLE_WEBHOOK_SECRET": SECRET,
            "DAGSTER_HOME": str(settings.home),
            "SYNC_CONFIG": str(settings.sync_config),
            "SYNC_DATABASE_URL": f"sqlite:///{settings.home / 'sync.db'}",
            # Named, not left empty: a .env of the user must not lend the demo its own broker.
            "CELERY_BROKER_URL": "filesystem://",
            "CELERY_RESULT_BACKEND": f"file://{settings.home / 'celery' / 'results'}",
            "RECEIVER_PORT": str(settings.receiver_port),
            "DAGSTER_PORT": str(settings.dagster_port),
        }


def _latency(seconds: list[float]) -> str:
    found = quantiles(seconds)
    shown = (found.p50, found.p95, found.max)
    return " / ".join("-" if value is None else f"{value:.2f}" for value in shown)


def port_or_free(wanted: int) -> int:
    """The usual port if nobody has it, else another."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", wanted)):
            return wanted
    return free_port()
