"""``make simulate SEEDS=1000 [FROM=0] [JOBS=2] [ARGS='--planted']``: many stories, and a table.

A seed that breaks an invariant is told again with ever fewer acts, and what is left is printed.
Figures go to ``.bench/simulation.json``; the exit code is 1 if anything was broken.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.simulation.one import ACTS, Told, keep_to_a_core, shortest, tell
from tests.simulation.planted import hunt

REPORT = Path(".bench/simulation.json")
EXCUSES = (
    "overruled",
    "in the window",
    "taken back between two looks",
    "undone before it was known",
    "gone with a record",
    "tags edited against each other",
    "for want of exact times",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--trace", action="store_true", help="print the trace of each seed")
    parser.add_argument("--planted", action="store_true", help="find the planted bugs instead")
    parser.add_argument("--only", nargs="*", default=(), help="of the planted bugs these")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="kommo-simulation-") as folder:
        if asked.planted:
            return hunt(Path(folder), asked.jobs, asked.only)
        return simulate(asked, Path(folder))


def simulate(asked: argparse.Namespace, folder: Path) -> int:
    began, used = time.monotonic(), time.process_time()
    happened: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    broken: list[Told] = []
    seeds = range(asked.first, asked.first + asked.seeds)
    for n, told in enumerate(_told(seeds, asked.jobs, folder), 1):
        happened.update(told.happened)
        counts.update(told.counts)
        if asked.trace:
            print(f"seed {told.seed}", *told.trace, sep="\n")
        if told.broken:
            broken.append(told)
            print(f"\nseed {told.seed} breaks {told.detail}", flush=True)
            _print_shortest(told, folder)
        if n % 10 == 0 or n == len(seeds):
            rate = happened.total() / (time.monotonic() - began)
            line = f"{n} of {len(seeds)} seeds, {happened.total():,} events, {rate:,.0f} a second"
            print(f"{line}, {len(broken)} broken", flush=True)
    took = time.monotonic() - began
    report = {
        "seeds": [seeds.start, seeds.stop],
        "acts_a_seed": ACTS,
        "events": happened.total(),
        "events_by_kind": dict(sorted(happened.items())),
        "counts": dict(sorted(counts.items())),
        "seconds": round(took, 1),
        "events_a_second": round(happened.total() / took, 1),
        "cpu_seconds": round(time.process_time() - used, 1) if asked.jobs == 1 else None,
        "broken": {told.seed: told.detail for told in broken},
    }
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    _print(report)
    return 1 if broken else 0


def _told(seeds: Iterable[int], jobs: int, folder: Path) -> Iterator[Told]:
    one = functools.partial(_one, folder)
    if jobs == 1:
        keep_to_a_core()
        yield from map(one, seeds)
        return
    with multiprocessing.Pool(jobs, keep_to_a_core) as pool:
        yield from pool.imap_unordered(one, seeds)


def _one(folder: Path, seed: int) -> Told:
    told = tell(seed, folder)
    if not told.broken:
        told.trace = told.trace if "--trace" in sys.argv else []
    return told


def _print_shortest(told: Told, folder: Path) -> None:
    few = shortest(told, folder)
    print(f"  with {len(few.acts)} of {len(told.acts)} acts: {few.detail}")
    print(*(f"  {line}" for line in few.trace), sep="\n", flush=True)


def _print(report: dict[str, Any]) -> None:
    kinds, counts = report["events_by_kind"], report["counts"]
    print(
        "\nA simulated event is what happens to the system from outside, or what it does to the\n"
        "outside: see the breakdown. Calls to its own store are none.\n"
    )
    for name, n in kinds.items():
        print(f"  {n:>9,}  {name}")
    print(f"  {report['events']:>9,}  events in all, {report['events_a_second']:,.0f} a second")
    print(f"  {counts.get('steps', 0):>9,}  steps to store or API at which workers took turns")
    edits, judged = max(1, counts.get("edits", 0)), max(1, counts.get("judged", 0))
    print(f"\n  {edits:>9,}  edits of fields")
    print(f"  {judged:>9,}  last edits, of each field of each lead; each stands, or was")
    for name in EXCUSES:
        n = counts.get(name, 0)
        print(f"  {n:>9,}  {name} ({n / judged:.3%})")
    steady, inside = counts.get("judged, steady", 0), counts.get("in the window, steady", 0)
    print(f"  {steady:>9,}  last edits where clocks are right and nobody of us stands still")
    print(f"  {inside:>9,}  of them in the window ({inside / max(1, steady):.3%})")
    print(f"  {counts.get('writes', 0):>9,}  writes, {counts.get('writes', 0) / edits:.2f} an edit")
    print(f"  {len(report['broken']):>9,}  seeds that break an invariant: {report['broken']}")


if __name__ == "__main__":
    sys.exit(main())
