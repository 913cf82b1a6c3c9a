"""``undo``: take back what a run, or whatever it was within a time, wrote; or all about a lead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kommo_airtable_sync.cli.output import actor, print_json, print_table, progress_bars
from kommo_airtable_sync.core.canonical import shown
from kommo_airtable_sync.settings import load_settings

if TYPE_CHECKING:
    from kommo_airtable_sync.core.explaining import JournalRow
    from kommo_airtable_sync.core.undoing import Left, Revert
    from kommo_airtable_sync.engine.context import Engine
    from kommo_airtable_sync.engine.undo import Result
    from kommo_airtable_sync.store.history import History

RUN_CHARACTERS_MIN = 8
ROWS_SHOWN_MAX = 50


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(epilog="Example: kommo-airtable-sync undo --run 3f2a91c0 --dry-run")(undo)


def undo(
    run: Annotated[
        str | None,
        typer.Option(help="What this Dagster run wrote: its id, or its first 8 letters."),
    ] = None,
    lead: Annotated[int | None, typer.Option(help="What was written of this Kommo lead.")] = None,
    since: Annotated[
        str | None, typer.Option(help="What was written from then on: 2026-03-31T14:00, in UTC.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="... and before then.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would go back.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of tables.")] = False,
) -> None:
    """Take writes back on both sides, except fields that somebody has changed since."""
    from kommo_airtable_sync.assembly import build_engine
    from kommo_airtable_sync.core.types import LIVE
    from kommo_airtable_sync.engine.undo import plan
    from kommo_airtable_sync.store.history import History

    window = _window(since, until)
    if (run is not None) + (lead is not None) + (window is not None) != 1:
        raise typer.BadParameter("give one of --run, --lead, or --since with --until")
    engine = build_engine(load_settings(), LIVE)
    planned = plan(engine, _select(History(engine.database), run, lead, window))
    if dry_run:
        _print("Would revert", planned.reverts, planned.left, as_json=as_json)
        return
    result = _carry_out(engine, planned.reverts)
    left = (*planned.left, *result.refused)
    _print("Reverted", result.reverted, left, as_json=as_json)
    if left:
        raise typer.Exit(3)


def _window(since: str | None, until: str | None) -> tuple[float, float] | None:
    if since is None and until is None:
        return None
    if since is None or until is None:
        raise typer.BadParameter("--since and --until go together")
    begin, end = _seconds(since), _seconds(until)
    if begin >= end:
        raise typer.BadParameter("--since must be before --until")
    return begin, end


def _seconds(text: str) -> float:
    # Python 3.10's fromisoformat does not know "Z".
    try:
        at = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    except ValueError as error:
        message = f"{text!r} is not a time such as 2026-03-31T14:00 or 2026-03-31T14:00+02:00"
        raise typer.BadParameter(message) from error
    return (at if at.tzinfo else at.replace(tzinfo=timezone.utc)).timestamp()


def _select(
    history: History, run: str | None, lead: int | None, window: tuple[float, float] | None
) -> Sequence[JournalRow]:
    from kommo_airtable_sync.core.types import lead_key

    if window is not None:
        return history.between(*window)
    if run is not None:
        return history.of_run(_run_id(history, run))
    rows = history.of_key(lead_key(lead or 0))
    if not rows:
        typer.echo(f"the journal holds nothing that was written of lead {lead}", err=True)
        raise typer.Exit(1)
    return rows


def _run_id(history: History, run: str) -> str:
    if len(run) < RUN_CHARACTERS_MIN:
        raise typer.BadParameter(f"give at least {RUN_CHARACTERS_MIN} characters of the run's id")
    found = history.runs_like(run)
    if run in found or len(found) == 1:
        return run if run in found else found[0]
    if found:
        typer.echo(
            f"several runs begin with {run}; give more of the id: {', '.join(found)}", err=True
        )
    else:
        typer.echo(
            f"the journal holds nothing that a run {run} wrote; the Dagster UI and "
            "kommo-airtable-sync explain LEAD name runs",
            err=True,
        )
    raise typer.Exit(1)


def _carry_out(engine: Engine, reverts: Sequence[Revert]) -> Result:
    """Ask for it and wait, with progress on standard error."""
    from kommo_airtable_sync.engine.undo import UNSETTLED, ask, see_through

    asked = ask(engine, reverts, actor())
    with progress_bars() as progress:
        task = progress.add_task("undoing", total=len(reverts))
        result = see_through(engine, asked, lambda done: progress.update(task, completed=done))
    if any(each.reason == UNSETTLED for each in result.refused):
        pauses = [
            f"{pause.side} is paused ({pause.reason}): {pause.detail}"
            for pause in engine.runners.pauses().values()
        ]
        why = "; ".join(pauses) or "is kommo-airtable-sync up running?"
        typer.echo(
            f"not all of it was done within a minute, it stays in the inbox: {why}", err=True
        )
    return result


def _print(title: str, reverts: Sequence[Revert], left: Sequence[Left], *, as_json: bool) -> None:
    if as_json:
        name = title.lower().replace(" ", "_")
        print_json({name: [_as_json(each) for each in reverts], "left": [asdict(e) for e in left]})
        return
    print_table(
        _counted(title, reverts),
        ("lead", "field", "now", "before"),
        [
            (
                each.key.partition(":")[2],
                each.field_name,
                " | ".join(dict.fromkeys((shown(each.kommo), shown(each.airtable)))),
                shown(each.value),
            )
            for each in reverts[:ROWS_SHOWN_MAX]
        ],
    )
    print_table(
        _counted("Left as it is", left),
        ("key", "field", "why"),
        [(each.key, each.field_name, each.reason) for each in left[:ROWS_SHOWN_MAX]],
    )


def _counted(title: str, rows: Sequence[object]) -> str:
    more = f", the first {ROWS_SHOWN_MAX} (all: --json)" if len(rows) > ROWS_SHOWN_MAX else ""
    return f"{title}: {len(rows)}{more}" if rows else title


def _as_json(revert: Revert) -> dict[str, Any]:
    from kommo_airtable_sync.core.canonical import to_json

    values = {name: to_json(getattr(revert, name)) for name in ("kommo", "airtable", "value")}
    return {**asdict(revert), **values}
