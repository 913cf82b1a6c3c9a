"""Commands that run something: up, receiver, worker, sandbox, config schema."""

from __future__ import annotations

from typing import Annotated

import typer

from kommo_airtable_sync.settings import load_settings

LOOPBACK = "127.0.0.1"


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog="Example: kommo-airtable-sync up --port 8080 --dagster-port 3000")(up)
    app.command(epilog="Example: kommo-airtable-sync receiver --host 0.0.0.0")(receiver)
    app.command(epilog="Example: kommo-airtable-sync worker --queue bulk")(worker)
    app.command(epilog="Example: kommo-airtable-sync sandbox --fast")(sandbox)
    example = "Example: kommo-airtable-sync config schema > sync.schema.json"
    config = typer.Typer(help="About sync.yaml.", epilog=example, no_args_is_help=True)
    config.command("schema", epilog=example)(schema)
    app.add_typer(config, name="config")


def up(
    host: Annotated[str | None, typer.Option(help="Receiver address (RECEIVER_HOST).")] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Receiver port (RECEIVER_PORT).")
    ] = None,
    dagster_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Dagster UI (DAGSTER_PORT).")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Live workers; all but one stand by.")] = 1,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="receiver, control (daemon, code server and UI: once in all) or workers; again "
            "for a second one. For several machines."
        ),
    ] = None,
) -> None:
    """Run everything in the foreground; Ctrl-C stops all within 10 s, losing nothing."""
    from kommo_airtable_sync.runtime.up import GROUPS, run_up

    if only and not set(only) <= set(GROUPS):
        raise typer.BadParameter(f"use {', '.join(GROUPS)}", param_hint="--only")
    settings = load_settings()
    updates = {"receiver_host": host, "receiver_port": port, "dagster_port": dagster_port}
    given = {name: value for name, value in updates.items() if value is not None}
    raise typer.Exit(run_up(settings.model_copy(update=given), workers, tuple(only or GROUPS)))


def receiver(
    host: Annotated[str | None, typer.Option(help="Address (RECEIVER_HOST).")] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port (RECEIVER_PORT).")
    ] = None,
) -> None:
    """Run the webhook receiver alone."""
    from kommo_airtable_sync.runtime.receiving import run_receiver

    settings = load_settings()
    run_receiver(settings, host or settings.receiver_host, port or settings.receiver_port)


def worker(
    queue: Annotated[str, typer.Option(help="live or bulk.")] = "live",
) -> None:
    """Run one worker alone: it executes runs of its queue, one at a time."""
    from kommo_airtable_sync.runtime.worker import run_worker

    if queue not in ("live", "bulk"):
        raise typer.BadParameter("use live or bulk", param_hint="--queue")
    run_worker(load_settings(), queue)


def sandbox(
    kommo_port: Annotated[int, typer.Option(min=1, max=65535, help="Kommo's stand-in.")] = 8010,
    airtable_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Airtable's stand-in.")
    ] = 8011,
    fast: Annotated[
        bool, typer.Option(help="No latency, and a rate lock of 1 s instead of 30 s.")
    ] = False,
    leads: Annotated[int, typer.Option(min=0, help="Deals to begin with.")] = 0,
) -> None:
    """Run the stand-ins for Kommo and Airtable alone; prints the settings that lead to them."""
    from kommo_airtable_sync.runtime.receiving import require_free_port
    from kommo_airtable_sync.sandbox.serving import serve_both
    from kommo_airtable_sync.sandbox.stand_ins import settings_for

    require_free_port("--kommo-port", LOOPBACK, kommo_port)
    require_free_port("--airtable-port", LOOPBACK, airtable_port)
    typer.echo("The stand-ins answer until Ctrl-C. In .env:")
    settings = settings_for(f"http://{LOOPBACK}:{kommo_port}", f"http://{LOOPBACK}:{airtable_port}")
    for name, value in settings.items():
        typer.echo(f"{name}={value}")
    serve_both(kommo_port, airtable_port, fast=fast, leads=leads)


def schema() -> None:
    """Print the JSON Schema of sync.yaml, for editors."""
    from kommo_airtable_sync.cli.output import print_json
    from kommo_airtable_sync.core.config import json_schema

    print_json(json_schema())
