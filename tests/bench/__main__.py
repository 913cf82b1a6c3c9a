"""``python -m tests.bench [latency|stock|burst|ack ...]``: a table, and JSON in .bench/."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench import ack, burst, latency

PARTS = ("ack", "burst", "latency", "stock")


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
        else:
            results[part] = latency.run(work, patterns, stock=part == "stock")
        (folder / f"{part}.json").write_text(json.dumps(results[part], indent=2))
        show(part, results[part])
    if "latency" in results and "stock" in results:
        show("ratio", ratios(results["latency"], results["stock"]))


def ratios(warm: list[dict[str, Any]], stock: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many times slower the stock path is."""
    return [
        {
            "pattern": one["pattern"],
            **{key: round(two[key] / one[key], 1) for key in ("p50_s", "p95_s", "max_s")},
        }
        for one, two in zip(warm, stock, strict=True)
    ]


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print one table."""
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
