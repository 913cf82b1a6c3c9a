"""A run's place in its lane: standby, the one runner, retirement; and what ends it early."""

from __future__ import annotations

import dagster as dg
from dagster import DagsterRunStatus

from kommo_airtable_sync.assembly import LANES
from kommo_airtable_sync.core.types import BULK
from kommo_airtable_sync.defs.lanes import BULK_ASSETS, lane_of
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.engine.heart import Heart
from kommo_airtable_sync.store.runners import STALE_SECONDS

JOB = "sync_changes"
BACKFILL_JOB = "backfill_leads"
RECONCILE_JOB = "reconcile"
ATTENDING_JOBS = frozenset({JOB, BACKFILL_JOB, RECONCILE_JOB})
LIVE_ASSETS = frozenset({"kommo_leads", "airtable_linked_records", "airtable_deals"})
# The next run does what a failed one left undone. Dagster's own run retries (a setting of the
# instance) would repeat permanent failures too, and runs that the sweep ended.
NO_RUN_RETRIES = {"dagster/max_retries": "0"}
STANDBY_LOOK_SECONDS = 0.1
STANDBY_SECONDS_MAX = 120.0
BROKEN_OFF_SECONDS = 5.0
WAITING = (DagsterRunStatus.QUEUED, DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTING)


class Attendance:
    """One run's heartbeat and its turn in the lane, from its first op to its end."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._engine: Engine | None = None
        self._heart: Heart | None = None

    def begin(self, engine: Engine) -> None:
        """Become the lane's one runner; the first op of a run waits for that.

        Raises:
            Failure: if another run keeps the live lane for longer than two minutes. Bulk runs
                queue: each does work of its own, however long the one before it takes.
        """
        if self._heart is not None:
            return
        self._engine = engine
        self._heart = heart = Heart(engine, self._run_id)
        heart.start()
        engine.runners.answer_nudges(self._run_id, engine.lane)
        waited = 0.0
        while not engine.runners.become_runner(self._run_id, engine.lane, STALE_SECONDS):
            impatient = waited >= STANDBY_SECONDS_MAX and engine.lane != BULK
            if impatient or engine.stop_requested():
                raise dg.Failure(
                    "Another run keeps this lane and does its work; nothing is lost.",
                    allow_retries=False,
                )
            engine.clock.sleep(STANDBY_LOOK_SECONDS)
            waited += STANDBY_LOOK_SECONDS
        heart.become("running")

    @property
    def replaced(self) -> bool:
        """Whether another run has taken the lane over while this one was silent."""
        return self._heart is not None and self._heart.state == "retiring"

    def end(self) -> None:
        """Give back what is still held, and let the next run be asked for."""
        if self._heart is None or self._engine is None:
            return
        try:
            # Held leads mean that the run broke off: not at once again, or a defect would spin.
            self._engine.inbox.release_run(self._run_id, delay_seconds=BROKEN_OFF_SECONDS)
            self._heart.become("retiring")
        finally:
            # Without a store, too: a heart that went on would keep the lane from all who follow.
            self._heart.stop()


def another_run_waits(instance: dg.DagsterInstance, engine: Engine, run_id: str) -> bool:
    """Whether somebody (a person, a re-execution) has started another run of this lane."""
    others = [item for item in engine.runners.all() if item.run_id != run_id]
    if any(
        item.lane == engine.lane
        and item.state == "standby"
        and item.heartbeat_age_seconds < STALE_SECONDS
        for item in others
    ):
        return True
    # Any job counts: Materialize on an asset waits for the same worker.
    waiting = instance.get_runs(filters=dg.RunsFilter(statuses=list(WAITING)), limit=20)
    return any(LANES.get(lane_of(run)) == engine.lane for run in waiting)


def attends(run: dg.DagsterRun) -> bool:
    """Whether a run takes its place in a lane with its first op, and so must have a heartbeat."""
    wanted = {key.to_user_string() for key in run.asset_selection or ()}
    return run.job_name in ATTENDING_JOBS or bool(wanted & (LIVE_ASSETS | BULK_ASSETS))
