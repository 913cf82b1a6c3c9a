"""Two receivers, two workers, PostgreSQL and Redis under kill -9: what is lost, doubled, reordered."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from tests.conftest import postgresql
from tests.machines import Storm, machines, verdict
from tests.stack import wait_until

LEADS = 500


def run(folder: Path, count: int = 5_000, kill_every_seconds: float = 5.0) -> dict[str, Any]:
    """One storm: ``count`` events, any part killed every few seconds."""
    with postgresql() as url, machines(folder / "machines", url) as here:
        leads = here.control("kommo", "POST", "seed", {"count": LEADS})["ids"]
        storm = Storm(here, random.Random(2026), kill_every_seconds, per_second=60)
        began = time.monotonic()
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("events", total=count)
            storm.rage(leads, count, lambda done: progress.update(task, completed=done))
        sent = time.monotonic() - began
        wait_until(here.quiet, 300, "all is settled", 0.2)
        return {
            "events acknowledged": storm.acked,
            "leads": len(leads),
            "sent again, for a receiver was down": storm.resent,
            "kills": sum(here.kills.values()),
            **{f"kills of {name}": count for name, count in sorted(here.kills.items())},
            **verdict(here),
            "seconds of sending": round(sent, 1),
            "seconds until all was settled": round(time.monotonic() - began, 1),
        }
