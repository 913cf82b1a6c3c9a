"""Latency of single events, a steady stream, bursts and pairs, from the stand-ins' own clocks.

Forward from the edit in Kommo to the record in Airtable; in reverse from the automation's POST to
the lead in Kommo. Baselines, forward: the same ops on stock Dagster, and the naive script.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

from kommo_airtable_sync.sandbox.observe import (
    Quantiles,
    quantiles,
    see,
    unanswered,
)
from tests.bench.naive import NaiveStack
from tests.stack import ROOT, Stack, wait_until

PATTERNS = ("sparse", "steady", "burst", "pairs")
DIRECTIONS = ("forward", "reverse")
CALL_SECONDS = 0.12
FLOOR_SECONDS = 2 * CALL_SECONDS
"""One call to read and one to write: nobody can be faster."""
LEADS = 30
APART_SECONDS = 5.0


class StockStack(Stack):
    """The same stand-ins and receiver, and Dagster as it comes."""

    def start_product(self) -> None:
        """Start receiver and `dagster dev`."""
        config = self.folder / "sync.yaml"
        config.write_text(config.read_text().replace("linger_seconds: 6", "linger_seconds: 0"))
        assert "linger_seconds: 0" in config.read_text()
        self.home.mkdir(parents=True, exist_ok=True)
        self.environment["DAGSTER_HOME"] = str(self.home)
        (self.home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        self.spawn("receiver", "receiver")
        with (self.folder / "dagster.out").open("ab") as output:
            self.processes["dagster"] = subprocess.Popen(
                [
                    *(sys.executable, "-m", "dagster", "dev", "-m", "tests.bench.stock"),
                    *("-p", str(self.dagster_port), "-h", "127.0.0.1"),
                ],
                env=self.environment,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(lambda: self.answers(f"{self.receiver}/readyz"), 60, "the receiver")
        wait_until(lambda: self.answers(f"{self.dagster}/server_info"), 90, "Dagster", 0.5)

    def stop_product(self) -> None:
        """`dagster dev` and all its children at once: it waits for them longer than we do."""
        dagster = self.processes.pop("dagster", None)
        if dagster and dagster.poll() is None:
            os.killpg(dagster.pid, signal.SIGINT)
            try:
                dagster.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(dagster.pid, signal.SIGKILL)
                dagster.wait()
        super().stop_product()


PATHS: dict[str, type[Stack]] = {"warm": Stack, "stock": StockStack, "naive": NaiveStack}


def gaps(pattern: str, dice: random.Random) -> list[tuple[float, int]]:
    """(Seconds to wait, which of the pattern's leads to edit) for each event."""
    match pattern:
        case "sparse":
            return [(dice.uniform(20, 40), at % 5) for at in range(20)]
        case "steady":
            return [(1 / 3, at % LEADS) for at in range(180)]
        case "burst":
            return [(15.0 if at % LEADS == 0 else 0.0, at % LEADS) for at in range(4 * LEADS)]
    events: list[tuple[float, int]] = []
    for at in range(20):
        events += [(dice.uniform(8, 14), at % 5), (dice.uniform(0.2, 6), at % 5)]
    return events


def play(
    stack: Stack, pattern: str, direction: str, together: threading.Barrier, delay_seconds: float
) -> dict[str, Any]:
    """Edit deals in the pattern's rhythm on one side; how long until the other showed each."""
    dice, stand_ins = random.Random(1), stack.stand_ins
    leads = [stand_ins.add_lead(name=f"Deal {at}") for at in range(LEADS)]
    wait_until(lambda: len(stack.records()) >= len(leads), 120, "the leads are there", 0.5)
    ids = {each["fields"]["Kommo Deal ID"]: each["id"] for each in stand_ins.records()}
    together.wait(300)
    time.sleep(12 + delay_seconds)  # the rhythm begins with an idle product: no run lingers
    since, amount = time.time(), 1
    next_at = time.monotonic()
    for gap, which in gaps(pattern, dice):
        next_at += gap
        time.sleep(max(0.0, next_at - time.monotonic()))
        amount += 1
        if direction == "forward":
            stand_ins.edit_lead(leads[which], price=amount)
        else:
            stand_ins.edit_record(ids[leads[which]], {"Amount": amount})

    def arrived() -> bool:
        seen = see(stand_ins, since)
        late = unanswered(seen.edits, seen.written)
        return not late and not unanswered(seen.record_edits, seen.lead_updates)

    wait_until(arrived, 120, "every edit has arrived", 0.5)
    seen = see(stand_ins, since)
    seconds = seen.there() if direction == "forward" else seen.back()
    edits = seen.edits if direction == "forward" else seen.record_edits
    return {"events": len(edits), **_figures(quantiles(seconds)), "seconds": rounded(seconds)}


def rounded(seconds: list[float]) -> list[float]:
    """Every latency, for the chart."""
    return sorted(round(each, 3) for each in seconds)


def _figures(found: Quantiles) -> dict[str, float | int | None]:
    return {
        "p50_s": found.p50 and round(found.p50, 3),
        "p95_s": found.p95 and round(found.p95, 3),
        "max_s": found.max and round(found.max, 3),
        "measured": found.count,
    }


def overlaps(stack: Stack) -> int:
    """Pairs of live runs that were under way at the same time, from Dagster's run history."""
    query = """{ runsOrError(filter: {pipelineName: "sync_changes"}) { ... on Runs { results {
        startTime endTime tags { key value } } } } }"""
    spans = sorted(
        (run["startTime"], run["endTime"] or time.time())
        for run in stack.graphql(query)["runsOrError"]["results"]
        if run["startTime"] and {"key": "sync/lane", "value": "live"} in run["tags"]
    )
    return sum(1 for one, two in pairwise(spans) if two[0] < one[1])


def run(
    folder: Path, patterns: list[str], directions: Sequence[str] = DIRECTIONS
) -> list[dict[str, Any]]:
    """Each pattern on fresh stacks; the first event of all is among the measured ones.

    What is mostly waiting runs side by side: all of the sparse pattern, seconds apart, and the
    baselines of the others.
    """
    rows: list[dict[str, Any]] = []
    ours = [("warm", direction) for direction in directions]
    baselines = [("stock", "forward"), ("naive", "forward")] if "forward" in directions else []
    for pattern in patterns:
        if pattern == "sparse":
            groups = [ours + baselines]
        else:
            groups = [[each] for each in ours] + ([baselines] if baselines else [])
        for group in groups:
            together = threading.Barrier(len(group))
            with ThreadPoolExecutor(len(group)) as pool:
                pending = [
                    pool.submit(measure, folder, pattern, *each, together, APART_SECONDS * at)
                    for at, each in enumerate(group)
                ]
                rows += [each.result() for each in pending]
    return rows


def measure(
    folder: Path,
    pattern: str,
    path: str,
    direction: str,
    together: threading.Barrier,
    delay_seconds: float,
) -> dict[str, Any]:
    """One pattern on one path."""
    with PATHS[path](folder / f"{pattern}-{direction}-{path}") as stack:
        try:
            stack.start()
            played = play(stack, pattern, direction, together, delay_seconds)
        except BaseException:
            together.abort()
            raise
        runs = {} if path == "naive" else {"overlapping_runs": overlaps(stack)}
    figures = {"pattern": f"{pattern}, {path}, {direction}", **played, **runs}
    print({name: value for name, value in figures.items() if name != "seconds"}, flush=True)
    return {"rhythm": pattern, "path": path, "direction": direction, **figures}
