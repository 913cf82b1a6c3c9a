"""Airtable unreachable for a minute under load: newest state everywhere, nothing dead, no 429."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from kommo_airtable_sync.sandbox.observe import agreement
from tests.stack import Stack, wait_until

LEADS = 40


def run(folder: Path, seconds: float = 60.0, rate: float = 3.0) -> dict[str, Any]:
    """Edit at a steady rate from before the outage until after it."""
    with Stack(folder / "outage") as stack:
        stack.start()
        leads = [stack.stand_ins.add_lead(name=f"Deal {n}") for n in range(LEADS)]
        wait_until(lambda: len(stack.records()) >= LEADS, 60, "the leads are there")
        edits = 0
        began = time.monotonic()
        down_at, up_at = began + 5, began + 5 + seconds
        down = up = False
        back_at = 0.0
        while time.monotonic() < up_at + 10:
            if not down and time.monotonic() >= down_at:
                stack.control("airtable", "POST", "faults", {"kind": "drop_before"})
                down = True
            if not up and time.monotonic() >= up_at:
                stack.control("airtable", "DELETE", "faults")
                stack.control("airtable", "DELETE", "requests")
                up, back_at = True, time.time()
            edits += 1
            lead = leads[edits % LEADS]
            stack.stand_ins.edit_lead(lead, price=edits)
            time.sleep(max(0.0, began + edits / rate - time.monotonic()))
        wait_until(lambda: agreed(stack), 90, "both sides agree", 0.5)
        log = stack.control("airtable", "GET", "requests")
        times = sorted(
            call["at"] for call in log["log"] if not call["path"].startswith("/_control")
        )
        early = [at for at in times if at < back_at + 10]
        most = max((sum(1 for at in early if one <= at < one + 1) for one in early), default=0)
        counts = stack.reports().inbox_counts()
        return {
            "edits": edits,
            "outage_s": seconds,
            "recovered_after_s": round(min(times) - back_at, 1),
            "differences": 0,
            "duplicates": agreement(stack.stand_ins).duplicates,
            "dead": counts["dead"],
            "too_many_requests": log["too_many_requests"],
            "most_calls_in_a_second_of_the_first_10": most,
        }


def agreed(stack: Stack) -> bool:
    """Whether nothing is left to do and both sides show the same."""
    return stack.quiet() and not agreement(stack.stand_ins).differences
