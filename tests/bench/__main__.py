"""``python -m tests.bench [PART ...]``: a table a part, all of it in .bench/bench.json, the promises.

``report`` makes the table of promises, the charts and docs/benchmarks.md from the JSON that is there.
``latency --direction reverse`` only from Airtable to Kommo; ``--patterns sparse,steady,burst,pairs``.
``reconcile --sizes`` as JSON: leads and drifts of its parts (tests/bench/reconcile.py).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench import (
    ack,
    burst,
    charts,
    crash,
    echo,
    idle,
    latency,
    machines,
    outage,
    reconcile,
    report,
    start,
    thrift,
)
from tests.stack import ROOT

PARTS = (
    "idle",
    "start",
    "ack",
    "thrift",
    "burst",
    "outage",
    "echo",
    "latency",
    "reconcile",
    "machines",
    "crash",
    "report",
)
RECORD = ROOT / ".bench" / "bench.json"

Rows = list[dict[str, Any]]


def main() -> None:
    """Run the parts asked for (all by default) and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=[], choices=[*PARTS, []], metavar="PART")
    parser.add_argument("--patterns", default=",".join(latency.PATTERNS))
    parser.add_argument("--direction", default="", choices=["", *latency.DIRECTIONS])
    parser.add_argument("--sizes", type=json.loads, default=reconcile.SIZES)
    arguments = parser.parse_args()
    work = RECORD.parent / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    patterns = arguments.patterns.split(",")
    directions = [arguments.direction] if arguments.direction else latency.DIRECTIONS
    runs: dict[str, Callable[[], Rows | dict[str, Rows]]] = {
        "idle": lambda: idle.run(work),
        "start": lambda: start.run(work),
        "ack": lambda: ack.run(work),
        "thrift": lambda: thrift.run(work),
        "burst": lambda: burst.run(work),
        "outage": lambda: [outage.run(work)],
        "echo": lambda: [echo.run(work)],
        "latency": lambda: latency.run(work, patterns, directions),
        "reconcile": lambda: reconcile.run(work, arguments.sizes),
        "machines": lambda: [machines.run(work)],
        "crash": lambda: crash.run(work),
    }
    for part in arguments.parts or PARTS:
        if part == "report":
            conclude()
            continue
        began = time.monotonic()
        made = runs[part]()
        record(part, made, time.monotonic() - began)
        for title, rows in (made if isinstance(made, dict) else {part: made}).items():
            show(title, rows)


def record(part: str, made: Rows | dict[str, Rows], seconds: float) -> None:
    """Put what a part made into the JSON, with the facts of the machine that made it."""
    known = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    times = known.get("minutes", {}) | {part: round(seconds / 60, 1)}
    known |= {"machine": machine(), "minutes": times, part: made}
    RECORD.write_text(json.dumps(known, indent=2))


def machine() -> dict[str, Any]:
    """Whose figures these are."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "dagster": version("dagster"),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": commit.stdout.strip() or "unknown",
    }


def conclude() -> None:
    """The one table at the end, and what is made of the JSON."""
    known = json.loads(RECORD.read_text())
    show("promises", report.promises(known), by_column=False)
    charts.draw(known, ROOT / "docs" / "pictures")
    report.write(known, ROOT / "docs" / "benchmarks.md")


def show(title: str, rows: Rows, *, by_column: bool = True) -> None:
    """Print one table: a column for each row, if these are few."""
    table = Table(title=title, title_justify="left")
    names = [name for name in rows[0] if not isinstance(rows[0][name], list)]
    if by_column and len(rows) <= 4:
        table.add_column("figure")
        for row in rows:
            table.add_column(str(row.get("pattern", "")), justify="right")
        for name in names:
            table.add_row(name, *(str(row.get(name, "")) for row in rows))
    else:
        for name in names:
            table.add_column(name)
        for row in rows:
            table.add_row(*(str(row.get(name, "")) for name in names))
    # In a log, too, a line is to stay a line.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


if __name__ == "__main__":
    main()
