"""API calls an event: a single edit, an event that changes nothing, and what an echo adds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import requests

from tests.bench.burst import forget, requests_of
from tests.bench.echo import calls
from tests.stack import Stack, wait_until

NAIVE_CALLS = 2


def run(folder: Path, events: int = 20) -> list[dict[str, Any]]:
    """One event at a time, the next when the last is settled."""
    with Stack(folder / "thrift", fast=True) as stack:
        stack.start_sandbox()
        stack.spawn("up", "up")
        stack.wait_ready()
        leads = stack.control("kommo", "POST", "seed", {"count": events})["ids"]
        assert stack.cli("reconcile").returncode == 0
        wait_until(stack.quiet, 60, "the deals are there")

        def edit(lead: int, price: int) -> None:
            stack.stand_ins.edit_lead(lead, price=price)
            tell(stack, lead)

        # Without the stand-ins' own hooks nobody hears of our writes: no echoes.
        rows = [
            one_by_one(stack, "an edit in Kommo", leads, lambda lead: edit(lead, 1_000_000)),
            one_by_one(stack, "told of no change", leads, lambda lead: tell(stack, lead)),
        ]
        stack.connect()
        price = 2_000_000
        rows.append(
            one_by_one(
                stack,
                "an edit in Kommo, and its echo",
                leads,
                lambda lead: stack.stand_ins.edit_lead(lead, price=price),
            )
        )
    return rows


def one_by_one(stack: Stack, name: str, leads: list[int], act: Any) -> dict[str, Any]:
    """Calls an event of one kind."""
    forget(stack)
    for lead in leads:
        act(lead)
        wait_until(lambda: not stack.stand_ins.waiting(), 20, "the event is told", 0.02)
        wait_until(stack.quiet, 20, "the event is settled", 0.02)
    made, kinds = requests_of(stack), calls(stack)
    total = sum(side["total"] for side in made.values())
    return {
        "pattern": name,
        "events": len(leads),
        "calls_per_event": round(total / len(leads), 2),
        "kommo_calls_per_event": round(made["kommo"]["total"] / len(leads), 2),
        "airtable_calls_per_event": round(made["airtable"]["total"] / len(leads), 2),
        "writes_per_event": round(kinds["write"] / len(leads), 2),
        "naive_calls_per_event": NAIVE_CALLS,
    }


def tell(stack: Stack, lead: int) -> None:
    """A webhook of Kommo."""
    answer = requests.post(stack.hook_url, data={"leads[update][0][id]": str(lead)}, timeout=5)
    answer.raise_for_status()
