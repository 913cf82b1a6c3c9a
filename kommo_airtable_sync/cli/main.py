"""The ``kommo-airtable-sync`` command: errors are one clear sentence, exit codes are fixed.

0 done, 1 failed, 2 usage or configuration error, 3 finished but a person is wanted.
"""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer
from rich.console import Console

from kommo_airtable_sync import __version__
from kommo_airtable_sync.cli import (
    access,
    copies,
    database,
    demo,
    doctor,
    explain,
    held,
    inbox,
    parts,
    reconcile,
    setup,
    undo,
    webhooks,
)
from kommo_airtable_sync.core.errors import ConfigurationError, SyncError
from kommo_airtable_sync.store.database import StoreError

app = typer.Typer(
    name="kommo-airtable-sync",
    epilog="Example: kommo-airtable-sync init",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (
    access,
    setup,
    doctor,
    parts,
    inbox,
    held,
    reconcile,
    copies,
    explain,
    undo,
    webhooks,
    database,
    demo,
):
    module.register(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kommo-airtable-sync {__version__}")
        raise typer.Exit


@app.callback()
def about(
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version."),
    ] = False,
) -> None:
    """Keep Kommo leads and Airtable records the same, as a Dagster project.

    --debug with any command: errors with their traceback.
    """


def main() -> None:
    """Run a command and turn what it raises into a sentence and an exit code."""
    arguments = [item for item in sys.argv[1:] if item != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        app(arguments)
    except Exception as error:  # noqa: BLE001 - the last place that can say it in a sentence
        if debug:
            traceback.print_exc()
        Console(stderr=True, soft_wrap=True, markup=False, highlight=False).print(
            f"error: {_sentence(error)}"
        )
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)


def _sentence(error: Exception) -> str:
    if isinstance(error, StoreError):
        # The driver's own words; SQLAlchemy's would quote the statement and its values.
        cause = getattr(error, "orig", None) or type(error).__name__
        return f"the database of SYNC_DATABASE_URL cannot be used: {cause}".strip()
    if isinstance(error, SyncError):
        return str(error)
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}. Check the path, and who may use it."
    if isinstance(error, OSError):
        return str(error)
    kind = type(error).__name__
    return f"{kind}: {error}. This should not happen: report it, with what --debug prints."
