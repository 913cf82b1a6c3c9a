"""``authorize``: give the sync access to the Kommo account by OAuth."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime, timezone
from typing import Annotated

import typer

from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.settings import load_settings


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog="Example: kommo-airtable-sync authorize def502...")(authorize)


def authorize(
    code: Annotated[
        str,
        typer.Argument(
            help="What Kommo sent along as `code=`, or the whole address. It is good for 20 "
            "minutes and once: Kommo, Settings > Integrations > yours > Keys and scopes shows "
            "one, too."
        ),
    ],
) -> None:
    """Exchange an authorization code for tokens, which are kept and renewed from then on."""
    from kommo_airtable_sync.assembly import budgets, kommo_access
    from kommo_airtable_sync.core.types import LIVE
    from kommo_airtable_sync.opening import open_database, open_limiter

    settings = load_settings()
    if not settings.uses_oauth:
        raise ConfigurationError(
            "KOMMO_TOKEN is set, or KOMMO_CLIENT_ID is not.",
            "For OAuth set KOMMO_CLIENT_ID, KOMMO_CLIENT_SECRET and KOMMO_REDIRECT_URI, and take "
            "KOMMO_TOKEN out; with KOMMO_TOKEN no code is needed.",
        )
    with (
        closing(open_database(settings)) as database,
        closing(open_limiter(settings)) as limiter,
    ):
        access = kommo_access(settings, budgets(settings, limiter, LIVE)[0], database)
        grant = access.authorize(code)
    until = datetime.fromtimestamp(grant.expires_at, timezone.utc)
    typer.echo(f"Kommo gives access until {until:%Y-%m-%d %H:%M} UTC; it is renewed by itself.")
