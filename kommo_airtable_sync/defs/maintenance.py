"""The daily job that keeps everything bounded: sweep, webhooks, pruning (``core.retention``).

It runs on the bulk queue: the daemon has no place for work of minutes, and a run of the live queue
would send the lingering live run away. It takes no part in the lane (no heartbeat, no leads), so a
bulk run never waits for more than the worker. Its ops hang on nothing of each other: what one
cannot do keeps the others from nothing.
"""

# Dagster's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false

import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import dagster as dg
from dagster import DagsterRunStatus
from dagster._core.storage.event_log import SqliteEventLogStorage

from kommo_airtable_sync.core.errors import ConfigurationError, SyncError
from kommo_airtable_sync.core.retention import DAY, Retention
from kommo_airtable_sync.defs.lanes import BULK_TAGS
from kommo_airtable_sync.defs.resources import warm_engine
from kommo_airtable_sync.defs.running import NO_RUN_RETRIES
from kommo_airtable_sync.defs.sensors import sweep
from kommo_airtable_sync.engine.pull import ask_for_due_webhooks
from kommo_airtable_sync.engine.registration import mend_kommo_webhook
from kommo_airtable_sync.opening import SystemClock, open_database, open_limiter
from kommo_airtable_sync.settings import Settings, load_settings
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.documents import Documents
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.limiter import forget_months
from kommo_airtable_sync.store.pruning import prune
from kommo_airtable_sync.store.runners import Runners

AGES = Retention()
RUNS_PER_PORTION = 50
FINISHED = (DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED)
# Dagster knows from the events of such runs alone which partitions have been filled.
OF_PARTITIONS = ("dagster/partition", "dagster/asset_partition_range_start")


@contextmanager
def _store(settings: Settings) -> Generator[Database]:
    """The store, open for an op.

    Raises:
        Failure: naming the setting that is wrong; trying again cannot help.
    """
    try:
        database = open_database(settings)
    except ConfigurationError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    with closing(database):
        yield database


@dg.op
def sweep_runs(context: dg.OpExecutionContext) -> None:
    """Fail runs whose process is gone, and give their leads back."""
    with _store(load_settings()) as database:
        runners = Runners(database)
        sweep(context.instance, runners, Inbox(database))
        heard = {runner.run_id for runner in runners.all()}
    before = SystemClock().now() - timedelta(days=AGES.unheard_runs)
    failed = fail_unheard(context.instance, before, heard)
    context.add_output_metadata({"runs_failed": failed})


@dg.op
def tend_webhooks() -> None:
    """Have Airtable's webhooks refreshed that are due, long before their seven days end.

    The refresh itself is an event of the live lane: pauses, attempts and alerts are there already.
    """
    with _store(load_settings()) as database:
        now = SystemClock().now().timestamp()
        ask_for_due_webhooks(Documents(database), Inbox(database), now)


@dg.op
def mend_webhook(context: dg.OpExecutionContext) -> None:
    """Register Kommo's webhook again if it was disabled or is gone; a reconciliation follows."""
    settings = load_settings()
    try:
        settings.require("KOMMO_WEBHOOK_SECRET")
        secret = settings.kommo_webhook_secret.get_secret_value()
        wrong = mend_kommo_webhook(warm_engine("bulk"), secret)
    except SyncError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    context.add_output_metadata({"was_wrong": wrong or "nothing"})


@dg.op
def prune_store(context: dg.OpExecutionContext) -> None:
    """Delete settled events, journal rows, batches and quota months by their ages."""
    settings = load_settings()
    with _store(settings) as database:
        pruned = prune(database, AGES, settings.stop_requested)
    with closing(open_limiter(settings)) as limiter:
        now = SystemClock().now().timestamp()
        pruned["quota_months"] = forget_months(limiter, now - AGES.quota_months * DAY)
    context.add_output_metadata(pruned)


@dg.op
def prune_runs(context: dg.OpExecutionContext) -> None:
    """Delete Dagster's finished runs by age, with all that they left on the disk."""
    settings, now = load_settings(), SystemClock().now()
    before = now - timedelta(days=AGES.runs)
    runs = forget_runs(context.instance, before, settings.stop_requested)
    files = forget_files(context.instance, before)
    files += forget_results(settings, now - timedelta(days=AGES.results))
    context.add_output_metadata({"runs": runs, "files": files})


def fail_unheard(instance: dg.DagsterInstance, before: datetime, heard: set[str]) -> int:
    """End runs in Dagster that nobody has heard of since; ``kill -9`` leaves such ones.

    Args:
        instance: where they are said to be running.
        before: last change of the run.
        heard: runs with a heartbeat: they may be as old as they like.
    """
    running = [DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
    found = instance.get_runs(dg.RunsFilter(statuses=running, updated_before=before))
    silent = [run for run in found if run.run_id not in heard]
    for run in silent:
        instance.report_run_failed(run, "Nothing was heard of this run for a day.")
    return len(silent)


def forget_runs(
    instance: dg.DagsterInstance, before: datetime, should_end: Callable[[], bool]
) -> int:
    """Delete finished runs that ended before, and their event logs; how many."""
    over = dg.RunsFilter(statuses=list(FINISHED), updated_before=before)
    kept: str | None = None
    deleted = 0
    while not should_end():
        records = instance.get_run_records(over, RUNS_PER_PORTION, cursor=kept, ascending=True)
        if not records:
            break
        for record in records:
            run = record.dagster_run
            if any(tag in run.tags for tag in OF_PARTITIONS):
                kept = run.run_id  # and the next portion begins after it
            else:
                instance.delete_run(run.run_id)
                deleted += 1
    return deleted


def forget_files(instance: dg.DagsterInstance, before: datetime) -> int:
    """Remove what deleted runs have left on the disk; how many files and folders.

    Dagster empties a run's own SQLite file and leaves it there (127 kB a run), and what its ops
    handed to each other. Files are judged by whether their run exists, so that those of a job
    killed half-way, or of runs deleted in the UI, are found as well.
    """
    removed = 0
    for path in _of_runs(instance):
        old = path.stat().st_mtime < before.timestamp()
        if old and not instance.has_run(path.name.partition(".")[0]):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
            removed += 1
    return removed


def _of_runs(instance: dg.DagsterInstance) -> Iterator[Path]:
    folders = [Path(instance.storage_directory())]
    if isinstance(instance.event_log_storage, SqliteEventLogStorage):
        folders.append(Path(instance.event_log_storage.path_for_shard("any")).parent)
    for folder in folders:
        for path in sorted(folder.glob("*")):
            if _is_run_id(path.name.partition(".")[0]):
                yield path


def _is_run_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def forget_results(settings: Settings, before: datetime) -> int:
    """Remove what Celery's filesystem backend keeps of finished runs; other backends forget."""
    scheme, _, folder = settings.result_backend.partition("://")
    results = Path(folder).glob("celery-task-meta-*") if scheme == "file" else ()
    old = [path for path in results if path.stat().st_mtime < before.timestamp()]
    for path in old:
        path.unlink()
    return len(old)


@dg.job(
    description="Sweep runs that died, have webhooks refreshed, delete what is over by age.",
    executor_def=dg.in_process_executor,
    tags={**BULK_TAGS, **NO_RUN_RETRIES},
)
def maintenance() -> None:
    """Everything once."""
    sweep_runs()
    tend_webhooks()
    mend_webhook()
    prune_store()
    prune_runs()


maintenance_daily = dg.ScheduleDefinition(
    name="maintenance_daily",
    job=maintenance,
    # After the nightly reconciliation, before people come to work.
    cron_schedule="30 4 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Keeps databases and disk bounded; ages: docs/night-care.md.",
)
