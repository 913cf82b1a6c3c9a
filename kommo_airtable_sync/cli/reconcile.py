"""``plan``, ``apply``, ``reconcile``: compare both sides, look at what differs, have it mended."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kommo_airtable_sync.cli.output import (
    actor,
    print_json,
    print_table,
    progress_bars,
)
from kommo_airtable_sync.core.canonical import shown
from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.settings import load_settings

if TYPE_CHECKING:
    from rich.progress import Progress

    from kommo_airtable_sync.engine.context import Engine
    from kommo_airtable_sync.engine.reconcile import Comparison

LOOK_SECONDS = 0.3
PATIENCE_SECONDS = 15.0
SHOWN_MAX = 50

Since = Annotated[
    datetime | None,
    typer.Option(help="Only what changed since then (UTC unless it says otherwise)."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Release the brake.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of tables.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog="Example: kommo-airtable-sync plan --out plan.json")(plan)
    app.command("apply", epilog="Example: kommo-airtable-sync apply plan.json")(apply_plan)
    app.command(epilog="Example: kommo-airtable-sync reconcile --yes")(reconcile)


def plan(
    since: Since = None,
    config: Annotated[
        Path | None, typer.Option(help="Another sync.yaml: what would it change?")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Save it, for `apply`.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what reconciliation would change, on both sides; writes nothing there."""
    from itertools import islice

    if out is not None and not out.parent.is_dir():
        raise ConfigurationError(f"--out: there is no folder {out.parent}.", "Make it, or another.")
    with _comparison(since, config) as (_, compared, _progress):
        if out is not None:
            with out.open("w", encoding="utf-8") as file:
                file.writelines(compared.document())
        if as_json:
            for piece in compared.document():
                typer.echo(piece, nl=False)
        else:
            shown = list(islice(compared.survey.found(), SHOWN_MAX))
            _print_findings(shown, sum(compared.summary.kinds.values()))
            _print_summary(compared)
        if compared.brake:
            typer.echo(compared.brake, err=True)


def apply_plan(
    file: Annotated[Path, typer.Argument(help="A plan that `plan --out` saved.")],
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Have a saved plan carried out; what has changed since it was made is refused."""
    from kommo_airtable_sync.assembly import build_engine
    from kommo_airtable_sync.core.types import BULK
    from kommo_airtable_sync.engine.reconcile import APPLY, hand_over_plan, read_plan
    from kommo_airtable_sync.store.standing import database_now

    settings = load_settings()
    saved = read_plan(file, settings.load_config())
    if saved.get("brake") and not yes:
        typer.echo(f"{saved['brake']} (or: apply {file} --yes)", err=True)
        raise typer.Exit(3)
    engine = build_engine(settings, BULK)
    began = database_now(engine.database)
    with progress_bars() as progress:
        count = hand_over_plan(engine, saved, release=yes, actor=actor())
        outcomes = see_through(engine, APPLY, began, count, progress)
    _end({"planned": count}, outcomes, as_json=as_json)


def reconcile(since: Since = None, yes: Yes = False, as_json: AsJson = False) -> None:
    """Compare both sides now and have all drift mended; also the first load of a table."""
    from kommo_airtable_sync.engine.reconcile import SOURCE, hand_over, remember
    from kommo_airtable_sync.store.standing import database_now

    with _comparison(since, None) as (engine, compared, progress):
        if compared.brake and not yes:
            remember(engine, compared, {})
            progress.stop()
            _print_summary(compared)
            typer.echo(compared.brake, err=True)
            raise typer.Exit(3)
        began = database_now(engine.database)
        count = hand_over(engine, compared, release=yes)
        outcomes = see_through(engine, SOURCE, began, count, progress)
        remember(engine, compared, outcomes)
        progress.stop()
        summary = compared.summary
        if not as_json:
            _print_summary(compared)
        people = summary.for_people
        _end(
            {"leads": summary.leads, "records": summary.records, "for_people": people},
            outcomes,
            as_json=as_json,
        )


@contextmanager
def _comparison(
    since: datetime | None, config: Path | None
) -> Generator[tuple[Engine, Comparison, Progress]]:
    from kommo_airtable_sync.assembly import build_engine, survey
    from kommo_airtable_sync.core.types import BULK
    from kommo_airtable_sync.engine.reconcile import compare_sides

    settings = load_settings()
    if config is not None:
        settings = settings.model_copy(update={"sync_config": config})
    if since is not None and since.tzinfo is None:
        since = since.replace(tzinfo=timezone.utc)
    engine = build_engine(settings, BULK)
    engine.directory.mapping()
    with survey(settings) as opened, progress_bars() as progress:
        compared = compare_sides(engine, opened, since, teller(progress))
        yield engine, compared, progress


def teller(progress: Progress) -> Callable[[str, int], None]:
    """Shows what it is told of: what is being done, and how much of it is."""
    tasks: dict[str, Any] = {}

    def tell(what: str, done: int) -> None:
        if what not in tasks:
            tasks[what] = progress.add_task(what, total=None)
        progress.update(tasks[what], completed=done)

    return tell


def see_through(
    engine: Engine, source: str, began: float, count: int, progress: Progress
) -> dict[str, int]:
    """Wait until the workers have dealt with all; how the events ended."""
    from kommo_airtable_sync.store.reports import Reports

    reports = Reports(engine.database)
    task = progress.add_task("syncing", total=count)
    before, moved_at = -1, engine.seconds()
    while True:
        outcomes = reports.outcomes_of(source, began)
        left = outcomes.pop("pending", 0) + outcomes.pop("claimed", 0)
        progress.update(task, completed=count - left)
        if not left:
            return outcomes
        now = engine.seconds()
        if left != before:
            before, moved_at = left, now
        elif now - moved_at > PATIENCE_SECONDS:
            moved_at = now
            progress.console.print(_why_nothing_moves(engine))
        engine.clock.sleep(LOOK_SECONDS)


def _why_nothing_moves(engine: Engine) -> str:
    """What keeps the work from going on, as far as the store tells."""
    from kommo_airtable_sync.engine.working_off import QUOTA

    for pause in engine.runners.pauses().values():
        return f"{pause.side} is paused ({pause.reason}): {pause.detail}"
    if not engine.airtable_budget.bulk_may_begin():
        return f"{QUOTA} (leads wait)"
    if any(runner.lane == engine.lane for runner in engine.runners.all()):
        return "still working ..."
    return "nothing works on the bulk queue: is `kommo-airtable-sync up` running? (leads wait)"


def _end(facts: dict[str, int], outcomes: dict[str, int], *, as_json: bool) -> None:
    result = {**facts, **outcomes}
    if as_json:
        print_json(result)
    else:
        rows = [(what.replace("_", " "), count) for what, count in result.items()]
        print_table("Done", ("what", "how many"), rows)
    refused = any(outcome.startswith("refused") for outcome in outcomes)
    waiting = any(outcomes.get(state) for state in ("dead", "held", "retrying"))
    if refused or waiting or facts.get("for_people"):
        raise typer.Exit(3)


def _print_findings(found: list[Any], count: int) -> None:
    from kommo_airtable_sync.core.canonical import from_json

    rows = [
        (
            each["key"],
            each["kind"],
            "\n".join(
                f"{change['side']} {change['name']}: {shown(from_json(change['before']))} -> "
                f"{shown(from_json(change['after']))} ({change['rule']})"
                for change in each["changes"]
            )
            or each["reason"],
        )
        for each in found
    ]
    more = f", the first {SHOWN_MAX} of {count}" if count > SHOWN_MAX else ""
    print_table(f"What differs{more}", ("key", "kind", "change"), rows)


def _print_summary(compared: Comparison) -> None:
    summary, cost = compared.summary, compared.cost()
    rows: list[tuple[str, object]] = [("leads", summary.leads), ("records", summary.records)]
    rows += [(kind, count) for kind, count in sorted(summary.kinds.items())]
    rows += [
        ("being synced just now", summary.in_motion),
        ("records without key", summary.unlinked),
    ]
    rows += [(f"API calls {what.replace('_', ' ')}", _calls(calls)) for what, calls in cost.items()]
    print_table("Comparison", ("what", "how many"), [row for row in rows if row[1]])


def _calls(by_side: dict[str, int]) -> str:
    return ", ".join(f"{side} {count}" for side, count in by_side.items())
