"""Edits on both sides while each hears of the other's writes: how much the sync itself causes.

Kommo's webhooks and Airtable's automation tell of API writes, too, so every write of ours comes
back as an event. A write that changes nothing would still show: Kommo's stand-in then counts it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from kommo_airtable_sync.sandbox.observe import agreement, see
from tests.stack import Stack, wait_until

PER_SECOND = 20
QUIET_SECONDS = 30.0


def run(folder: Path, edits: int = 500) -> dict[str, Any]:
    """So many edits from each side, on as many deals, one field each; then silence."""
    with Stack(folder / "echo") as stack:
        stack.start()
        stand_ins = stack.stand_ins
        leads = stack.control("kommo", "POST", "seed", {"count": edits})["ids"]
        assert stack.cli("reconcile").returncode == 0
        wait_until(stack.quiet, 120, "the deals are there", 0.5)
        ids = {each["fields"]["Kommo Deal ID"]: each["id"] for each in stand_ins.records()}
        stack.control("kommo", "PATCH", "settings", {"noop_touches": True})
        for side in ("kommo", "airtable"):
            stack.control(side, "DELETE", "requests")
        since, began = time.time(), time.monotonic()
        for n, lead in enumerate(leads):
            stand_ins.edit_lead(lead, name=f"Edited in Kommo {n}")
            stand_ins.edit_record(ids[leads[n - edits // 2]], {"Amount": 1_000_000 + n})
            time.sleep(max(0.0, began + 2 * (n + 1) / PER_SECOND - time.monotonic()))
        wait_until(stack.quiet, 300, "all is worked off", 0.2)
        seconds = time.monotonic() - began
        seen, before = see(stand_ins, since), calls(stack)
        time.sleep(QUIET_SECONDS)
        after = calls(stack)
        comparison = agreement(stand_ins)
        written = len(seen.written) + len(seen.lead_updates)
        return {
            "edits": len(seen.edits) + len(seen.record_edits),
            "writes_to_airtable": len(seen.written),
            "writes_to_kommo": len(seen.lead_updates),
            "writes_per_edit": round(written / (len(seen.edits) + len(seen.record_edits)), 4),
            "write_calls": before["write"],
            "read_calls": before["read"],
            "seconds": round(seconds, 1),
            f"write_calls_in_{QUIET_SECONDS:.0f}_quiet_s": after["write"] - before["write"],
            f"read_calls_in_{QUIET_SECONDS:.0f}_quiet_s": after["read"] - before["read"],
            "differences": len(comparison.differences),
            "duplicates": comparison.duplicates,
        }


def calls(stack: Stack) -> dict[str, int]:
    """API calls to both sides that may write, and that only read."""
    counts = {"write": 0, "read": 0}
    for side in ("kommo", "airtable"):
        by_route = stack.control(side, "GET", "requests?log=0")["by_route"]
        for route, count in by_route.items():
            method, _, path = route.partition(" ")
            reads = method == "GET" or path.endswith("/listRecords")
            counts["read" if reads else "write"] += count
    return counts
