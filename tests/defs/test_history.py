"""Dagster's SQLite files are spared the disk's confirmation; ours never are."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import sqlalchemy as sa
from dagster._core.instance.ref import InstanceRef

from kommo_airtable_sync.defs.history import relax_history
from kommo_airtable_sync.store.database import Database
from tests.conftest import HandClock

FULL, NORMAL = 2, 1


@dg.job(executor_def=dg.in_process_executor)
def nothing() -> None:
    """No ops."""


def synchronous(url: str) -> int:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        value = connection.scalar(sa.text("PRAGMA synchronous"))
    engine.dispose()
    return int(value or 0)


def test_dagsters_commits_do_not_wait_for_the_disk_and_ours_do(tmp_path: Path) -> None:
    store = tmp_path / "sync.db"
    relax_history(tmp_path)
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path))) as instance:
        run_id = nothing.execute_in_process(instance=instance).run_id
    [events] = (tmp_path / "history").rglob(f"{run_id}.db")
    ours = Database(f"sqlite:///{store}", HandClock())
    with ours.engine.connect() as connection:
        assert connection.scalar(sa.text("PRAGMA synchronous")) == FULL
    ours.close()
    assert synchronous(f"sqlite:///{events}") == NORMAL
    assert synchronous(f"sqlite:///{tmp_path / 'elsewhere.db'}") == FULL
    # Nor does closing: it would have moved the log into the file, and removed it.
    assert events.with_name(events.name + "-wal").exists()
