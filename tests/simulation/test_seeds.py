"""Whatever happens on the way, in the end both sides agree: a fixed number of seeds.

``SEEDS=1000 SEED_FROM=0 pytest tests/simulation`` plays more of them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kommo_airtable_sync.store.database import Database
from tests.conftest import HandClock
from tests.simulated import World
from tests.simulation.play import Story
from tests.two_way import BOTH_WAYS

FIRST = int(os.environ.get("SEED_FROM", "0"))
SEEDS = range(FIRST, FIRST + int(os.environ.get("SEEDS", "25")))
ACTS = 60


@pytest.fixture(scope="module")
def totals(request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """What happened in all stories; printed at the end."""
    counted: Counter[str] = Counter()
    yield counted
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        told = ", ".join(f"{name}: {n}" for name, n in sorted(counted.items()))
        print(f"\nSimulation: {told}")
    # People here edit while a call is under way far oftener than real ones do.
    assert counted["in the window"] <= 0.02 * counted["edits"]
    assert counted["writes"] <= counted["edits"]


@pytest.mark.parametrize("sql_engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize("seed", SEEDS)
def test_after_any_story_both_sides_agree(
    database: Database, clock: HandClock, totals: Counter[str], seed: int
) -> None:
    world = World(database, clock, parts=BOTH_WAYS, seed=seed)
    story = Story(world, seed)
    try:
        story.play(ACTS)
        story.end()
        story.check()
        totals.update(story.counts)
    except BaseException:
        print("\n".join(story.trace))
        print(story.counts)
        raise
    finally:
        world.close()


def test_a_seed_tells_the_same_story_again(tmp_path: Path) -> None:
    assert told(tmp_path / "one", 3) == told(tmp_path / "two", 3)


def told(folder: Path, seed: int) -> tuple[list[str], dict[str, int], list[tuple[Any, ...]]]:
    """What happened, counted, and every cell that was written."""
    folder.mkdir()
    clock = HandClock()
    database = Database(f"sqlite:///{folder / 'sync.db'}", clock, durable=False)
    database.migrate()
    world = World(database, clock, parts=BOTH_WAYS, seed=seed)
    story = Story(world, seed)
    story.play(ACTS)
    cells = world.cells_written()
    world.close()
    database.close()
    return story.trace, dict(story.counts), cells
