"""Take keys out of the inbox, or pick up a batch where another op or run left it."""

from __future__ import annotations

from kommo_airtable_sync.core.errors import LeaseLost
from kommo_airtable_sync.core.types import BULK
from kommo_airtable_sync.engine.batch import Batch
from kommo_airtable_sync.engine.context import (
    LEADS_PER_BATCH,
    LEADS_PER_BULK_BATCH,
    LEASE_SECONDS,
    RECORDS_PER_WRITE,
    Engine,
)
from kommo_airtable_sync.store.claiming import Claim


def claim_batch(engine: Engine, run_id: str) -> Batch | None:
    """Claim what is due in the engine's lane; None if nothing is, or the quota makes bulk wait."""
    if engine.lane not in engine.inbox.due_lanes():
        return None
    limit = LEADS_PER_BATCH
    if engine.lane == BULK:
        if not engine.airtable_budget.bulk_may_begin():
            return None
        # The place in the budget first, then the lease: bulk never holds a lead while waiting.
        engine.airtable_budget.wait_for_place()
        limit = LEADS_PER_BULK_BATCH
    elif engine.runners.pauses():
        # A side has just been down: one request is probe enough.
        limit = RECORDS_PER_WRITE
    claim = engine.inbox.claim(engine.lane, limit, run_id, LEASE_SECONDS)
    if claim is None:
        return None
    return _begin(engine, claim, run_id)


def resume_batch(engine: Engine, batch_id: int, run_id: str) -> Batch | None:
    """The batch as this run left it a moment ago, else its unsettled keys claimed anew.

    Covers both an op that follows another and a re-execution from failure in a new process.
    None if there is nothing left of it to do.
    """
    batch = engine.batches.get(batch_id)
    if batch is not None and batch.run_id == run_id:
        try:
            engine.inbox.renew(batch_id, LEASE_SECONDS)
        except LeaseLost:
            del engine.batches[batch_id]
        else:
            return batch
    claim = engine.inbox.reclaim(batch_id, run_id, LEASE_SECONDS)
    if claim is None:
        return None
    return _begin(engine, claim, run_id)


def _begin(engine: Engine, claim: Claim, run_id: str) -> Batch:
    batch = Batch(claim, run_id, calls_before=engine.calls)
    engine.batches[batch.id] = batch
    return batch
