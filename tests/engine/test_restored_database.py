"""An old backup is put back: the next reconciliation heals what it does not know."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.journal import Journal
from tests.engine.test_reconcile import kinds, reconcile
from tests.simulated import World
from tests.two_way import BOTH_WAYS, custom, edit, settle

pytestmark = pytest.mark.parametrize("sql_engine", ["sqlite"])


def copied(world: World, path: Path) -> Path:
    """As ``database backup`` does."""
    source = world.database.engine.url.database
    with closing(sqlite3.connect(str(source))) as here, closing(sqlite3.connect(path)) as there:
        here.backup(there)
    return path


def put_back(world: World, backup: Path) -> None:
    """Everything is stopped, the file is put in place, everything is started again."""
    world.take_hooks()
    world.take_automations()
    world.database = Database(f"sqlite:///{backup}", world.clock, durable=False)
    world.inbox, world.journal = Inbox(world.database), Journal(world.database)
    world.engine = world.new_engine()


def test_after_an_old_backup_reconciliation_brings_both_sides_together_without_duplicates(
    new_world: Callable[..., World], tmp_path: Path
) -> None:
    world = new_world(**BOTH_WAYS)
    leads = world.add_leads([{"name": f"Deal {n}", "price": n} for n in range(1, 13)])
    settle(world)
    backup = copied(world, tmp_path / "backup.db")

    # A day of work that the backup knows nothing of, all of it synced at the time.
    world.clock.advance(86_400)
    edit(world, "kommo", leads[0], {"Deal Name": "Renamed in Kommo"})
    edit(world, "airtable", leads[1], {"Amount": 4711})
    edit(world, "airtable", leads[2], {"Seats": 9})
    edit(world, "kommo", leads[3], {}, {"hot"})
    edit(world, "airtable", leads[3], {}, {"VIP"})
    later = world.add_leads([{"name": f"Later {n}", "price": n} for n in range(5)])
    settle(world)
    # And what nobody has told us of, since everything was down while the backup was put back.
    edit(world, "kommo", leads[4], {"Amount": 815})
    world.edit_lead(leads[5], **custom(Website="https://example.com/new"))
    edit(world, "airtable", leads[6], {"Deal Name": "Renamed in Airtable"})
    put_back(world, backup)
    world.clock.advance(600)

    found = reconcile(world, tmp_path)
    settle(world)

    assert found
    everyone = [*leads, *later]
    world.assert_in_step(everyone)
    keys = [record["fields"].get("Kommo Deal ID") for record in world.records()]
    assert sorted(keys) == sorted(everyone)
    shown = {lead: world.record(lead) for lead in everyone}
    assert shown[leads[0]]["Deal Name"] == "Renamed in Kommo"
    assert shown[leads[1]]["Amount"] == 4711
    assert shown[leads[2]]["Seats"] == 9
    assert set(shown[leads[3]]["Tags"]) == {"hot", "VIP"}
    assert shown[leads[4]]["Amount"] == 815
    assert shown[leads[5]]["Website"] == "https://example.com/new"
    assert shown[leads[6]]["Deal Name"] == "Renamed in Airtable"
    assert kinds(world, tmp_path) == {}
    world.database.close()
