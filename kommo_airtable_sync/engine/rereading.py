"""What was read too long ago is read again before it is written (design 3.3)."""

from __future__ import annotations

from kommo_airtable_sync.core.overwritten import READ_SECONDS_MAX
from kommo_airtable_sync.engine.batch import Batch
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.engine.links import link_batch
from kommo_airtable_sync.engine.merge import merge_batch
from kommo_airtable_sync.engine.read import read_batch


def is_old(engine: Engine, batch: Batch) -> bool:
    """Whether the batch was read too long ago to be written."""
    read_at = batch.read_at
    return read_at is not None and not 0 <= engine.seconds() - read_at <= READ_SECONDS_MAX


def read_again_if_old(engine: Engine, batch: Batch) -> bool:
    """Read and merge what is still open anew, if it was read too long ago; whether it was."""
    if not is_old(engine, batch):
        return False
    batch.forget_reading()
    read_batch(engine, batch)
    link_batch(engine, batch)
    merge_batch(engine, batch)
    return True
