"""``duplicates``: records with one key; have those removed that hold nothing of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kommo_airtable_sync.cli.output import actor, print_json, print_table, progress_bars
from kommo_airtable_sync.cli.reconcile import see_through, teller
from kommo_airtable_sync.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kommo_airtable_sync.core.copies import Copy, Group
    from kommo_airtable_sync.engine.context import Engine

AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of tables.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    duplicates = typer.Typer(help="Records in Airtable that have one key.")
    duplicates.callback(
        epilog="Example: kommo-airtable-sync duplicates", invoke_without_command=True
    )(list_copies)
    duplicates.command(epilog="Example: kommo-airtable-sync duplicates remove lead:5 contact:7")(
        remove
    )
    app.add_typer(duplicates, name="duplicates")


def list_copies(context: typer.Context, as_json: AsJson = False) -> None:
    """List records with one key: which one the sync keeps, and what only the others hold."""
    if context.invoked_subcommand is not None:
        return
    from dataclasses import asdict

    _, groups = _find()
    if as_json:
        print_json([asdict(group) for group in groups])
        return
    print_table(
        "Duplicates",
        ("key", "kept", "copy", "holds of its own"),
        [(g.key, g.kept, each.record_id, _holds(each)) for g in groups for each in g.copies],
    )


def remove(
    keys: Annotated[list[str] | None, typer.Argument(help="lead:ID, contact:ID ...")] = None,
    every: Annotated[bool, typer.Option("--all", help="Of all keys.")] = False,
    as_json: AsJson = False,
) -> None:
    """Have copies removed that hold nothing of their own; exit 3 if any are left."""
    from kommo_airtable_sync.engine.copies import REMOVED, SOURCE, ask_to_remove
    from kommo_airtable_sync.store.standing import database_now

    if bool(keys) == every:
        raise typer.BadParameter("give keys, or --all")
    engine, groups = _find()
    chosen = [group for group in groups if every or group.key in (keys or ())]
    began = database_now(engine.database)
    with progress_bars() as progress:
        count = ask_to_remove(engine, chosen, actor())
        outcomes = see_through(engine, SOURCE, began, count, progress)
    left = [(g, each) for g in chosen for each in g.copies if not each.is_removable]
    if as_json:
        print_json({"outcomes": outcomes, "left": [each.record_id for _, each in left]})
    else:
        print_table("Done", ("what", "copies"), [*outcomes.items(), ("left", len(left))])
        for group, each in left:
            url = engine.directory.record_url(group.key, each.record_id)
            typer.echo(
                f"left: {each.record_id} of {group.key}: {_holds(each)}. Merge it by hand into "
                f"{group.kept} and delete it in Airtable: {url}",
                err=True,
            )
    unknown = sorted(set(keys or ()) - {group.key for group in chosen})
    if unknown:
        typer.echo(f"no two records have the key: {', '.join(unknown)}", err=True)
        raise typer.Exit(1)
    if left or outcomes.keys() - REMOVED:
        raise typer.Exit(3)


def _find() -> tuple[Engine, Sequence[Group]]:
    from kommo_airtable_sync.assembly import build_engine
    from kommo_airtable_sync.core.types import BULK
    from kommo_airtable_sync.engine.copies import find_copies

    engine = build_engine(load_settings(), BULK)
    with progress_bars() as progress:
        return engine, find_copies(engine, teller(progress))


def _holds(copy: Copy) -> str:
    words = [f"it is the record of {copy.record_of}, with another key"] if copy.record_of else []
    return "; ".join([*words, ", ".join(copy.own)] if copy.own else words) or "same"
