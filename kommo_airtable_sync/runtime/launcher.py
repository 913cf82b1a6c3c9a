"""Dagster's Celery run launcher, with a Terminate that works on every transport."""

# Dagster's and Celery's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dagster import DagsterRun, DagsterRunStatus
from dagster import _check as check
from dagster._core.launcher import LaunchRunContext
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClassData, pack_value
from dagster_celery.config import TASK_EXECUTE_JOB_NAME
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG
from dagster_celery.tasks import create_execute_job_task
from typing_extensions import Self

from kommo_airtable_sync.defs.history import relax_history
from kommo_airtable_sync.defs.lanes import LANE_TAG, QUEUE_TAG, lane_of
from kommo_airtable_sync.runtime.celery_app import celery_args
from kommo_airtable_sync.settings import load_settings

UNSTARTED = (
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.STARTING,
)


class WarmRunLauncher(CeleryRunLauncher):
    """Runs execute inside Celery workers that have everything imported.

    Broker and backend come from the settings, so that no URL with a password lands in
    ``dagster.yaml``. ``terminate`` reports the run as canceling, which Dagster's own launcher does
    not; the worker watches for that and interrupts the run. A run that no worker has taken up yet
    is cancelled at once, and the worker that finds it later lets it lie.
    """

    def launch_run(self, context: LaunchRunContext) -> None:
        """Hand the run to its queue; the task is registered once, not at every launch."""
        run = self._on_its_queue(context.dagster_run)
        task = self.celery.tasks.get(TASK_EXECUTE_JOB_NAME) or create_execute_job_task(self.celery)
        arguments = ExecuteRunArgs(
            job_origin=check.not_none(run.job_code_origin),
            run_id=run.run_id,
            instance_ref=self._instance.get_ref(),
            set_exit_code_on_failure=True,
        )
        self._launch_celery_task_run(
            run=run,
            task_signature=task.si(execute_job_args_packed=pack_value(arguments)),
            routing_key=TASK_EXECUTE_JOB_NAME,
        )

    def _on_its_queue(self, run: DagsterRun) -> DagsterRun:
        """The run with a queue; what the UI launches without a job of ours has no tag for it."""
        if QUEUE_TAG in run.tags:
            return run
        lane = lane_of(run)
        self._instance.add_run_tags(run.run_id, {LANE_TAG: lane, QUEUE_TAG: lane})
        return check.not_none(self._instance.get_run_by_id(run.run_id))

    def terminate(self, run_id: str) -> bool:
        """End a run from the UI; its leads go back to the inbox."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        if run.status in UNSTARTED:
            self.celery.control.revoke(run.tags.get(DAGSTER_CELERY_TASK_ID_TAG, ""))
            self._instance.report_run_canceled(run)
        return True

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Nothing to configure in dagster.yaml: see the settings."""
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]
    ) -> Self:
        """Build from the settings of this process."""
        del config_value
        settings = load_settings()
        relax_history(settings.home)
        args = celery_args(settings)
        return cls(
            default_queue="live",
            broker=args["broker"],
            backend=args["backend"],
            config_source=args["config_source"],
            inst_data=inst_data,
        )
