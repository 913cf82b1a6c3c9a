"""Connections, durability and migrations on both engines."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.store import schema
from kommo_airtable_sync.store.database import Database, json_text, storable
from kommo_airtable_sync.store.documents import Documents
from kommo_airtable_sync.store.schema import counters, metadata
from tests.conftest import HandClock


def tables(database: Database) -> set[str]:
    return set(sa.inspect(database.engine).get_table_names())


def migrate_in_a_process(url: str) -> None:
    database = Database(url, HandClock())
    database.migrate()
    database.close()


# ---------------------------------------------------------------------- migrations


def test_an_empty_database_is_brought_to_this_version(
    empty_database_url: str, clock: HandClock
) -> None:
    database = Database(empty_database_url, clock)
    assert tables(database) == set()
    database.migrate()
    assert tables(database) == {*metadata.tables, "alembic_version"}
    Documents(database).put("kept", "yes")
    database.migrate()
    assert Documents(database).get("kept") == "yes"
    database.close()


def test_migrations_and_schema_describe_the_same_tables(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []


def test_keys_sort_by_code_point_whatever_the_servers_locale(database: Database) -> None:
    """Rows are locked in this order, and Python sorts them in the same one."""
    keys = ["record:recB", "record:reca", "lead:10", "lead:9", "record:rec_", "contact:1"]
    with database.write() as connection:
        connection.execute(
            sa.insert(schema.due), [{"key": key, "due_at": 0, "priority": 0} for key in keys]
        )
        found = connection.execute(sa.select(schema.due.c.key).order_by(schema.due.c.key))
        assert list(found.scalars()) == sorted(keys)
        # The embedded server knows no locale that sorts otherwise, so ask for the declaration too.
        if not database.is_sqlite:
            declared = connection.exec_driver_sql(
                "SELECT DISTINCT collation_name FROM information_schema.columns"
                " WHERE table_name IN ('due', 'events') AND column_name = 'key'"
            )
            assert list(declared.scalars()) == ["C"]


def test_the_schema_can_be_taken_down_and_up_again(database: Database) -> None:
    database.downgrade("base")
    assert tables(database) == {"alembic_version"}
    database.migrate()
    assert tables(database) == {*metadata.tables, "alembic_version"}


def test_a_new_file_may_be_opened_while_another_connection_writes_to_it(
    tmp_path: Path, clock: HandClock
) -> None:
    """SQLite's busy timeout does not cover the step to WAL: it says "locked" at once."""
    path = tmp_path / "young.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    other.execute("CREATE TABLE begun (it)")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        sqlite3.connect(path).execute("PRAGMA journal_mode = WAL")
    done = threading.Timer(0.2, other.execute, ("COMMIT",))
    done.start()
    database = Database(f"sqlite:///{path}", clock)
    database.migrate()
    assert {"begun", "due"} <= tables(database)
    database.close()
    done.join()
    other.close()


def test_several_threads_may_migrate_at_once(empty_database_url: str, clock: HandClock) -> None:
    together = threading.Barrier(4)

    def migrate(_: int) -> None:
        database = Database(empty_database_url, clock)
        together.wait()
        database.migrate()
        database.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, range(4)))
    database = Database(empty_database_url, clock)
    assert tables(database) == {*metadata.tables, "alembic_version"}
    database.close()


@pytest.mark.process
def test_several_processes_may_migrate_at_once(empty_database_url: str, clock: HandClock) -> None:
    spawn = multiprocessing.get_context("spawn")
    started = [
        spawn.Process(target=migrate_in_a_process, args=(empty_database_url,)) for _ in range(3)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    assert [process.exitcode for process in started] == [0, 0, 0]
    database = Database(empty_database_url, clock)
    assert tables(database) == {*metadata.tables, "alembic_version"}
    database.close()


# ---------------------------------------------------------------------- transactions and time


def test_a_write_that_fails_leaves_nothing(database: Database) -> None:
    def fail() -> None:
        with database.write() as connection:
            connection.execute(sa.insert(counters).values(name="a", label="", value=1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with database.read() as connection:
        assert connection.execute(sa.select(counters)).all() == []


def test_a_writer_waits_for_the_other_instead_of_failing_half_way(database: Database) -> None:
    """Both read, then write: with a deferred lock SQLite fails the second one at once."""
    with database.write() as connection:
        connection.execute(sa.insert(counters).values(name="a", label="", value=0))
    together = threading.Barrier(4)

    def increment(_: int) -> None:
        together.wait()
        with database.write() as connection:
            row = sa.select(counters.c.value).with_for_update()
            value = connection.execute(row).scalar_one()
            connection.execute(sa.update(counters).values(value=value + 1))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(increment, range(4)))
    with database.read() as connection:
        assert connection.scalar(sa.select(counters.c.value)) == 4


def test_a_database_in_memory_needs_no_file(clock: HandClock) -> None:
    database = Database("sqlite://", clock)
    database.migrate()
    Documents(database).put("name", "body")
    assert Documents(database).get("name") == "body"
    database.close()


def test_the_hand_turned_clock_rules_both_engines(database: Database, clock: HandClock) -> None:
    with database.read() as connection:
        assert database.now(connection) == clock.now().timestamp()


def test_in_production_postgresql_tells_the_time_for_all_machines(
    database_url: str, clock: HandClock
) -> None:
    database = Database(database_url, clock)
    with database.read() as connection:
        ours = database.now(connection) == clock.now().timestamp()
    assert ours == database.is_sqlite
    database.close()


# ---------------------------------------------------------------------- SQLite's durability


def sqlite_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'sync.db'}"


def pragma(connection: sa.Connection, name: str) -> object:
    return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


def test_every_sqlite_connection_survives_a_power_cut(tmp_path: Path, clock: HandClock) -> None:
    database = Database(sqlite_url(tmp_path), clock)
    with database.engine.connect() as one, database.engine.connect() as two:
        for connection in (one, two):
            assert pragma(connection, "journal_mode") == "wal"
            assert pragma(connection, "synchronous") == 2
            assert pragma(connection, "busy_timeout") == 10_000
    database.close()


def test_state_that_may_be_lost_does_not_wait_for_the_disk(
    tmp_path: Path, clock: HandClock
) -> None:
    database = Database(sqlite_url(tmp_path), clock, durable=False)
    with database.engine.connect() as connection:
        assert pragma(connection, "synchronous") == 0
    database.close()


class ForgetfulCursor(sqlite3.Cursor):
    """A driver or file system that takes the PRAGMA and does not obey."""

    def execute(self, statement: str, *parameters: object) -> sqlite3.Cursor:
        ignored = {"PRAGMA synchronous = FULL": "PRAGMA synchronous = NORMAL"}
        return super().execute(ignored.get(statement, statement), *parameters)


class JournallessCursor(sqlite3.Cursor):
    def execute(self, statement: str, *parameters: object) -> sqlite3.Cursor:
        ignored = {"PRAGMA journal_mode = WAL": "PRAGMA journal_mode = DELETE"}
        return super().execute(ignored.get(statement, statement), *parameters)


@pytest.mark.parametrize(
    ("cursor", "complaint"),
    [(ForgetfulCursor, "synchronous 1"), (JournallessCursor, "journal delete")],
)
def test_a_connection_that_would_forget_is_refused(
    tmp_path: Path, clock: HandClock, cursor: type[sqlite3.Cursor], complaint: str
) -> None:
    class Connection(sqlite3.Connection):
        def cursor(self, factory: object = None) -> sqlite3.Cursor:
            return super().cursor(cursor)

    database = Database(sqlite_url(tmp_path), clock)

    @sa.event.listens_for(database.engine, "do_connect")
    def forgetful(_dialect: object, _record: object, args: list[str], more: dict[str, object]):
        return sqlite3.connect(*args, **more, factory=Connection)

    with pytest.raises(ConfigurationError, match=complaint):
        database.migrate()
    database.close()


def test_only_the_owner_may_read_the_file(tmp_path: Path, clock: HandClock) -> None:
    database = Database(sqlite_url(tmp_path), clock)
    with database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE secret (token)")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"sync.db": 0o600, "sync.db-wal": 0o600, "sync.db-shm": 0o600}
    database.close()


# ---------------------------------------------------------------------- URLs and text


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path, clock: HandClock) -> None:
    with pytest.raises(ConfigurationError, match="missing"):
        Database(sqlite_url(tmp_path / "missing"), clock)


def test_another_engine_is_refused(clock: HandClock) -> None:
    with pytest.raises(ConfigurationError, match="SYNC_DATABASE_URL"):
        Database("mysql://root@localhost/sync", clock)


def test_the_password_is_never_shown(clock: HandClock) -> None:
    database = Database("postgres://sync:hunter2hunter2@localhost/sync", clock)
    assert "hunter2hunter2" not in repr(database)
    assert database.engine.url.drivername == "postgresql+psycopg2"
    database.close()


def test_stored_json_reads_back_the_same() -> None:
    value = {"Имя": "NUL \0, half \ud83d, whole 😀"}
    text = json_text(value)
    assert "Имя" in text
    assert text == storable(text)
    assert json.loads(text) == value


def test_who_watches_sees_a_commit_of_another_connection_and_nothing_while_all_rests(
    tmp_path: Path,
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'sync.db'}", HandClock())
    database.migrate()
    with database.watching() as changed:
        assert changed(), "the first answer is yes: nobody has looked yet"
        assert not changed()
        with database.write() as connection:
            connection.execute(sa.text("create table noticed (id integer)"))
        assert changed()
        assert not changed()
    database.close()
