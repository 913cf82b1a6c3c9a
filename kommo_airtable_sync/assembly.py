"""Put an engine together from settings: the one place where concrete things meet."""

from __future__ import annotations

import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from uuid import uuid4

from kommo_airtable_sync.airtable.client import AirtableClient
from kommo_airtable_sync.core.types import BULK, LIVE, Priority
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.engine.directory import Directory
from kommo_airtable_sync.engine.enrich import Enricher, load_functions
from kommo_airtable_sync.kommo.access import Integration, KommoAccess
from kommo_airtable_sync.kommo.client import KommoClient
from kommo_airtable_sync.opening import SystemClock, open_database, open_limiter
from kommo_airtable_sync.settings import ACCOUNTS, OAUTH, Settings
from kommo_airtable_sync.store.consents import Consents
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.documents import Documents
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.journal import Journal
from kommo_airtable_sync.store.limiter import SqlBudget
from kommo_airtable_sync.store.runners import Runners
from kommo_airtable_sync.store.survey import Survey

CALLS_AT_ONCE = 4
SURVEY_SECONDS_MAX = 86_400.0
LANES: dict[str, Priority] = {"live": LIVE, "bulk": BULK}


@contextmanager
def survey(settings: Settings) -> Generator[Survey]:
    """A file to compare both sides in, gone afterwards; so are those that dead processes left."""
    folder = settings.home / "run"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in folder.glob("survey-*"):
        if time.time() - old.stat().st_mtime > SURVEY_SECONDS_MAX:
            old.unlink(missing_ok=True)
    opened = Survey(folder / f"survey-{uuid4().hex}.db", SystemClock())
    try:
        yield opened
    finally:
        opened.close()


def kommo_access(settings: Settings, budget: SqlBudget, database: Database) -> KommoAccess:
    """OAuth's access to the Kommo account of the settings.

    Raises:
        ConfigurationError: if a setting is missing or wrong.
    """
    settings.require(*OAUTH)
    integration = Integration(
        settings.kommo_client_id,
        settings.kommo_client_secret.get_secret_value(),
        settings.kommo_redirect_uri,
        settings.kommo_refresh_token.get_secret_value(),
    )
    consents = Consents(database, settings.kommo_url)
    return KommoAccess(settings.kommo_url, integration, consents, budget, SystemClock())


def kommo_client(
    settings: Settings, budget: SqlBudget, database: Database | None = None
) -> KommoClient:
    """The Kommo account of the settings.

    Args:
        settings: as they are.
        budget: of the account.
        database: where OAuth keeps its tokens; opened here if none is given.

    Raises:
        ConfigurationError: if a setting is missing or wrong.
    """
    settings.require("KOMMO_TOKEN")
    if settings.uses_oauth:
        access = kommo_access(settings, budget, database or open_database(settings))
        url, clock = settings.kommo_url, SystemClock()
        return KommoClient(url, access.token, budget, clock=clock, renew=access.renew)
    token = settings.kommo_token.get_secret_value
    return KommoClient(settings.kommo_url, token, budget, clock=SystemClock())


def airtable_client(settings: Settings, budget: SqlBudget) -> AirtableClient:
    """The Airtable base of the settings.

    Raises:
        ConfigurationError: if a setting is missing or wrong.
    """
    settings.require("AIRTABLE_TOKEN", "AIRTABLE_BASE_ID")
    return AirtableClient(
        settings.airtable_token.get_secret_value(),
        settings.airtable_base_id,
        settings.airtable_endpoint_url,
        budget,
        SystemClock(),
    )


def budgets(settings: Settings, limiter: Database, lane: Priority) -> tuple[SqlBudget, SqlBudget]:
    """What a lane may ask of Kommo and of Airtable."""
    return (
        SqlBudget(limiter, "kommo", settings.kommo_requests_per_second, lane),
        SqlBudget(
            limiter, "airtable", settings.airtable_requests_per_second, lane, settings.monthly_quota
        ),
    )


def build_engine(settings: Settings, lane: Priority) -> Engine:
    """Everything that a run of a lane works with.

    Raises:
        ConfigurationError: if a setting or sync.yaml is missing or wrong.
    """
    settings.require(*ACCOUNTS)
    config = settings.load_config()
    clock = SystemClock()
    database = open_database(settings)
    limiter = open_limiter(settings)
    kommo_budget, airtable_budget = budgets(settings, limiter, lane)
    kommo = kommo_client(settings, kommo_budget, database)
    airtable = airtable_client(settings, airtable_budget)
    return Engine(
        config=config,
        lane=lane,
        clock=clock,
        database=database,
        limiter=limiter,
        kommo=kommo,
        airtable=airtable,
        kommo_budget=kommo_budget,
        airtable_budget=airtable_budget,
        inbox=Inbox(database, settle_seconds=config.realtime.settle_seconds),
        journal=Journal(database),
        runners=Runners(database),
        directory=Directory(
            config,
            kommo,
            airtable,
            Documents(database),
            kommo_url=settings.kommo_url,
            base_id=settings.airtable_base_id,
            source=str(settings.sync_config),
        ),
        executor=ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="call"),
        enricher=Enricher(load_functions(config.enrich, str(settings.sync_config))),
        stop_requested=settings.stop_requested,
    )
