"""The daily job on a real instance and a real store: old runs, files and rows go, others stay."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from kommo_airtable_sync.core.quota import MonthlyQuota
from kommo_airtable_sync.core.registration import REFRESH_SECONDS, AirtableWebhook
from kommo_airtable_sync.core.types import LIVE, IncomingEvent
from kommo_airtable_sync.definitions import defs
from kommo_airtable_sync.defs import maintenance as night
from kommo_airtable_sync.opening import SystemClock, open_limiter
from kommo_airtable_sync.settings import load_settings
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.documents import Documents
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.limiter import SqlBudget, quota_months
from kommo_airtable_sync.store.runners import Runners
from kommo_airtable_sync.store.schema import events, runners
from tests.conftest import HandClock

RUN_SILENT = 60.0


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    load_settings()
    database = Database(f"sqlite:///{tmp_path / 'home' / 'sync.db'}", SystemClock())
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """One that keeps its runs in files, as at home."""
    folder = tmp_path / "instance"
    folder.mkdir()
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        yield instance


@dg.op
def say_something() -> int:
    return 1


@dg.op
def hear(number: int) -> None:
    del number


@dg.job
def chat() -> None:
    hear(say_something())


def files_of(tmp_path: Path, run_id: str) -> list[Path]:
    return sorted((tmp_path / "instance").glob(f"**/{run_id}*"))


def make_old(tmp_path: Path, seconds: float) -> None:
    """Files that were last touched so long ago."""
    at = SystemClock().now().timestamp() - seconds
    for path in (tmp_path / "instance").glob("**/*"):
        os.utime(path, (at, at))


def test_finished_runs_go_with_all_they_left_and_those_of_partitions_stay(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    gone = [chat.execute_in_process(instance=instance).run_id for _ in range(3)]
    kept = chat.execute_in_process(
        instance=instance, tags={"dagster/partition": "2026-03-01"}
    ).run_id
    gone.append(chat.execute_in_process(instance=instance).run_id)
    running = instance.create_run_for_job(chat, status=dg.DagsterRunStatus.STARTED).run_id
    now = SystemClock().now()
    make_old(tmp_path, 10)
    assert night.forget_runs(instance, now - timedelta(days=1), lambda: False) == 0
    assert night.forget_files(instance, now) == 0, "a run that is there keeps its files"
    assert all(files_of(tmp_path, run_id) for run_id in gone)
    later = now + timedelta(days=1)
    assert night.forget_runs(instance, later, lambda: False) == 4
    assert {run.run_id for run in instance.get_runs()} == {kept, running}
    assert night.forget_files(instance, later) == 8
    assert [files_of(tmp_path, run_id) for run_id in gone] == [[]] * 4
    assert len(files_of(tmp_path, kept)) == 2
    assert instance.all_logs(kept)
    assert night.forget_runs(instance, later, lambda: False) == 0


def test_many_runs_go_in_portions_and_a_broken_off_job_is_taken_up_by_the_next(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(night, "RUNS_PER_PORTION", 2)
    done = dg.DagsterRunStatus.SUCCESS
    for number in range(5):
        tags = {"dagster/partition": "x"} if number in (0, 3) else {}
        instance.create_run_for_job(chat, status=done, tags=tags)
    later = SystemClock().now() + timedelta(days=1)
    asked = iter([False])
    assert night.forget_runs(instance, later, lambda: next(asked, True)) == 1
    assert night.forget_runs(instance, later, lambda: False) == 2
    assert len(instance.get_runs()) == 2


def test_a_run_that_nobody_heard_of_for_a_day_is_failed_unless_it_beats(
    instance: dg.DagsterInstance,
) -> None:
    started = dg.DagsterRunStatus.STARTED
    silent, beating = (instance.create_run_for_job(chat, status=started) for _ in range(2))
    waiting = instance.create_run_for_job(chat)
    day_later = SystemClock().now() + timedelta(days=1)
    assert night.fail_unheard(instance, SystemClock().now() - timedelta(days=1), set()) == 0
    assert night.fail_unheard(instance, day_later, {beating.run_id}) == 1
    states = {run.run_id: run.status for run in instance.get_runs()}
    assert states[silent.run_id] == dg.DagsterRunStatus.FAILURE
    assert states[beating.run_id] == started
    assert states[waiting.run_id] == dg.DagsterRunStatus.NOT_STARTED


def test_results_that_nobody_reads_again_go(store: Database) -> None:
    settings = load_settings()
    folder = settings.home / "celery" / "results"
    folder.mkdir(parents=True)
    old, young, other = (
        folder / name for name in ("celery-task-meta-1", "celery-task-meta-2", "x")
    )
    for path in (old, young, other):
        path.touch()
    now = SystemClock().now()
    os.utime(old, (0, 0))
    os.utime(other, (0, 0))
    assert night.forget_results(settings, now - timedelta(days=1)) == 1
    assert sorted(folder.iterdir()) == [young, other]


def test_the_job_does_all_of_it(
    store: Database, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setenv("KOMMO_WEBHOOK_SECRET", "a-secret-of-kommo-s-webhook")
    monkeypatch.setattr(night, "warm_engine", lambda _: None)
    monkeypatch.setattr(night, "mend_kommo_webhook", lambda _, secret: asked.append(secret) or "")
    long_ago = SystemClock().now() - timedelta(days=500)
    then = HandClock(long_ago)
    with store.write() as connection:
        at = long_ago.timestamp()
        row = {"key": "lead:1", "source": "kommo", "kind": "update", "received_at": at}
        connection.execute(sa.insert(events).values(**row, state="done", settled_at=at))
    limiter = open_limiter(load_settings())
    limiter.clock = then
    with SqlBudget(limiter, "airtable", 5, quota=MonthlyQuota("appBase")).slot():
        pass
    # A run that was killed while it held a lead, and a webhook of Airtable's whose week runs out.
    Inbox(store).receive([IncomingEvent("lead:2", "kommo", "update")])
    Runners(store).beat("killed", LIVE, "host", 1, "running")
    assert Inbox(store).claim(LIVE, 1, "killed", 600) is not None
    with store.write() as connection:
        connection.execute(sa.update(runners).values(heartbeat_at=runners.c.heartbeat_at - 60))
    due_at = SystemClock().now().timestamp() - REFRESH_SECONDS - RUN_SILENT
    hook = AirtableWebhook("ach1", "", "https://x", {}, "usr1", due_at, due_at)
    Documents(store).put(hook.document, hook.to_json())
    job = defs().get_repository_def().get_job("maintenance")
    assert job.execute_in_process(instance=instance).success
    assert asked == ["a-secret-of-kommo-s-webhook"]
    assert Runners(store).all() == []
    with store.read() as connection:
        left = connection.execute(sa.select(events.c.key, events.c.state).order_by(events.c.key))
        assert left.all() == [("lead:2", "pending"), ("webhook:ach1", "pending")]
    with limiter.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(quota_months)) == 0
    limiter.close()


def test_what_one_op_cannot_do_keeps_the_others_from_nothing(
    store: Database, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNC_DATABASE_URL", "sqlite:////no/such/folder/sync.db")
    job = defs().get_repository_def().get_job("maintenance")
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    ended = {
        event.step_key: event.event_type_value
        for event in result.all_events
        if event.event_type_value in ("STEP_SUCCESS", "STEP_FAILURE")
    }
    assert ended == {
        "sweep_runs": "STEP_FAILURE",
        "tend_webhooks": "STEP_FAILURE",
        "mend_webhook": "STEP_FAILURE",
        "prune_store": "STEP_FAILURE",
        "prune_runs": "STEP_SUCCESS",
    }


def test_the_schedule_is_on_and_its_run_goes_to_the_bulk_queue(
    instance: dg.DagsterInstance,
) -> None:
    repository = defs().get_repository_def()
    schedule = repository.get_schedule_def("maintenance_daily")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    context = dg.build_schedule_context(instance, scheduled_execution_time=SystemClock().now())
    requests = schedule.evaluate_tick(context).run_requests or []
    assert [request.run_key for request in requests] == [None]
    tags = repository.get_job("maintenance").tags
    assert (tags["sync/lane"], tags["dagster-celery/queue"]) == ("bulk", "bulk")
