"""What the whole stack costs with nothing to do: CPU time and proportional memory by process.

Against `dagster dev` with a plain sensor and the same receiver, afterwards: side by side they would
share pages, and proportional memory would flatter both.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from tests.bench.latency import StockStack
from tests.stack import Stack

SETTLE_SECONDS = 20.0
_TICKS = os.sysconf("SC_CLK_TCK")
# What a command line shows of each part of `up`, first match first.
_NAMES = (
    ("supervisord", "supervisor"),
    ("dagster_webserver", "webserver"),
    ("dagster._daemon", "daemon"),
    ("api grpc", "code server"),
    ("--queue live", "worker live"),
    ("--queue bulk", "worker bulk"),
    ("receiver", "receiver"),
    ("kommo_airtable_sync up", "up"),
)


def run(folder: Path, seconds: float = 60.0) -> list[dict[str, Any]]:
    """A row a process of `up`, the sum, and the sum of the baseline."""
    with Stack(folder / "idle") as stack:
        stack.start()
        rows = watch([stack.processes["up"].pid], seconds)
    with StockStack(folder / "idle-stock") as stack:
        stack.start()
        roots = [stack.processes[name].pid for name in ("dagster", "receiver")]
        stock = watch(roots, seconds)[-1]
    return [*rows, {**stock, "pattern": "stock Dagster, whole"}]


def watch(roots: list[int], seconds: float) -> list[dict[str, Any]]:
    """Processes and all below them, on accounts that rest: a row a part, and the sum."""
    time.sleep(SETTLE_SECONDS)
    began, before = time.monotonic(), cpu_seconds(roots)
    time.sleep(seconds)
    elapsed, after = time.monotonic() - began, cpu_seconds(roots)
    memory = memory_mb(after)
    rows: dict[str, dict[str, Any]] = defaultdict(
        lambda: {"processes": 0, "cpu_percent": 0.0, "pss_mb": 0.0}
    )
    for (pid, name), used in after.items():
        for row in (rows[name], rows["whole stack"]):
            row["processes"] += 1
            row["cpu_percent"] += 100 * (used - before.get((pid, name), 0.0)) / elapsed
            row["pss_mb"] += memory[pid]
    return [
        {
            "pattern": name,
            "processes": row["processes"],
            "cpu_percent": round(row["cpu_percent"], 2),
            "pss_mb": round(row["pss_mb"], 1),
        }
        for name, row in sorted(rows.items(), key=lambda item: item[1]["pss_mb"])
    ]


def cpu_seconds(roots: list[int]) -> dict[tuple[int, str], float]:
    """CPU time so far of processes and all below them, by pid and part.

    User and system time, those of children that have ended included: a process that comes and goes
    costs as much as one that stays.
    """
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(stat.parent.name)
        parents[pid] = int(fields[1])
        used[pid] = sum(int(each) for each in fields[11:15]) / _TICKS
    ours = list(roots)
    for pid in ours:
        ours += [child for child, parent in parents.items() if parent == pid]
    return {(pid, _part(pid)): used[pid] for pid in ours}


def memory_mb(processes: dict[tuple[int, str], float]) -> dict[int, float]:
    """Proportional set size of each: pages that several share are divided among them."""
    found: dict[int, float] = {}
    for pid, _ in processes:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        found[pid] = next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return found


def _part(pid: int) -> str:
    try:
        line = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return "ended"
    return next((name for mark, name in _NAMES if mark in line), "other")
