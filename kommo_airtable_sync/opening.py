"""The clock and the stores of these settings, for processes that need no engine.

Apart from the assembly of an engine: its clients would cost the receiver 20 MB (decisions/0012).
"""

from __future__ import annotations

import time
from datetime import datetime, timezone

from kommo_airtable_sync.settings import Settings
from kommo_airtable_sync.store.database import Database


class SystemClock:
    """The machine's own time."""

    def now(self) -> datetime:
        """The present, aware UTC."""
        return datetime.now(timezone.utc)

    def sleep(self, seconds: float) -> None:
        """Block this thread."""
        time.sleep(seconds)


def open_database(settings: Settings) -> Database:
    """The store, migrated to this version."""
    database = Database(settings.database_url, SystemClock())
    database.migrate()
    return database


def open_limiter(settings: Settings) -> Database:
    """The rate budgets' store."""
    return Database(settings.limiter_url, SystemClock(), durable=False)
