"""Reconciliation: what it finds, what it takes as accounts grow, and what live edits feel of it.

Nothing tells the product of the drifts planted here: no webhook, no automation.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kommo_airtable_sync.core.rate_budget import WINDOW_SECONDS
from kommo_airtable_sync.sandbox.observe import Seen, agreement, quantiles, see
from kommo_airtable_sync.sandbox.stand_ins import StandIns
from tests.bench.accounts import FAST, REAL, fill, limits
from tests.bench.drift import plant
from tests.bench.echo import calls
from tests.simulated import config_text
from tests.stack import Stack, wait_until

SIZES: dict[str, list[int]] = {
    "drifts": [10_000, 300],
    "scale": [10_000, 30_000, 100_000],
    "live": [5_000, 2_000],
}
PER_SECOND = {"kommo": 7, "airtable": 5}
FOR_PEOPLE = {"orphan", "duplicate", "key_changed"}
EDIT_SECONDS = 0.2
ALONE_SECONDS = 30.0


def run(folder: Path, sizes: dict[str, list[int]]) -> dict[str, list[dict[str, Any]]]:
    """Rows by the name of the part.

    Args:
        folder: to work in.
        sizes: leads, and drifts where there are any, as in `SIZES`; a part that is
            not named is left out.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    if "drifts" in sizes:
        rows["drifts of all kinds, real limits"] = [drifts(folder, *sizes["drifts"])]
    if "scale" in sizes:
        rows["scale, limits out of the way"] = [scale(folder, size) for size in sizes["scale"]]
    if "live" in sizes:
        rows[f"an edit every {EDIT_SECONDS} s meanwhile"] = [live(folder, *sizes["live"])]
    return rows


# ---------------------------------------------------------------------- what a plan takes


@dataclass(frozen=True)
class Planned:
    """A run of ``plan``: what it found, and what it cost.

    Args:
        findings: (key, kind) of each.
        floor: seconds that its API calls take at the real limits.
        rss_mb: the most memory that the process held.
    """

    findings: Counter[tuple[str, str]]
    kommo_calls: int
    airtable_calls: int
    writes: int
    seconds: float
    cpu_seconds: float
    rss_mb: float

    @property
    def floor(self) -> float:
        return max(
            self.kommo_calls / PER_SECOND["kommo"], self.airtable_calls / PER_SECOND["airtable"]
        )

    def row(self) -> dict[str, Any]:
        return {
            "plan_s": round(self.seconds, 1),
            "plan_cpu_s": round(self.cpu_seconds, 1),
            "plan_rss_mb": round(self.rss_mb),
            "kommo_calls": self.kommo_calls,
            "airtable_calls": self.airtable_calls,
            "floor_s": round(self.floor, 1),
        }


def plan(stack: Stack) -> Planned:
    """Run ``plan`` as a process of its own, and watch it."""
    for side in PER_SECOND:
        stack.control(side, "DELETE", "requests")
    file, began = stack.folder / "plan.json", time.monotonic()
    process = stack.spawn("plan", "plan", "--out", str(file))
    status, peak = Path(f"/proc/{process.pid}/status"), 0
    while True:
        # Not the child's ru_maxrss, which begins with that of its parent.
        for line in status.read_text().splitlines():
            peak = max(peak, int(line.split()[1])) if line.startswith("VmHWM:") else peak
        pid, code, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        time.sleep(0.02)
    seconds, process.returncode = time.monotonic() - began, os.waitstatus_to_exitcode(code)
    assert process.returncode == 0, (stack.folder / "plan.out").read_text()
    made = {side: stack.control(side, "GET", "requests?log=0")["total"] for side in PER_SECOND}
    return Planned(
        Counter((each["key"], each["kind"]) for each in json.loads(file.read_text())["findings"]),
        made["kommo"],
        made["airtable"],
        calls(stack)["write"],
        seconds,
        usage.ru_utime + usage.ru_stime,
        peak / 1024,
    )


# ---------------------------------------------------------------------- finding and mending


def drifts(folder: Path, leads: int, planted: int) -> dict[str, Any]:
    """Drifts of all kinds: found exactly, mended, and gone."""
    with Stack(folder / "drifts") as stack:
        stack.start_sandbox()
        fill(stack, leads)
        before = plan(stack)
        assert not before.findings, before.findings.most_common(5)
        expected = plant(stack, planted)
        limits(stack, REAL)
        found = plan(stack)
        print(found.row(), flush=True)
        product = stack.spawn("up", "up")
        stack.wait_ready()
        began = time.monotonic()
        mended = stack.cli("reconcile", "--yes", "--json")
        mend_seconds = time.monotonic() - began
        assert mended.returncode in (0, 3), mended.stderr
        wait_until(stack.quiet, 120, "all is worked off")
        product.terminate()
        product.wait(30)
        again = plan(stack)
    left = Counter(each for each in expected.elements() if each[1] in FOR_PEOPLE)
    return {
        "leads": leads,
        "planted": expected.total(),
        **dict(sorted(Counter(kind for _, kind in expected.elements()).items())),
        "missed": (expected - found.findings).total(),
        "extra": (found.findings - expected).total(),
        **found.row(),
        "times_floor": round(found.seconds / found.floor, 3),
        "mend_s": round(mend_seconds, 1),
        "mended_exit_code": mended.returncode,
        "again_findings": again.findings.total(),
        "again_not_for_people": (again.findings - left).total(),
        "again_missing_for_people": (left - again.findings).total(),
        "again_plan_s": round(again.seconds, 1),
        "again_times_floor": round(again.seconds / again.floor, 3),
        "again_write_calls": again.writes,
        "again_read_calls": again.kommo_calls + again.airtable_calls,
    }


# ---------------------------------------------------------------------- growing


def scale(folder: Path, leads: int) -> dict[str, Any]:
    """What comparing accounts that agree takes, where only the CPU limits it."""
    rate = {f"{side.upper()}_REQUESTS_PER_SECOND": str(FAST) for side in PER_SECOND}
    with Stack(folder / f"scale-{leads}", environment=rate) as stack:
        stack.start_sandbox()
        fill(stack, leads)
        compared = plan(stack)
        assert not compared.findings, compared.findings.most_common(5)
    return {
        "pattern": f"{leads:,} leads",
        **compared.row(),
        "cpu_s_per_1000": round(compared.cpu_seconds / leads * 1_000, 3),
        # Reading and comparing go on side by side.
        "predicted_s": round(max(compared.floor * WINDOW_SECONDS, compared.cpu_seconds), 1),
    }


# ---------------------------------------------------------------------- live edits meanwhile


def live(folder: Path, leads: int, drifted: int) -> dict[str, Any]:
    """People go on working on both sides, also on deals that are being mended."""
    # A released plan counts, too: the live brake would hold the edits that come after it.
    safety = {"max_share_changed": 1.0, "max_records_changed": 10**6, "max_deletes": 20}
    with Stack(folder / "live", config=config_text(safety=safety)) as stack:
        stack.start_sandbox()
        fill(stack, leads)
        hands, dice = stack.stand_ins, random.Random(5)
        records = {each["fields"]["Kommo Deal ID"]: each["id"] for each in hands.records()}
        keys = dice.sample(sorted(records), drifted + 300)
        for n, lead in enumerate(keys[:drifted]):
            hands.edit_lead(lead, name=f"Renamed {n}")
        stack.connect()
        limits(stack, REAL)
        stack.spawn("up", "up")
        stack.wait_ready()
        time.sleep(12)  # no run lingers
        others, began = keys[drifted:], time.monotonic()
        alone_since = time.time()
        edit(hands, records, others, lambda: time.monotonic() < began + ALONE_SECONDS)
        wait_until(stack.quiet, 60, "the edits are worked off")
        # One edited deal in four is also being mended.
        some, since = dice.sample([*others, *keys[:100]], 400), time.time()
        reconciling = stack.spawn("reconcile", "reconcile", "--yes", "--json")
        wanted = edit(hands, records, some, lambda: reconciling.poll() is None)
        seconds = time.time() - since
        wait_until(stack.quiet, 120, "all is worked off")
        compared = agreement(hands)
        shown = {each["fields"].get("Kommo Deal ID"): each["fields"] for each in hands.records()}
        alone = see(hands, alone_since)
        notes = sqlite3.connect(stack.home / "sync.db").execute(
            "select count(*), count(distinct key) from journal where rule = 'overwritten'"
        )
        noted, noted_keys = notes.fetchone()
    return {
        "leads": leads,
        "drifts": drifted,
        "exit_code": reconciling.returncode,
        "reconciled_s": round(seconds, 1),
        "deals_edited": len(wanted),
        **_figures("alone", alone, others, (alone_since, since)),
        **_figures("meanwhile", alone, others, (since, since + seconds)),
        "lost_edits": sum(shown[lead]["Amount"] != amount for lead, amount in wanted.items()),
        "overwritten_notes": noted,
        "overwritten_deals": noted_keys,
        "differences": len(compared.differences),
        "duplicates": compared.duplicates,
    }


def edit(
    hands: StandIns, records: Mapping[int, str], leads: Sequence[int], go_on: Callable[[], bool]
) -> dict[int, int]:
    """Edit one deal after the other, each from one side only; the last amount of each."""
    wanted: dict[int, int] = {}
    began, count = time.monotonic(), 0
    while go_on():
        lead, amount = leads[count % len(leads)], int(time.time() * 10)
        if lead % 2:
            hands.edit_lead(lead, price=amount)
        else:
            hands.edit_record(records[lead], {"Amount": amount})
        wanted[lead] = amount
        count += 1
        time.sleep(max(0.0, began + count * EDIT_SECONDS - time.monotonic()))
    return wanted


def _figures(
    name: str, seen: Seen, leads: Collection[int], span: tuple[float, float]
) -> dict[str, Any]:
    """Latency of the edits of that time; of these deals only, which nothing else was done to."""

    def chosen(stamps: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
        return [each for each in stamps if each[0] in leads and span[0] <= each[1] < span[1]]

    seen = replace(seen, edits=chosen(seen.edits), record_edits=chosen(seen.record_edits))
    figures: dict[str, Any] = {}
    for way, seconds in (("to_airtable", seen.there()), ("to_kommo", seen.back())):
        found = quantiles(seconds)
        for part in ("p50", "p95", "max"):
            value = getattr(found, part)
            figures[f"{name}_{way}_{part}_s"] = value and round(value, 3)
        figures[f"{name}_{way}_measured"] = found.count
    return figures
