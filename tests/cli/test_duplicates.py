"""``duplicates``: what a person sees of copies, and what ``remove`` does and leaves."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from kommo_airtable_sync import assembly
from kommo_airtable_sync.core.types import BULK
from kommo_airtable_sync.settings import Settings
from tests.cli.conftest import command
from tests.engine.conftest import new_world, world
from tests.simulated import World

__all__ = ["new_world", "world"]
pytestmark = pytest.mark.parametrize("sql_engine", ["sqlite"])
Run = Callable[..., tuple[int, str, str]]


class Working:
    """While the command waits, a worker works."""

    def __init__(self, world: World) -> None:
        self._world, self.now = world, world.clock.now

    def sleep(self, _seconds: float) -> None:
        self._world.work(self._world.new_engine(BULK))


@pytest.fixture
def run(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def build(_settings: Settings, lane: Any) -> Any:
        return dataclasses.replace(world.new_engine(lane), clock=Working(world))

    # The accounts are stand-ins in this process; all else is as the command makes it.
    monkeypatch.setattr(assembly, "build_engine", build)

    def call(*arguments: str) -> tuple[int, str, str]:
        return command(monkeypatch, capsys, "duplicates", *arguments)

    return call


def twins(world: World, **own: Any) -> tuple[str, str, str]:
    """A lead's key, its record, and a copy that was made and perhaps edited by hand."""
    lead = world.add_lead(name="Deal", price=5)
    world.sync()
    record = next(r for r in world.records() if r["fields"]["Kommo Deal ID"] == lead)
    fields = {name: cell for name, cell in record["fields"].items() if name != "Last Modified"}
    copy = world._in_airtable("POST", "records", {"fields": {**fields, **own}})
    return f"lead:{lead}", record["id"], copy["id"]


def test_copies_are_listed_with_what_each_holds_of_its_own(run: Run, world: World) -> None:
    assert run()[:2] == (0, "Duplicates: none\n")
    key, kept, same = twins(world)
    other_key, _, owner = twins(world, Notes="mine", Amount=6)
    code, out, _ = run()
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert f"│ {key} │ {kept} │ {same} │ same │" in lines
    assert any(line.endswith(f"{owner} │ Amount, Notes │") for line in lines)
    groups = json.loads(run("--json")[1])
    assert [group["key"] for group in groups] == [key, other_key]
    assert groups[0]["kept"] == kept
    assert groups[1]["copies"][0]["own"] == ["Amount", "Notes"]


def test_removed_is_what_holds_nothing_and_the_rest_is_left_with_the_remedy(
    run: Run, world: World
) -> None:
    key, _, same = twins(world)
    other_key, other_kept, owner = twins(world, Notes="mine")
    code, _, err = run("remove", "lead:1", other_key)
    assert code == 1
    assert "no two records have the key: lead:1" in err
    assert same in {record["id"] for record in world.records()}
    code, _, err = run("remove", "--all")
    assert code == 3
    left = " ".join(err.split())
    assert f"left: {owner} of {other_key}: Notes. Merge it by hand into {other_kept}" in left
    there = {record["id"] for record in world.records()}
    assert (same in there, owner in there) == (False, True)
    assert run("remove", key)[0] == 1
    world.delete_record(owner)
    _, _, last = twins(world)
    code, out, _ = run("remove", "--all", "--json")
    assert (code, json.loads(out)) == (0, {"outcomes": {"deleted": 1}, "left": []})
    assert last not in {record["id"] for record in world.records()}


def test_what_to_remove_has_to_be_said(run: Run) -> None:
    assert run("remove")[0] == 2
    assert run("remove", "--all", "lead:1")[0] == 2
