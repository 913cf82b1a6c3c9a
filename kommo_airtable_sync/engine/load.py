"""The initial load: every lead into the inbox at bulk priority; one write path does the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kommo_airtable_sync.core.types import BULK, IncomingEvent, lead_key
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.store.documents import Documents
from kommo_airtable_sync.store.reports import Reports

SOURCE = "load"
LAST_LOAD = "last_reconcile"


@dataclass(frozen=True, slots=True)
class Remaining:
    """How far the load has come: leads still waiting, and outcomes so far."""

    waiting: int
    outcomes: Mapping[str, int]


def load_leads(engine: Engine) -> Iterator[int]:
    """Queue all leads, a page of up to 250 at a time; yields how many each page held."""
    for page in engine.kommo.lead_pages():
        engine.inbox.receive(
            [
                IncomingEvent(
                    key=lead_key(int(lead["id"])),
                    source=SOURCE,
                    kind="load",
                    priority=BULK,
                    always_read=True,
                )
                for lead in page
            ]
        )
        yield len(page)


def remaining(engine: Engine, since: float) -> Remaining:
    """Where the load that began at ``since`` (seconds since the epoch) stands."""
    states = Reports(engine.database).outcomes_of(SOURCE, since)
    waiting = states.pop("pending", 0) + states.pop("claimed", 0)
    return Remaining(waiting, states)


def remember_load(engine: Engine, result: Mapping[str, int]) -> None:
    """Keep what came of it for ``status``."""
    report = {"finished_at": engine.clock.now().isoformat(), **result}
    Documents(engine.database).put(LAST_LOAD, json.dumps(report))
