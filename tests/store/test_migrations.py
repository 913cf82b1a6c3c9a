"""Upgrade and rollback: every migration forward and back, with rows of the first release in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.core.types import IncomingEvent
from kommo_airtable_sync.store.database import Database, _alembic_config
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.reports import Reports
from tests.conftest import HandClock

FIRST = "0001"
REVISIONS = [
    each.revision for each in ScriptDirectory.from_config(_alembic_config()).walk_revisions()
][::-1]


@pytest.fixture
def empty(empty_database_url: str, clock: HandClock) -> Iterator[Database]:
    database = Database(empty_database_url, clock, durable=False, server_time=False)
    yield database
    database.close()


def rows(database: Database) -> dict[str, int]:
    with database.read() as connection:
        names = sa.inspect(connection).get_table_names()
        return {
            name: connection.scalar(sa.text(f'SELECT count(*) FROM "{name}"')) or 0
            for name in names
            if name != "alembic_version"
        }


def test_what_the_first_release_stored_survives_upgrade_rollback_and_upgrade(
    empty: Database,
) -> None:
    empty.migrate()
    empty.downgrade(FIRST)
    inbox = Inbox(empty)
    inbox.receive([IncomingEvent(f"lead:{n}", "kommo", "update") for n in range(5)])
    claimed = inbox.claim(0, 2, "run", 60)
    assert claimed is not None
    before = rows(empty)
    assert before["events"] == 5
    for revision in [*REVISIONS[1:], *REVISIONS[-2::-1]]:
        # Up one by one is up at once: alembic does the same steps.
        empty.migrate()
        empty.downgrade(revision)
        kept = rows(empty)
        assert {name: kept[name] for name in before} == before
    empty.migrate()
    assert Reports(empty).inbox_counts()["pending"] == 3
    assert inbox.claim(0, 50, "another", 60) is not None


def test_every_migration_has_a_way_back() -> None:
    for script in ScriptDirectory.from_config(_alembic_config()).walk_revisions():
        text = Path(script.path).read_text(encoding="utf-8")
        back = text.split("def downgrade() -> None:")[1]
        assert "pass" not in back.split()
        assert "op." in back


def test_a_database_of_a_newer_version_is_left_alone_and_named(empty: Database) -> None:
    empty.migrate()
    with empty.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    before = rows(empty)
    with pytest.raises(ConfigurationError, match=r"newer version .*9999.*Install the newer"):
        empty.migrate()
    assert rows(empty) == before


def test_a_revision_that_does_not_exist_is_named_with_those_that_do(empty: Database) -> None:
    empty.migrate()
    with pytest.raises(ConfigurationError, match=r"'0815'.*0001"):
        empty.downgrade("0815")
