"""The long-polling webhook sensor: it waits inside its tick and answers the moment work is due.

Design 3.5 has the measurements. The tick looks every 50 ms for about 20 s, at the rows only if
somebody committed or 500 ms have passed; at the first look that finds something due and no runner
alive or on its way, it writes a nudge and returns.
"""

# Dagster's and Celery's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false

import time
from collections.abc import Callable

import dagster as dg
from dagster import DagsterRunStatus

from kommo_airtable_sync.assembly import LANES
from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.core.sensing import LaneView, describe, wants_run
from kommo_airtable_sync.core.types import BULK
from kommo_airtable_sync.defs.checks import RECONCILIATION
from kommo_airtable_sync.defs.history import relax_history
from kommo_airtable_sync.defs.lanes import LANE_TAG, QUEUE_TAG
from kommo_airtable_sync.defs.reconciliation import reconcile
from kommo_airtable_sync.defs.running import JOB, RECONCILE_JOB, attends
from kommo_airtable_sync.defs.sync_changes import sync_changes
from kommo_airtable_sync.engine.pull import ask_for_due_webhooks
from kommo_airtable_sync.engine.sweep import bury, dead_runners, heed_set_back_clock
from kommo_airtable_sync.opening import open_database, open_limiter
from kommo_airtable_sync.settings import load_settings
from kommo_airtable_sync.store.database import instant
from kommo_airtable_sync.store.documents import Documents
from kommo_airtable_sync.store.gaps import Gaps
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.limiter import bulk_may_begin
from kommo_airtable_sync.store.runners import STALE_SECONDS, Runners

TICK_SECONDS = 20.0
LOOK_SECONDS = 0.05
# What nobody committed falls due by the clock only, and may wait so long (decisions/0011).
CLOCK_SECONDS = 0.5
SWEEP_SECONDS = 2.0
ASK_SECONDS = 15.0
# The daemon sleeps after a tick that was shorter than this, and is blind meanwhile. A live run
# lingers for longer, so nothing is missed; a bulk run would leave live events waiting.
BULK_SECONDS_MIN = 5.0
# A retiring run needs only to write its last Dagster events.
RETIRING_SECONDS = 1.0
# STARTED, yet never heard of: its process died before the first heartbeat.
UNHEARD_SECONDS = 30.0
GAP_LOOK_SECONDS = 15.0
# What was refused before the gap is sent again for up to 1 h 35 min, perhaps into it
# (reference/kommo-api 6.4).
GAP_MARGIN_SECONDS = 6_000.0
RUNS_MAX = 50


@dg.sensor(
    name="webhook_sensor",
    jobs=[sync_changes, reconcile],
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Waits for due leads and starts a run within a moment; sweeps runs that died.",
)
def webhook_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """One tick: about 20 s of waiting, or less if there is something to do."""
    settings = load_settings()
    relax_history(settings.home)
    try:
        database, limiter = open_database(settings), open_limiter(settings)
    except ConfigurationError as error:
        return dg.SkipReason(str(error))
    inbox, runners, documents = Inbox(database), Runners(database), Documents(database)
    gaps = Gaps(database)
    settings.mark_ready("sensor")
    began = time.monotonic()
    ends_at = began + TICK_SECONDS
    swept_at = asked_at = gap_seen_at = looked_at = 0.0
    views: dict[str, LaneView] = {}
    try:
        with database.watching() as changed:
            while time.monotonic() < ends_at and not settings.stop_requested():
                if time.monotonic() - asked_at > ASK_SECONDS:
                    asked_at = time.monotonic()
                    ask_for_due_webhooks(documents, inbox, time.time())
                if time.monotonic() - swept_at > SWEEP_SECONDS:
                    swept_at = time.monotonic()
                    heed_set_back_clock(database)
                    sweep(context.instance, runners, inbox)
                if not changed() and time.monotonic() - looked_at < CLOCK_SECONDS:
                    time.sleep(LOOK_SECONDS)
                    continue
                looked_at = time.monotonic()
                views = look(
                    inbox, runners, lambda: bulk_may_begin(limiter, settings.monthly_quota)
                )
                may_doze = time.monotonic() - began >= BULK_SECONDS_MIN
                requests = [
                    _request(runners, lane)
                    for lane, view in views.items()
                    if wants_run(view) and (lane == "live" or may_doze)
                ]
                if may_doze and time.monotonic() - gap_seen_at > GAP_LOOK_SECONDS:
                    gap_seen_at = time.monotonic()
                    requests += look_for_gap(gaps, context.instance)
                if requests:
                    return dg.SensorResult(run_requests=requests)
                time.sleep(LOOK_SECONDS)
    finally:
        database.close()
        limiter.close()
    return dg.SkipReason(describe(views.items()))


def look(inbox: Inbox, runners: Runners, bulk_allowed: Callable[[], bool]) -> dict[str, LaneView]:
    """What the store says of each lane; asks for more only while something is due.

    Bulk work that the month's quota makes wait is not due: a run would find nothing that it may do.
    """
    due = inbox.due_lanes()
    if BULK in due and not bulk_allowed():
        due -= {BULK}
    if not due:
        return {name: LaneView(False, (), None) for name in LANES}
    alive = [
        item
        for item in runners.all()
        if item.heartbeat_age_seconds
        < (RETIRING_SECONDS if item.state == "retiring" else STALE_SECONDS)
    ]
    return {
        name: LaneView(
            lane in due,
            tuple(item.state for item in alive if item.lane == lane),
            runners.unanswered_nudge_age(lane),
        )
        for name, lane in LANES.items()
    }


def _request(runners: Runners, lane: str) -> dg.RunRequest:
    nudge_id = runners.nudge(LANES[lane])
    # Dagster never launches a used key again: the time guards against a store that was reset.
    return dg.RunRequest(
        job_name=JOB,
        run_key=f"{lane}-{nudge_id}-{int(time.time())}",
        tags={LANE_TAG: lane, QUEUE_TAG: lane},
    )


def look_for_gap(gaps: Gaps, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    """Have what happened while nobody listened looked through, once."""
    since = gaps.since()
    if since is None:
        return []
    run_key = f"gap-{since:.0f}"
    known = dg.RunsFilter(tags={"dagster/run_key": run_key})
    if instance.get_runs(filters=known, limit=1):
        # Only now is it sure that the run was launched.
        gaps.clear(since)
        return []
    config = {"since": instant(since - GAP_MARGIN_SECONDS).isoformat()}
    return [
        dg.RunRequest(
            run_key=run_key,
            job_name=RECONCILE_JOB,
            run_config={"ops": {RECONCILIATION: {"config": config}}},
        )
    ]


def sweep(instance: dg.DagsterInstance, runners: Runners, inbox: Inbox) -> None:
    """Fail runs whose process is gone, and give their leads back."""
    for runner in dead_runners(runners):
        run = instance.get_run_by_id(runner.run_id)
        if run and not run.is_finished:
            instance.report_run_failed(
                run,
                f"The process of this run is gone (no heartbeat for "
                f"{runner.heartbeat_age_seconds:.0f} s). Its leads are given back.",
            )
        bury(runner, runners, inbox)
    heard = {runner.run_id for runner in runners.all()}
    for record in instance.get_run_records(
        filters=dg.RunsFilter(statuses=[DagsterRunStatus.STARTED]), limit=RUNS_MAX
    ):
        run = record.dagster_run
        started = record.start_time or time.time()
        silent = run.run_id not in heard and attends(run)
        if silent and time.time() - started > UNHEARD_SECONDS:
            instance.report_run_failed(run, "The process of this run is gone; it never reported.")
            inbox.release_run(run.run_id)
