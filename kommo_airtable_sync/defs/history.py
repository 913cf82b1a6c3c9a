"""Dagster's history on SQLite, without what it does again and again (decisions/0012).

Dagster opens a connection for every event, commits and closes. Each commit waits for the disk, and
so does each close: the last connection moves the write-ahead log into the file. Nothing of ours
rests on that history: what is due, claimed and written is in the store, which waits as before.

Each run's events have a file of their own, and for each new file Dagster imports all its migrations
anew, to learn which is the last.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from functools import cache
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, event

FILES_MAX = 8
"""Kept open: the index, runs, ticks, and the events of the latest runs."""


@cache
def relax_history(home: Path) -> None:
    """In this process, for Dagster's SQLite files under ``home``.

    A power cut may take the last events of a run's history with it; the files stay sound.
    """
    folder = f"{os.path.realpath(home)}{os.sep}"
    theirs = tuple(f"{folder}{name}{os.sep}" for name in ("history", "schedules", "storage"))
    kept: dict[str, sqlite3.Connection] = {}
    lock = threading.Lock()

    def relax(connection: object, _record: object) -> None:
        if not isinstance(connection, sqlite3.Connection):
            return
        file = str(connection.execute("PRAGMA database_list").fetchone()[2])
        if not file.startswith(theirs):
            return
        connection.execute("PRAGMA synchronous = NORMAL")
        # A new file has no log yet: Dagster asks for one by the first connection.
        if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            with lock:
                _keep_open(kept, file)

    event.listen(Engine, "connect", relax)
    _read_migrations_once()


def _keep_open(kept: dict[str, sqlite3.Connection], file: str) -> None:
    """See to it that a closing connection is not the last one."""
    connection = kept.pop(file, None)
    if connection is None:
        connection = sqlite3.connect(file, check_same_thread=False)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    kept[file] = connection
    while len(kept) > FILES_MAX:
        kept.pop(next(iter(kept))).close()


def _read_migrations_once() -> None:
    read = ScriptDirectory.from_config
    known: dict[str | None, ScriptDirectory] = {}

    def from_config(config: Config) -> ScriptDirectory:
        place = config.get_main_option("script_location")
        if place not in known:
            known[place] = read(config)
        return known[place]

    ScriptDirectory.from_config = from_config
