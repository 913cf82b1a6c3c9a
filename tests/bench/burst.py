"""2,000 and 10,000 deals at once: records, duplicates, calls, 429s, and time against the limits.

Beside it the naive script (tests/bench/naive.py) on stand-ins of its own: 2,000 events whole, of
10,000 only a share, and the rest by the rule of three.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import requests

from tests.bench import naive
from tests.simulated import KOMMO_OWNED, config_text
from tests.stack import Stack, wait_until

LEADS_PER_HOOK = 20
SIZES = (2_000, 10_000)
NAIVE_WHOLE_MAX = 2_000
NAIVE_SHARE = 0.05
PER_SECOND = {"airtable": 5, "kommo": 7}
SECONDS_PER_LEAD_MAX = 0.15
OPEN_BRAKE = {"max_share_changed": 1.0, "max_records_changed": 10**6, "max_deletes": 20}


def run(folder: Path, sizes: tuple[int, ...] = SIZES) -> list[dict[str, Any]]:
    """The bursts where Kommo owns every field, one under the example, which shares and links."""
    one_way = config_text(**KOMMO_OWNED, safety=OPEN_BRAKE)
    with ThreadPoolExecutor(1) as pool:
        # Mostly waiting: it disturbs nobody.
        scripts = pool.submit(lambda: [by_script(folder / f"naive-{n}", n) for n in sizes])
        rows = [measure(folder / f"burst-{n}", n, one_way, "Kommo owns all") for n in sizes]
        rows.append(measure(folder / "burst-example", sizes[0], None, "the example"))
        return rows + scripts.result()


def measure(folder: Path, leads: int, config: str | None, mapping: str) -> dict[str, Any]:
    """Make the leads without hooks, then send one hook for each at once; then all again twice."""
    seconds_max = 60 + leads * SECONDS_PER_LEAD_MAX
    with Stack(folder, config=config) as stack:
        stack.start()
        ids = stack.control("kommo", "POST", "seed", {"count": leads})["ids"]
        forget(stack)
        began = time.time()
        send(stack, ids)
        acked = time.time() - began
        wait_until(stack.quiet, seconds_max, "the burst is done")
        seconds = time.time() - began
        first = requests_of(stack)
        keys = Counter(record.get("Kommo Deal ID") for record in stack.records())
        forget(stack)
        stack.control("airtable", "DELETE", "writes")
        send(stack, [*reversed(ids), *ids])
        wait_until(stack.quiet, seconds_max, "the echo is done", 0.2)
        again = requests_of(stack)
        row = {
            **counted("product", leads, seconds, first),
            "mapping": mapping,
            "records": len(keys),
            "duplicates": sum(count - 1 for count in keys.values()),
            "acked_s": round(acked, 2),
            "again_writes": len(stack.control("airtable", "GET", "writes")["writes"]),
            "again_airtable_calls": again["airtable"]["total"],
            "again_kommo_calls": again["kommo"]["total"],
            "again_429": sum(item["too_many_requests"] for item in again.values()),
        }
        print(row, flush=True)
        return row


def by_script(folder: Path, leads: int) -> dict[str, Any]:
    """The naive script's time for as many events."""
    share = 1.0 if leads <= NAIVE_WHOLE_MAX else NAIVE_SHARE
    with Stack(folder) as stack:
        stack.start_sandbox()
        ids = stack.control("kommo", "POST", "seed", {"count": int(leads * share)})["ids"]
        forget(stack)
        seconds = naive.burst(stack, ids)
        made = requests_of(stack)
    for side in made.values():
        side["total"] = round(side["total"] / share)
    row = counted("naive", leads, seconds / share, made) | {"measured_share": share}
    print(row, flush=True)
    return row


def counted(by: str, leads: int, seconds: float, made: dict[str, Any]) -> dict[str, Any]:
    """Calls and time, against the time in which the limits allow so many calls."""
    floors = {f"{side}_floor_s": made[side]["total"] / rate for side, rate in PER_SECOND.items()}
    floor = max(floors.values())
    return {
        "pattern": f"{by} {leads:,}",
        "by": by,
        "leads": leads,
        "seconds": round(seconds, 1),
        "airtable_calls": made["airtable"]["total"],
        "kommo_calls": made["kommo"]["total"],
        "calls_per_lead": round(sum(side["total"] for side in made.values()) / leads, 4),
        **{name: round(value, 1) for name, value in floors.items()},
        "times_floor": round(seconds / floor, 3),
        "too_many_requests": sum(side["too_many_requests"] for side in made.values()),
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


def forget(stack: Stack) -> None:
    """Begin to count requests anew."""
    for side in PER_SECOND:
        stack.control(side, "DELETE", "requests")


def requests_of(stack: Stack) -> dict[str, Any]:
    """Request counts of both stand-ins."""
    return {side: stack.control(side, "GET", "requests?log=0") for side in PER_SECOND}
