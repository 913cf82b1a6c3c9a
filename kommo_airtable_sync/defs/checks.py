"""Asset checks: what is wrong now, beside what each run says of itself. Run every night."""

# Dagster's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false

from collections.abc import Iterator

import dagster as dg

from kommo_airtable_sync.core.errors import ConfigurationError, SyncError
from kommo_airtable_sync.core.findings import Finding, worst
from kommo_airtable_sync.core.night import CHECKS, verdicts
from kommo_airtable_sync.defs.lanes import BULK_TAGS
from kommo_airtable_sync.defs.resources import warm_engine
from kommo_airtable_sync.defs.running import NO_RUN_RETRIES
from kommo_airtable_sync.engine.drift import look
from kommo_airtable_sync.engine.reconcile import LAST_FULL, last_report
from kommo_airtable_sync.opening import open_database
from kommo_airtable_sync.settings import load_settings
from kommo_airtable_sync.store.reports import Reports

RECONCILIATION = "reconciliation"


@dg.multi_asset_check(
    name="standing_checks",
    specs=[
        dg.AssetCheckSpec(
            name,
            asset=asset,
            description=description,
            # In the nightly job they look when the comparison is over.
            additional_deps=[] if asset == RECONCILIATION else [RECONCILIATION],
        )
        for name, (asset, description) in CHECKS.items()
    ],
    can_subset=True,
)
def standing_checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """One look at the store, which answers all of them."""
    try:
        database = open_database(load_settings())
    except ConfigurationError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    reports = Reports(database)
    found = verdicts(
        reports.inbox_counts()["dead"],
        reports.overdue_seconds(),
        last_report(database),
        last_report(database, LAST_FULL),
    )
    database.close()
    wanted = {key.name for key in context.selected_asset_check_keys}
    for verdict in found:
        if verdict.name in wanted:
            yield dg.AssetCheckResult(
                asset_key=CHECKS[verdict.name][0],
                check_name=verdict.name,
                passed=verdict.passed,
                severity=dg.AssetCheckSeverity.ERROR
                if verdict.is_error
                else dg.AssetCheckSeverity.WARN,
                description=None if verdict.passed else verdict.reason,
                metadata=dict(verdict.facts),
            )


@dg.asset_check(
    asset="airtable_deals",
    description="What sync.yaml names is in both accounts as it was: no field, stage or option was "
    "renamed, retyped, deleted or added since. The same as `kommo-airtable-sync doctor`.",
)
def schema_unchanged() -> dg.AssetCheckResult:
    """Both schemas as they are, compared with what was last seen of them."""
    try:
        found = look(warm_engine("bulk"))
    except ConfigurationError as error:
        found = [Finding("schema", "problem", error.message, error.remedy)]
    except SyncError as error:
        raise dg.Failure(str(error)) from error
    is_error = worst(found) == "problem"
    return dg.AssetCheckResult(
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN,
        description="\n".join(f"{each.message} {each.remedy}" for each in found) or None,
        metadata={"changes": len(found)},
    )


check_schemas = dg.define_asset_job(
    "check_schemas",
    selection=dg.AssetSelection.checks(schema_unchanged),
    description="Has a field, stage or option that sync.yaml is about changed on either side?",
    tags={**BULK_TAGS, **NO_RUN_RETRIES},
)
schema_check_daily = dg.ScheduleDefinition(
    name="schema_check_daily",
    job=check_schemas,
    # Before the nightly reconciliation, which would fail of a field that is gone.
    cron_schedule="30 2 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Tells of changed schemas before a write fails of them.",
)
