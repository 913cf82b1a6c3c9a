"""The journal as people ask it: what was written to a lead, by a run, within a time; and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from kommo_airtable_sync.core.explaining import CauseEvent, JournalRow
from kommo_airtable_sync.store import leases
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.entries import load
from kommo_airtable_sync.store.schema import events, journal
from kommo_airtable_sync.store.settling import REFUSED

RUNS_LISTED_MAX = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """What has become of a directive so far.

    Args:
        ended: False: it is still to be looked at.
        applied: both sides are as it wants them.
        reason: why not, in words.
    """

    event_id: int
    key: str
    field: str
    ended: bool
    applied: bool
    reason: str


class History:
    """Reads the journal; a row comes with the event that caused it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_key(self, key: str) -> list[JournalRow]:
        """Every row of a key, oldest first."""
        return self._rows(journal.c.key == key)

    def of_run(self, run_id: str) -> list[JournalRow]:
        """Every row of a Dagster run, oldest first."""
        return self._rows(journal.c.run_id == run_id)

    def between(self, since: float, until: float) -> list[JournalRow]:
        """What was acknowledged (or is still open and was sent) from one instant until another.

        Args:
            since: seconds since the epoch.
            until: the same; this instant not included.
        """
        at = _at()
        return self._rows(sa.and_(at >= since, at < until))

    def of_keys_from(self, keys: Sequence[str], first_id: int) -> list[JournalRow]:
        """The rows of these keys from that row on, oldest first."""
        return sorted(
            (
                row
                for some in leases.in_portions(keys)
                for row in self._rows(sa.and_(journal.c.key.in_(some), journal.c.id >= first_id))
            ),
            key=lambda row: row.id,
        )

    def runs_like(self, prefix: str) -> list[str]:
        """The runs of the journal whose id begins so; a few, if there are many."""
        # SQLite's LIKE takes capitals for small letters.
        wanted = sa.func.substr(journal.c.run_id, 1, len(prefix)) == prefix
        statement = sa.select(journal.c.run_id).where(wanted).distinct().limit(RUNS_LISTED_MAX)
        with self._database.read() as connection:
            return sorted(connection.execute(statement).scalars())

    def last_event_id(self) -> int:
        """The newest event's id, 0 if there is none: those of a later `answers` come after it."""
        with self._database.read() as connection:
            return int(connection.scalar(sa.select(sa.func.max(events.c.id))) or 0)

    def answers(self, after_id: int, source: str, token: str) -> list[Answer]:
        """What has become of the directives of a source that were given one token."""
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(events)
                .where(events.c.id > after_id, events.c.source == source)
                .order_by(events.c.id)
            ).all()
        told = [(row, json.loads(row.directive or "{}")) for row in rows]
        return [_answer(row, said) for row, said in told if said.get("token") == token]

    def _rows(self, chosen: sa.ColumnElement[bool]) -> list[JournalRow]:
        statement = (
            sa.select(
                journal,
                events.c.source,
                events.c.kind,
                events.c.occurred_at,
                events.c.received_at,
                events.c.directive,
            )
            .join(events, events.c.id == journal.c.event_id, isouter=True)
            .where(chosen)
            .order_by(journal.c.id)
        )
        with self._database.read() as connection:
            return [_row(row) for row in connection.execute(statement)]


def _at() -> sa.ColumnElement[float]:
    return sa.func.coalesce(journal.c.closed_at, journal.c.created_at)


def _row(row: Any) -> JournalRow:
    event = None
    if row.source is not None:
        said: dict[str, Any] = json.loads(row.directive or "{}")
        event = CauseEvent(
            id=row.event_id,
            source=row.source,
            kind=row.kind,
            occurred_at=row.occurred_at,
            received_at=row.received_at,
            actor=said.get("actor"),
        )
    return JournalRow(
        id=row.id,
        batch_id=row.batch_id,
        run_id=row.run_id,
        key=row.key,
        record_id=row.record_id,
        side=row.side,
        operation=row.operation,
        field=row.field,
        field_name=row.field_name,
        before=load(row.before),
        after=load(row.after),
        rule=row.rule,
        state=row.state,
        at=row.created_at if row.closed_at is None else row.closed_at,
        event_id=row.event_id,
        event=event,
    )


def _answer(row: Any, said: dict[str, Any]) -> Answer:
    outcome: str = row.outcome or ""
    refused = outcome.partition(REFUSED)[2]
    return Answer(
        event_id=row.id,
        key=row.key,
        field=said["field"],
        ended=row.state not in leases.UNSETTLED,
        applied=outcome == "applied",
        reason=refused or row.error or outcome or row.state,
    )
