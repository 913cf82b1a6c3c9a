"""The ``kommo-airtable-sync`` command: errors are one clear sentence, exit codes are fixed.

0 done, 1 failed, 2 usage or configuration error, 3 finished but a person is wanted.
"""

from __future__ import annotations

import sys
import traceback

import typer
from rich.console import Console

from kommo_airtable_sync.cli import (
    access,
    copies,
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
    help="Keep Kommo leads and Airtable records the same, as a Dagster project. "
    "(--debug with any command: errors with their traceback.)",
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
    demo,
):
    module.register(app)


def main() -> None:
    """Run a command and turn what it raises into a sentence and an exit code."""
    arguments = [item for item in sys.argv[1:] if item != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        app(arguments)
    except (SyncError, StoreError, OSError) as error:
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
    return str(error)
