"""A Celery worker that is warm before its first run: everything imported and opened.

One process: the run executes where the queue is read (Celery's ``solo`` pool). A second process
would hold all of Dagster in memory once more to do nothing (decisions/0012).
"""

# Dagster's and Celery's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from celery import Celery, signals
from dagster import DagsterError, DagsterInstance, DagsterRunStatus
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import unpack_value
from dagster._utils import interrupts
from dagster_celery.tasks import create_execute_job_task, create_resume_job_task
from sqlalchemy.exc import SQLAlchemyError

from kommo_airtable_sync.core.errors import SyncError
from kommo_airtable_sync.defs.history import relax_history
from kommo_airtable_sync.defs.resources import warm_engine
from kommo_airtable_sync.opening import open_database
from kommo_airtable_sync.runtime.celery_app import build_celery
from kommo_airtable_sync.runtime.instance import prepare_home
from kommo_airtable_sync.settings import Settings, child_environment
from kommo_airtable_sync.store.runners import Runners

log = logging.getLogger(__name__)

TERMINATE_LOOK_SECONDS = 0.5
MODULE = "kommo_airtable_sync.definitions"


def run_worker(settings: Settings, queue: str) -> None:
    """Serve one queue in the foreground until SIGTERM; one run at a time."""
    os.environ.update(child_environment(settings))
    prepare_home(settings)
    relax_history(settings.home)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    app = build_celery(settings, settings.load_config().realtime.linger_seconds, queue)
    create_execute_job_task(app)
    create_resume_job_task(app)
    _connect_signals(app, settings, queue)
    # Dagster would make SIGTERM interrupt the run, and keep it from Celery, which lets the run end
    # and then stops.
    interrupts.setup_interrupt_handlers = _nothing
    app.worker_main(
        [
            "worker",
            f"--queues={queue}",
            f"--hostname={queue}-{os.getpid()}@%h",
            "--pool=solo",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
            "--loglevel=INFO",
        ]
    )


def _connect_signals(app: Celery, settings: Settings, queue: str) -> None:
    watches: dict[str, Callable[[], None]] = {}

    def warm(**_: Any) -> None:
        _warm(settings, queue)

    def before(task_id: str, args: Any = None, kwargs: Any = None, **_: Any) -> None:
        run_id = _run_id(args, kwargs)
        if run_id:
            watches[task_id] = _watch_for_terminate(run_id)

    def after(task_id: str, args: Any = None, kwargs: Any = None, **_: Any) -> None:
        watches.pop(task_id, _nothing)()
        run_id = _run_id(args, kwargs)
        if run_id:
            database = open_database(settings)
            Runners(database).leave(run_id)
            database.close()

    for connect, handler in (
        (signals.worker_process_init, warm),
        (signals.task_prerun, before),
        (signals.task_postrun, after),
    ):
        connect.connect(handler, weak=False)
    del app


def _nothing() -> None:
    """Where something must be called, and nothing is to happen."""


def _run_id(args: Any, kwargs: Any) -> str | None:
    packed = (kwargs or {}).get("execute_job_args_packed") or (args[0] if args else None)
    return unpack_value(packed, as_type=ExecuteRunArgs).run_id if packed else None


def _warm(settings: Settings, queue: str) -> None:
    """Load definitions, instance, engine and schemas, so that the first run of the day is fast."""
    ReconstructableRepository.for_module(MODULE, "defs", os.getcwd()).get_definition()
    with DagsterInstance.get() as instance:
        instance.get_runs(limit=1)
    try:
        warm_engine(queue).directory.mapping()
    except SyncError as error:
        # The first run says the same, where people look.
        log.warning("not fully warm yet: %s", error)
    settings.mark_ready(f"worker-{queue}-{os.getpid()}")


def _watch_for_terminate(run_id: str) -> Callable[[], None]:
    """Interrupt this process's run once Dagster says that a person wants it to end."""
    over = threading.Event()

    def watch() -> None:
        with DagsterInstance.get() as instance:
            if person_ends_it(instance, run_id, over):
                os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=watch, name=f"terminate-{run_id[:8]}", daemon=True)
    thread.start()

    def stop() -> None:
        over.set()
        thread.join(timeout=5.0)

    return stop


def person_ends_it(instance: DagsterInstance, run_id: str, over: threading.Event) -> bool:
    """Look until a person terminates the run (True) or it is over (False).

    A Dagster database that is away for a while says nothing: the next look may.
    """
    told = False
    while not over.wait(TERMINATE_LOOK_SECONDS):
        try:
            run = instance.get_run_by_id(run_id)
        except (DagsterError, SQLAlchemyError) as error:
            if not told:
                log.warning("Terminate is not seen while Dagster's database is away: %s", error)
            told = True
            continue
        told = False
        if run and run.status == DagsterRunStatus.CANCELING:
            return True
    return False
