"""How fast a webhook is acknowledged after it is durable, at a steady rate."""

from __future__ import annotations

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests

from tests.stack import Stack, wait_until

THREADS = 16


def run(folder: Path, rate: int = 100, seconds: int = 30) -> dict[str, Any]:
    """Send at a steady rate; count what was acknowledged and what is in the database."""
    with Stack(folder / f"ack-{rate}") as stack:
        stack.home.mkdir(parents=True)
        stack.spawn("receiver", "receiver")
        wait_until(lambda: stack.answers(f"{stack.receiver}/readyz"), 60, "the receiver")
        local = threading.local()
        took: list[float] = []
        bad: list[int] = []
        began = time.monotonic() + 0.5

        def one(number: int) -> None:
            if not hasattr(local, "session"):
                local.session = requests.Session()
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            sent = time.monotonic()
            answer = local.session.post(
                stack.hook_url,
                data=f"leads%5Bupdate%5D%5B0%5D%5Bid%5D={number + 1}&account%5Bid%5D=1",
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                timeout=10,
            )
            took.append(time.monotonic() - sent)
            if answer.status_code != 200:
                bad.append(answer.status_code)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(one, range(rate * seconds)))
        stored = (
            sqlite3.connect(stack.home / "sync.db")
            .execute("select count(*) from events where state = 'pending'")
            .fetchone()[0]
        )
    ordered = sorted(took)
    return {
        "rate_per_s": rate,
        "requests": len(ordered),
        "refused": len(bad),
        "stored": stored,
        "p50_ms": round(ordered[len(ordered) // 2] * 1000, 1),
        "p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1000, 1),
        "max_ms": round(ordered[-1] * 1000, 1),
    }
