"""2,000 deals at once: records, duplicates, calls a lead, 429s, and time against the limit."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import requests

from tests.simulated import KOMMO_OWNED, config_text
from tests.stack import Stack, wait_until

LEADS_PER_HOOK = 20


def run(folder: Path, leads: int = 2_000) -> list[dict[str, Any]]:
    """The burst where Kommo owns every field, and under the example, which shares and links."""
    one_way = config_text(**KOMMO_OWNED)
    return [
        {"mapping": "Kommo owns all", **measure(folder / "burst-one-way", leads, one_way)},
        {"mapping": "the example", **measure(folder / "burst-example", leads, None)},
    ]


def measure(folder: Path, leads: int, config: str | None) -> dict[str, Any]:
    """Make the leads without hooks, then send one hook for each at once; then all again."""
    with Stack(folder, config=config) as stack:
        stack.start()
        ids = stack.control("kommo", "POST", "seed", {"count": leads})["ids"]
        for side in ("kommo", "airtable"):
            stack.control(side, "DELETE", "requests")
        began = time.time()
        send(stack, ids)
        acked = time.time() - began
        synced = [lead for lead in ids if lead]
        wait_until(stack.quiet, 300, "the burst is done")
        seconds = time.time() - began
        first = requests_of(stack)
        keys = Counter(record.get("Kommo Deal ID") for record in stack.records())
        for side in ("kommo", "airtable"):
            stack.control(side, "DELETE", "requests")
        stack.control("airtable", "DELETE", "writes")
        doubled = [*reversed(ids), *ids]
        send(stack, doubled)
        wait_until(stack.quiet, 300, "the echo is done", 0.2)
        again = requests_of(stack)
        floor = first["airtable"]["total"] / 5
        return {
            "leads": len(synced),
            "records": len(keys),
            "duplicates": sum(count - 1 for count in keys.values()),
            "acked_s": round(acked, 2),
            "seconds": round(seconds, 1),
            "airtable_calls": first["airtable"]["total"],
            "kommo_calls": first["kommo"]["total"],
            "calls_per_lead": round(
                (first["airtable"]["total"] + first["kommo"]["total"]) / len(synced), 4
            ),
            "floor_s": round(floor, 1),
            "times_floor": round(seconds / floor, 3),
            "too_many_requests": sum(item["too_many_requests"] for item in first.values()),
            "again_writes": len(stack.control("airtable", "GET", "writes")["writes"]),
            "again_airtable_calls": again["airtable"]["total"],
            "again_429": sum(item["too_many_requests"] for item in again.values()),
        }


def send(stack: Stack, ids: list[int]) -> None:
    """All at once: several leads a webhook, as when many cards are moved (reference kommo 6.2)."""
    with requests.Session() as session:
        for start in range(0, len(ids), LEADS_PER_HOOK):
            some = ids[start : start + LEADS_PER_HOOK]
            body = urlencode(
                [(f"leads[update][{n}][id]", str(lead)) for n, lead in enumerate(some)]
            )
            answer = session.post(
                stack.hook_url,
                data=body,
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                timeout=10,
            )
            assert answer.json() == {"accepted": len(some)}


def requests_of(stack: Stack) -> dict[str, Any]:
    """Request counts of both stand-ins."""
    return {side: stack.control(side, "GET", "requests") for side in ("kommo", "airtable")}
