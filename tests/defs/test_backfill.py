"""The backfill asset in real runs on an ephemeral instance, over the simulated accounts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import dagster as dg
import pytest

from kommo_airtable_sync.core.types import BULK
from kommo_airtable_sync.definitions import defs
from kommo_airtable_sync.store.database import Database
from tests.conftest import HandClock
from tests.simulated import KOMMO_OWNED, World

pytestmark = pytest.mark.parametrize("sql_engine", ["sqlite"])
LEAD_BACKFILL = dg.AssetKey("lead_backfill")


@pytest.fixture
def world(database: Database, clock: HandClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(database, clock, parts=KOMMO_OWNED)
    engines = {"bulk": world.new_engine(BULK)}
    monkeypatch.setattr(
        "kommo_airtable_sync.defs.resources.warm_engine", lambda lane: engines[lane]
    )
    yield world
    world.close()


def leads_of(world: World, *days: str, hour: int = 12) -> list[int]:
    """A lead created on each day, which no webhook has told of."""
    made = [
        int(datetime.fromisoformat(day).replace(hour=hour, tzinfo=timezone.utc).timestamp())
        for day in days
    ]
    lead_ids = world.add_leads(
        [{"name": f"Deal {n}", "price": n, "created_at": at} for n, at in enumerate(made)]
    )
    world.take_hooks()
    return lead_ids


def backfill(instance: dg.DagsterInstance, first: str, last: str = "") -> Any:
    job = defs().get_repository_def().get_job("backfill_leads")
    chosen: dict[str, Any] = {"partition_key": first}
    if last:
        prefix = "dagster/asset_partition_range_"
        chosen = {"tags": {f"{prefix}start": first, f"{prefix}end": last}}
    return job.execute_in_process(instance=instance, raise_on_error=False, **chosen)


def done(instance: dg.DagsterInstance) -> dict[str, dict[str, Any]]:
    """The materialized days with their metadata."""
    records = instance.fetch_materializations(LEAD_BACKFILL, limit=100).records
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        shown = record.asset_materialization.metadata.items()
        found[record.partition_key] = {name: entry.value for name, entry in shown}
    return found


def failure(result: Any) -> str:
    (event,) = (event for event in result.all_events if event.is_step_failure)
    return str(event.step_failure_data.user_failure_data.description)


def test_the_leads_of_the_day_are_synced_and_no_others(world: World) -> None:
    before, first, last, after = (
        *leads_of(world, "2024-05-01", hour=23),
        *leads_of(world, "2024-05-02", hour=0),
        *leads_of(world, "2024-05-02", hour=23),
        *leads_of(world, "2024-05-03", hour=0),
    )
    with dg.DagsterInstance.ephemeral() as instance:
        assert backfill(instance, "2024-05-02").success
        (day,) = done(instance).items()
    assert sorted(world.by_lead()) == [first, last]
    assert not {before, after} & set(world.by_lead())
    assert day[0] == "2024-05-02"
    assert {name: day[1][name] for name in ("leads", "created", "updated", "failed")} == {
        "leads": 2,
        "created": 2,
        "updated": 0,
        "failed": 0,
    }
    assert day[1]["api_calls_airtable"] >= 1
    assert day[1]["seconds"] > 0


def test_a_day_without_leads_is_done(world: World) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert backfill(instance, "2024-05-02").success
        assert done(instance)["2024-05-02"]["leads"] == 0


def test_a_day_with_a_dead_lead_fails_by_its_name_and_heals_when_it_is_mended(
    world: World,
) -> None:
    good, bad = leads_of(world, "2024-05-02", "2024-05-02")
    world._in_airtable("POST", "refusals", {"field": "Amount", "key": bad})
    with dg.DagsterInstance.ephemeral() as instance:
        result = backfill(instance, "2024-05-02")
        assert not result.success
        assert "1 of 2 leads could not be synced" in failure(result)
        assert f"lead {bad}: " in failure(result)
        assert "Amount" in failure(result)
        assert sum(event.is_step_up_for_retry for event in result.all_events) == 0
        assert done(instance) == {}
        assert list(world.by_lead()) == [good]
        world._in_airtable("DELETE", "refusals")
        assert backfill(instance, "2024-05-02").success
        assert done(instance)["2024-05-02"]["failed"] == 0
    world.assert_in_step([good, bad])


def test_one_run_over_many_days_reports_each_and_fails_only_those_that_failed(
    world: World,
) -> None:
    leads = leads_of(world, "2024-05-01", "2024-05-02", "2024-05-03")
    world._in_airtable("POST", "refusals", {"field": "Amount", "key": leads[1]})
    with dg.DagsterInstance.ephemeral() as instance:
        result = backfill(instance, "2024-05-01", "2024-05-04")
        assert not result.success
        assert failure(result).startswith("2024-05-02: 1 of 1 leads")
        assert sorted(done(instance)) == ["2024-05-01", "2024-05-03", "2024-05-04"]
    assert sorted(world.by_lead()) == [leads[0], leads[2]]


def test_an_outage_while_the_day_is_read_is_waited_for(world: World) -> None:
    leads = leads_of(world, "2024-05-02")
    world.fail("kommo", kind="status", status=503, times=3, route="/api/v4/leads", method="GET")
    with dg.DagsterInstance.ephemeral() as instance:
        assert backfill(instance, "2024-05-02").success
    assert world.engine.runners.pauses() == {}
    world.assert_in_step(leads)


def test_asked_to_stop_it_fails_and_leaves_the_leads_to_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    leads_of(world, "2024-05-02")
    monkeypatch.setattr("kommo_airtable_sync.defs.resources.SyncResource.replaced", lambda _: True)
    with dg.DagsterInstance.ephemeral() as instance:
        result = backfill(instance, "2024-05-02")
        assert not result.success
        assert "1 leads of 2024-05-02 to go" in failure(result)
        assert done(instance) == {}
    assert len(world.events("pending")) == 1
