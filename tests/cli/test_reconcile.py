"""``plan``, ``apply`` and ``reconcile`` as people use them: the brake, exit codes, sentences."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kommo_airtable_sync.store.database import Database
from tests.cli.conftest import Run
from tests.conftest import HandClock
from tests.simulated import EXAMPLE, World, config_text
from tests.two_way import custom, settle

pytestmark = pytest.mark.parametrize("sql_engine", ["sqlite"])
LEADS = 60
PARTS = {name: EXAMPLE[name] for name in ("fields", "airtable", "links")}


@pytest.fixture
def world(
    database: Database, clock: HandClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    (tmp_path / "sync.yaml").write_text(config_text(**PARTS), encoding="utf-8")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    made = World(database, clock, parts=PARTS)
    yield made
    made.close()


@pytest.fixture
def leads(world: World, run: Run) -> list[int]:
    """On both sides, each with notes."""
    made = world.add_leads([{"name": f"Deal {n}", **custom(Notes="noted")} for n in range(LEADS)])
    world.take_hooks()
    code, _, said = run("reconcile")
    assert code == 0, said
    settle(world)
    world.clock.advance(600)
    return made


def emptied(world: World, leads: list[int]) -> None:
    """A mistake empties the notes of 40 % of all deals; nothing tells of it."""
    world.edit_leads(leads[: LEADS * 2 // 5], **custom(Notes=None))
    world.take_hooks()
    world.clock.advance(600)


def noted(world: World) -> int:
    return sum("Notes" in record["fields"] for record in world.records())


def writes(world: World) -> int:
    return sum(
        world.calls(side, method=method)
        for side in ("kommo", "airtable")
        for method in ("POST", "PATCH", "PUT", "DELETE")
    )


def test_a_field_emptied_on_40_percent_is_held_before_the_first_write_and_yes_releases_it(
    run: Run, world: World, leads: list[int]
):
    emptied(world, leads)
    before = writes(world)
    code, _, said = run("reconcile")
    assert (code, noted(world), writes(world)) == (3, LEADS, before)
    assert 'empty the field "Notes" on 24 records' in said
    assert "--yes" in said
    code, shown, _ = run("reconcile", "--yes", "--json")
    assert code == 0, shown
    assert json.loads(shown)["updated"] == 24
    assert noted(world) == 36
    code, shown, _ = run("plan", "--json")
    assert (code, json.loads(shown)["findings"]) == (0, [])


def test_a_saved_plan_shows_both_values_of_each_field_and_is_held_until_yes(
    run: Run, world: World, leads: list[int], tmp_path: Path
):
    emptied(world, leads)
    code, _, said = run("plan", "--out", "plan.json")
    assert 'empty the field "Notes"' in said
    plan = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    (change,) = plan["findings"][0]["changes"]
    assert (change["name"], change["before"], change["after"]) == ("Notes", "noted", None)
    world.edit_lead(leads[0], **custom(Notes="noted again"))  # after the plan
    world.take_hooks()
    before = writes(world)
    code, _, said = run("apply", "plan.json")
    assert (code, writes(world)) == (3, before)
    assert "apply plan.json --yes" in said
    code, shown, _ = run("apply", "plan.json", "--yes")
    assert code == 3
    assert "refused" in shown
    assert noted(world) == 37
    assert world.record(leads[0])["Notes"] == "noted"


def test_a_plan_of_another_sync_yaml_is_refused_with_the_remedy(
    run: Run, world: World, leads: list[int], tmp_path: Path
):
    assert run("plan", "--out", "plan.json")[0] == 0
    other = config_text(**{**PARTS, "safety": {"max_deletes": 1}})
    (tmp_path / "sync.yaml").write_text(other, encoding="utf-8")
    code, _, said = run("apply", "plan.json")
    assert code == 2
    assert "was made for another sync.yaml" in said
    assert run("apply", "no-such-file.json")[0] == 2
