"""The reconciliation job in real runs on an ephemeral instance, over the simulated accounts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from kommo_airtable_sync.core.types import BULK
from kommo_airtable_sync.definitions import defs
from kommo_airtable_sync.defs import reconciliation
from kommo_airtable_sync.store.database import Database
from tests.conftest import HandClock
from tests.simulated import KOMMO_OWNED, World

pytestmark = pytest.mark.parametrize("sql_engine", ["sqlite"])
CHECKS = {
    "no_dead_letters",
    "oldest_pending",
    "no_duplicate_keys",
    "no_drift",
    "webhook_completeness",
}


@pytest.fixture
def world(
    database: Database,
    database_url: str,
    clock: HandClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("SYNC_DATABASE_URL", database_url)
    monkeypatch.setattr(reconciliation, "RETRY_SECONDS", 0.0)
    parts = {**KOMMO_OWNED, "safety": {"max_deletes": 2}}
    parts["airtable"] = {**parts["airtable"], "modified_field": "Last Modified"}
    world = World(database, clock, parts=parts)
    engines = {"bulk": world.new_engine(BULK)}
    monkeypatch.setattr(
        "kommo_airtable_sync.defs.resources.warm_engine", lambda lane: engines[lane]
    )
    yield world
    world.close()


def reconcile(**config: Any) -> Any:
    with dg.DagsterInstance.ephemeral() as instance:
        return (
            defs()
            .get_repository_def()
            .get_job("reconcile")
            .execute_in_process(
                instance=instance,
                raise_on_error=False,
                run_config={"ops": {"reconciliation": {"config": config}}},
            )
        )


def metadata(result: Any) -> dict[str, Any]:
    (made,) = result.asset_materializations_for_node("reconciliation")
    return {name: entry.value for name, entry in made.metadata.items()}


def failure(result: Any) -> Any:
    (event,) = (event for event in result.all_events if event.is_step_failure)
    return event.step_failure_data.user_failure_data


def checks(result: Any) -> dict[str, Any]:
    return {each.check_name: each for each in result.get_asset_check_evaluations()}


def load(world: World, count: int) -> list[int]:
    lead_ids = world.add_leads([{"name": f"Deal {n}", "price": n} for n in range(count)])
    world.take_hooks()
    assert reconcile().success
    world.clock.advance(60)
    return lead_ids


def test_it_mends_what_differs_and_reports_numbers_a_table_and_charts(world: World) -> None:
    lead_ids = load(world, 6)
    world.edit_lead(lead_ids[0], price=111)
    world.edit_lead(lead_ids[1], price=222)
    world.take_hooks()  # lost
    world.clock.advance(60)
    result = reconcile()
    assert result.success
    shown = metadata(result)
    assert (shown["leads"], shown["records"], shown["update"], shown["drift"]) == (6, 6, 2, 2)
    assert (shown["written"], shown["failed"]) == (2, 0)
    assert shown["api_calls_kommo"] >= 1
    assert "| update | 2 |" in shown["report"]
    assert "#### Drift by field" in shown["report"]
    world.assert_in_step(lead_ids)
    found = checks(result)
    assert set(found) == CHECKS
    assert {name for name, each in found.items() if not each.passed} == {
        "no_drift",
        "webhook_completeness",
    }
    assert found["no_drift"].severity == dg.AssetCheckSeverity.WARN
    # The next night finds nothing, and all is well.
    result = reconcile()
    assert metadata(result)["drift"] == 0
    assert all(each.passed for each in checks(result).values())


def test_a_braked_plan_fails_the_run_and_says_how_to_release_it(world: World) -> None:
    lead_ids = load(world, 6)
    for lead in lead_ids[:4]:
        world.edit_lead(lead, _embedded={"tags": [{"name": "hot"}]})
    world.take_hooks()
    world.clock.advance(60)
    assert reconcile().success
    for lead in lead_ids[:4]:
        world.edit_lead(lead, _embedded={"tags": None})
    world.take_hooks()
    world.clock.advance(60)
    written = len(world.cells_written())
    result = reconcile()
    assert not result.success
    said = failure(result)
    assert "Held by the brake" in said.description
    assert "kommo-airtable-sync reconcile --yes" in said.description
    assert "release: true" in said.description
    assert "Held by the brake" in said.metadata["report"].value
    assert sum(event.is_step_up_for_retry for event in result.all_events) == 0
    assert len(world.cells_written()) == written
    assert reconcile(release=True).success
    world.assert_in_step(lead_ids)


def test_only_what_changed_since_is_compared_if_so_asked(world: World) -> None:
    load(world, 6)
    world.clock.advance(3_600)
    since = world.clock.now()
    new = world.add_lead(name="New")
    world.take_hooks()
    world.clock.advance(60)
    result = reconcile(since=since.isoformat())
    assert result.success
    shown = metadata(result)
    assert (shown["create"], shown["leads"]) == (1, 1)
    assert f"since {since.isoformat()}" in shown["report"]
    assert new in world.by_lead()
    # Duplicates are known only to those that read everything.
    assert checks(result)["no_duplicate_keys"].passed


def test_an_outage_is_tried_again_and_then_fails_and_nothing_is_taken_for_gone(
    world: World,
) -> None:
    lead_ids = load(world, 3)
    world.fail("kommo", kind="status", status=503, route="/api/v4/leads", method="GET")
    result = reconcile()
    assert not result.success
    assert sum(event.is_step_up_for_retry for event in result.all_events) == 3
    world.mend()
    assert metadata(reconcile())["drift"] == 0
    world.assert_in_step(lead_ids)


def test_asked_to_stop_while_it_reads_it_writes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add_leads([{"name": "Deal"}])
    world.take_hooks()
    monkeypatch.setattr("kommo_airtable_sync.defs.resources.SyncResource.replaced", lambda _: True)
    result = reconcile()
    assert not result.success
    assert "Nothing was written" in failure(result).description
    assert world.events() == []


def test_a_since_that_is_no_time_is_refused(world: World) -> None:
    assert "ISO 8601" in failure(reconcile(since="yesterday")).description
