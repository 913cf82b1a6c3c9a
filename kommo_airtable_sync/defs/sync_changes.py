"""The live pipeline as a job: claim -> read -> link -> merge -> write both -> settle -> follow.

Ops hand each other only a batch id. Each takes the batch up where the last one left it, or claims
and reads it again, so that "re-execute from failure" works in a new process and nothing personal
is pickled.
"""

# Dagster's and Celery's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false

import dagster as dg

from kommo_airtable_sync.core.errors import LeaseLost
from kommo_airtable_sync.defs.lanes import LANE_TAG, QUEUE_TAG
from kommo_airtable_sync.defs.reporting import kommo_metadata, record_batch
from kommo_airtable_sync.defs.resources import SyncResource
from kommo_airtable_sync.defs.running import JOB, NO_RUN_RETRIES, another_run_waits
from kommo_airtable_sync.engine.batch import Batch
from kommo_airtable_sync.engine.claim import claim_batch, resume_batch
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.engine.follow import STEPS, follow
from kommo_airtable_sync.engine.settle import settle_batch

NOTHING = 0
OWNERS = ["team:operations"]


def _step(
    context: dg.OpExecutionContext,
    sync: SyncResource,
    batch_id: int,
    steps: int,
) -> tuple[Engine, Batch | None]:
    """Take the batch up and do the first so many steps; what is done already is not done again.

    A lost lease leaves it to whoever has it now.
    """
    engine = sync.engine(context)
    batch = resume_batch(engine, batch_id, context.run_id) if batch_id != NOTHING else None
    if batch is None:
        return engine, None
    try:
        for step in STEPS[:steps]:
            step(engine, batch)
    except LeaseLost as lost:
        context.log.warning(f"{lost}; another run has taken these leads")
    return engine, batch


@dg.op
def claim_leads(context: dg.OpExecutionContext, sync: SyncResource) -> int:
    """Take what is due out of the inbox, under a lease."""
    engine = sync.engine(context)
    batch = claim_batch(engine, context.run_id)
    return batch.id if batch else NOTHING


@dg.op
def read_leads(context: dg.OpExecutionContext, sync: SyncResource, batch_id: int) -> int:
    """Read the leads as they are now; a webhook is only a hint."""
    engine, batch = _step(context, sync, batch_id, 1)
    if batch:
        context.log_event(
            dg.AssetMaterialization(
                "kommo_leads", metadata=kommo_metadata(batch.report(engine.calls))
            )
        )
    return batch.id if batch else NOTHING


@dg.op
def link_contacts(context: dg.OpExecutionContext, sync: SyncResource, batch_id: int) -> int:
    """Upsert the contacts and companies that deals link to, before the deals."""
    _, batch = _step(context, sync, batch_id, 2)
    return batch.id if batch else NOTHING


@dg.op
def merge_fields(context: dg.OpExecutionContext, sync: SyncResource, batch_id: int) -> int:
    """Merge field by field against what both sides last agreed on."""
    _, batch = _step(context, sync, batch_id, 3)
    return batch.id if batch else NOTHING


@dg.op
def write_records(context: dg.OpExecutionContext, sync: SyncResource, batch_id: int) -> int:
    """Upsert changed records in tens, each write announced in the journal before it is sent."""
    _, batch = _step(context, sync, batch_id, 4)
    return batch.id if batch else NOTHING


@dg.op
def write_leads(context: dg.OpExecutionContext, sync: SyncResource, batch_id: int) -> int:
    """Patch changed leads, up to fifty a call, announced in the journal as well."""
    _, batch = _step(context, sync, batch_id, 5)
    return batch.id if batch else NOTHING


@dg.op
def settle_events(context: dg.OpExecutionContext, sync: SyncResource, batch_id: int) -> int:
    """Tell the inbox how each lead ended."""
    engine, batch = _step(context, sync, batch_id, len(STEPS))
    if batch:
        record_batch(context, engine, settle_batch(engine, batch))
    return batch_id


@dg.op
def follow_changes(context: dg.OpExecutionContext, sync: SyncResource, batch_id: int) -> None:
    """Stay for a while: later events are worked on at once, one materialisation each."""
    del batch_id
    engine = sync.engine(context)

    follow(
        engine,
        context.run_id,
        on_batch=lambda report: record_batch(context, engine, report),
        should_end=lambda: (
            engine.stop_requested()
            or sync.replaced()
            or another_run_waits(context.instance, engine, context.run_id)
        ),
    )


@dg.job(
    name=JOB,
    description="Sync what is due now, then follow changes for a while.",
    executor_def=dg.in_process_executor,
    tags={LANE_TAG: "live", QUEUE_TAG: "live", **NO_RUN_RETRIES},
    # Every event is in the UI; repeating them all in the worker's log costs time and tells nothing.
    config={"loggers": {"console": {"config": {"log_level": "WARNING"}}}},
)
def sync_changes() -> None:
    """One batch, op by op, and what follows it."""
    read = link_contacts(read_leads(claim_leads()))
    follow_changes(settle_events(write_leads(write_records(merge_fields(read)))))
