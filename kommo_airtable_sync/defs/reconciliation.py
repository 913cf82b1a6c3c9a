"""Reconciliation: both sides compared in full, what differs mended by the one write path."""

# Dagster's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false

from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
from pydantic import Field

from kommo_airtable_sync.assembly import survey
from kommo_airtable_sync.core.config import Reconcile
from kommo_airtable_sync.core.errors import BatchRefused, ConfigurationError, SideUnavailable
from kommo_airtable_sync.core.night import night_report, numbers
from kommo_airtable_sync.core.quota import RESERVED
from kommo_airtable_sync.core.types import Json
from kommo_airtable_sync.defs.checks import RECONCILIATION, standing_checks
from kommo_airtable_sync.defs.lanes import BULK_TAGS
from kommo_airtable_sync.defs.reporting import Progress
from kommo_airtable_sync.defs.resources import SyncResource
from kommo_airtable_sync.defs.running import NO_RUN_RETRIES, RECONCILE_JOB
from kommo_airtable_sync.defs.sync_changes import OWNERS
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.engine.reconcile import (
    SOURCE,
    Comparison,
    compare_sides,
    hand_over,
    remember,
)
from kommo_airtable_sync.engine.working_off import WAITING, work_off
from kommo_airtable_sync.settings import load_settings
from kommo_airtable_sync.store.latencies import latency_histogram
from kommo_airtable_sync.store.standing import database_now

FRESH = timedelta(hours=26)
DAY_SECONDS = 86_400.0
TRIES_MORE = 3
RETRY_SECONDS = 120.0
RELEASE = (
    "In this UI: launch the job reconcile (or re-execute this run with the same config) with\n"
    "ops: {reconciliation: {config: {release: true}}}"
)


class ReconcileConfig(dg.Config):
    """What a person may ask of a reconciliation."""

    release: bool = Field(default=False, description="Release the brake: what it holds is meant.")
    since: str | None = Field(
        default=None,
        description="Only what changed since this time (ISO 8601, UTC unless it says otherwise); "
        "else reconcile.since of sync.yaml; else everything.",
    )


@dg.asset(
    name=RECONCILIATION,
    deps=["kommo_leads", "airtable_deals"],
    description="Both sides as they are now, compared lead by lead and field by field. Materialize "
    "reads all of both, has what differs mended and says what it was; the brake of sync.yaml "
    "(`safety`) holds what would change too much.",
    group_name="sync",
    kinds={"kommo", "airtable"},
    owners=OWNERS,
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=FRESH),
)
def reconciliation(
    context: dg.AssetExecutionContext, config: ReconcileConfig, sync: SyncResource
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Compare, brake, hand over, work off, report."""
    engine = sync.engine(context.op_execution_context)
    since = since_of(config.since, engine.config.reconcile)
    began = engine.seconds()

    def should_end() -> bool:
        return engine.stop_requested() or sync.replaced()

    with survey(load_settings()) as file:
        progress = Progress(context.log, engine)

        def on_progress(what: str, done: int) -> None:
            progress.tell(what, done)
            if should_end():
                raise dg.Failure(
                    "The run was asked to end before all was compared. Nothing was written.",
                    allow_retries=False,
                )

        try:
            compared = compare_sides(engine, file, since, on_progress)
        except SideUnavailable as outage:
            if outage.reason == RESERVED:
                raise dg.Failure(str(outage), allow_retries=False) from outage
            # Nothing follows from half a comparison, so another try begins with a new one.
            raise dg.RetryRequested(TRIES_MORE, RETRY_SECONDS) from outage
        except (ConfigurationError, BatchRefused) as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        if compared.brake and not config.release:
            report = remember(engine, compared, {})
            raise dg.Failure(
                f"{compared.brake}\n{RELEASE}",
                metadata=_metadata(engine, report, engine.seconds() - began),
                allow_retries=False,
            )
        outcomes = _mend(context, engine, compared, should_end, release=config.release)
        report = remember(engine, compared, outcomes)
    return dg.MaterializeResult(metadata=_metadata(engine, report, engine.seconds() - began))


def _mend(
    context: dg.AssetExecutionContext,
    engine: Engine,
    compared: Comparison,
    should_end: Callable[[], bool],
    *,
    release: bool,
) -> Mapping[str, int]:
    """Have the one write path look at all that was found; how the events ended."""
    began = database_now(engine.database)
    hand_over(engine, compared, release=release)
    progress = Progress(context.log, engine)
    outcomes = work_off(
        engine,
        context.run.run_id,
        source=SOURCE,
        since=began,
        on_batch=lambda report: progress.warn(report.outage),
        should_end=should_end,
        on_progress=lambda done, total: progress.tell("mended", done, total),
        on_wait=progress.warn,
    )
    left = sum(outcomes.get(state, 0) for state in WAITING)
    if left:
        raise dg.Failure(
            f"The run was asked to end with {left} of {sum(outcomes.values())} leads to go. They "
            "stay in the inbox and are synced without it.",
            allow_retries=False,
        )
    return outcomes


def _metadata(engine: Engine, report: Mapping[str, Json], seconds: float) -> dict[str, Any]:
    latencies = latency_histogram(engine.database, database_now(engine.database) - DAY_SECONDS)
    text = night_report(report, latencies, seconds)
    return {"report": dg.MetadataValue.md(text), **numbers(report, seconds)}


def since_of(asked: str | None, settings: Reconcile) -> datetime | None:
    """The time from which on changes count, aware; None: everything.

    Raises:
        Failure: if what was asked for is no time.
    """
    if asked:
        try:
            # Python 3.10 does not read Z.
            at = datetime.fromisoformat(asked.replace("Z", "+00:00"))
        except ValueError as error:
            raise dg.Failure(
                "`since` is not a time in ISO 8601, e.g. 2026-03-02T09:00.", allow_retries=False
            ) from error
        return at if at.tzinfo else at.replace(tzinfo=timezone.utc)
    day = settings.since
    if isinstance(day, date) and not isinstance(day, datetime):
        return datetime.combine(day, time(), ZoneInfo(settings.timezone))
    return day


reconcile = dg.define_asset_job(
    RECONCILE_JOB,
    selection=dg.AssetSelection.assets(RECONCILIATION).without_checks()
    | dg.AssetSelection.checks(standing_checks),
    description="Compare both sides now and have what differs mended; then run the asset checks.",
    tags={**BULK_TAGS, **NO_RUN_RETRIES},
    config={"loggers": {"console": {"config": {"log_level": "WARNING"}}}},
)
