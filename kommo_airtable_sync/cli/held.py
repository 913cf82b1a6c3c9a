"""Commands for what waits for a person: conflicts, conflicts resolve; holds, release, drop."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from kommo_airtable_sync.cli.output import actor
from kommo_airtable_sync.core.canonical import shown
from kommo_airtable_sync.settings import load_settings
from kommo_airtable_sync.store.entries import Held
from kommo_airtable_sync.store.reports import Reports

AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    conflicts = typer.Typer(help="Fields whose two values wait for a person.")
    conflicts.callback(
        epilog="Example: kommo-airtable-sync conflicts", invoke_without_command=True
    )(list_conflicts)
    conflicts.command(
        epilog="Example: kommo-airtable-sync conflicts resolve 123 Amount --use kommo"
    )(resolve)
    app.add_typer(conflicts, name="conflicts")
    holds = typer.Typer(help="Changes that the brake or missing evidence holds.")
    holds.callback(epilog="Example: kommo-airtable-sync holds", invoke_without_command=True)(
        list_holds
    )
    holds.command(epilog="Example: kommo-airtable-sync holds release 17 18")(release)
    holds.command(epilog="Example: kommo-airtable-sync holds drop 17")(drop)
    app.add_typer(holds, name="holds")


def list_conflicts(context: typer.Context, as_json: AsJson = False) -> None:
    """List held fields, those that wait longest first."""
    if context.invoked_subcommand is not None:
        return
    from kommo_airtable_sync.cli.output import print_json, print_table
    from kommo_airtable_sync.core.canonical import to_json
    from kommo_airtable_sync.store.database import instant

    found = [(item.key, item.held) for item in _reports().list_conflicts()]
    if as_json:
        print_json(
            [
                {
                    "key": key,
                    "field": held.field,
                    "field_name": held.field_name,
                    "reason": held.reason,
                    "kommo": to_json(held.kommo),
                    "airtable": to_json(held.airtable),
                    "since": instant(held.since),
                }
                for key, held in found
            ]
        )
        return
    print_table(
        "Held fields",
        ("key", "field", "reason", "since", "in Kommo | in Airtable"),
        [
            (
                key,
                held.field_name,
                held.reason,
                f"{instant(held.since):%m-%d %H:%M:%S}",
                f"{shown(held.kommo)} | {shown(held.airtable)}",
            )
            for key, held in found
        ],
    )


def resolve(
    lead: Annotated[int, typer.Argument(help="Kommo lead id.")],
    field: Annotated[str, typer.Argument(help="Airtable field, by name or id.")],
    use: Annotated[Literal["kommo", "airtable"], typer.Option(help="Whose value shall stand.")],
) -> None:
    """Decide a held field: one side's value replaces the other's."""
    from kommo_airtable_sync.core.types import lead_key
    from kommo_airtable_sync.opening import open_database
    from kommo_airtable_sync.store.entries import resolve_event
    from kommo_airtable_sync.store.inbox import Inbox

    database = open_database(load_settings())
    held = _held_field(Reports(database), lead_key(lead), field)
    if held is None:
        typer.echo(
            f'lead {lead} has no held field "{field}"; see kommo-airtable-sync conflicts', err=True
        )
        raise typer.Exit(1)
    Inbox(database).receive([resolve_event(lead_key(lead), held, use, actor())])
    sides = (("Kommo", held.kommo), ("Airtable", held.airtable))
    (winner, stands), (loser, goes) = sides if use == "kommo" else reversed(sides)
    typer.echo(
        f"{held.field_name} of lead {lead}: {shown(stands)} of {winner} will replace "
        f"{shown(goes)} of {loser}, unless one of them has changed meanwhile; what came of it: "
        f"kommo-airtable-sync events --lead {lead}"
    )


def list_holds(context: typer.Context, as_json: AsJson = False) -> None:
    """List held events with what would be too much, newest first."""
    if context.invoked_subcommand is not None:
        return
    from dataclasses import asdict

    from kommo_airtable_sync.cli.output import print_json, print_table

    found = _reports().list_holds()
    if as_json:
        print_json([asdict(item) for item in found])
        return
    print_table(
        "Holds",
        ("id", "key", "event", "received", "why"),
        [
            (
                item.id,
                item.key,
                f"{item.source} {item.kind}",
                f"{item.received_at:%m-%d %H:%M:%S}",
                item.error,
            )
            for item in found
        ],
    )


def release(
    ids: Annotated[list[int] | None, typer.Argument(help="Event ids.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All held events.")] = False,
) -> None:
    """Let held changes go; the brake passes them."""
    reports = _reports()
    done = reports.release_holds(_chosen(reports, ids, every=every))
    typer.echo(f"{len(done)} held events released")
    _complain_about_others(ids, done)


def drop(
    ids: Annotated[list[int] | None, typer.Argument(help="Event ids.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All held events.")] = False,
) -> None:
    """Forget held changes; the next change of such a lead brings it up again."""
    reports = _reports()
    held = {item.id for item in reports.list_holds()}
    done = reports.drop_events(sorted(held.intersection(_chosen(reports, ids, every=every))))
    typer.echo(f"{len(done)} held events dropped")
    _complain_about_others(ids, done)


def _reports() -> Reports:
    from kommo_airtable_sync.opening import open_database

    return Reports(open_database(load_settings()))


def _held_field(reports: Reports, key: str, field: str) -> Held | None:
    of_key = [item.held for item in reports.list_conflicts() if item.key == key]
    by_id = [held for held in of_key if held.field == field]
    by_name = [held for held in of_key if held.field_name.casefold() == field.casefold()]
    return next(iter(by_id + by_name), None)


def _chosen(reports: Reports, ids: list[int] | None, *, every: bool) -> list[int]:
    if every:
        return [item.id for item in reports.list_holds()]
    if not ids:
        raise typer.BadParameter("give event ids, or --all")
    return ids


def _complain_about_others(ids: list[int] | None, done: list[int]) -> None:
    others = sorted(set(ids or ()) - set(done))
    if others:
        typer.echo(f"not held, left alone: {', '.join(map(str, others))}", err=True)
        raise typer.Exit(1)
