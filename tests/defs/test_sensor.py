"""The webhook sensor on a real instance and a real store."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.events.log import EventLogEntry

from kommo_airtable_sync.core.registration import REFRESH_SECONDS, AirtableWebhook
from kommo_airtable_sync.core.types import BULK, LIVE, IncomingEvent, Priority
from kommo_airtable_sync.defs import sensors
from kommo_airtable_sync.defs.sensors import sweep, webhook_sensor
from kommo_airtable_sync.opening import SystemClock, open_limiter
from kommo_airtable_sync.settings import load_settings
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.documents import Documents
from kommo_airtable_sync.store.gaps import Gaps
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.limiter import SqlBudget
from kommo_airtable_sync.store.reports import Reports
from kommo_airtable_sync.store.runners import Runners
from tests.defs.loaded import repository


@pytest.fixture
def store(
    tmp_path: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database]:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    shutil.copy(sqlite_template, tmp_path / "sync.db")
    monkeypatch.setattr(sensors, "TICK_SECONDS", 0.15)
    monkeypatch.setattr(sensors, "CLOCK_SECONDS", 0.02)
    database = Database(f"sqlite:///{tmp_path / 'sync.db'}", SystemClock())
    yield database
    database.close()


def tick(instance: dg.DagsterInstance) -> list[dg.RunRequest] | str:
    context = dg.build_sensor_context(
        instance=instance, repository_def=repository(), sensor_name="webhook_sensor"
    )
    result = webhook_sensor(context)
    if isinstance(result, dg.SkipReason):
        return result.skip_message or ""
    assert isinstance(result, dg.SensorResult)
    return list(result.run_requests or [])


def make_due(store: Database, priority: Priority = LIVE) -> None:
    Inbox(store).receive([IncomingEvent("lead:1", "kommo", "update", priority=priority)])


def test_a_quiet_tick_waits_and_says_so(store: Database) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert "nothing due" in str(tick(instance))


def test_a_due_lead_asks_for_one_run_and_not_for_a_second(store: Database) -> None:
    make_due(store)
    with dg.DagsterInstance.ephemeral() as instance:
        requests = tick(instance)
        assert [request.tags["sync/lane"] for request in requests] == ["live"]
        assert isinstance(tick(instance), str)


def test_a_webhook_that_is_to_be_refreshed_is_asked_for_once(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "ASK_SECONDS", 0.0)
    day_ago = SystemClock().now().timestamp() - REFRESH_SECONDS - 60
    hook = AirtableWebhook("ach1", "", "https://x", {}, "usr1", day_ago, day_ago)
    Documents(store).put(hook.document, hook.to_json())
    with dg.DagsterInstance.ephemeral() as instance:
        assert [request.tags["sync/lane"] for request in tick(instance)] == ["live"]
        tick(instance)
    assert [event.key for event in Reports(store).list_events("all", None, 50)] == ["webhook:ach1"]


def test_bulk_that_the_months_quota_makes_wait_is_not_asked_for(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRTABLE_MONTHLY_CALLS", "1")
    make_due(store, BULK)
    limiter = open_limiter(load_settings())
    quota = load_settings().monthly_quota
    with SqlBudget(limiter, "airtable", 5, quota=quota).slot():
        pass
    limiter.close()
    with dg.DagsterInstance.ephemeral() as instance:
        assert "nothing due" in str(tick(instance))


def test_bulk_waits_until_the_daemon_would_not_sleep_after_it(store: Database) -> None:
    make_due(store, BULK)
    with dg.DagsterInstance.ephemeral() as instance:
        assert "bulk: due" in str(tick(instance))


def test_bulk_work_goes_to_the_bulk_queue(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensors, "BULK_SECONDS_MIN", 0.05)
    make_due(store, BULK)
    with dg.DagsterInstance.ephemeral() as instance:
        requests = tick(instance)
        assert [request.tags["dagster-celery/queue"] for request in requests] == ["bulk"]


def test_what_is_committed_during_a_tick_is_seen_without_waiting_for_the_clock(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "TICK_SECONDS", 10.0)
    monkeypatch.setattr(sensors, "CLOCK_SECONDS", 1_000.0)
    with dg.DagsterInstance.ephemeral() as instance, ThreadPoolExecutor(1) as pool:
        looked = threading.Event()
        monkeypatch.setattr(sensors, "look", seen_by(looked))
        ticking = pool.submit(tick, instance)
        assert looked.wait(9)
        make_due(store)
        requests = ticking.result()
    assert [request.tags["sync/lane"] for request in requests] == ["live"]


def seen_by(looked: threading.Event) -> Any:
    original = sensors.look

    def look(*arguments: Any) -> Any:
        found = original(*arguments)
        looked.set()
        return found

    return look


def test_a_living_runner_is_left_to_do_it(store: Database) -> None:
    make_due(store)
    Runners(store).beat("run", LIVE, "host", 1, "running")
    with dg.DagsterInstance.ephemeral() as instance:
        assert "running" in str(tick(instance))


def test_a_run_whose_heart_has_stopped_is_failed_and_its_leads_come_back(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_due(store)
    inbox, runners = Inbox(store), Runners(store)
    job = repository().get_job("sync_changes")
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        runners.beat(run.run_id, LIVE, "host", 1, "running")
        assert inbox.claim(LIVE, 10, run.run_id, 60.0) is not None
        sweep(instance, runners, inbox)
        assert not instance.get_run_by_id(run.run_id).is_finished
        monkeypatch.setattr("kommo_airtable_sync.engine.sweep.STALE_SECONDS", -1.0)
        sweep(instance, runners, inbox)
        assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
        assert LIVE in inbox.due_lanes()
        assert runners.all() == []


def started(instance: dg.DagsterInstance, job: str, **details: Any) -> str:
    """A run that Dagster believes to be going on since long ago."""
    run = instance.create_run_for_job(
        repository().get_job(job), status=dg.DagsterRunStatus.STARTING, **details
    )
    at = SystemClock().now().timestamp() - 2 * sensors.UNHEARD_SECONDS
    event = dg.DagsterEvent("PIPELINE_START", job)
    entry = EventLogEntry(None, "info", "", run.run_id, at, job_name=job, dagster_event=event)
    instance.handle_new_event(entry)
    return run.run_id


@pytest.mark.parametrize("job", ["sync_changes", "backfill_leads", "__ASSET_JOB"])
def test_a_run_that_never_took_its_place_is_failed_whatever_its_job(
    store: Database, job: str
) -> None:
    inbox, runners = Inbox(store), Runners(store)
    chosen = {"asset_selection": frozenset({dg.AssetKey("lead_backfill")})}
    with dg.DagsterInstance.ephemeral() as instance:
        run_id = started(instance, job, **(chosen if job == "__ASSET_JOB" else {}))
        make_due(store)
        assert inbox.claim(LIVE, 10, run_id, 60.0) is not None
        sweep(instance, runners, inbox)
        assert instance.get_run_by_id(run_id).status == dg.DagsterRunStatus.FAILURE
    assert LIVE in inbox.due_lanes()


def test_a_run_of_another_project_is_left_alone(store: Database) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run_id = started(instance, "__ASSET_JOB")
        sweep(instance, Runners(store), Inbox(store))
        assert not instance.get_run_by_id(run_id).is_finished


def test_a_gap_is_looked_through_by_one_run_and_then_forgotten(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "BULK_SECONDS_MIN", 0.05)
    gaps = Gaps(store)
    gaps.note(1_772_452_800.0)
    job = repository().get_job("reconcile")
    with dg.DagsterInstance.ephemeral() as instance:
        # Asked for until it is launched: the daemon may die between the two.
        (first,), (second,) = tick(instance), tick(instance)
        assert first.run_key == second.run_key
        assert (first.job_name, first.run_config) == (
            "reconcile",
            {"ops": {"reconciliation": {"config": {"since": "2026-03-02T10:20:00+00:00"}}}},
        )
        dg.validate_run_config(job, first.run_config)
        instance.create_run_for_job(job, tags={"dagster/run_key": first.run_key})
        assert isinstance(tick(instance), str)
    assert gaps.since() is None


def test_without_a_usable_database_the_tick_is_skipped_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("SYNC_DATABASE_URL", "sqlite:////no/such/folder/sync.db")
    with dg.DagsterInstance.ephemeral() as instance:
        assert "SYNC_DATABASE_URL" in str(tick(instance))
