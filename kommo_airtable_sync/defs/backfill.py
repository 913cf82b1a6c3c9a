"""Backfills: the leads created on a day, synced again; launched from the UI's backfill page.

A run has one day, or many ("launch as a single run"). A day is materialized by itself as soon as
all its leads have ended well, so a run that breaks off can be launched again for what is missing.
"""

# Dagster's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false

from collections.abc import Iterator, Mapping
from datetime import datetime, timezone

import dagster as dg

from kommo_airtable_sync.core.errors import BatchRefused, ConfigurationError, SideUnavailable
from kommo_airtable_sync.core.progress import time_left
from kommo_airtable_sync.defs.lanes import BULK_TAGS
from kommo_airtable_sync.defs.reporting import Progress
from kommo_airtable_sync.defs.resources import SyncResource
from kommo_airtable_sync.defs.running import BACKFILL_JOB, NO_RUN_RETRIES
from kommo_airtable_sync.defs.sync_changes import OWNERS
from kommo_airtable_sync.engine.backfill import DayReport, backfill_day
from kommo_airtable_sync.engine.context import Engine

ASSET = "lead_backfill"
FIRST_DAY = "2015-01-01"


@dg.asset(
    name=ASSET,
    partitions_def=dg.DailyPartitionsDefinition(start_date=FIRST_DAY, timezone="UTC"),
    description="The leads created in Kommo on each day (UTC). Materialize days to sync all their "
    "leads again, in the background: live changes go first.",
    group_name="sync",
    kinds={"kommo", "airtable"},
    owners=OWNERS,
    output_required=False,  # each day is reported when it is done
)
def lead_backfill(context: dg.AssetExecutionContext, sync: SyncResource) -> Iterator[None]:
    """Each day of the run, oldest first; those with dead leads fail it at the end."""
    engine = sync.engine(context.op_execution_context)
    days, troubles = list(context.partition_keys), list[str]()
    began = engine.seconds()
    for done, day in enumerate(days):
        report = _backfill(context, sync, engine, day)
        if report.dead:
            troubles.append(_trouble(day, report))
            context.log.error(troubles[-1])
        else:
            metadata = day_metadata(report)
            context.log_event(dg.AssetMaterialization(ASSET, partition=day, metadata=metadata))
        left = time_left(done + 1, len(days), engine.seconds() - began)
        context.log.info(f"{day}: {report.leads} leads; day {done + 1} of {len(days)}{left}")
    if troubles:
        raise dg.Failure("\n".join(troubles), allow_retries=False)
    yield from ()


def _backfill(
    context: dg.AssetExecutionContext, sync: SyncResource, engine: Engine, day: str
) -> DayReport:
    """One day, to its end.

    Raises:
        Failure: if Kommo refuses to be read, or the run must end before the day has.
    """
    progress = Progress(context.log, engine)
    first = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=timezone.utc)
    try:
        report = backfill_day(
            engine,
            context.run.run_id,
            first,
            should_end=lambda: engine.stop_requested() or sync.replaced(),
            on_progress=lambda done, total: progress.tell(day, done, total),
            on_wait=progress.warn,
        )
    except (SideUnavailable, ConfigurationError, BatchRefused) as error:
        raise dg.Failure(f"{day} could not be read: {error}", allow_retries=False) from error
    if report.left:
        raise dg.Failure(
            f"The run had to end with {report.left} leads of {day} to go. They stay in the inbox; "
            "materialize the days that are missing to have them checked.",
            allow_retries=False,
        )
    return report


def day_metadata(report: DayReport) -> Mapping[str, int | float]:
    """What became of a day, in numbers that Dagster plots."""
    shown = ("created", "updated", "unchanged", "filtered", "held")
    return {
        "leads": report.leads,
        **{name: report.outcomes.get(name, 0) for name in shown},
        "failed": report.outcomes.get("dead", 0),
        "api_calls_kommo": report.calls[0],
        "api_calls_airtable": report.calls[1],
        "seconds": round(report.seconds, 3),
    }


def _trouble(day: str, report: DayReport) -> str:
    failed = report.outcomes.get("dead", 0)
    named = "".join(f"\n  lead {lead_id}: {why}" for lead_id, why in report.dead.items())
    more = f"\n  and {failed - len(report.dead)} more" if failed > len(report.dead) else ""
    return (
        f"{day}: {failed} of {report.leads} leads could not be synced. "
        f"Mend what is said of each, then re-execute.{named}{more}"
    )


backfill_leads = dg.define_asset_job(
    BACKFILL_JOB,
    selection=[ASSET],
    description="Sync again all leads that were created on the chosen days, in the background.",
    tags={**BULK_TAGS, **NO_RUN_RETRIES},
    config={"loggers": {"console": {"config": {"log_level": "WARNING"}}}},
)
