"""Kommo's leads, Airtable's deals and the records behind them as assets.

The live job reports on both at every batch. Materialize here does the same work by hand.
"""

# Dagster's and Celery's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false

from collections.abc import Iterator

import dagster as dg

from kommo_airtable_sync.defs.reporting import (
    airtable_metadata,
    kommo_metadata,
    linked_metadata,
    total,
)
from kommo_airtable_sync.defs.resources import SyncResource
from kommo_airtable_sync.defs.sync_changes import OWNERS
from kommo_airtable_sync.engine.batch import BatchReport
from kommo_airtable_sync.engine.claim import claim_batch
from kommo_airtable_sync.engine.follow import work_batch

BATCHES_MAX = 1_000


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            "kommo_leads",
            description="Leads in Kommo, as read for the events that were due. Materialize works "
            "off whatever the inbox holds now, and ends.",
            group_name="sync",
            kinds={"kommo"},
            owners=OWNERS,
        ),
        dg.AssetSpec(
            "airtable_linked_records",
            deps=["kommo_leads"],
            description="Contacts and companies behind the deals, each a record of its own, there "
            "before the deals that link to it. Materialize works off whatever the inbox holds now, "
            "and ends.",
            group_name="sync",
            kinds={"airtable"},
            owners=OWNERS,
        ),
        dg.AssetSpec(
            "airtable_deals",
            deps=["kommo_leads", "airtable_linked_records"],
            description="Records in Airtable, one for each lead that qualifies. Materialize works "
            "off whatever the inbox holds now, and ends.",
            group_name="sync",
            kinds={"airtable"},
            owners=OWNERS,
        ),
    ],
)
def synced_deals(
    context: dg.AssetExecutionContext, sync: SyncResource
) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]
    """Work off what is due now; the live job goes on after that."""
    engine = sync.engine(context.op_execution_context)
    reports: list[BatchReport] = []
    while len(reports) < BATCHES_MAX and not engine.stop_requested():
        batch = claim_batch(engine, context.run.run_id)
        if batch is None:
            break
        reports.append(work_batch(engine, batch))
    yield dg.MaterializeResult(asset_key="kommo_leads", metadata=kommo_metadata(total(reports)))
    yield dg.MaterializeResult(
        asset_key="airtable_linked_records", metadata=linked_metadata(engine, total(reports))
    )
    yield dg.MaterializeResult(
        asset_key="airtable_deals", metadata=airtable_metadata(engine, total(reports))
    )
