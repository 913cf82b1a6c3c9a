"""Stay a while after the last event and run further batches: this is why pairs are fast.

The daemon may sleep up to 5 s after it has launched a run; events of that time are ours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from kommo_airtable_sync.core.errors import LeaseLost, SyncError
from kommo_airtable_sync.engine.batch import Batch, BatchReport
from kommo_airtable_sync.engine.claim import claim_batch
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.engine.links import link_batch
from kommo_airtable_sync.engine.merge import merge_batch
from kommo_airtable_sync.engine.read import read_batch
from kommo_airtable_sync.engine.settle import settle_batch
from kommo_airtable_sync.engine.write_airtable import write_airtable
from kommo_airtable_sync.engine.write_kommo import write_kommo

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.05
SCHEMA_LOOK_SECONDS = 30.0
# A run does not live for ever under constant load: its event log would grow without end.
RUN_SECONDS_MAX = 900.0


# Each takes a batch up where the last one left it, in this process or another.
STEPS: tuple[Callable[[Engine, Batch], None], ...] = (
    read_batch,
    link_batch,
    merge_batch,
    write_airtable,
    write_kommo,
)


def work_batch(engine: Engine, batch: Batch) -> BatchReport:
    """Read, merge, write and settle one claimed batch."""
    try:
        for step in STEPS:
            step(engine, batch)
    except LeaseLost:
        # settle finds the same and settles nothing
        pass
    return settle_batch(engine, batch)


def follow(
    engine: Engine,
    run_id: str,
    *,
    on_batch: Callable[[BatchReport], None],
    should_end: Callable[[], bool],
) -> None:
    """Work on until nothing has come for ``linger_seconds``, or somebody asks us to end.

    Args:
        engine: of the run's lane.
        run_id: the Dagster run.
        on_batch: told of every batch.
        should_end: asked about once a second: another run waits, or the stop flag is up.
    """
    linger = engine.config.realtime.linger_seconds
    began = last = asked = engine.seconds()
    # A run may not live to see a second look, so the first idle moment is one.
    schemas_seen = began - SCHEMA_LOOK_SECONDS
    while True:
        now = engine.seconds()
        # A clock that was set back ends the run as well: the next one counts by it anew.
        stays = 0 <= now - last < linger and 0 <= now - began < max(RUN_SECONDS_MAX, linger)
        if not stays:
            return
        if now - asked >= 1.0:
            asked = now
            if should_end():
                return
        batch = claim_batch(engine, run_id)
        if batch is not None:
            on_batch(work_batch(engine, batch))
            last = engine.seconds()
            continue
        if now - schemas_seen >= SCHEMA_LOOK_SECONDS:
            schemas_seen = now
            refresh_schemas_when_idle(engine)
        engine.clock.sleep(LOOK_SECONDS)


def refresh_schemas_when_idle(engine: Engine) -> None:
    """Read aged schemas again while nobody waits for us; what cannot be read stays as it was."""
    if not engine.directory.stale() or engine.runners.pauses():
        return
    try:
        engine.directory.refresh(fresh_seconds=60.0)
    except SyncError as error:
        log.warning("the schemas were not read again: %s", error)
