"""Write the batch's records to Airtable."""

from __future__ import annotations

from kommo_airtable_sync.engine.batch import Batch, Plan
from kommo_airtable_sync.engine.braking import brake
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.engine.copies import retry_leads
from kommo_airtable_sync.engine.merge import merge_one
from kommo_airtable_sync.engine.outage import pausing
from kommo_airtable_sync.engine.rereading import is_old, read_again_if_old
from kommo_airtable_sync.engine.sending import Sender, keep_unchanged


def write_airtable(engine: Engine, batch: Batch) -> None:
    """Send every plan; afterwards each lead has an outcome, waits for Kommo, or a side is down."""

    def before_each() -> None:
        if read_again_if_old(engine, batch):
            keep_unchanged(engine, batch)
            brake(engine, batch)

    def on_gone(plan: Plan) -> None:
        # A person deleted the record: merged again, with none.
        batch.records_read.add(plan.key)
        batch.records.pop(plan.key, None)
        merge_one(engine, batch, plan.key)
        keep_unchanged(engine, batch)

    with pausing(engine, batch):
        keep_unchanged(engine, batch)
        brake(engine, batch)
        Sender(
            engine,
            batch,
            before_each=before_each,
            is_old=lambda: is_old(engine, batch),
            on_gone=on_gone,
        ).run()
        retry_leads(engine, batch)
