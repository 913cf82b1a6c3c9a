"""When the nightly reconciliation runs: ``reconcile`` in sync.yaml, as this process started."""

# Dagster's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false

import dagster as dg

from kommo_airtable_sync.core.config import Reconcile
from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.defs.reconciliation import reconcile
from kommo_airtable_sync.settings import read_settings

WITHOUT_SYNC_YAML = Reconcile(timezone="Europe/Berlin")


@dg.definitions
def schedules() -> dg.Definitions:
    """The schedule; without a usable sync.yaml at its default time, for its runs to say why."""
    try:
        when = read_settings().load_config().reconcile
    except ConfigurationError:
        when = WITHOUT_SYNC_YAML
    nightly = dg.ScheduleDefinition(
        name="nightly_reconciliation",
        job=reconcile,
        cron_schedule=when.cron,
        execution_timezone=when.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Compares both sides every night; cron and time zone are those of sync.yaml.",
    )
    return dg.Definitions(schedules=[nightly])
