"""Full tables do not make the hot statements slow: each is answered from an index."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from kommo_airtable_sync.core.retention import Retention
from kommo_airtable_sync.core.types import BULK, LIVE, IncomingEvent
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.entries import Acknowledged, LedgerEntry
from kommo_airtable_sync.store.history import History
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.journal import Journal
from kommo_airtable_sync.store.pruning import prune
from kommo_airtable_sync.store.reports import Reports
from kommo_airtable_sync.store.settling import Outcome
from tests.conftest import ENGINES, HandClock, postgres_database

DONE_EVENTS, DUE_KEYS = 100_000, 10_000
NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"


@pytest.fixture(scope="module", params=ENGINES)
def template(
    request: pytest.FixtureRequest, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a full database that tests copy."""
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("full") / "full.db"
        shutil.copy(sqlite_template, path)
        fill(url := f"sqlite:///{path}")
        yield url
        return
    admin, migrated = map(request.getfixturevalue, ("postgres_url", "postgres_template"))
    for url in postgres_database(admin, migrated):
        fill(url)
        yield url


@pytest.fixture
def full(
    template: str, request: pytest.FixtureRequest, tmp_path: Path, clock: HandClock
) -> Iterator[Database]:
    """A copy of the full database."""
    name = str(sa.make_url(template).database)
    if template.startswith("sqlite"):
        urls = iter([f"sqlite:///{shutil.copy(name, tmp_path)}"])
    else:
        urls = postgres_database(request.getfixturevalue("postgres_url"), name)
    for url in urls:
        database = Database(url, clock, durable=False, server_time=False)
        yield database
        database.close()


def fill(url: str) -> None:
    """100,000 done events, 10,000 keys of an initial load that are due, 20,000 leads known."""
    database = Database(url, HandClock(), durable=False)
    now = database.clock.now().timestamp()
    event = "INSERT INTO events (key, source, kind, state, priority, received_at, settled_at) "
    fills = (
        f"{event} {NUMBERS.format(count=DONE_EVENTS)} "
        f"SELECT 'lead:' || (i % 20000), 'kommo', 'update', 'done', 0, {now} - i, {now} - i + 1 "
        "FROM n",
        f"{event} {NUMBERS.format(count=DUE_KEYS)} "
        f"SELECT 'lead:' || i, 'load', 'load', 'pending', 10, {now}, NULL FROM n",
        f"INSERT INTO due (key, due_at, priority) {NUMBERS.format(count=DUE_KEYS)} "
        f"SELECT 'lead:' || i, {now}, 10 FROM n",
        f"INSERT INTO ledger (key, record_id, fields, updated_at) {NUMBERS.format(count=20_000)} "
        f"SELECT 'lead:' || i, 'rec' || i, '{{}}', {now} FROM n",
        "INSERT INTO journal (batch_id, run_id, key, side, operation, field, field_name, rule,"
        f" state, created_at, closed_at) {NUMBERS.format(count=DONE_EVENTS)} "
        "SELECT i / 50, 'run', 'lead:' || (i % 20000), 'airtable', "
        "CASE WHEN i % 10 = 0 THEN 'create' ELSE 'update' END, 'f', 'F', 'r', 'done', "
        f"{now} - i, {now} - i FROM n",
        "INSERT INTO held_fields (key, field, field_name, reason, kommo, airtable, since, run_id) "
        f"{NUMBERS.format(count=20_000)} "
        f"SELECT 'lead:' || i, 'f', 'F', 'conflict', 'null', 'null', {now}, 'run' FROM n",
    )
    with database.write() as connection:
        for statement in fills:
            connection.exec_driver_sql(
                statement.replace("%", "%%" if not database.is_sqlite else "%")
            )
    if not database.is_sqlite:
        with database.write() as connection:
            connection.exec_driver_sql("ANALYZE")
    database.close()


@contextmanager
def plans(database: Database) -> Iterator[list[str]]:
    """Collects the plan of every statement that runs inside."""
    found: list[str] = []
    explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "

    def record(
        _connection: Any, cursor: Any, statement: str, parameters: Any, _c: Any, many: bool
    ) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")) and not many:
            cursor.execute(explain + statement, parameters)
            lines = [str(row[-1]) for row in cursor.fetchall()]
            found.append("\n".join([statement, *lines]))

    sa.event.listen(database.engine, "before_cursor_execute", record)
    yield found
    sa.event.remove(database.engine, "before_cursor_execute", record)


def claim_and_settle(database: Database) -> None:
    inbox = Inbox(database)
    for _ in range(2):
        claimed = inbox.claim(BULK, 10, "run", 60)
        assert claimed is not None
        inbox.renew(claimed.batch_id, 60)
        outcomes = {key: Outcome("done", "updated") for key in claimed.keys[:5]}
        inbox.settle(claimed.batch_id, outcomes, 8)
    assert inbox.reclaim(claimed.batch_id, "run", 60) is None
    inbox.release_run("run")


def look(database: Database) -> None:
    assert Inbox(database).due_lanes() == {BULK}


def journal_a_lead(database: Database) -> None:
    inbox, journal = Inbox(database), Journal(database)
    inbox.receive([IncomingEvent("record:rec5", "airtable", "update", dedupe_key="ach1:5")])
    claimed = inbox.claim(LIVE, 50, "run", 60)
    assert claimed is not None
    inbox.extend(claimed.batch_id, ["contact:1", "lead:6"], 60)
    assert [len(known.recent) for known in journal.load(["lead:5", "lead:6"]).values()] == [1, 1]
    moved = Acknowledged(LedgerEntry("lead:5", "rec5"), held=())
    journal.acknowledge(claimed.batch_id, [moved, Acknowledged(LedgerEntry("lead:6"), "kommo")])
    journal.refuse(claimed.batch_id, ["lead:5"], "kommo")
    History(database).of_key("lead:5")
    inbox.rekey(claimed.batch_id, {"lead:5": "lead:8"})


def ask_the_brake(database: Database) -> None:
    journal, now = Journal(database), database.clock.now().timestamp()
    assert journal.changed_since(now - 3600, ["lead:5"]).records_changed > 3000
    assert journal.recently_written(["rec5", "rec70"], now - 60) == {"rec5"}


def report(database: Database) -> None:
    reports = Reports(database)
    assert reports.inbox_counts()["pending"] == DUE_KEYS
    assert reports.oldest_pending_seconds() == 0
    assert reports.overdue_seconds() == 0
    assert reports.latency()["count"] == 1000
    assert len(reports.list_events("done", limit=10)) == 10
    assert reports.list_events("dead") == []
    assert reports.list_events(lead_id=5, limit=10)
    assert reports.holds() == 0
    assert reports.release_holds([1]) == []
    assert reports.drop_events([DONE_EVENTS + 1]) == [DONE_EVENTS + 1]
    assert reports.retry_events(dead=True) == []


def prune_daily(database: Database) -> None:
    for ages in (Retention(settled_events=0), Retention(settled_events=1, journal=0)):
        portions = iter([False] * 4)
        assert sum(prune(database, ages, lambda left=portions: next(left, True)).values()) >= 100


@pytest.mark.parametrize(
    "work", [look, claim_and_settle, journal_a_lead, ask_the_brake, report, prune_daily]
)
def test_no_hot_statement_reads_a_whole_table(
    full: Database, work: Callable[[Database], None]
) -> None:
    with plans(full) as found:
        work(full)
    assert found
    for plan in found:
        for table in ("events", "due", "journal", "ledger", "held_fields"):
            assert f"Seq Scan on {table}" not in plan
            # "SCAN events USING INDEX" in the order of an index, up to a limit, is no full scan.
            assert f"SCAN {table}\n" not in f"{plan}\n"


def test_due_lanes_and_claim_read_the_lane_from_its_due_end(full: Database) -> None:
    with plans(full) as found:
        look(full)
        claim_and_settle(full)
    picks = [plan for plan in found if "due.due_at <=" in plan]
    assert len(picks) == 3
    for plan in picks:
        assert "ix_due_priority_due_at" in plan
        assert "USE TEMP B-TREE FOR ORDER BY" not in plan
        assert "Sort" not in plan
