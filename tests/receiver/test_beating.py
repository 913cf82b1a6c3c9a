"""The receiver says that it listens, and goes on saying so."""

from __future__ import annotations

import pytest

from kommo_airtable_sync.receiver.beating import start_beating
from kommo_airtable_sync.store.database import Database, StoreError
from kommo_airtable_sync.store.gaps import GAP_SECONDS, Gaps
from tests.conftest import HandClock
from tests.receiver.fakes import wait_until

pytestmark = pytest.mark.parametrize("sql_engine", ["sqlite"])


class Unsteady(Gaps):
    """The database fails at the second beat."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.beats = 0

    def beat(self) -> None:
        self.beats += 1
        if self.beats == 2:
            raise StoreError("gone")
        super().beat()


def test_it_beats_at_once_and_on_though_the_database_fails_meanwhile(
    database: Database, clock: HandClock
) -> None:
    gaps = Unsteady(database)
    gaps.beat()
    clock.advance(GAP_SECONDS + 1)
    over = start_beating(gaps, seconds=0.001)
    wait_until(lambda: gaps.since() is not None and gaps.beats > 3)
    over.set()
