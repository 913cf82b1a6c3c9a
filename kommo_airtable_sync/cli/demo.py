"""``demo``: the whole product on the stand-ins, with live traffic and a summary."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(epilog="Example: kommo-airtable-sync demo --once --events 200")(demo)


def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the summary.")] = False,
    events: Annotated[int, typer.Option(min=0, help="Edits to make on both sides.")] = 200,
    leads: Annotated[int, typer.Option(min=0, help="Deals to begin with.")] = 200,
) -> None:
    """Show everything on stand-ins of Kommo and Airtable: load, live traffic, summary, UI."""
    from rich.console import Console

    from kommo_airtable_sync.runtime.demo_stage import Stage

    console = Console(stderr=True, highlight=False)
    folder = Path(".demo").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    stage = Stage(folder, console)
    try:
        stage.start(leads)
        agreed = stage.play(events)
        if not once:
            console.print(f"\nDagster UI: {stage.dagster}   Ctrl-C stops everything.")
            while True:
                time.sleep(0.5)
    except KeyboardInterrupt:
        console.print("stopping ...")
        agreed = not once
    finally:
        stage.stop()
    raise typer.Exit(0 if agreed else 1)
