"""One door to the SQL: engines, pragmas, transactions, time and migrations.

SQLite runs in WAL mode with ``synchronous=FULL``, so that a commit survives a power cut; both are
asserted on every connection. PostgreSQL needs nothing special.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import SQLAlchemyError

from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.core.ports import Clock

BUSY_TIMEOUT_MILLISECONDS = 10_000
READ_ONLY = "25006"  # PostgreSQL's code of read_only_sql_transaction
MIGRATION_LOCK = 0x6B61_7379  # any fixed number; PostgreSQL advisory lock

Connection = sa.Connection
# What layers above catch when the database itself fails; they know no SQLAlchemy.
StoreError = SQLAlchemyError


def instant(epoch_seconds: float) -> datetime:
    """Aware UTC of a stored time."""
    return datetime.fromtimestamp(epoch_seconds, timezone.utc)


def storable(text: str) -> str:
    """Text that both engines take: no NUL, no half of a surrogate pair.

    JSON may carry both (JavaScript cuts emoji in two), and one such text must not stop the inbox.
    """
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "")


def json_text(value: object) -> str:
    """Compact JSON in readable letters; half surrogates stay escaped, so it reads back the same."""
    return storable(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


class Database:
    """A connection pool with the two kinds of transaction that the store uses.

    Args:
        url: an SQLAlchemy URL, ``sqlite:///path`` or ``postgresql://...``.
        clock: the time of SQLite stores; PostgreSQL's own clock is shared by all machines.
        durable: False only for state that may be lost (the limiter's file).
        server_time: False makes ``clock`` the time on PostgreSQL too, so that tests and the
            simulator can turn it by hand.
    """

    def __init__(
        self, url: str, clock: Clock, *, durable: bool = True, server_time: bool = True
    ) -> None:
        self.clock = clock
        self._server_time = server_time
        self.is_sqlite = url.startswith("sqlite")
        self._durable = durable
        self.engine = _sqlite_engine(url) if self.is_sqlite else _postgres_engine(url)
        if self.is_sqlite:
            event.listen(self.engine, "connect", self._prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            event.listen(self.engine, "handle_error", _drop_read_only)

    def __repr__(self) -> str:
        return f"Database({self.engine.url.render_as_string(hide_password=True)})"

    def _prepare_sqlite(self, connection: Any, _record: object) -> None:
        # The driver must not open transactions of its own: `begin` below decides their kind.
        connection.isolation_level = None
        synchronous = ("FULL", 2) if self._durable else ("OFF", 0)
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MILLISECONDS}")
        mode = _ask_for_wal(cursor)
        cursor.execute(f"PRAGMA synchronous = {synchronous[0]}")
        cursor.execute("PRAGMA synchronous")
        level = cursor.fetchone()[0]
        cursor.close()
        if mode not in ("wal", "memory") or level != synchronous[1]:
            raise ConfigurationError(
                f"SQLite would not keep what it was given (journal {mode}, synchronous {level}).",
                "Put SYNC_DATABASE_URL on a local disk, or use PostgreSQL.",
            )

    @contextmanager
    def write(self) -> Generator[Connection]:
        """A transaction that may write; commits at the end, rolls back on any exception.

        It takes SQLite's write lock first, so that it cannot fail half-way for want of it.
        """
        with (
            self.engine.connect().execution_options(immediate=True) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def read(self) -> Generator[Connection]:
        """A consistent view; nothing is written."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def watching(self) -> Generator[Callable[[], bool]]:
        """A cheap question: may somebody have committed since it was last asked?

        SQLite tells by ``PRAGMA data_version`` in 4 us, for all connections but the one that asks,
        so that one does nothing else. PostgreSQL has no such answer: there it is always yes.
        """
        if not self.is_sqlite:
            yield lambda: True
            return
        with closing(self.engine.raw_connection()) as connection:
            cursor, seen = connection.cursor(), -1

            def changed() -> bool:
                nonlocal seen
                before, seen = seen, cursor.execute("PRAGMA data_version").fetchone()[0]
                return seen != before

            yield changed

    def now(self, connection: Connection) -> float:
        """Database time in seconds since the epoch: one clock for every machine."""
        if self.is_sqlite or not self._server_time:
            return self.clock.now().timestamp()
        seconds = connection.scalar(sa.text("select extract(epoch from clock_timestamp())"))
        return float(seconds)  # type: ignore[arg-type]

    def insert(self, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
        """An insert that can say what is to be done where the row is there already."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def migrate(self) -> None:
        """Bring the schema to this version; safe when several processes do it at once.

        Raises:
            ConfigurationError: if the database is of a newer version.
        """
        with self.engine.connect() as connection:
            here = MigrationContext.configure(connection).get_current_heads()
        if here == _heads():
            return
        script = ScriptDirectory.from_config(_alembic_config())
        if newer := sorted(set(here) - set(_revisions(script))):
            raise ConfigurationError(
                f"The database is of a newer version than this program (revision {newer[0]}).",
                "Install the newer version again; to go back for good, see docs/operations.md.",
            )
        with self.write() as connection:
            if not self.is_sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
            config = _alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def downgrade(self, revision: str) -> None:
        """Take the schema back to ``revision``.

        Raises:
            ConfigurationError: if there is no such revision.
        """
        known = _revisions(ScriptDirectory.from_config(_alembic_config()))
        if revision not in (*known, "base"):
            listed = ", ".join(sorted(known))
            raise ConfigurationError(f"There is no revision {revision!r}.", f"There are: {listed}.")
        with self.write() as connection:
            config = _alembic_config()
            config.attributes["connection"] = connection
            command.downgrade(config, revision)

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()


def _sqlite_engine(url: str) -> sa.Engine:
    path = sa.make_url(url).database
    if path and path != ":memory:":
        parent = Path(path).parent
        if not parent.is_dir():
            raise ConfigurationError(
                f"The folder of SYNC_DATABASE_URL does not exist: {parent}.", "Create it."
            )
        # Tokens and customers' names are in there: the owner's eyes only.
        file = Path(path)
        file.touch(mode=0o600, exist_ok=True)
        # One that was made or copied here otherwise; SQLite gives -wal and -shm the same rights.
        if file.stat().st_uid == os.geteuid() and file.stat().st_mode & 0o077:
            file.chmod(0o600)
        return sa.create_engine(url, pool_size=4, max_overflow=8)
    return sa.create_engine(url, poolclass=sa.StaticPool, connect_args={"check_same_thread": False})


def _postgres_engine(url: str) -> sa.Engine:
    if not url.startswith(("postgresql://", "postgresql+psycopg2://", "postgres://")):
        raise ConfigurationError(
            "SYNC_DATABASE_URL is neither sqlite:///... nor postgresql://...",
            "Use one of these two.",
        )
    return sa.create_engine(with_driver(url), pool_size=4, max_overflow=8, pool_pre_ping=True)


def with_driver(url: str) -> str:
    """A PostgreSQL URL with our driver: without one SQLAlchemy 2.1 looks for psycopg 3."""
    return "postgresql+psycopg2://" + url.partition("://")[2]


def _ask_for_wal(cursor: sqlite3.Cursor) -> str:
    """The journal mode after asking for WAL, which a file keeps once it has it.

    While another connection does the same to a new file, SQLite answers "locked" at once: leaving
    the old mode may not wait for its lock (two waiting would block each other), whatever the busy
    timeout. So the waiting is done here.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_MILLISECONDS / 1000
    while True:
        try:
            return str(cursor.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _drop_read_only(context: ExceptionContext) -> None:
    # A session stays read-only as it began, though the server may have become writable since.
    if getattr(context.original_exception, "pgcode", None) == READ_ONLY:
        context.is_disconnect = True


def _revisions(script: ScriptDirectory) -> list[str]:
    return [each.revision for each in script.walk_revisions()]


@cache
def _heads() -> tuple[str, ...]:
    """The revisions of this version: read once a process, for a store is opened every tick."""
    return tuple(ScriptDirectory.from_config(_alembic_config()).get_heads())


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
