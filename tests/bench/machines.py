"""Two receivers, two workers, PostgreSQL and Redis under kill -9: what is lost, doubled, reordered."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from tests.conftest import postgresql
from tests.machines import Proxy, machines
from tests.stack import wait_until
from tests.storm import Storm, verdict

LEADS = 500


def run(folder: Path, count: int = 5_000, kill_every_seconds: float = 5.0) -> dict[str, Any]:
    """One storm: ``count`` events, any part killed every few seconds."""
    with postgresql() as url, machines(folder / "machines", url) as here:
        leads = here.control("kommo", "POST", "seed", {"count": LEADS})["ids"]
        dice = random.Random(2026)
        proxy = Proxy(here, leads, dice)
        storm = Storm(here, dice, kill_every_seconds, 60, proxy.edit)
        began = time.monotonic()
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("events", total=count)

            def goes_on(number: int) -> bool:
                progress.update(task, completed=number)
                return number < count

            storm.rage(goes_on)
        sent = time.monotonic() - began
        wait_until(here.quiet, 300, "all is settled", 0.2)
        return {
            "events acknowledged": proxy.acked,
            "leads": len(leads),
            "sent again, for a receiver was down": proxy.resent,
            "kills": storm.kills.total(),
            **{f"kills of {name}": count for name, count in sorted(storm.kills.items())},
            **verdict(here),
            "seconds of sending": round(sent, 1),
            "seconds until all was settled": round(time.monotonic() - began, 1),
        }
