from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kommo_airtable_sync.store.database import Database
from tests.conftest import HandClock
from tests.simulated import KOMMO_OWNED, World


@pytest.fixture
def new_world(database: Database, clock: HandClock) -> Iterator[Callable[..., World]]:
    """Makes a world in which Kommo owns all; keyword arguments replace parts of sync.yaml."""
    made: list[World] = []

    def make(**parts: Any) -> World:
        made.append(World(database, clock, parts={**KOMMO_OWNED, **parts}))
        return made[-1]

    yield make
    for world in made:
        world.close()


@pytest.fixture
def world(new_world: Callable[..., World]) -> World:
    """A world in which Kommo owns all."""
    return new_world()
