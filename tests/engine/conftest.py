from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kommo_airtable_sync.store.database import Database
from tests.conftest import HandClock
from tests.simulated import World, config_text


@pytest.fixture
def new_world(database: Database, clock: HandClock) -> Iterator[Callable[..., World]]:
    """Makes a world; keyword arguments replace parts of the example's sync.yaml."""
    made: list[World] = []

    def make(**parts: Any) -> World:
        made.append(World(database, clock, config=config_text(**parts)))
        return made[-1]

    yield make
    for world in made:
        world.close()


@pytest.fixture
def world(new_world: Callable[..., World]) -> World:
    """A world under the example's sync.yaml."""
    return new_world()
