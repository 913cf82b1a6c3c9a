"""How fast a webhook is acknowledged after it is durable, rate by rate until it falls behind.

On SQLite and on PostgreSQL, and against an endpoint that does nothing, in the same server and by the
same sender: where that one falls behind, the sender or the server is the limit, not the product.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from kommo_airtable_sync.store.schema import events
from tests.bench.sender import send
from tests.conftest import postgres_database, postgresql
from tests.stack import ROOT, Stack, wait_until

RATES = (50, 100, 200, 400)
RATE_MAX = 6_400
SECONDS = 10.0
PROBE_SECONDS = 5.0
BEHIND_SECONDS_MAX = 0.5
"""Behind: something was refused, or the last answer came later than this after the last request."""


def run(folder: Path) -> list[dict[str, Any]]:
    """A row for each server and rate."""
    rows = climb(folder, "bare")
    rows += climb(folder, "SQLite")
    with postgresql() as url:
        for database in postgres_database(url, "template0"):
            rows += climb(folder, "PostgreSQL", database)
    return rows


def climb(folder: Path, name: str, database: str = "") -> list[dict[str, Any]]:
    """The rates of the promise, then doubling until it falls behind, then between the last two."""
    with Stack(folder / f"ack-{name}") as stack:
        stack.home.mkdir(parents=True, exist_ok=True)
        if database:
            stack.environment["SYNC_DATABASE_URL"] = database
        if name == "bare":
            stack.processes["receiver"] = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.bare", str(stack.receiver_port)],
                cwd=ROOT,
                stderr=subprocess.DEVNULL,
            )
        else:
            stack.spawn("receiver", "receiver")
        wait_until(lambda: stack.answers(f"{stack.receiver}/readyz"), 60, "the receiver")
        rows = [measure(stack, name, rate, SECONDS) for rate in RATES]
        rate = RATES[-1] * 2
        while rows[-1]["keeps_up"] and rate <= RATE_MAX:
            rows.append(measure(stack, name, rate, PROBE_SECONDS))
            rate *= 2
        if not rows[-1]["keeps_up"]:
            for share in (0.625, 0.75, 0.875):
                rows.append(measure(stack, name, int(rate / 2 * share), PROBE_SECONDS))
                if not rows[-1]["keeps_up"]:
                    break
        if name != "bare":
            with stack.database().read() as connection:
                stored = connection.scalar(sa.select(sa.func.count()).select_from(events)) or 0
            answered = sum(row["requests"] - row["refused"] for row in rows)
            assert stored >= answered, f"{answered - stored} acknowledged events are not stored"
    return rows


def measure(stack: Stack, name: str, rate: int, seconds: float) -> dict[str, Any]:
    """One rate."""
    count = int(rate * seconds)
    body = "leads%5Bupdate%5D%5B0%5D%5Bid%5D={}&account%5Bid%5D=1"
    sent = send(stack.hook_url, lambda number: body.format(number + 1), rate, count)
    took, behind = sent.took, sent.seconds - (count - 1) / rate
    figures = {
        "pattern": f"{name} {rate}/s",
        "server": name,
        "rate_per_s": rate,
        "requests": count,
        "refused": sent.refused,
        "p50_ms": round(took[len(took) // 2] * 1000, 1),
        "p99_ms": round(took[int(len(took) * 0.99)] * 1000, 1),
        "max_ms": round(took[-1] * 1000, 1),
        "answers_per_s": round(len(took) / sent.seconds),
        "keeps_up": not sent.refused and behind < BEHIND_SECONDS_MAX,
    }
    print(figures, flush=True)
    return figures


def saturation(rows: list[dict[str, Any]], server: str) -> int:
    """The highest rate at which a server kept up."""
    return max(
        (r["rate_per_s"] for r in rows if r["server"] == server and r["keeps_up"]), default=0
    )
