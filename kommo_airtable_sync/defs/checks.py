"""Asset checks: what is wrong now, beside what each run says of itself. Run every night."""

# Dagster's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false

from collections.abc import Iterator

import dagster as dg

from kommo_airtable_sync.assembly import open_database
from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.core.night import CHECKS, verdicts
from kommo_airtable_sync.engine.reconcile import LAST_FULL, last_report
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
