"""The Celery app that launcher and workers share: Dagster's own, on our broker."""

# Dagster's and Celery's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false

from __future__ import annotations

from typing import Any

from celery import Celery
from dagster_celery.config import DEFAULT_CONFIG
from dagster_celery.make_app import make_app
from kombu.exceptions import OperationalError

from kommo_airtable_sync.runtime.broker import use_whole_messages
from kommo_airtable_sync.runtime.instance import celery_folders
from kommo_airtable_sync.settings import Settings

POLLING_SECONDS = {"live": 0.02, "bulk": 0.25}
"""Looks at the filesystem transport's folder."""
LINGER_MARGIN_SECONDS = 3600.0


def build_celery(settings: Settings, linger_seconds: float = 0.0, queue: str = "live") -> Celery:
    """A Celery app for one process."""
    return make_app(app_args=celery_args(settings, linger_seconds, queue))


def celery_args(
    settings: Settings, linger_seconds: float = 0.0, queue: str = "live"
) -> dict[str, Any]:
    """Constructor arguments of the app, in the shape that dagster-celery expects."""
    return {
        "broker": settings.broker_url,
        "backend": settings.result_backend,
        "config_source": {
            **DEFAULT_CONFIG,
            "broker_transport_options": _transport_options(settings, linger_seconds, queue),
            "broker_connection_retry_on_startup": True,
            "worker_hijack_root_logger": False,
            "worker_send_task_events": False,
            "result_expires": 86_400,
            "task_default_queue": "live",
        },
    }


def broker_trouble(settings: Settings) -> str:
    """What keeps the broker from being reached, ``""`` if it answers; quotes no address."""
    try:
        with build_celery(settings).connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0)
    except (OperationalError, ImportError, KeyError, ValueError) as error:
        return type(error).__name__
    return ""


def _transport_options(settings: Settings, linger_seconds: float, queue: str) -> dict[str, Any]:
    if settings.broker_url.startswith("filesystem"):
        use_whole_messages()
        messages, control, _ = celery_folders(settings.home)
        return {
            "data_folder_in": str(messages),
            "data_folder_out": str(messages),
            "control_folder": str(control),
            "polling_interval": POLLING_SECONDS[queue],
            "store_processed": False,
        }
    # A lingering run must not look lost to the broker and be delivered a second time.
    return {
        "max_retries": 3,
        "interval_start": 0,
        "interval_step": 0.2,
        "interval_max": 0.5,
        "visibility_timeout": int(2 * linger_seconds + LINGER_MARGIN_SECONDS),
    }
