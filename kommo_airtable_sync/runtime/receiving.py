"""The receiver as a process: inbox, metrics, server."""

from __future__ import annotations

from starlette.routing import Route

from kommo_airtable_sync.core.airtable_hooks import ping_event
from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.opening import open_database, open_limiter
from kommo_airtable_sync.receiver.app import create_app
from kommo_airtable_sync.receiver.beating import start_beating
from kommo_airtable_sync.receiver.metrics import metrics_text
from kommo_airtable_sync.receiver.overview import Desk
from kommo_airtable_sync.receiver.server import serve
from kommo_airtable_sync.receiver.status_page import StatusPage
from kommo_airtable_sync.runtime.ports import require_free_port
from kommo_airtable_sync.settings import Settings
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.documents import Documents
from kommo_airtable_sync.store.gaps import Gaps
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.registrations import registered

PASSWORD_LENGTH_MIN = 12


def run_receiver(settings: Settings, host: str, port: int) -> None:
    """Serve webhooks in the foreground until SIGTERM.

    Raises:
        ConfigurationError: if a secret or sync.yaml is missing or wrong.
    """
    settings.require("KOMMO_WEBHOOK_SECRET", "AIRTABLE_WEBHOOK_SECRET")
    require_free_port("RECEIVER_PORT", host, port)
    config = settings.load_config()
    database = open_database(settings)
    limiter = open_limiter(settings)
    inbox = Inbox(database, settle_seconds=config.realtime.settle_seconds)
    documents = Documents(database)
    # Pings that came while nobody listened are repeated hours later at worst: ask at once.
    inbox.receive([ping_event(hook.id, "start") for hook in registered(documents)])
    app = create_app(
        inbox,
        kommo_secret=settings.kommo_webhook_secret.get_secret_value(),
        airtable_secret=settings.airtable_webhook_secret.get_secret_value(),
        airtable_webhooks=lambda: {hook.id: hook.mac_secret() for hook in registered(documents)},
        metrics=lambda: metrics_text(database, limiter, settings.monthly_quota),
        metrics_token=settings.metrics_token.get_secret_value(),
        links=bool(config.clients),
        more_routes=status_routes(settings, database, limiter),
    )
    settings.mark_ready("receiver")
    start_beating(Gaps(database))
    serve(app, host, port)


def status_routes(settings: Settings, database: Database, limiter: Database) -> list[Route]:
    """The status page, if there is a password for it.

    Raises:
        ConfigurationError: if the password is too short to be one.
    """
    password = settings.status_page_password.get_secret_value()
    if not password:
        return []
    if len(password) < PASSWORD_LENGTH_MIN:
        raise ConfigurationError(
            f"STATUS_PAGE_PASSWORD is shorter than {PASSWORD_LENGTH_MIN} characters.",
            "Take a longer one, or none: then there is no status page.",
        )
    desk = Desk(database, limiter, settings.monthly_quota)
    return StatusPage(desk, password, settings.kommo_url, settings.ui_url).routes()
