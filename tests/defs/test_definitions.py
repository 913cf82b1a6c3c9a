"""The code location: it loads with an empty environment and holds what the contract names."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from kommo_airtable_sync.definitions import defs
from tests.simulated import config_text

ROOT = Path(__file__).parent.parent.parent


def loaded() -> dg.RepositoryDefinition:
    definitions = defs()
    dg.Definitions.validate_loadable(definitions)
    return definitions.get_repository_def()


def test_definitions_hold_the_names_of_the_contract() -> None:
    repository = loaded()
    assert {key.to_user_string() for key in repository.assets_defs_by_key} == {
        "kommo_leads",
        "airtable_linked_records",
        "airtable_deals",
        "lead_backfill",
        "reconciliation",
    }
    jobs = {job.name for job in repository.get_all_jobs()}
    assert jobs >= {
        "sync_changes",
        "reconcile",
        "backfill_leads",
        "retry_events",
        "maintenance",
    }
    assert {schedule.name for schedule in repository.schedule_defs} == {
        "maintenance_daily",
        "nightly_reconciliation",
        "schema_check_daily",
    }
    assert sorted(sensor.name for sensor in repository.sensor_defs) == [
        "failure_alerts",
        "webhook_sensor",
    ]


def test_only_the_reconciliation_is_expected_to_be_fresh() -> None:
    policies = {
        spec.key.to_user_string(): spec.freshness_policy
        for assets in loaded().assets_defs_by_key.values()
        for spec in assets.specs
    }
    fresh = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=26))
    assert {name: policy for name, policy in policies.items() if policy} == {
        "reconciliation": fresh
    }


@pytest.mark.parametrize(
    ("text", "cron", "zone"),
    [
        (None, "0 3 * * *", "Europe/Berlin"),
        ("version: 1", "0 3 * * *", "Europe/Berlin"),  # not usable; its runs will say so
        (
            config_text(reconcile={"cron": "30 1 * * 6", "timezone": "America/Lima"}),
            "30 1 * * 6",
            "America/Lima",
        ),
    ],
)
def test_the_nightly_schedule_is_that_of_sync_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, cron: str, zone: str
) -> None:
    path = tmp_path / "sync.yaml"
    if text:
        path.write_text(text, encoding="utf-8")
    home = tmp_path / "home"
    monkeypatch.setenv("SYNC_CONFIG", str(path))
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    schedule = loaded().get_schedule_def("nightly_reconciliation")
    assert schedule.job_name == "reconcile"
    assert (schedule.cron_schedule, schedule.execution_timezone) == (cron, zone)
    assert not home.exists()


def test_the_nightly_job_compares_first_and_checks_then() -> None:
    job = loaded().get_job("reconcile")
    order = [node.name for node in job.graph.nodes_in_topological_order]
    assert order == ["reconciliation", "standing_checks"]
    assert job.tags["dagster-celery/queue"] == "bulk"


def test_assets_say_what_they_are() -> None:
    for assets in loaded().assets_defs_by_key.values():
        for spec in assets.specs:
            assert spec.group_name == "sync"
            assert spec.kinds
            assert spec.owners
            assert spec.description


def test_the_ops_run_in_the_order_of_the_story() -> None:
    job = loaded().get_job("sync_changes")
    order = [node.name for node in job.graph.nodes_in_topological_order]
    assert order == [
        "claim_leads",
        "read_leads",
        "link_contacts",
        "merge_fields",
        "write_records",
        "write_leads",
        "settle_events",
        "follow_changes",
    ]


@pytest.mark.process
def test_the_workspace_validates_with_an_empty_environment(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-w", "workspace.yaml"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.process
def test_dg_finds_the_project(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "dg"), "list", "defs", "--json"],
        cwd=ROOT,
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "VIRTUAL_ENV": str(Path(sys.executable).parent.parent),
            "HOME": str(tmp_path),
            "DAGSTER_HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "webhook_sensor" in done.stdout
