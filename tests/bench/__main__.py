"""``python -m tests.bench [ack|burst|outage|echo|latency|reconcile|machines|crash]``: a table, and JSON in .bench/.

``latency --direction reverse`` is from Airtable to Kommo; ``--patterns sparse,steady,pairs``.
``reconcile --sizes`` as JSON: leads and drifts of its parts (tests/bench/reconcile.py).
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench import ack, burst, crash, echo, idle, latency, machines, outage, reconcile

PARTS = ("idle", "ack", "burst", "outage", "echo", "latency", "reconcile", "machines", "crash")


def main() -> None:
    """Run the parts asked for (all by default) and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=[*PARTS, []])
    parser.add_argument("--patterns", default=",".join(latency.PATTERNS))
    parser.add_argument("--direction", default="forward", choices=latency.DIRECTIONS)
    parser.add_argument("--sizes", type=json.loads, default=reconcile.SIZES)
    arguments = parser.parse_args()
    folder = Path(".bench").resolve()
    shutil.rmtree(folder / "work", ignore_errors=True)
    work = folder / "work"
    work.mkdir(parents=True)
    patterns, direction = arguments.patterns.split(","), arguments.direction
    runs: dict[str, Callable[[], list[dict[str, Any]] | dict[str, list[dict[str, Any]]]]] = {
        "idle": lambda: idle.run(work),
        "ack": lambda: [ack.run(work)],
        "burst": lambda: burst.run(work),
        "outage": lambda: [outage.run(work)],
        "echo": lambda: [echo.run(work)],
        "latency": lambda: latency.run(work, patterns, direction),
        "reconcile": lambda: reconcile.run(work, arguments.sizes),
        "machines": lambda: [machines.run(work)],
        "crash": lambda: crash.run(work),
    }
    for part in arguments.parts:
        made = runs[part]()
        record = folder / "bench.json"
        known = json.loads(record.read_text()) if record.exists() else {}
        record.write_text(json.dumps({**known, part: made}, indent=2))
        tables = made if isinstance(made, dict) else {part: made}
        if part == "latency" and direction == "forward":
            tables["ratio: stock path / warm path"] = ratios(tables[part])
        for title, rows in tables.items():
            show(title, rows)


def ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many times slower the stock path is."""
    return [
        {
            "pattern": warm["pattern"],
            **{key: round(stock[key] / warm[key], 1) for key in ("p50_s", "p95_s", "max_s")},
        }
        for warm, stock in zip(rows[::2], rows[1::2], strict=True)
    ]


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print one table: a line for each figure, a column for each row."""
    table = Table(title=title, title_justify="left")
    table.add_column("figure")
    for row in rows:
        table.add_column(str(row.get("pattern", "")), justify="right")
    for name in rows[0]:
        table.add_row(name, *(str(row[name]) for row in rows))
    Console().print(table)


if __name__ == "__main__":
    main()
