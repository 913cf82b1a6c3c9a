"""What every step of the engine works with, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field

from kommo_airtable_sync.airtable.client import AirtableClient
from kommo_airtable_sync.core.config import SyncConfig
from kommo_airtable_sync.core.ports import Clock
from kommo_airtable_sync.core.types import Priority
from kommo_airtable_sync.engine.batch import Batch
from kommo_airtable_sync.engine.directory import Directory
from kommo_airtable_sync.engine.enrich import Enricher
from kommo_airtable_sync.kommo.client import KommoClient
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.journal import Journal
from kommo_airtable_sync.store.limiter import SqlBudget
from kommo_airtable_sync.store.runners import Runners

# A call to either API ends after at most connect + read time-out (18.05 s); a lease must outlive
# it, and a lead to which a request went unanswered is left alone for as long (design 3.3).
CALL_SECONDS_MAX = 20.0
LEASE_SECONDS = 60.0
HEARTBEAT_SECONDS = 1.0
LEADS_PER_BATCH = 50
LEADS_PER_BULK_BATCH = 10
LEADS_PER_PATCH = 50
RECORDS_PER_WRITE = 10
# Requests on their way to Airtable at once: one at a time would leave a fifth of its budget unused.
WRITES_IN_FLIGHT = 3


@dataclass
class Engine:
    """Clients, store, mapping and clock of one lane in one process.

    Args:
        executor: makes API calls side by side; nothing else is done in its threads.
        jitter: dice in [0, 1), so that a crowd of retries does not arrive together.
    """

    config: SyncConfig
    lane: Priority
    clock: Clock
    database: Database
    limiter: Database
    kommo: KommoClient
    airtable: AirtableClient
    kommo_budget: SqlBudget
    airtable_budget: SqlBudget
    inbox: Inbox
    journal: Journal
    runners: Runners
    directory: Directory
    executor: Executor
    enricher: Enricher
    stop_requested: Callable[[], bool] = field(default=lambda: False)
    jitter: Callable[[], float] = field(default=random.random)
    batches: dict[int, Batch] = field(default_factory=dict[int, Batch])

    @property
    def calls(self) -> tuple[int, int]:
        """API calls made so far to Kommo and to Airtable."""
        return self.kommo_budget.calls, self.airtable_budget.calls

    def seconds(self) -> float:
        """Now, in seconds since the epoch."""
        return self.clock.now().timestamp()
