"""Latency of single events, a steady stream and pairs, from the stand-ins' own clocks.

Forward from the edit in Kommo to the record in Airtable; in reverse from the automation's POST to
the lead in Kommo.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
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
from tests.stack import ROOT, Stack, wait_until

PATTERNS = ("sparse", "steady", "pairs")
DIRECTIONS = ("forward", "reverse")


class StockStack(Stack):
    """The same stand-ins and receiver, and Dagster as it comes."""

    def start(self, leads: int = 0) -> None:
        """Start stand-ins, receiver and `dagster dev`."""
        config = self.folder / "sync.yaml"
        config.write_text(config.read_text().replace("linger_seconds: 6", "linger_seconds: 0"))
        assert "linger_seconds: 0" in config.read_text()
        self.start_sandbox(leads)
        self.connect()
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

    def stop(self) -> None:
        """`dagster dev` and all its children at once: it waits for them longer than we do."""
        dagster = self.processes.pop("dagster", None)
        if dagster and dagster.poll() is None:
            os.killpg(dagster.pid, signal.SIGINT)
            try:
                dagster.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(dagster.pid, signal.SIGKILL)
                dagster.wait()
        super().stop()


def gaps(pattern: str, dice: random.Random) -> list[tuple[float, int]]:
    """(Seconds to wait, which of the pattern's leads to edit) for each event."""
    if pattern == "sparse":
        return [(dice.uniform(20, 60), at % 5) for at in range(20)]
    if pattern == "steady":
        return [(1 / 3, at % 30) for at in range(180)]
    events: list[tuple[float, int]] = []
    for at in range(30):
        events += [(dice.uniform(8, 14), at % 5), (dice.uniform(0.2, 6), at % 5)]
    return events


def play(stack: Stack, pattern: str, direction: str, seed: int = 1) -> dict[str, Any]:
    """Edit deals in the pattern's rhythm on one side; how long until the other showed each."""
    dice, stand_ins = random.Random(seed), stack.stand_ins
    leads = [stand_ins.add_lead(name=f"Deal {at}") for at in range(30)]
    wait_until(lambda: len(stack.records()) >= len(leads), 120, "the leads are there", 0.5)
    ids = {each["fields"]["Kommo Deal ID"]: each["id"] for each in stand_ins.records()}
    time.sleep(12)  # the rhythm begins with an idle product: no run lingers
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

    wait_until(arrived, 60, "every edit has arrived", 0.5)
    seen = see(stand_ins, since)
    seconds = seen.there() if direction == "forward" else seen.back()
    edits = seen.edits if direction == "forward" else seen.record_edits
    return {"pattern": pattern, "events": len(edits), **_figures(quantiles(seconds))}


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


def run(folder: Path, patterns: list[str], direction: str) -> list[dict[str, Any]]:
    """Each pattern on a fresh product; forward on the warm path and on the stock path.

    The first event of all is among the measured ones. The sparse pattern is mostly waiting, so
    both paths play it at the same time, ten seconds apart; the others one after the other.
    """
    if direction == "reverse":
        return [measure(folder, pattern, direction) for pattern in patterns]
    results: list[dict[str, Any]] = []
    for pattern in patterns:
        if pattern == "sparse":
            with ThreadPoolExecutor(2) as pool:
                both = [
                    pool.submit(measure, folder, pattern, stock=stock, delay_seconds=10.0 * stock)
                    for stock in (False, True)
                ]
                results += [item.result() for item in both]
        else:
            results += [measure(folder, pattern, stock=stock) for stock in (False, True)]
    return results


def measure(
    folder: Path,
    pattern: str,
    direction: str = "forward",
    *,
    stock: bool = False,
    delay_seconds: float = 0.0,
) -> dict[str, Any]:
    """One pattern on one path."""
    path = "stock" if stock else "warm"
    kind = StockStack if stock else Stack
    with kind(folder / f"{pattern}-{direction}-{path}") as stack:
        stack.start()
        time.sleep(delay_seconds)
        played = play(stack, pattern, direction)
        figures = {"path": f"{path}, {direction}", **played, "overlapping_runs": overlaps(stack)}
        print(figures, flush=True)
    return figures
