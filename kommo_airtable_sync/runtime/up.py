"""``up``: everything in the foreground, under supervisord, which restarts what dies.

One receiver, one gRPC code server that webserver and daemon share, live and bulk workers. Stopping
raises the stop flag first, so that sensor, linger and workers end by themselves; signals and
SIGKILL come after it.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import requests
from rich.console import Console

from kommo_airtable_sync.core.errors import SyncError
from kommo_airtable_sync.opening import open_database
from kommo_airtable_sync.runtime.instance import prepare_home, write_workspace
from kommo_airtable_sync.runtime.leftovers import (
    STOP_SECONDS,
    alive,
    only_one,
    stop_flag,
    stop_leftovers,
)
from kommo_airtable_sync.runtime.ports import free_port, require_free_port
from kommo_airtable_sync.runtime.set_backs import WATCH, SetBacks
from kommo_airtable_sync.settings import ACCOUNTS, Settings, child_environment
from kommo_airtable_sync.store.runners import STALE_SECONDS, Runners

# A worker's main loop looks at signals every 2 s at best; its runs have ended by then.
WORKER_STOP_SECONDS = 1
READY_SECONDS_MAX = 90.0
# How long runs may take to see the stop flag and end by themselves.
FLAG_SECONDS_MAX = 3.0
SENSOR_SECONDS_MAX = 60.0

TICKING = [sys.executable, "-m", "kommo_airtable_sync.runtime.ticking"]

RECEIVER, CONTROL, WORKERS = "receiver", "control", "workers"
GROUPS = (RECEIVER, CONTROL, WORKERS)
"""What one machine of several may run; control is daemon, code server and UI, once in all."""
GROUP_OF = {
    "receiver": RECEIVER,
    "webserver": CONTROL,
    "sensor": CONTROL,
    "worker-live": WORKERS,
    "worker-bulk": WORKERS,
}


@dataclass(frozen=True, slots=True)
class Part:
    """One supervised program."""

    name: str
    command: list[str]
    stop_seconds: int = STOP_SECONDS
    group: str = CONTROL


def run_up(settings: Settings, workers: int, groups: Collection[str] = GROUPS) -> int:
    """Run the parts of these groups until SIGINT or SIGTERM; returns the exit code.

    Raises:
        ConfigurationError: before anything starts, if a setting or sync.yaml is wrong.
    """
    settings.require(*ACCOUNTS, "KOMMO_WEBHOOK_SECRET", "AIRTABLE_WEBHOOK_SECRET")
    settings.load_config()
    alone = only_one(settings)
    stop_leftovers(settings)
    if RECEIVER in groups:
        require_free_port("RECEIVER_PORT", settings.receiver_host, settings.receiver_port)
    if CONTROL in groups:
        require_free_port("DAGSTER_PORT", "127.0.0.1", settings.dagster_port)
    run_folder = prepare_home(settings)
    open_database(settings).close()
    for mark in run_folder.glob("*.ready"):
        mark.unlink()
    stop_file = stop_flag(settings)
    stop_file.unlink(missing_ok=True)
    environment = _environment(settings, stop_file)
    chosen = [part for part in parts(settings, workers) if part.group in groups]
    config = write_supervisor_config(settings, chosen)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    create_dagster_storage(environment)
    process = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(config)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    stopping: list[int] = []

    def stop(signum: int, _frame: object) -> None:
        stopping.append(signum)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    over = lambda: bool(stopping) or process.poll() is not None  # noqa: E731
    _announce(console, settings, groups, over)
    _stay(over, environment, controls=CONTROL in groups)
    if not stopping:
        console.print(
            f"error: the supervisor ended by itself; see {settings.home / 'run' / 'logs'}"
        )
        alone.close()
        return 1
    console.print("stopping ...")
    stop_file.touch()
    _wait_for_runs(settings)
    _stop(process)
    alone.close()
    return 0


def _stay(over: Callable[[], bool], environment: dict[str, str], *, controls: bool) -> None:
    set_backs = SetBacks()
    while not over():
        if set_backs.noticed() and controls:
            subprocess.Popen([*TICKING, WATCH], env=environment)  # noqa: S603 - our own command
        time.sleep(0.2)


def _wait_for_runs(settings: Settings) -> None:
    database = open_database(settings)
    ends_at = time.monotonic() + FLAG_SECONDS_MAX
    while time.monotonic() < ends_at:
        alive = [
            runner
            for runner in Runners(database).all()
            if runner.host == socket.gethostname() and runner.heartbeat_age_seconds < STALE_SECONDS
        ]
        if not alive:
            break
        time.sleep(0.1)
    database.close()


def create_dagster_storage(environment: dict[str, str]) -> None:
    """Let one process create Dagster's databases: several at once spoil them on SQLite.

    Raises:
        SyncError: with what Dagster said.
    """
    done = subprocess.run(  # noqa: S603 - our own command
        TICKING,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        message = f"Dagster cannot use DAGSTER_HOME: {last}"
        raise SyncError(message)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=STOP_SECONDS + 1)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _announce(
    console: Console, settings: Settings, groups: Collection[str], over: Callable[[], bool]
) -> None:
    """Wait until every part works, then say where things are."""
    console.print(f"starting {', '.join(groups)} ...")
    ends_at = time.monotonic() + READY_SECONDS_MAX
    waiting = ""
    while time.monotonic() < ends_at and not over():
        waiting = ", ".join(
            name
            for name, works in readiness(settings).items()
            if not works and GROUP_OF[name] in groups
        )
        if not waiting:
            receiver = f"  webhooks: http://{settings.receiver_host}:{settings.receiver_port}"
            ui = f"  Dagster UI: http://127.0.0.1:{settings.dagster_port}"
            console.print(
                f"ready.{receiver if RECEIVER in groups else ''}{ui if CONTROL in groups else ''}\n"
                f"logs: {settings.home / 'run' / 'logs'}   Ctrl-C stops everything."
            )
            return
        time.sleep(0.2)
    if not over():
        console.print(f"still waiting for: {waiting}; see {settings.home / 'run' / 'logs'}")


def readiness(settings: Settings) -> dict[str, bool]:
    """Which parts of this machine answer."""
    marks = settings.home / "run"
    host = "127.0.0.1" if settings.receiver_host in ("0.0.0.0", "") else settings.receiver_host  # noqa: S104
    return {
        # A mark of ours, too: another installation may answer on the same port.
        "receiver": alive(marks / "receiver.ready")
        and _answers(f"http://{host}:{settings.receiver_port}/readyz"),
        "webserver": alive(marks / "supervisord.pid")
        and _answers(f"http://127.0.0.1:{settings.dagster_port}/server_info"),
        "worker-live": any(alive(mark) for mark in marks.glob("worker-live-*.ready")),
        "worker-bulk": any(alive(mark) for mark in marks.glob("worker-bulk-*.ready")),
        "sensor": _fresh(marks / "sensor.ready"),
    }


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2.0).ok
    except requests.RequestException:
        return False


def _fresh(mark: Path) -> bool:
    """Whether the sensor has ticked lately, which takes daemon and code server."""
    try:
        return alive(mark) and time.time() - mark.stat().st_mtime < SENSOR_SECONDS_MAX
    except OSError:
        return False


def parts(settings: Settings, workers: int) -> list[Part]:
    """The programs, in starting order."""
    us = [sys.executable, "-m", "kommo_airtable_sync"]
    port = free_port()
    workspace = str(write_workspace(settings, port))
    webserver = ["-h", "127.0.0.1", "-p", str(settings.dagster_port), "-w", workspace]
    return [
        Part(
            "receiver",
            [
                *us,
                "receiver",
                "--host",
                settings.receiver_host,
                "--port",
                str(settings.receiver_port),
            ],
            group=RECEIVER,
        ),
        Part(
            "code-server",
            [
                sys.executable,
                "-m",
                "dagster",
                "api",
                "grpc",
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
                "--module-name",
                "kommo_airtable_sync.definitions",
                "--location-name",
                "kommo_airtable_sync",
            ],
        ),
        *(
            Part(
                f"worker-live-{number}",
                [*us, "worker", "--queue", "live"],
                WORKER_STOP_SECONDS,
                WORKERS,
            )
            for number in range(1, workers + 1)
        ),
        Part("worker-bulk", [*us, "worker", "--queue", "bulk"], WORKER_STOP_SECONDS, WORKERS),
        Part("webserver", [sys.executable, "-m", "dagster_webserver", *webserver]),
        Part(
            "daemon",
            [sys.executable, "-m", "dagster._daemon", "run", "-w", workspace],
        ),
    ]


def control_socket(settings: Settings) -> Path:
    """Supervisord's control socket: in the temporary folder, since paths of sockets are short."""
    name = hashlib.sha256(str(settings.home).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"kommo-airtable-sync-{name}.sock"


def write_supervisor_config(settings: Settings, programs: list[Part]) -> Path:
    """Supervisord's configuration: no secret is in it, they come by the environment."""
    home = settings.home
    sections = [
        "[supervisord]\n"
        f"logfile={home}/run/logs/supervisord.log\nlogfile_maxbytes=5MB\nlogfile_backups=1\n"
        f"pidfile={home}/run/supervisord.pid\nchildlogdir={home}/run/logs\nminfds=1024\n",
        f"[unix_http_server]\nfile={control_socket(settings)}\nchmod=0700\n",
        f"[supervisorctl]\nserverurl=unix://{control_socket(settings)}\n",
        "[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n",
    ]
    sections += [
        f"[program:{part.name}]\n"
        f"command={' '.join(_quoted(word) for word in part.command)}\n"
        "autostart=true\nautorestart=true\nstartsecs=2\nstartretries=1000000\n"
        f"stopsignal=TERM\nstopwaitsecs={part.stop_seconds}\nstopasgroup=false\nkillasgroup=true\n"
        f"stdout_logfile={home}/run/logs/{part.name}.log\nredirect_stderr=true\n"
        "stdout_logfile_maxbytes=10MB\nstdout_logfile_backups=2\n"
        for part in programs
    ]
    # One group: its members are stopped together, not one after the other.
    names = ",".join(part.name for part in programs)
    sections.append(f"[group:sync]\nprograms={names}\n")
    path = home / "run" / "supervisord.conf"
    path.write_text("\n".join(sections), encoding="utf-8")
    path.chmod(0o600)
    return path


def _quoted(word: str) -> str:
    if any(mark in word for mark in "\"'%;\n"):
        message = f"A path holds a character that the supervisor cannot pass on: {word}"
        raise SyncError(message)
    return f'"{word}"' if " " in word else word


def _environment(settings: Settings, stop_file: Path) -> dict[str, str]:
    return {
        **child_environment(settings),
        "SYNC_STOP_FILE": str(stop_file),
        "SYNC_CONFIG": str(settings.sync_config.resolve()),
        "RECEIVER_HOST": settings.receiver_host,
        "RECEIVER_PORT": str(settings.receiver_port),
        "DAGSTER_PORT": str(settings.dagster_port),
        "PYTHONUNBUFFERED": "1",
        # glibc keeps freed memory in up to eight heaps a core, one a thread (decisions/0011).
        "MALLOC_ARENA_MAX": os.environ.get("MALLOC_ARENA_MAX", "2"),
    }
