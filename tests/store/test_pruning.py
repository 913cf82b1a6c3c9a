"""What is over is forgotten by age; what wants a person, or explains a value, is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.retention import (
    DAY,
    PORTION_ROWS_MAX,
    PORTION_ROWS_MIN,
    PORTION_SECONDS,
    Retention,
    next_portion,
)
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.pruning import prune
from kommo_airtable_sync.store.schema import batches, due, events, journal
from tests.conftest import HandClock

AGES = Retention()
LEADS = 20


@given(st.integers(PORTION_ROWS_MIN, PORTION_ROWS_MAX), st.floats(0, 60))
def test_portions_shrink_when_they_take_long_and_grow_when_they_do_not(
    rows: int, seconds: float
) -> None:
    following = next_portion(rows, seconds)
    assert PORTION_ROWS_MIN <= following <= PORTION_ROWS_MAX
    if seconds > PORTION_SECONDS:
        assert following < rows or following == PORTION_ROWS_MIN
    else:
        assert following == min(2 * rows, PORTION_ROWS_MAX)


def insert(database: Database, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    with database.write() as connection:
        connection.execute(sa.insert(table), rows)


def event(state: str, at: float, **more: Any) -> dict[str, Any]:
    settled = at + 1 if state in ("done", "dropped", "dead") else None
    row = {"key": "lead:1", "source": "kommo", "kind": "update", "state": state}
    return row | {"received_at": at, "settled_at": settled, "payload": "x" * 300} | more


def written(at: float, lead: int = 1, **more: Any) -> dict[str, Any]:
    row = {"batch_id": 1, "run_id": "run", "key": f"lead:{lead}", "side": "airtable"}
    row |= {"operation": "update", "field": "fldA", "field_name": "A", "rule": "kommo changed"}
    return row | {"state": "done", "created_at": at, "closed_at": at, "after": '"x"'} | more


def column(database: Database, of: sa.Column[Any]) -> list[Any]:
    with database.read() as connection:
        return list(connection.execute(sa.select(of).order_by(of)).scalars())


def test_settled_events_go_and_those_that_want_a_person_stay(
    database: Database, clock: HandClock
) -> None:
    old = clock.now().timestamp()
    states = ("done", "ignored", "dropped", "dead", "quarantined", "held", "pending", "claimed")
    insert(database, events, [event(state, old) for state in states])
    clock.advance(AGES.settled_events * DAY + 0.5)
    # Retried by a person yesterday, so its outcome is news.
    insert(database, events, [event("done", old, settled_at=clock.now().timestamp() - DAY)])
    assert prune(database, AGES)["events"] == 1, "the ignored one, which was never settled"
    clock.advance(2)
    assert prune(database, AGES)["events"] == 2
    kept = ["claimed", "dead", "done", "held", "pending", "quarantined"]
    assert column(database, events.c.state) == kept
    clock.advance(AGES.settled_events * DAY)
    assert prune(database, AGES)["events"] == 1


def test_the_newest_row_of_a_cell_and_open_intents_outlive_the_journals_age(
    database: Database, clock: HandClock
) -> None:
    at = clock.now().timestamp()
    rows = [
        written(at, operation="create", after='"gone"'),
        written(at, after='"gone"'),
        written(at, state="refused", after='"gone"'),
        written(at, state="superseded", after='"gone"'),
        written(at, operation="note", after='"gone"'),
        written(at, after='"newest in Airtable"'),
        written(at, side="kommo", after='"newest in Kommo"'),
        written(at, 2, after='"of another lead"'),
        written(at, state="refused", after='"gone"'),
        written(at, operation="note", after='"gone"'),
        written(at, state="open", closed_at=None, after='"an intent"'),
    ]
    insert(database, journal, rows)
    clock.advance(AGES.journal * DAY - 1)
    assert prune(database, AGES)["journal"] == 0
    clock.advance(2)
    assert prune(database, AGES)["journal"] == sum(row["after"] == '"gone"' for row in rows)
    assert '"gone"' not in column(database, journal.c.after)
    assert len(column(database, journal.c.id)) == 4


def test_batches_go_unless_somebody_holds_keys_by_them(
    database: Database, clock: HandClock
) -> None:
    at = clock.now().timestamp()
    insert(database, batches, [{"run_id": "run", "lane": 0, "claimed_at": at}] * 3)
    held = {"key": "lead:1", "due_at": at, "priority": 0, "lease_until": at + 1e9, "token": 2}
    insert(database, due, [held])
    clock.advance(AGES.batches * DAY + 1)
    assert prune(database, AGES)["batches"] == 2
    assert column(database, batches.c.id) == [2]


def test_what_was_broken_off_is_found_by_the_next_one(database: Database, clock: HandClock) -> None:
    at = clock.now().timestamp()
    insert(database, events, [event("done", at)] * 450)
    clock.advance(AGES.settled_events * DAY + 2)
    asked = iter([False, True, True, True, True])
    first = prune(database, AGES, lambda: next(asked, True))["events"]
    assert 0 < first < 450
    assert first + prune(database, AGES)["events"] == 450


def test_others_have_the_database_most_of_the_time(database: Database, clock: HandClock) -> None:
    at = clock.now().timestamp()
    insert(database, events, [event("done", at)] * 1500)
    clock.advance(AGES.settled_events * DAY + 2)
    portions: list[int] = []

    def record(_c: Any, _u: Any, statement: str, _p: Any, context: Any, _m: bool) -> None:
        if statement.startswith("DELETE"):
            clock.advance(0.04)  # what a slow disk takes
            portions.append(context.rowcount)

    sa.event.listen(database.engine, "after_cursor_execute", record)
    began = clock.now()
    prune(database, AGES)
    busy = 0.04 * len(portions)
    assert (clock.now() - began).total_seconds() >= 3 * busy - 0.001
    assert sum(portions) == 1500
    assert portions == sorted(portions, reverse=True)
    assert portions[-2] <= PORTION_ROWS_MAX / 10


@pytest.fixture
def lasting(database_url: str, clock: HandClock) -> Iterator[Database]:
    """Its writes need not survive a power cut: a year has many days."""
    opened = Database(database_url, clock, durable=False, server_time=False)
    yield opened
    opened.close()


def live_a_day(database: Database, at: float, day: int) -> None:
    """One event, batch and journal row for each of some leads, and one event that dies."""
    with database.write() as connection:
        for table, rows in (
            (events, [event("done", at, key=f"lead:{lead}") for lead in range(LEADS)]),
            (batches, [{"run_id": f"run {day}", "lane": 0, "claimed_at": at, "settled_at": at}]),
            (journal, [written(at, lead) for lead in range(LEADS)]),
        ):
            connection.execute(sa.insert(table), rows)


def test_the_database_stays_bounded_over_a_year(
    lasting: Database, clock: HandClock, tmp_path: Path
) -> None:
    def size() -> int:
        if not lasting.is_sqlite:
            return 0
        with lasting.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return (tmp_path / "sync.db").stat().st_size

    # The journal keeps 400 days: they are lived through first, then the year that must not grow.
    days = round(AGES.journal) + 1
    start = clock.now().timestamp()
    for day in range(days):
        live_a_day(lasting, start + day * DAY, day)
    clock.advance((days - 1) * DAY)
    prune(lasting, AGES)
    rows, sizes = set[tuple[int, ...]](), list[int]()
    for day in range(365):
        clock.advance(DAY)
        live_a_day(lasting, clock.now().timestamp() - 1, days + day)
        prune(lasting, AGES)
        if day % 30 == 29:
            kept = (events, journal, batches)
            rows.add(tuple(len(column(lasting, table.c.id)) for table in kept))
            sizes.append(size())
    [(of_events, of_journal, of_batches)] = rows
    assert of_events == LEADS * AGES.settled_events
    assert of_journal == LEADS * AGES.journal
    assert of_batches == AGES.batches
    assert max(sizes) <= sizes[0] * 1.01
