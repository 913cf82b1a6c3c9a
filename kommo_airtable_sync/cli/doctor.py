"""``doctor``: settings, tokens, schemas, webhooks, store, parts; each check stands alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

import typer
from sqlalchemy.exc import SQLAlchemyError

from kommo_airtable_sync.core import findings
from kommo_airtable_sync.core.errors import ConfigurationError, SideUnavailable, SyncError
from kommo_airtable_sync.core.findings import CLI, Finding
from kommo_airtable_sync.settings import ACCOUNTS, Settings, make_home, read_settings

if TYPE_CHECKING:
    from kommo_airtable_sync.airtable.client import AirtableClient
    from kommo_airtable_sync.engine.context import Engine
    from kommo_airtable_sync.kommo.client import KommoClient
    from kommo_airtable_sync.store.database import Database

COLORS = {"ok": "green", "warning": "yellow", "problem": "red"}


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog="Example: kommo-airtable-sync doctor --json")(doctor)


def doctor(
    accept: Annotated[
        bool,
        typer.Option("--accept", help="Take both schemas as they are now for known."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of lines.")] = False,
) -> None:
    """Check everything, a line each with what to do; exit 3 if there is a problem."""
    from kommo_airtable_sync.cli.output import print_json

    found: list[Finding] = []
    for each in examine(accept=accept):
        found.append(each)
        if not as_json:
            _show(each)
    if as_json:
        print_json([asdict(each) for each in found])
    if findings.worst(found) == "problem":
        raise typer.Exit(3)


def _show(each: Finding) -> None:
    level = typer.style(f"{each.level:<8}", fg=COLORS[each.level])
    typer.echo(f"{level} {each.check:<9} {each.message}")
    if each.remedy:
        typer.echo(f"{'':<18} {each.remedy}")


def examine(*, accept: bool = False) -> Iterator[Finding]:
    """All findings, one after the other as they are found."""
    try:
        settings = read_settings()
        make_home(settings)
    except ConfigurationError as error:
        yield _failed("settings", error)
        return
    patient = _Patient(settings, accept=accept)
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "settings": patient.settings,
        "sync.yaml": patient.sync_yaml,
        "database": patient.database,
        "kommo": patient.kommo,
        "airtable": patient.airtable,
        "clock": patient.clock,
        "schema": patient.schema,
        "webhooks": patient.webhooks,
        "broker": patient.broker,
        "parts": patient.parts,
        "quota": patient.quota,
        "leads": patient.leads,
    }
    for name, check in checks.items():
        try:
            yield from check()
        except (SyncError, SQLAlchemyError, OSError) as error:
            yield _failed(name, error)


def _failed(check: str, error: Exception) -> Finding:
    """What kept a check from being made; quotes no statement and no address with its password."""
    if isinstance(error, ConfigurationError):
        return Finding(check, "problem", error.message, error.remedy)
    if isinstance(error, SideUnavailable):
        return findings.unavailable(check, error)
    if isinstance(error, SQLAlchemyError):
        message = f"The database of SYNC_DATABASE_URL cannot be used ({type(error).__name__})."
        return Finding(check, "problem", message, "Does it run, and is the address right?")
    return Finding(check, "problem", f"{error}.".replace("..", "."), "Try again, then look there.")


class _Patient:
    """One installation. A check that raises is reported as failed; others go on.

    Args:
        settings: as they are.
        accept: as the command's option.
    """

    def __init__(self, settings: Settings, *, accept: bool) -> None:
        self._settings = settings
        self._accept = accept

    def settings(self) -> Iterator[Finding]:
        missing = 0
        for name in (*ACCOUNTS, "KOMMO_WEBHOOK_SECRET", "AIRTABLE_WEBHOOK_SECRET"):
            try:
                self._settings.require(name)
            except ConfigurationError as error:
                missing += 1
                yield _failed("settings", error)
        if not missing:
            yield Finding("settings", "ok", "All that is needed is set.")

    def sync_yaml(self) -> Iterator[Finding]:
        config = self._settings.load_config()
        counted = f"{len(config.fields)} fields, {len(config.links)} links"
        yield Finding("sync.yaml", "ok", f"{self._settings.sync_config} is readable: {counted}.")

    def database(self) -> Iterator[Finding]:
        from kommo_airtable_sync.opening import open_database

        with closing(open_database(self._settings)) as database:
            kind = "SQLite" if database.is_sqlite else "PostgreSQL"
            yield Finding("database", "ok", f"{kind} answers, its tables are of this version.")

    def kommo(self) -> Iterator[Finding]:
        from kommo_airtable_sync.opening import SystemClock, open_database
        from kommo_airtable_sync.store.consents import Consents

        client = self._kommo
        account = client.account()
        yield Finding("kommo", "ok", f"Kommo answers: account {account.get('name')!r}.")
        yield findings.kommo_rights(lists_users=client.users() is not None)
        now = SystemClock().now()
        if self._settings.uses_oauth:
            with closing(open_database(self._settings)) as database:
                consent = Consents(database, self._settings.kommo_url).load()
            if consent is not None:
                yield findings.consent(consent, now)
            return
        ends = findings.token_end(self._settings.kommo_token.get_secret_value(), now)
        if ends is not None:
            yield ends

    def airtable(self) -> Iterator[Finding]:
        from kommo_airtable_sync.core.schemas import AirtableSchema

        client = self._airtable
        client.user_id()
        # Where the bases are not listed, what follows shows whether this one opens.
        with suppress(ConfigurationError):
            role = findings.airtable_role(client.role())
            yield role
            if role.level == "problem":
                return
        base = AirtableSchema.from_api(client.tables())
        table = base.find_table(self._settings.load_config().airtable.table)
        if table is None:
            return  # the schema's check says so
        next(client.record_pages(table.id, [table.fields[0].id]), None)
        if client.may_write(table.id):
            yield Finding("airtable", "ok", "The token reads and writes records.")
        else:
            message = "AIRTABLE_TOKEN lacks the scope data.records:write."
            yield Finding("airtable", "problem", message, "Add it to the token.")

    def clock(self) -> Iterator[Finding]:
        # By the answers to what was asked before; who did not answer was named there.
        with suppress(SyncError):
            yield findings.clock_skew("Kommo", self._kommo.server_ahead_seconds)
        with suppress(SyncError):
            yield findings.clock_skew("Airtable", self._airtable.server_ahead_seconds)

    def schema(self) -> Iterator[Finding]:
        from kommo_airtable_sync.engine.drift import look

        found = look(self._engine, accept=self._accept)
        yield from found
        if findings.worst(found) == "ok":
            yield Finding("schema", "ok", "sync.yaml fits both accounts; neither has changed.")
        elif not self._accept:
            remedy = f"Once seen to: {CLI} doctor --accept (or a changed sync.yaml) ends this list."
            yield Finding("schema", "warning", "The accounts have changed, see above.", remedy)

    def webhooks(self) -> Iterator[Finding]:
        from kommo_airtable_sync.engine.registration import SIDES

        self._settings.require("KOMMO_WEBHOOK_SECRET")
        secret = self._settings.kommo_webhook_secret.get_secret_value()
        engine = self._engine
        for side, registered in SIDES.items():
            try:
                there = registered(engine, secret)
            except ConfigurationError as denied:
                yield findings.webhooks_hidden(side, denied.message)
                continue
            for each in there:
                yield findings.webhook(side, each.state, each.address)
            if not there:
                yield findings.no_webhook(side)

    def broker(self) -> Iterator[Finding]:
        from kommo_airtable_sync.runtime.celery_app import broker_trouble

        if self._settings.broker_url.startswith("filesystem"):
            good = os.access(self._settings.home, os.W_OK)
            if good:
                yield Finding("broker", "ok", "Folders in DAGSTER_HOME, enough for one machine.")
            else:
                yield Finding("broker", "problem", "DAGSTER_HOME cannot be written.", "Own it.")
            return
        trouble = broker_trouble(self._settings)
        if trouble:
            message = f"CELERY_BROKER_URL does not answer ({trouble})."
            yield Finding("broker", "problem", message, "Does it run, and is the address right?")
        else:
            yield Finding("broker", "ok", "CELERY_BROKER_URL answers.")

    def parts(self) -> Iterator[Finding]:
        from kommo_airtable_sync.runtime.up import readiness

        yield from findings.parts_running(readiness(self._settings))

    def quota(self) -> Iterator[Finding]:
        from kommo_airtable_sync.store.limiter import month_so_far

        yield findings.quota(month_so_far(self._limiter, self._settings.monthly_quota))

    def leads(self) -> Iterator[Finding]:
        from kommo_airtable_sync.engine.reconcile import last_report
        from kommo_airtable_sync.opening import open_database
        from kommo_airtable_sync.store.runners import Runners

        with closing(open_database(self._settings)) as database:
            if last_report(database) is None:
                remedy = f"Run {CLI} plan to see what it does, then {CLI} reconcile."
                yield Finding("leads", "warning", "Leads were never loaded.", remedy)
            else:
                yield Finding("leads", "ok", "Leads have been loaded.")
            for side, pause in Runners(database).pauses().items():
                message = f"Calls to {side} are paused ({pause.reason}): {pause.detail}"
                yield Finding("leads", "problem", message, "It is tried again by itself.")

    # ---------------------------------------------------------------- tools, made when needed

    @cached_property
    def _limiter(self) -> Database:
        from kommo_airtable_sync.opening import open_limiter

        return open_limiter(self._settings)

    @cached_property
    def _kommo(self) -> KommoClient:
        from kommo_airtable_sync.assembly import budgets, kommo_client
        from kommo_airtable_sync.core.types import LIVE

        return kommo_client(self._settings, budgets(self._settings, self._limiter, LIVE)[0])

    @cached_property
    def _airtable(self) -> AirtableClient:
        from kommo_airtable_sync.assembly import airtable_client, budgets
        from kommo_airtable_sync.core.types import LIVE

        return airtable_client(self._settings, budgets(self._settings, self._limiter, LIVE)[1])

    @cached_property
    def _engine(self) -> Engine:
        from kommo_airtable_sync.assembly import build_engine
        from kommo_airtable_sync.core.types import LIVE

        return build_engine(self._settings, LIVE)
