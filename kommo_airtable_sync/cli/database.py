"""``database``: a copy of the store while it is in use, and its way back to an older version."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.settings import load_settings


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    database = typer.Typer(
        help="Backups of the store, and rollback.",
        epilog="Example: kommo-airtable-sync database backup /backup/sync.db",
        no_args_is_help=True,
    )
    database.command(epilog="Example: kommo-airtable-sync database backup /backup/sync.db")(backup)
    database.command(epilog="Example: kommo-airtable-sync database downgrade 0001")(downgrade)
    app.add_typer(database, name="database")


def backup(
    file: Annotated[Path, typer.Argument(help="Where to; must not be there yet.")],
) -> None:
    """Copy an SQLite store as it is at one moment, while everything goes on."""
    settings = load_settings()
    url = settings.database_url
    if not url.startswith("sqlite:///"):
        raise ConfigurationError(
            "SYNC_DATABASE_URL is a PostgreSQL: this command copies SQLite files.",
            "Use pg_dump, as you do for your other databases.",
        )
    if file.exists():
        raise ConfigurationError(f"{file} exists already.", "Take another name, or remove it.")
    source = Path(url.removeprefix("sqlite:///"))
    if not source.exists():
        raise ConfigurationError(f"There is no {source} yet.", "Start `up` first.")
    # Tokens and customers' names are in there: the owner's eyes only.
    file.touch(mode=0o600)
    with closing(sqlite3.connect(source)) as here, closing(sqlite3.connect(file)) as there:
        here.backup(there)
    typer.echo(f"{file}: {file.stat().st_size} bytes, as of now")


def downgrade(
    revision: Annotated[str, typer.Argument(help="As the notes of the older version name it.")],
) -> None:
    """Take the tables back to an older version's, before that version is installed again."""
    from kommo_airtable_sync.opening import SystemClock
    from kommo_airtable_sync.store.database import Database

    settings = load_settings()
    with closing(Database(settings.database_url, SystemClock())) as database:
        database.downgrade(revision)
    typer.echo(f"the tables are those of {revision}: install that version before anything starts")
