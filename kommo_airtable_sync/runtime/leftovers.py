"""One ``up`` a DAGSTER_HOME: claim it, and end what an earlier one that was killed left running."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.settings import Settings

STOP_SECONDS = 5


def only_one(settings: Settings) -> IO[str]:
    """Claim DAGSTER_HOME for this ``up``, until the answer is closed or this process ends.

    Raises:
        ConfigurationError: another ``up`` works there: two would end each other's parts.
    """
    run_folder = settings.home / "run"
    run_folder.mkdir(mode=0o700, exist_ok=True)
    claim = (run_folder / "up.lock").open("w")
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        claim.close()
        raise ConfigurationError(
            f"Another up runs in DAGSTER_HOME {settings.home}.",
            "Stop it first; give each `up` a DAGSTER_HOME of its own, or name all parts in one: "
            "up --only receiver --only workers.",
        ) from None
    return claim


def stop_leftovers(settings: Settings) -> None:
    """End the parts of an earlier ``up`` that was killed: its supervisor lives on without it.

    If that was killed as well, they live on without either, and have their ports.
    """
    mark = settings.home / "run" / "supervisord.pid"
    try:
        pid = int(mark.read_text())
    except (OSError, ValueError):
        pid = 0
    if pid and str(settings.home / "run" / "supervisord.conf") in command_line(pid):
        os.kill(pid, signal.SIGTERM)
        _wait_while(lambda: alive(mark), 2 * STOP_SECONDS)
    stop_file = stop_flag(settings)
    for signum in (signal.SIGTERM, signal.SIGKILL):
        for orphan in orphans(stop_file):
            with suppress(ProcessLookupError):
                os.kill(orphan, signum)
        _wait_while(lambda: orphans(stop_file), STOP_SECONDS)


def orphans(stop_file: Path) -> list[int]:
    """Processes that were started with this stop flag; none where there is no /proc to tell."""
    given = f"SYNC_STOP_FILE={stop_file}".encode()
    found: list[int] = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # ended meanwhile, or somebody else's
            if given in environment.read_bytes().split(b"\0"):
                found.append(int(environment.parent.name))
    return found


def _wait_while(condition: Callable[[], object], seconds: float) -> None:
    ends_at = time.monotonic() + seconds
    while condition() and time.monotonic() < ends_at:
        time.sleep(0.1)


def stop_flag(settings: Settings) -> Path:
    """The file whose being there ends sensors, lingering runs and workers."""
    return settings.home / "run" / "stop"


def command_line(pid: int) -> str:
    """The command of a process; empty if there is none."""
    proc = Path(f"/proc/{pid}/cmdline")
    if Path("/proc/self").exists():
        return proc.read_text().replace("\0", " ") if proc.exists() else ""
    shown = subprocess.run(  # noqa: S603 - our own arguments
        ["ps", "-p", str(pid), "-o", "command="],  # noqa: S607 - wherever it lives
        capture_output=True,
        text=True,
        check=False,
    )
    return shown.stdout


def alive(mark: Path) -> bool:
    """Whether the process that left this mark still lives."""
    try:
        os.kill(int(mark.read_text()), 0)
    except (OSError, ValueError):
        return False
    return True
