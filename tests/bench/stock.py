"""The baseline: the same ops on Dagster's stock path, with a plain sensor.

Default coordinator, default launcher (a new process a run), a sensor that looks once a tick.
"""

import time

import dagster as dg

from kommo_airtable_sync.core.types import LIVE
from kommo_airtable_sync.defs.resources import SyncResource
from kommo_airtable_sync.defs.sync_changes import sync_changes
from kommo_airtable_sync.opening import open_database
from kommo_airtable_sync.settings import load_settings
from kommo_airtable_sync.store.inbox import Inbox


@dg.sensor(
    job=sync_changes,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def plain_sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """What a textbook sensor does: look, ask for a run, leave."""
    database = open_database(load_settings())
    is_due = LIVE in Inbox(database).due_lanes()
    database.close()
    busy = context.instance.get_runs_count(
        dg.RunsFilter(
            job_name="sync_changes",
            statuses=[
                dg.DagsterRunStatus.QUEUED,
                dg.DagsterRunStatus.NOT_STARTED,
                dg.DagsterRunStatus.STARTING,
                dg.DagsterRunStatus.STARTED,
            ],
        )
    )
    if not is_due or busy:
        return dg.SkipReason("nothing due, or a run is under way")
    return dg.RunRequest(run_key=str(time.time_ns()))


defs = dg.Definitions(
    jobs=[sync_changes],
    sensors=[plain_sensor],
    resources={"sync": SyncResource()},
    executor=dg.in_process_executor,
)
