"""Commands that look into the store and tend the inbox: status, events, events retry, drop."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from kommo_airtable_sync.settings import Settings, load_settings
from kommo_airtable_sync.store.reports import ListedState

NEVER_LOADED = "The leads that are there were never loaded: run kommo-airtable-sync reconcile."


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog="Example: kommo-airtable-sync status")(status)
    events = typer.Typer(help="The inbox.", invoke_without_command=True)
    events.callback(epilog="Example: kommo-airtable-sync events --state dead")(list_events)
    events.command("retry", epilog="Example: kommo-airtable-sync events retry --dead")(retry)
    events.command("drop", epilog="Example: kommo-airtable-sync events drop 17 18")(drop)
    app.add_typer(events, name="events")


def status(
    _json: Annotated[bool, typer.Option("--json", help="JSON, which it is anyway.")] = False,
) -> None:
    """Print how things are, as JSON; exit 3 if something wants a person."""
    from kommo_airtable_sync.cli.output import print_json

    report = status_report(load_settings())
    print_json(report)
    waiting = (report["inbox"]["dead"], report["inbox"]["quarantined"])
    if any(waiting) or report["conflicts_held"] or report["holds"]:
        raise typer.Exit(3)


def status_report(settings: Settings) -> dict[str, Any]:
    """The document of ``status`` (contract 2)."""
    from dataclasses import asdict

    from kommo_airtable_sync.engine.reconcile import LAST
    from kommo_airtable_sync.opening import open_database, open_limiter
    from kommo_airtable_sync.runtime.up import readiness
    from kommo_airtable_sync.store import limiter
    from kommo_airtable_sync.store.documents import Documents
    from kommo_airtable_sync.store.journal import Journal
    from kommo_airtable_sync.store.reports import Reports
    from kommo_airtable_sync.store.runners import Runners

    database = open_database(settings)
    reports = Reports(database)
    last_load = Documents(database).get(LAST)
    parts = readiness(settings)
    pauses = Runners(database).pauses()
    return {
        "ready": all(parts.values()),
        "parts": {name: "running" if works else "down" for name, works in parts.items()},
        "inbox": reports.inbox_counts(),
        "oldest_pending_s": reports.oldest_pending_seconds(),
        "latency_s": reports.latency(),
        "conflicts_held": reports.conflicts_held(),
        "holds": reports.holds(),
        "paused": {
            side: {"reason": pause.reason, "detail": pause.detail, "failures": pause.failures}
            for side, pause in pauses.items()
        },
        "leads_synced": Journal(database).ledger_size(),
        "last_reconcile": json.loads(last_load) if last_load else None,
        "hints": [] if last_load else [NEVER_LOADED],
        "airtable_quota": asdict(
            limiter.month_so_far(open_limiter(settings), settings.monthly_quota)
        ),
    }


def list_events(
    context: typer.Context,
    state: Annotated[ListedState, typer.Option(help="What they wait for.")] = "all",
    lead: Annotated[int | None, typer.Option(help="Only this Kommo lead.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """List events, newest first."""
    if context.invoked_subcommand is not None:
        return
    from dataclasses import asdict

    from kommo_airtable_sync.cli.output import print_json, print_table
    from kommo_airtable_sync.opening import open_database
    from kommo_airtable_sync.store.reports import Reports

    found = Reports(open_database(load_settings())).list_events(state, lead, limit)
    if as_json:
        print_json([asdict(item) for item in found])
        return
    print_table(
        "Events",
        ("id", "key", "event", "state", "received", "outcome"),
        [
            (
                item.id,
                item.key,
                f"{item.source} {item.kind}",
                f"{item.state} ({item.attempts})" if item.attempts else item.state,
                f"{item.received_at:%m-%d %H:%M:%S}",
                item.error or item.outcome,
            )
            for item in found
        ],
    )


def retry(
    ids: Annotated[list[int] | None, typer.Argument(help="Event ids.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="All dead events.")] = False,
    reason: Annotated[str, typer.Option(help="Dead events whose error has this in it.")] = "",
) -> None:
    """Put dead events back into the queue; their attempts start anew."""
    from kommo_airtable_sync.opening import open_database
    from kommo_airtable_sync.store.reports import Reports

    if bool(ids) + dead + bool(reason) != 1:
        raise typer.BadParameter("give event ids, or --dead, or --reason TEXT")
    reports = Reports(open_database(load_settings()))
    done = reports.retry_events(ids or (), dead=dead, reason=reason)
    typer.echo(f"{len(done)} events will be tried again")
    _complain_about_others(ids, done, "dead")
    if reason and not done:
        typer.echo(f'no dead event has "{reason}" in its error', err=True)
        raise typer.Exit(1)


def drop(
    ids: Annotated[list[int], typer.Argument(help="Event ids.")],
) -> None:
    """Let events go: nothing will be done for them."""
    from kommo_airtable_sync.opening import open_database
    from kommo_airtable_sync.store.reports import Reports

    done = Reports(open_database(load_settings())).drop_events(ids)
    typer.echo(f"{len(done)} events dropped")
    _complain_about_others(ids, done, "pending, held, dead or quarantined")


def _complain_about_others(ids: list[int] | None, done: list[int], states: str) -> None:
    others = sorted(set(ids or ()) - set(done))
    if others:
        typer.echo(f"not {states}, left alone: {', '.join(map(str, others))}", err=True)
        raise typer.Exit(1)
