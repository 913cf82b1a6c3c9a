"""Cold start: from the command to ready, and to the first event in Airtable.

Against `dagster dev` with a plain sensor on the same ops. Each in an empty home, then again in it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.bench.latency import StockStack
from tests.stack import Stack


def run(folder: Path) -> list[dict[str, Any]]:
    """A row for each start."""
    rows: list[dict[str, Any]] = []
    for name, kind in (("up", Stack), ("dagster dev", StockStack)):
        with kind(folder / f"start-{kind.__name__}") as stack:
            stack.start_sandbox()
            stack.connect()
            rows.append(measure(stack, f"{name}, empty home"))
            stack.stop_product()
            rows.append(measure(stack, f"{name}, again"))
    return rows


def measure(stack: Stack, name: str) -> dict[str, Any]:
    """Start the product on running stand-ins; an edit comes the moment that it is ready."""
    began = time.monotonic()
    stack.start_product()
    ready = time.monotonic() - began
    stack.wait_for_record(stack.stand_ins.add_lead(name="The first deal"), 60)
    first = time.monotonic() - began
    return {"pattern": name, "ready_s": round(ready, 1), "first_event_s": round(first, 1)}
