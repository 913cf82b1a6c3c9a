"""The watch that ends a run when a person presses Terminate."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from sqlalchemy.exc import OperationalError

from kommo_airtable_sync.runtime import worker
from kommo_airtable_sync.runtime.worker import person_ends_it


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> Iterator[DagsterInstance]:
    monkeypatch.setattr(worker, "TERMINATE_LOOK_SECONDS", 0.001)
    with DagsterInstance.ephemeral() as made:
        yield made


def run_in(instance: DagsterInstance, status: DagsterRunStatus) -> str:
    return instance.add_run(DagsterRun(job_name="sync_changes", status=status)).run_id


def test_a_database_that_is_away_for_a_while_does_not_end_the_watch(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = run_in(instance, DagsterRunStatus.CANCELING)
    look, looks = instance.get_run_by_id, list[str]()

    def away_at_first(asked: str) -> DagsterRun | None:
        looks.append(asked)
        if len(looks) < 4:
            raise OperationalError("select", None, ConnectionError("away"))
        return look(asked)

    monkeypatch.setattr(instance, "get_run_by_id", away_at_first)
    assert person_ends_it(instance, run_id, threading.Event())
    assert len(looks) == 4
    assert caplog.text.count("Terminate is not seen") == 1


def test_the_watch_ends_with_its_run(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, over = run_in(instance, DagsterRunStatus.STARTED), threading.Event()
    look = instance.get_run_by_id

    def last_look(asked: str) -> DagsterRun | None:
        over.set()
        return look(asked)

    monkeypatch.setattr(instance, "get_run_by_id", last_look)
    assert not person_ends_it(instance, run_id, over)
