"""``reconcile``: put every lead into the inbox and see it through, with progress."""

from __future__ import annotations

from typing import Annotated

import typer

from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.settings import load_settings

LOOK_SECONDS = 0.3
PATIENCE_SECONDS = 15.0


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(epilog="Example: kommo-airtable-sync reconcile --yes")(reconcile)


def reconcile(
    yes: Annotated[
        bool, typer.Option("--yes", help="Release the brake (creations never trip it).")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Load the account: all leads through the one write path, live changes first."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from kommo_airtable_sync.assembly import build_engine
    from kommo_airtable_sync.cli.output import print_json, print_table
    from kommo_airtable_sync.core.types import BULK
    from kommo_airtable_sync.engine.load import load_leads, remaining, remember_load

    del yes  # creations do not count for the brake, so there is nothing to release here
    engine = build_engine(load_settings(), BULK)
    engine.directory.mapping()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        reading = progress.add_task("reading leads", total=None)
        queued = 0
        began = engine.seconds()
        for count in load_leads(engine):
            queued += count
            progress.update(reading, completed=queued)
        progress.update(reading, total=queued)
        syncing = progress.add_task("syncing", total=queued)
        left = remaining(engine, began)
        moved_at = engine.seconds()
        while left.waiting:
            progress.update(syncing, completed=queued - left.waiting)
            engine.clock.sleep(LOOK_SECONDS)
            before, left = left.waiting, remaining(engine, began)
            now = engine.seconds()
            if left.waiting != before:
                moved_at = now
            elif now - moved_at > PATIENCE_SECONDS:
                moved_at = now
                progress.console.print(_why_nothing_moves(engine))
        progress.update(syncing, completed=queued)
    result = {"leads": queued, **left.outcomes}
    remember_load(engine, result)
    if as_json:
        print_json(result)
    else:
        print_table("Loaded", ("what", "leads"), list(result.items()))
    if any(left.outcomes.get(state) for state in ("dead", "held", "retrying")):
        raise typer.Exit(3)


def _why_nothing_moves(engine: Engine) -> str:
    """What keeps the load from going on, as far as the store tells."""
    for pause in engine.runners.pauses().values():
        return f"{pause.side} is paused ({pause.reason}): {pause.detail}"
    if any(runner.lane == engine.lane for runner in engine.runners.all()):
        return "still working ..."
    return "nothing works on the bulk queue: is `kommo-airtable-sync up` running? (leads wait)"
