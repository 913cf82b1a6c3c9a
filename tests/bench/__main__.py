"""``python -m tests.bench [ack|burst|outage|latency ...]``: a table, and JSON in .bench/."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench import ack, burst, latency, outage

PARTS = ("ack", "burst", "outage", "latency")


def main() -> None:
    """Run the parts asked for (all by default) and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=[*PARTS, []])
    parser.add_argument("--patterns", default=",".join(latency.PATTERNS))
    arguments = parser.parse_args()
    folder = Path(".bench").resolve()
    shutil.rmtree(folder / "work", ignore_errors=True)
    work = folder / "work"
    work.mkdir(parents=True)
    patterns = arguments.patterns.split(",")
    results: dict[str, list[dict[str, Any]]] = {}
    for part in arguments.parts:
        if part == "ack":
            results[part] = [ack.run(work)]
        elif part == "burst":
            results[part] = [burst.run(work)]
        elif part == "outage":
            results[part] = [outage.run(work)]
        else:
            results[part] = latency.run(work, patterns)
        (folder / f"{part}.json").write_text(json.dumps(results[part], indent=2))
        show(part, results[part])
    if "latency" in results:
        show("ratio: stock path / warm path", ratios(results["latency"]))


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
