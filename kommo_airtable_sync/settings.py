"""Settings from the environment or ``.env``; ``.env.example`` lists them all (contract 3).

Nothing is read at import. Secrets are ``SecretStr``: no repr, log or error shows them.
"""

from __future__ import annotations

import hashlib
import os
import re
from functools import cached_property
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from kommo_airtable_sync.core.config import SyncConfig, parse_config
from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.core.quota import MonthlyQuota
from kommo_airtable_sync.store.database import with_driver

SECRET_CHARACTERS_MIN = 16
ACCOUNTS = ("KOMMO_SUBDOMAIN", "KOMMO_TOKEN", "AIRTABLE_TOKEN", "AIRTABLE_BASE_ID")
"""What leads to both accounts."""
OAUTH = ("KOMMO_CLIENT_ID", "KOMMO_CLIENT_SECRET", "KOMMO_REDIRECT_URI")


class Settings(BaseSettings):
    """Every setting that the product knows, with the contract's defaults."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    kommo_subdomain: str = ""
    kommo_base_url: str = ""
    kommo_token: SecretStr = SecretStr("")
    kommo_client_id: str = ""
    kommo_client_secret: SecretStr = SecretStr("")
    kommo_redirect_uri: str = ""
    kommo_refresh_token: SecretStr = SecretStr("")
    airtable_token: SecretStr = SecretStr("")
    airtable_base_id: str = ""
    airtable_endpoint_url: str = "https://api.airtable.com"
    kommo_webhook_secret: SecretStr = SecretStr("")
    airtable_webhook_secret: SecretStr = SecretStr("")
    sync_config: Path = Path("sync.yaml")
    sync_database_url: str = ""
    dagster_home: Path = Path(".dagster_home")
    dagster_postgres_url: SecretStr = SecretStr("")
    celery_broker_url: str = ""
    celery_result_backend: str = ""
    status_page_password: SecretStr = SecretStr("")
    dagster_ui_url: str = ""
    metrics_token: SecretStr = SecretStr("")
    alert_webhook_url: SecretStr = SecretStr("")
    receiver_host: str = "127.0.0.1"
    receiver_port: int = Field(8080, ge=0, le=65535)
    dagster_port: int = Field(3000, ge=0, le=65535)
    kommo_requests_per_second: int = Field(7, ge=1, le=1000)
    airtable_requests_per_second: int = Field(5, ge=1, le=1000)
    airtable_monthly_calls: int | None = Field(None, ge=1)
    # Set by `up` for its children: the stop flag that sensor, linger and workers watch.
    sync_stop_file: Path | None = None

    @cached_property
    def home(self) -> Path:
        """DAGSTER_HOME, absolute."""
        return self.dagster_home.expanduser().resolve()

    @property
    def database_url(self) -> str:
        """Where inbox, journal and ledger live."""
        return self.sync_database_url or f"sqlite:///{self.home / 'sync.db'}"

    @property
    def limiter_url(self) -> str:
        """Where the rate budgets live: a file of their own beside an SQLite store."""
        url = self.database_url
        return f"{url.removesuffix('.db')}-limits.db" if url.startswith("sqlite") else url

    @property
    def broker_url(self) -> str:
        """Celery's broker; folders under DAGSTER_HOME unless one is named."""
        return self.celery_broker_url or "filesystem://"

    @property
    def result_backend(self) -> str:
        """Celery's result backend; a folder under DAGSTER_HOME unless one is named."""
        return self.celery_result_backend or f"file://{self.home / 'celery' / 'results'}"

    @property
    def monthly_quota(self) -> MonthlyQuota:
        """Airtable's calls a month, as far as they are governed."""
        return MonthlyQuota(self.airtable_base_id, self.airtable_monthly_calls)

    @property
    def kommo_url(self) -> str:
        """The Kommo account's address, without a trailing slash.

        Raises:
            ConfigurationError: if neither setting names an account.
        """
        if self.kommo_base_url:
            return self.kommo_base_url.rstrip("/")
        remedy = "Set it to the first part of your account's address (SUBDOMAIN.kommo.com)."
        if not self.kommo_subdomain:
            raise ConfigurationError("KOMMO_SUBDOMAIN is not set.", remedy)
        if not re.fullmatch(r"[A-Za-z0-9-]+", self.kommo_subdomain):
            raise ConfigurationError("KOMMO_SUBDOMAIN is more than a subdomain.", remedy)
        return f"https://{self.kommo_subdomain}.kommo.com"

    @property
    def ui_url(self) -> str:
        """Where people find the Dagster UI."""
        return self.dagster_ui_url or f"http://127.0.0.1:{self.dagster_port}"

    @property
    def uses_oauth(self) -> bool:
        """Whether access to Kommo is by OAuth; a long-lived token wins where both are set."""
        return bool(self.kommo_client_id) and not self.kommo_token.get_secret_value()

    def require(self, *names: str) -> None:
        """Make sure that these settings are given and can be right.

        OAuth's three stand in for KOMMO_TOKEN, and KOMMO_BASE_URL for KOMMO_SUBDOMAIN.

        Raises:
            ConfigurationError: naming every missing one, or the one that is wrong.
        """
        missing: list[str] = []
        wanted = [
            each
            for name in names
            for each in (OAUTH if name == "KOMMO_TOKEN" and self.uses_oauth else (name,))
        ]
        for name in wanted:
            value = getattr(self, name.lower())
            text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            if name == "KOMMO_SUBDOMAIN" and self.kommo_base_url:
                continue
            if not text:
                missing.append(name)
            elif name == "KOMMO_SUBDOMAIN":
                _ = self.kommo_url
            elif name == "AIRTABLE_BASE_ID" and not re.fullmatch(r"[\w-]+", text):
                raise ConfigurationError(
                    "AIRTABLE_BASE_ID is not the id of a base.",
                    "Set only the part of its address that begins with app.",
                )
            elif name.endswith("_WEBHOOK_SECRET") and len(text) < SECRET_CHARACTERS_MIN:
                raise ConfigurationError(
                    f"{name} is shorter than {SECRET_CHARACTERS_MIN} characters.",
                    "Set a long random one, e.g. from `openssl rand -hex 24`.",
                )
        if missing:
            raise ConfigurationError(
                f"Not set: {', '.join(missing)}.",
                "Set them in the environment or in .env (see .env.example).",
            )

    def load_config(self) -> SyncConfig:
        """Read and check ``sync.yaml``.

        Raises:
            ConfigurationError: if it is missing, unreadable or wrong, with the offending path.
        """
        try:
            text = self.sync_config.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(
                f"SYNC_CONFIG {self.sync_config} cannot be read: {error.strerror}.",
                "Run `kommo-airtable-sync init`, or copy sync.example.yaml and adapt it.",
            ) from error
        return parse_config(text, source=str(self.sync_config))

    def fingerprint(self) -> str:
        """Changes with any setting, secrets included, and shows none."""
        values = [
            value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for _, value in sorted(self.__dict__.items())
        ]
        return hashlib.sha256("\0".join(values).encode()).hexdigest()

    def mark_ready(self, part: str) -> None:
        """Leave our process id where ``status`` looks for it; never a half-written one."""
        folder = self.home / "run"
        folder.mkdir(mode=0o700, exist_ok=True)
        draft = folder / f"{part}.{os.getpid()}"
        draft.write_text(str(os.getpid()), encoding="ascii")
        draft.replace(folder / f"{part}.ready")

    def stop_requested(self) -> bool:
        """Whether the supervisor asked everything to come to an end."""
        return self.sync_stop_file is not None and self.sync_stop_file.exists()


def load_settings() -> Settings:
    """Settings of this process, and its home made.

    Raises:
        ConfigurationError: naming each setting with a bad value (never the value).
    """
    settings = read_settings()
    make_home(settings)
    return settings


def make_home(settings: Settings) -> None:
    """DAGSTER_HOME, for its owner's eyes only.

    Raises:
        ConfigurationError: if it cannot be made, or not be written.
    """
    home = settings.home
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        trouble = "" if os.access(home, os.W_OK) else "this user may not write there"
    except OSError as error:
        trouble = str(error.strerror)
    if trouble:
        raise ConfigurationError(
            f"DAGSTER_HOME {home} cannot be used: {trouble}.",
            "Name a folder that this user may write to.",
        )


def read_settings() -> Settings:
    """Settings of this process; nothing is made.

    Raises:
        ConfigurationError: naming each setting with a bad value (never the value).
    """
    try:
        settings = Settings.model_validate({})
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']).upper()}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
        )
        raise ConfigurationError(f"Settings are wrong: {problems}.", "See .env.example.") from None
    return settings


def child_environment(settings: Settings) -> dict[str, str]:
    """The environment of a child process: ours, with what Dagster itself reads from there."""
    url = settings.dagster_postgres_url.get_secret_value()
    storage = {"DAGSTER_POSTGRES_URL": with_driver(url)} if url else {}
    return {**os.environ, "DAGSTER_HOME": str(settings.home), **storage}
