"""Small named texts with their age: schemas that every process shares, webhook cursors."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from kommo_airtable_sync.store.database import Connection, Database
from kommo_airtable_sync.store.schema import documents


class Documents:
    """A key-value shelf in SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, name: str, fresh_seconds: float | None = None) -> str | None:
        """The text, if there is one not older than ``fresh_seconds`` (None: any age)."""
        with self._database.read() as connection:
            now = self._database.now(connection)
            row = connection.execute(sa.select(documents).where(documents.c.name == name)).first()
        if row is None or (fresh_seconds is not None and now - row.stored_at > fresh_seconds):
            return None
        return str(row.body)

    def age_seconds(self, name: str) -> float | None:
        """How old the text is; None if there is none."""
        with self._database.read() as connection:
            now = self._database.now(connection)
            at = connection.scalar(sa.select(documents.c.stored_at).where(documents.c.name == name))
        return None if at is None else now - float(at)

    def named(self, prefix: str) -> dict[str, str]:
        """Every text whose name begins so, by name."""
        # SQLite's LIKE takes capitals for small letters.
        wanted = sa.func.substr(documents.c.name, 1, len(prefix)) == prefix
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(documents).where(wanted).order_by(documents.c.name)
            ).all()
        return {str(row.name): str(row.body) for row in rows}

    def put(self, name: str, body: str) -> None:
        """Store or replace the text."""
        with self._database.write() as connection:
            store_document(self._database, connection, name, body)

    def delete(self, name: str) -> None:
        """Forget the text, if there is one."""
        with self._database.write() as connection:
            connection.execute(sa.delete(documents).where(documents.c.name == name))


def store_document(database: Database, connection: Connection, name: str, body: str) -> None:
    """Store or replace a text inside the caller's transaction."""
    values = {"body": body, "stored_at": database.now(connection)}
    insert = (sqlite.insert if database.is_sqlite else postgresql.insert)(documents)
    connection.execute(
        insert.values(name=name, **values).on_conflict_do_update(
            index_elements=[documents.c.name], set_=values
        )
    )
