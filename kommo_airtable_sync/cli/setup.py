"""``init``: a mapping proposed from both accounts as they are."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.settings import ACCOUNTS, Settings, load_settings

if TYPE_CHECKING:
    from kommo_airtable_sync.airtable.client import AirtableClient
    from kommo_airtable_sync.core.proposing import Proposal
    from kommo_airtable_sync.core.schemas import KommoSchema
    from kommo_airtable_sync.kommo.client import KommoClient


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog="Example: kommo-airtable-sync init --create-airtable-fields")(init)


def init(
    out: Annotated[Path | None, typer.Option(help="The file to write (SYNC_CONFIG).")] = None,
    create: Annotated[
        bool,
        typer.Option(
            "--create-airtable-fields",
            help="Make the fields that the table lacks; takes the scope schema.bases:write.",
        ),
    ] = False,
    table: Annotated[
        str | None, typer.Option(help="Airtable's table of the deals; else the likeliest.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of sentences.")] = False,
) -> None:
    """Propose sync.yaml from both accounts; it can be used as it stands."""
    from kommo_airtable_sync.cli.output import print_json

    settings = load_settings()
    settings.require(*ACCOUNTS)
    path = out or settings.sync_config
    if path.exists() and not force:
        raise ConfigurationError(f"{path} exists already.", "Take another --out, or --force.")
    done = _propose(settings, path, table, create=create)
    if as_json:
        print_json(done)
        return
    for name in done["created"]:
        typer.echo(f"made in Airtable: {name}")
    typer.echo(
        f"{path}: table {done['table']}, {done['mapped']} fields mapped, "
        f"{done['doubtful']} doubtful (commented out), {done['links']} links"
    )
    if done["missing"]:
        typer.echo(f"not in Airtable: {', '.join(done['missing'])}")
        typer.echo("  (`kommo-airtable-sync init --force --create-airtable-fields` makes them)")
    typer.echo("next: kommo-airtable-sync doctor")


def _propose(settings: Settings, path: Path, table: str | None, *, create: bool) -> dict[str, Any]:
    from kommo_airtable_sync.assembly import airtable_client, budgets, kommo_client
    from kommo_airtable_sync.core.types import LIVE
    from kommo_airtable_sync.opening import open_limiter

    with closing(open_limiter(settings)) as limiter:
        for_kommo, for_airtable = budgets(settings, limiter, LIVE)
        kommo = kommo_client(settings, for_kommo)
        airtable = airtable_client(settings, for_airtable)
        return propose_file(kommo, airtable, settings.kommo_url, path, table, create=create)


def propose_file(
    kommo: KommoClient,
    airtable: AirtableClient,
    base_url: str,
    path: Path,
    table: str | None = None,
    *,
    create: bool = False,
) -> dict[str, Any]:
    """Read both accounts, make fields if so wanted, write the file; what was done, in names.

    Raises:
        ConfigurationError: if nothing can be proposed that would load, saying what is missing.
    """
    from kommo_airtable_sync.core.config import parse_config
    from kommo_airtable_sync.core.mapping import resolve
    from kommo_airtable_sync.core.proposal_text import render
    from kommo_airtable_sync.core.proposing import propose
    from kommo_airtable_sync.core.schemas import AirtableSchema
    from kommo_airtable_sync.engine.directory import read_kommo

    account = read_kommo(kommo, ("contact", "company"))
    base = AirtableSchema.from_api(airtable.tables())
    proposal = propose(account, base, base_url=base_url, table=table)
    created: list[str] = []
    for each in proposal.missing if create else ():
        airtable.create_field(each.table.id, each.definition)
        created.append(f"{each.table.name} / {each.definition['name']}")
    if created:
        base = AirtableSchema.from_api(airtable.tables())
        table_id = proposal.deals.table.id
        proposal = propose(account, base, base_url=base_url, table=table_id)
    _require_usable(proposal)
    text = render(proposal, account)
    # As a run will read it: what cannot be used is not written.
    resolve(parse_config(text, str(path)), account, base, base_url=base_url, source=str(path))
    path.write_text(text, encoding="utf-8")
    return _summary(proposal, account, created)


def _require_usable(proposal: Proposal) -> None:
    deals, remedy = proposal.deals, "Or let `init --create-airtable-fields` make what is missing."
    if deals.key is None:
        raise ConfigurationError(
            f"Table {deals.table.name!r} has no field that could hold Kommo's lead ids.",
            f'Add a number field "Kommo Deal ID". {remedy}',
        )
    if not deals.sure:
        raise ConfigurationError(
            f"No field of table {deals.table.name!r} is surely one of Kommo's.",
            f"Name them as Kommo does, or choose another --table. {remedy}",
        )


def _summary(proposal: Proposal, account: KommoSchema, created: list[str]) -> dict[str, Any]:
    deals = proposal.deals
    return {
        "account": {"pipelines": len(account.pipelines), "custom_fields": len(account.fields)},
        "table": deals.table.name,
        "mapped": len(deals.sure),
        "doubtful": len(deals.doubtful),
        "links": sum(each.is_sure and each.records.key is not None for each in proposal.links),
        "created": created,
        "missing": [str(each.definition["name"]) for each in proposal.missing],
    }
