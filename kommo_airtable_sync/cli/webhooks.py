"""``webhooks``: register with Kommo and Airtable, see what is registered, remove it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from kommo_airtable_sync.core.errors import ConfigurationError, SyncError
from kommo_airtable_sync.settings import Settings, load_settings

if TYPE_CHECKING:
    from kommo_airtable_sync.engine.context import Engine

BY_HAND = (
    "Where the plan has no webhooks by API, add one by hand: Kommo, Settings > Integrations > Web "
    "hooks, https://HOST/hooks/kommo/KOMMO_WEBHOOK_SECRET, with the events about leads."
)
_AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    webhooks = typer.Typer(
        help="What tells us of changes.",
        epilog="Example: kommo-airtable-sync webhooks list",
        no_args_is_help=True,
    )
    webhooks.command(
        "register",
        epilog="Example: kommo-airtable-sync webhooks register --url https://sync.example.com",
    )(register_webhooks)
    webhooks.command("list", epilog="Example: kommo-airtable-sync webhooks list")(list_webhooks)
    webhooks.command("remove", epilog="Example: kommo-airtable-sync webhooks remove")(
        remove_webhooks
    )
    app.add_typer(webhooks, name="webhooks")


def register_webhooks(
    url: Annotated[str, typer.Option(help="Where the receiver is reached, e.g. https://...")],
    as_json: _AsJson = False,
) -> None:
    """Have Kommo and Airtable call the receiver; prints the script for an Airtable automation."""
    from kommo_airtable_sync.cli.output import print_json

    settings = load_settings()
    base = base_address(url)
    engine = _engine(settings)
    done, failures = _register(engine, base, _secret(settings))
    if as_json:
        print_json(done)
    else:
        typer.echo(_for_people(done))
    _raise(failures)


def list_webhooks(as_json: _AsJson = False) -> None:
    """List our webhooks on both sides; exit 3 if one wants a person."""
    from kommo_airtable_sync.cli.output import print_json, print_table
    from kommo_airtable_sync.engine.registration import SIDES, Registration

    settings = load_settings()
    engine, found, refused = _engine(settings), list[Registration](), list[SyncError]()
    for registered in SIDES.values():
        try:
            found += registered(engine, _secret(settings))
        except ConfigurationError as error:
            refused.append(error)
    if as_json:
        print_json([asdict(each) for each in found])
    else:
        print_table(
            "Webhooks",
            ("side", "id", "state", "address"),
            [(each.side, each.id, each.state, each.address) for each in found],
        )
    _raise(refused)
    if any(each.state != "ok" for each in found):
        raise typer.Exit(3)


def remove_webhooks() -> None:
    """End our webhooks on both sides; changes are then found by reconciliation only."""
    from kommo_airtable_sync.engine.registration import remove

    settings = load_settings()
    removed = remove(_engine(settings), _secret(settings))
    for each in removed:
        typer.echo(f"removed from {each.side}: {each.address}")
    if not removed:
        typer.echo("none was registered")


def _raise(failures: list[SyncError]) -> None:
    for each in failures[:-1]:
        typer.echo(f"error: {each}", err=True)
    if failures:
        raise failures[-1]


def base_address(url: str) -> str:
    """The receiver's address without a trailing slash.

    Raises:
        ConfigurationError: if it is not an http(s) address, or holds more than host and path.
    """
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname
    except ValueError:
        known = False
        parts = urlsplit("")
    if not known or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigurationError(
            "--url is not the address of a receiver.",
            "Give it as https://host, or https://host/path if a proxy adds one.",
        )
    return url.rstrip("/")


def _engine(settings: Settings) -> Engine:
    from kommo_airtable_sync.assembly import build_engine
    from kommo_airtable_sync.core.types import LIVE

    settings.require("KOMMO_WEBHOOK_SECRET", "AIRTABLE_WEBHOOK_SECRET")
    return build_engine(settings, LIVE)


def _secret(settings: Settings) -> str:
    return settings.kommo_webhook_secret.get_secret_value()


def _register(engine: Engine, base: str, secret: str) -> tuple[dict[str, Any], list[SyncError]]:
    """Both sides; one that refuses (its plan may not have webhooks) does not keep the other."""
    from kommo_airtable_sync.core.registration import (
        AUTOMATION_PATH,
        KOMMO_PATH,
        automation_script,
        automation_steps,
        edited_in_airtable,
    )
    from kommo_airtable_sync.engine.registration import register_airtable, register_kommo
    from kommo_airtable_sync.kommo.errors import NotGranted

    mapping = engine.directory.refresh()
    fields = edited_in_airtable(mapping)
    done: dict[str, Any] = {"kommo": None, "airtable": None, "automation": None}
    failures: list[SyncError] = []
    try:
        events = register_kommo(engine, base, secret)
        done["kommo"] = {"address": f"{base}{KOMMO_PATH}***", "events": events}
    except NotGranted as error:
        failures.append(ConfigurationError(error.message, f"{error.remedy} {BY_HAND}"))
    except SyncError as error:
        failures.append(error)
    try:
        hook = register_airtable(engine, base)
        watched = [mapping.key.name, *(field.name for field in fields)]
        done["airtable"] = {"id": hook.id, "address": hook.url, "watches": watched}
    except SyncError as error:
        failures.append(error)
    if fields:
        done["automation"] = {
            "fields": [field.name for field in fields],
            "steps": automation_steps(mapping, fields),
            "script": automation_script(f"{base}{AUTOMATION_PATH}"),
        }
    return done, failures


def _for_people(done: dict[str, Any]) -> str:
    lines: list[str] = []
    if done["kommo"]:
        lines.append(
            f"Kommo calls {done['kommo']['address']}: {', '.join(done['kommo']['events'])}"
        )
    if done["airtable"]:
        watched = ", ".join(done["airtable"]["watches"])
        lines.append(f"Airtable pings {done['airtable']['address']} ({done['airtable']['id']})")
        lines.append(f"  when a record is deleted, or one of these is set or edited: {watched}")
    automation = done["automation"]
    if automation is None:
        lines.append("No field is owned or shared by Airtable: no automation is needed.")
        return "\n".join(lines)
    lines.append("\nFor changes within a second or two, and without a webhook, add an automation:")
    lines += [f"  {number}. {step}" for number, step in enumerate(automation["steps"], 1)]
    return "\n".join([*lines, "", automation["script"]])
