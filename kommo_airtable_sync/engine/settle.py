"""Settle the batch: every key has an outcome, the inbox learns it, people get the numbers."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from kommo_airtable_sync.core.backoff import retry_seconds
from kommo_airtable_sync.core.errors import LeaseLost
from kommo_airtable_sync.core.types import LIVE
from kommo_airtable_sync.engine.batch import Batch, BatchReport
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.engine.outage import lift_pauses
from kommo_airtable_sync.store import counters
from kommo_airtable_sync.store.settling import REFUSED, Outcome

log = logging.getLogger(__name__)


def settle_batch(engine: Engine, batch: Batch) -> BatchReport:
    """Record how every key ended; leads that an outage left open go back as they were."""
    for key in batch.open_keys:
        batch.outcomes[key] = Outcome("released")
    if batch.notes:
        fresh = engine.journal.note(batch.id, batch.run_id, list(batch.notes.values()))
        for each in fresh:
            batch.count("overwritten", each.side)
    outcomes = {key: _with_backoff(engine, batch, key) for key in batch.claim.keys}
    max_attempts = engine.config.realtime.max_attempts
    try:
        answers = _answers(batch, outcomes)
        settled_at = engine.inbox.settle(batch.id, outcomes, max_attempts, answers)
    except LeaseLost as lost:
        # Another run has these keys: what it reads is newer than what we know.
        log.warning("nothing settled: %s", lost)
        engine.batches.pop(batch.id, None)
        return batch.report(engine.calls, outage="another run has taken these leads")
    latencies = tuple(
        settled_at - event.received_at
        for key, events in batch.claim.events.items()
        if outcomes[key].state == "done" and batch.claim.lane == LIVE
        for event in events
    )
    _count(engine, batch, outcomes, latencies)
    if batch.outage is None:
        lift_pauses(engine, batch)
    engine.batches.pop(batch.id, None)
    return batch.report(engine.calls, latencies, str(batch.outage) if batch.outage else None)


def _answers(batch: Batch, outcomes: Mapping[str, Outcome]) -> dict[int, str]:
    """What came of each directive; one that is held or tried again is not answered yet."""
    answers: dict[int, str] = {}
    for key, events in batch.claim.events.items():
        outcome = outcomes[key]
        told = [event.id for event in events if event.id in batch.directives]
        for event_id in told if outcome.state in ("done", "dead") else ():
            answers[event_id] = batch.directives[event_id]
            if outcome.state == "dead" and outcome.outcome is None:
                # Nothing of the lead was written to the end.
                answers[event_id] = f"{REFUSED}{outcome.error}"
    return answers


def _with_backoff(engine: Engine, batch: Batch, key: str) -> Outcome:
    outcome = batch.outcomes[key]
    if outcome.state != "retry":
        return outcome
    attempts = max((event.attempts for event in batch.claim.events[key]), default=0)
    wait = retry_seconds(attempts, engine.jitter())
    return Outcome("retry", outcome.outcome, outcome.error, wait)


def _count(
    engine: Engine, batch: Batch, outcomes: dict[str, Outcome], latencies: tuple[float, ...]
) -> None:
    increments: list[tuple[str, str, float]] = [
        ("events_settled", outcomes[key].outcome or outcomes[key].state, len(events))
        for key, events in batch.claim.events.items()
        if outcomes[key].state != "released"
    ]
    increments += [(name, side, times) for (name, side), times in batch.tally.items() if times]
    increments += counters.latency_increments(latencies)
    if increments:
        with engine.database.write() as connection:
            counters.add(engine.database, connection, increments)
