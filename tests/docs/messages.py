"""Each message of docs/troubleshooting.md, made by the code that makes it for people."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import requests
from pydantic import SecretStr

from kommo_airtable_sync.airtable import errors as airtable_errors
from kommo_airtable_sync.airtable.client import AirtableClient
from kommo_airtable_sync.cli.webhooks import base_address
from kommo_airtable_sync.core import findings
from kommo_airtable_sync.core.config import parse_config
from kommo_airtable_sync.core.errors import SyncError
from kommo_airtable_sync.core.mapping import resolve
from kommo_airtable_sync.core.oauth import Consent, Grant
from kommo_airtable_sync.core.quota import QuotaReport
from kommo_airtable_sync.engine.reconcile import read_plan
from kommo_airtable_sync.kommo import errors as kommo_errors
from kommo_airtable_sync.kommo.access import Integration, KommoAccess
from kommo_airtable_sync.kommo.client import KommoClient
from kommo_airtable_sync.runtime.instance import prepare_home
from kommo_airtable_sync.runtime.leftovers import only_one
from kommo_airtable_sync.runtime.receiving import require_free_port, status_routes
from kommo_airtable_sync.settings import Settings, make_home, read_settings
from kommo_airtable_sync.store.consents import Consents
from kommo_airtable_sync.store.database import Database
from tests.conftest import HandClock
from tests.core.accounts import BASE_URL, airtable_schema, config_text, kommo_schema
from tests.kommo.loopback import CountingBudget
from tests.simulated import World

NOW = datetime(2026, 3, 2, 9, tzinfo=timezone.utc)
NAME = "airtable: Deal Name, kommo: name"
Cases = dict[str, Callable[[], object]]


def said(act: Callable[[], object]) -> str:
    """What a person reads: of an error its sentence and remedy, of a finding its message."""
    try:
        done = act()
    except SyncError as error:
        done = error
    except SystemExit:
        raise AssertionError("it ended without a sentence") from None
    if isinstance(done, SyncError):
        return str(done)
    if isinstance(done, findings.Finding):
        return f"{done.message} {done.remedy}"
    assert isinstance(done, str), done
    return done


def settings(**changes: Any) -> Settings:
    return Settings(_env_file=None, **changes)


def of_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cases:
    home = tmp_path / "home"

    def wrong_number() -> object:
        monkeypatch.setenv("RECEIVER_PORT", "many")
        try:
            return read_settings()
        finally:
            monkeypatch.delenv("RECEIVER_PORT")

    def other_storage() -> object:
        home.mkdir(exist_ok=True)
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        return prepare_home(
            settings(dagster_home=home, dagster_postgres_url=SecretStr("postgresql://x/y"))
        )

    def taken_port() -> object:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            return require_free_port("RECEIVER_PORT", "127.0.0.1", taken.getsockname()[1])

    def newer() -> object:
        database = Database(f"sqlite:///{tmp_path / 'newer.db'}", HandClock())
        database.migrate()
        with database.write() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        try:
            return database.migrate()
        finally:
            database.close()

    def no_revision() -> object:
        database = Database(f"sqlite:///{tmp_path / 'fresh.db'}", HandClock())
        try:
            return database.downgrade("0815")
        finally:
            database.close()

    def second_up() -> object:
        mine = settings(dagster_home=tmp_path)
        with only_one(mine):
            return only_one(mine)

    def home_in_the_way() -> object:
        (tmp_path / "file").write_text("")
        return make_home(settings(dagster_home=tmp_path / "file" / "home"))

    short = SecretStr("short")
    return {
        "no account": lambda: settings().kommo_url,
        "address": lambda: settings(kommo_subdomain="https://acme.kommo.com").kommo_url,
        "base": lambda: settings(airtable_base_id="https://airtable.com/appX").require(
            "AIRTABLE_BASE_ID"
        ),
        "home": home_in_the_way,
        "second up": second_up,
        "missing": lambda: settings().require("AIRTABLE_TOKEN", "AIRTABLE_BASE_ID"),
        "short secret": lambda: settings(kommo_webhook_secret=short).require(
            "KOMMO_WEBHOOK_SECRET"
        ),
        "wrong number": wrong_number,
        "no sync.yaml": lambda: settings(sync_config=tmp_path / "none.yaml").load_config(),
        "short password": lambda: status_routes(
            settings(status_page_password=short),
            None,
            None,  # type: ignore[arg-type]
        ),
        "port": taken_port,
        "dagster.yaml": other_storage,
        "no database": lambda: Database("mysql://x", HandClock()),
        "no folder": lambda: Database(f"sqlite:///{tmp_path}/none/sync.db", HandClock()),
        "newer": newer,
        "no revision": no_revision,
        "url": lambda: base_address("ftp://sync.example.com"),
    }


def of_sync_yaml(tmp_path: Path) -> Cases:
    def load(*fields: str, kommo: str = "{}", airtable: str = "", more: str = "") -> object:
        text = config_text(*fields, kommo=kommo, airtable=airtable) + more
        return resolve(
            parse_config(text, "sync.yaml"), kommo_schema(), airtable_schema(),
            base_url=BASE_URL, source="sync.yaml",
        )  # fmt: skip

    def plan(text: str) -> object:
        path = tmp_path / "plan.json"
        path.write_text(text)
        return read_plan(path, parse_config(config_text(NAME)))

    empty_plan = {"version": 1, "findings": [], "sync_yaml": "another"}
    return {
        "yaml": lambda: parse_config("fields: [", "sync.yaml"),
        "twice": lambda: parse_config("version: 1\nversion: 1\n", "sync.yaml"),
        "key": lambda: load(NAME, more="\nkomo: {}\n"),
        "value": lambda: load(f"{NAME}, owner: kommmo"),
        "no fields": lambda: parse_config(
            "version: 1\nairtable: {table: D, key_field: K}\nfields: []", "sync.yaml"
        ),
        "is missing": lambda: parse_config("version: 1\nfields: []", "sync.yaml"),
        "zone": lambda: load(NAME, more="\nreconcile: {timezone: Europe/Berln}\n"),
        "cron": lambda: load(NAME, more="\nreconcile: {cron: at night}\n"),
        "no such field": lambda: load("airtable: Deal Nam, kommo: name"),
        "no such source": lambda: load("airtable: Deal Name, kommo: {custom_field: Regoin}"),
        "twins": lambda: load("airtable: Deal Name, kommo: {custom_field: Twin}"),
        "pipeline": lambda: load(NAME, kommo="{include: {pipelines: [Slaes]}}"),
        "pair": lambda: load("airtable: Deal Name, kommo: name", "airtable: Amount, kommo: tags"),
        "read-only": lambda: load("airtable: Deal Name, kommo: id, owner: airtable"),
        "target twice": lambda: load(NAME, "airtable: Deal Name, kommo: url"),
        "not a plan": lambda: plan("[]"),
        "old plan": lambda: plan(json.dumps(empty_plan | {"version": 0})),
        "another sync.yaml": lambda: plan(json.dumps(empty_plan)),
    }


def of_accounts(tmp_path: Path, clock: HandClock) -> Cases:
    def access(code: str | None) -> object:
        database = Database(f"sqlite:///{tmp_path / 'consents.db'}", clock)
        database.migrate()
        store = Consents(database, "https://x.test")
        mine = KommoAccess(
            "https://x.test", Integration("i", "s", "u"), store, CountingBudget(), clock
        )
        try:
            return mine.token() if code is None else mine.authorize(code)
        finally:
            database.close()

    def kommo(status: int, body: object, kind: str = "application/problem+json") -> object:
        text = body if isinstance(body, str) else json.dumps(body)
        return kommo_errors.classify(status, {}, text, kind)

    def airtable(status: int, code: str, message: str = "") -> object:
        body = {"error": {"type": code, "message": message}}
        return airtable_errors.classify(status, {}, json.dumps(body), "application/json")

    problem = {"title": "Unauthorized", "status": 401, "detail": "Invalid user name or password"}
    return {
        "no consent": lambda: access(None),
        "no code": lambda: access("https://sync.example.com/?error=access_denied"),
        "kommo token": lambda: KommoClient(
            "https://x.test", lambda: "two words", CountingBudget(), clock=clock
        ).account(),
        "airtable token": lambda: AirtableClient(
            "two words", "appX", "https://x.test", CountingBudget(), clock
        ),
        "kommo address": lambda: kommo_errors.classify_lost(requests.exceptions.InvalidURL()),
        "airtable address": lambda: airtable_errors.classify_lost(requests.exceptions.InvalidURL()),
        "kommo unreachable": lambda: kommo_errors.classify_lost(requests.ConnectionError()),
        "airtable timeout": lambda: airtable_errors.classify_lost(requests.ReadTimeout()),
        "kommo 401": lambda: kommo(401, problem),
        "kommo 402": lambda: kommo(402, {"title": "Payment Required", "status": 402}),
        "kommo blocked": lambda: kommo(403, "<html>403 Forbidden</html>", "text/html"),
        "kommo rights": lambda: kommo(403, {"title": "Forbidden", "status": 403, "detail": "no"}),
        "kommo 404": lambda: kommo(404, {"title": "Not Found", "status": 404}),
        "kommo 429": lambda: kommo(429, {"title": "Too Many Requests", "retry_after": 300}),
        "kommo refuses": lambda: kommo(400, {"title": "Bad Request", "validation-errors": [
            {"request_id": "0", "errors": [{"code": "NotSupportedChoice", "path": "status_id",
                                            "detail": "not a valid choice"}]}]}),
        "airtable 401": lambda: airtable(401, "AUTHENTICATION_REQUIRED"),
        "airtable denies": lambda: airtable(403, "INVALID_PERMISSIONS_OR_MODEL_NOT_FOUND", "no"),
        "airtable field gone": lambda: airtable(422, "UNKNOWN_FIELD_NAME", "Unknown field name"),
        "airtable refuses": lambda: airtable(422, "INVALID_VALUE_FOR_COLUMN", "no"),
        "airtable quota": lambda: airtable(429, "PUBLIC_API_BILLING_LIMIT_EXCEEDED", "no"),
        "airtable 429": lambda: airtable(429, "RATE_LIMIT_REACHED", "no"),
    }  # fmt: skip


def of_doctor() -> Cases:
    ends = Grant("a", "r", 0.0, NOW.timestamp() + 3600)
    return {
        "no time": lambda: findings.clock_skew("Kommo", None),
        "clock": lambda: findings.clock_skew("Kommo", 90.0),
        "part": lambda: findings.parts_running({"receiver": True, "sensor": False})[0],
        "nothing runs": lambda: findings.parts_running({"receiver": False})[0],
        "webhook": lambda: findings.webhook("Kommo", "disabled", "https://sync.example.com"),
        "no webhook": lambda: findings.no_webhook("airtable"),
        "rights": lambda: findings.kommo_rights(lists_users=False),
        "no base": lambda: findings.airtable_role("none"),
        "reader": lambda: findings.airtable_role("read"),
        "token ends": lambda: findings.token_end(_jwt(NOW + timedelta(days=3)), NOW),
        "token ended": lambda: findings.token_end(_jwt(NOW - timedelta(days=3)), NOW),
        "consent": lambda: findings.consent(Consent(ends, 1, refused_at=1.0), NOW),
        "quota": lambda: findings.quota(QuotaReport("2026-03", 960, 1000, 1400, "stopped")),
    }


def of_leads(world: World) -> Cases:
    """What `events --state dead` says, and what a held event says."""

    def dead() -> object:
        lead = world.add_lead(name="Refused", price=5)
        refusal = {"field": "Amount", "key": lead}
        world._in_airtable("POST", "refusals", refusal)
        world.sync(patience=3600)
        return world.errors()[0]

    return {"lead refused": dead}


def _jwt(ends: datetime) -> str:
    import base64

    body = base64.urlsafe_b64encode(json.dumps({"exp": int(ends.timestamp())}).encode()).decode()
    return f"e30.{body.rstrip('=')}.x"


def all_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: HandClock, world: World
) -> Iterator[tuple[str, Callable[[], object]]]:
    yield from of_settings(tmp_path, monkeypatch).items()
    yield from of_sync_yaml(tmp_path).items()
    yield from of_accounts(tmp_path, clock).items()
    yield from of_doctor().items()
    yield from of_leads(world).items()
