"""What each process of the limiter's test does; imports little, so that processes start fast."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.limiter import SqlBudget


class WallClock:
    def now(self) -> datetime:
        return datetime.now(timezone.utc)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def call_often(url: str, rate: int, calls: int, together: Barrier, started: Queue) -> None:
    budget = SqlBudget(Database(url, WallClock(), durable=False), "airtable", rate)
    together.wait(60)
    for _ in range(calls):
        with budget.slot():
            started.put(time.time())
