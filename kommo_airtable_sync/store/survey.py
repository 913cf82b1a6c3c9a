"""Both accounts as read for a comparison: a file of its own, so that memory and inbox stay free.

It is disposable. A run that dies leaves it behind for the next one to begin anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from kommo_airtable_sync.core.ports import Clock
from kommo_airtable_sync.core.types import Json
from kommo_airtable_sync.store.database import Connection, Database, json_text

_metadata = sa.MetaData()
entities = sa.Table(
    "entities",  # what Kommo shows
    _metadata,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("id", sa.BigInteger, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
)
records = sa.Table(
    "records",  # what Airtable shows
    _metadata,
    sa.Column("record_id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("number", sa.BigInteger),  # in its key cell
    sa.Column("body", sa.Text, nullable=False),
    sa.Index("ix_records_number", "kind", "number"),
)
wanted = sa.Table(
    "wanted",  # whatever is to be compared
    _metadata,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("id", sa.BigInteger, primary_key=True),
)
findings = sa.Table(
    "findings",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)


class Survey:
    """What was read of both sides, and what was found.

    Args:
        path: of the file; one that is there is begun anew.
        clock: unused by SQLite itself, asked for by `Database`.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self.discard()
        self._database = Database(f"sqlite:///{path}", clock, durable=False)
        with self._database.write() as connection:
            _metadata.create_all(connection)

    def close(self) -> None:
        """Forget everything."""
        self._database.close()
        self.discard()

    def discard(self) -> None:
        """Remove the file."""
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)

    # ------------------------------------------------------------------ what was read

    def add_entities(self, kind: str, found: Iterable[Mapping[str, Json]]) -> None:
        """Leads, contacts or companies; one that comes again replaces what is there."""
        rows = [{"kind": kind, "id": int(e["id"]), "body": json_text(e)} for e in found]
        with self._database.write() as connection:
            _upsert(connection, entities, rows)
            _upsert(connection, wanted, [{"kind": kind, "id": row["id"]} for row in rows])

    def add_records(
        self, kind: str, found: Iterable[tuple[Mapping[str, Json], int | None]]
    ) -> None:
        """Records, each with the number in its key cell."""
        rows = [
            {"record_id": r["id"], "kind": kind, "number": number, "body": json_text(r)}
            for r, number in found
        ]
        numbers = {row["number"] for row in rows} - {None}
        with self._database.write() as connection:
            _upsert(connection, records, rows)
            _upsert(connection, wanted, [{"kind": kind, "id": number} for number in numbers])

    def forget_records(self, kind: str) -> None:
        """The listing begins again, so whatever was compared with a record is wanted again."""
        shown = sa.select(entities.c.kind, entities.c.id).where(entities.c.kind == kind)
        again = sqlite.insert(wanted).from_select(["kind", "id"], shown.where(sa.true()))
        with self._database.write() as connection:
            connection.execute(sa.delete(records).where(records.c.kind == kind))
            connection.execute(again.on_conflict_do_nothing())

    def want(self, kind: str, ids: Iterable[int]) -> None:
        """Compare these too."""
        with self._database.write() as connection:
            _upsert(connection, wanted, [{"kind": kind, "id": each} for each in ids])

    def settle(self, kind: str, ids: Sequence[int]) -> None:
        """These are compared, unless more is read of them."""
        with self._database.write() as connection:
            chosen = (wanted.c.kind == kind, wanted.c.id.in_(ids))
            connection.execute(sa.delete(wanted).where(*chosen))

    def on_both_sides(self, kind: str, ids: Sequence[int]) -> list[int]:
        """Those of these that Kommo shows, and of which a record was read."""
        recorded = sa.exists().where(records.c.kind == kind, records.c.number == entities.c.id)
        chosen = (entities.c.kind == kind, entities.c.id.in_(ids))
        with self._database.read() as connection:
            return list(
                connection.execute(sa.select(entities.c.id).where(*chosen, recorded)).scalars()
            )

    def portions(self, kind: str, size: int) -> Iterator[list[int]]:
        """The ids of all that is wanted, in order, so many at a time."""
        last = -1
        while True:
            statement = (
                sa.select(wanted.c.id)
                .where(wanted.c.kind == kind, wanted.c.id > last)
                .order_by(wanted.c.id)
                .limit(size)
            )
            with self._database.read() as connection:
                some = list(connection.execute(statement).scalars())
            if not some:
                return
            last = some[-1]
            yield some

    def entities_of(self, kind: str, ids: Sequence[int]) -> dict[int, Json]:
        """Those of these that Kommo shows."""
        chosen = (entities.c.kind == kind, entities.c.id.in_(ids))
        with self._database.read() as connection:
            rows = connection.execute(sa.select(entities).where(*chosen)).all()
        return {row.id: json.loads(row.body) for row in rows}

    def records_of(self, kind: str, ids: Sequence[int]) -> dict[int, list[Json]]:
        """The records with these numbers in their key cells."""
        chosen = (records.c.kind == kind, records.c.number.in_(ids))
        with self._database.read() as connection:
            rows = connection.execute(sa.select(records).where(*chosen).order_by("record_id")).all()
        found: dict[int, list[Json]] = {}
        for row in rows:
            found.setdefault(row.number, []).append(json.loads(row.body))
        return found

    def records_there(self, record_ids: Sequence[str]) -> set[str]:
        """Which of these records exist."""
        chosen = records.c.record_id.in_(record_ids)
        with self._database.read() as connection:
            return set(connection.execute(sa.select(records.c.record_id).where(chosen)).scalars())

    def count(self, kind: str) -> tuple[int, int, int]:
        """How many entities and records there are, and how many of these have no number."""
        with self._database.read() as connection:
            shown = sa.select(sa.func.count()).select_from(entities).where(entities.c.kind == kind)
            kept = sa.select(sa.func.count(), sa.func.count(records.c.number)).where(
                records.c.kind == kind
            )
            row = connection.execute(kept).one()
            return int(connection.scalar(shown) or 0), int(row[0]), int(row[0] - row[1])

    # ------------------------------------------------------------------ what was found

    def add_findings(self, found: Sequence[tuple[str, Json]]) -> None:
        """Keep (kind, body) of each."""
        rows = [{"kind": kind, "body": json_text(body)} for kind, body in found]
        if rows:
            with self._database.write() as connection:
                connection.execute(sa.insert(findings), rows)

    def found(self, *kinds: str, size: int = 500) -> Iterator[Json]:
        """The findings of these kinds (of all, if none is named), as they were found."""
        chosen = [findings.c.kind.in_(kinds)] if kinds else []
        last = 0
        while True:
            statement = (
                sa.select(findings)
                .where(findings.c.id > last, *chosen)
                .order_by(findings.c.id)
                .limit(size)
            )
            with self._database.read() as connection:
                rows = connection.execute(statement).all()
            if not rows:
                return
            last = rows[-1].id
            yield from (json.loads(row.body) for row in rows)


def _upsert(connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        insert = sqlite.insert(table)
        names = [column.name for column in table.c]
        connection.execute(
            insert.on_conflict_do_update(
                index_elements=list(table.primary_key.columns),
                set_={name: insert.excluded[name] for name in names},
            ),
            list(rows),
        )
