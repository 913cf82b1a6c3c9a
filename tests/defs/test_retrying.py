"""Dead events are tried again on a person's word; what is permanent is so at every level."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from kommo_airtable_sync.core.types import LIVE, IncomingEvent
from kommo_airtable_sync.definitions import defs
from kommo_airtable_sync.opening import SystemClock
from kommo_airtable_sync.runtime.instance import DAGSTER_YAML
from kommo_airtable_sync.settings import load_settings
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.reports import Reports
from kommo_airtable_sync.store.settling import Outcome

REASONS = ("no such Stage", "Übertrag abgelehnt", "no such user")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Three dead events and a pending one."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    load_settings()
    database = Database(f"sqlite:///{tmp_path / 'sync.db'}", SystemClock())
    database.migrate()
    inbox = Inbox(database)
    for lead, reason in enumerate(REASONS, 1):
        inbox.receive([IncomingEvent(f"lead:{lead}", "kommo", "update")])
        claimed = inbox.claim(LIVE, 1, "run", 60)
        assert claimed is not None
        inbox.settle(claimed.batch_id, {f"lead:{lead}": Outcome("dead", error=reason)}, 8)
    inbox.receive([IncomingEvent("lead:9", "kommo", "update")])
    yield database
    database.close()


def job(name: str) -> dg.JobDefinition:
    return defs().get_repository_def().get_job(name)


def retry(**config: Any) -> dg.ExecuteInProcessResult:
    return job("retry_events").execute_in_process(
        run_config={"ops": {"retry_dead_events": {"config": config}}}, raise_on_error=False
    )


def still_dead(store: Database) -> list[int]:
    return sorted(event.id for event in Reports(store).list_events("dead"))


@pytest.mark.parametrize(
    ("config", "retried"),
    [
        ({"ids": [1, 3]}, [1, 3]),
        ({"all_dead": True}, [1, 2, 3]),
        ({"reason": "NO SUCH"}, [1, 3]),
        ({"reason": "übertrag"}, [2]),
    ],
)
def test_dead_events_are_chosen_by_id_or_reason_and_named(
    store: Database, config: dict[str, Any], retried: list[int]
) -> None:
    result = retry(**config)
    assert result.success
    assert still_dead(store) == sorted({1, 2, 3} - set(retried))
    [output] = [
        event.step_output_data.metadata
        for event in result.all_node_events
        if event.is_successful_output
    ]
    assert output["events"].value == len(retried)
    assert output["ids"].value == ", ".join(map(str, retried))


def test_ids_that_are_not_dead_are_left_alone_and_named(store: Database) -> None:
    result = retry(ids=[2, 4, 77])
    assert still_dead(store) == [1, 3]
    [output] = [event for event in result.all_node_events if event.is_successful_output]
    assert output.step_output_data.metadata["not_dead"].value == "4, 77"


@pytest.mark.parametrize(
    "config",
    [{}, {"ids": [4]}, {"reason": "another"}, {"ids": [1], "all_dead": True}],
)
def test_it_fails_clearly_and_for_good_if_nothing_chosen_is_dead(
    store: Database, config: dict[str, Any]
) -> None:
    result = retry(**config)
    assert not result.success
    assert still_dead(store) == [1, 2, 3]
    [failed] = [event for event in result.all_node_events if event.is_step_failure]
    assert "Give one of" in str(failed) or "is dead" in str(failed)


# ---------------------------------------------------------------------- every job


def our_jobs() -> list[dg.JobDefinition]:
    return [each for each in defs().get_repository_def().get_all_jobs() if each.name[:2] != "__"]


def test_no_run_of_any_job_is_launched_anew_by_dagster() -> None:
    names = {each.name for each in our_jobs()}
    assert {"sync_changes", "maintenance", "retry_events"} <= names
    wrong = [each.name for each in our_jobs() if each.tags.get("dagster/max_retries") != "0"]
    assert wrong == [], "tag them with defs.running.NO_RUN_RETRIES"
    assert "run_retries" not in yaml.safe_load(DAGSTER_YAML)


def test_a_wrong_setting_fails_each_op_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever op retries there are: permanent is permanent at the level of ops as well."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("SYNC_DATABASE_URL", "sqlite:////no/such/folder/sync.db")
    monkeypatch.setenv("KOMMO_TOKEN", "")
    eager = dg.RetryPolicy(max_retries=2)
    for each in our_jobs():
        again = each.graph.to_job(
            name=each.name, op_retry_policy=eager, resource_defs=each.resource_defs
        )
        config = {"ops": {"retry_dead_events": {"config": {"all_dead": True}}}}
        result = again.execute_in_process(
            run_config=config if each.name == "retry_events" else None, raise_on_error=False
        )
        assert not result.success, each.name
        assert [event for event in result.all_events if event.is_step_up_for_retry] == []
