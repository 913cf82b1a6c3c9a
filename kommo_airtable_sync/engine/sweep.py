"""Find runs whose process is gone and give their leads back.

After ``kill -9`` nothing else would: Dagster and Celery both go on believing in the run.
"""

from __future__ import annotations

import logging

from kommo_airtable_sync.engine.context import LEASE_SECONDS
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.runners import STALE_SECONDS, Runner, Runners
from kommo_airtable_sync.store.set_back import mend_times

log = logging.getLogger(__name__)


def heed_set_back_clock(database: Database) -> None:
    """Nothing that a fast clock has put off for hours stays so, once it is put right."""
    if mend_times(database, LEASE_SECONDS):
        log.warning("the clock was set back; what was to wait for it is due now")


def dead_runners(runners: Runners) -> list[Runner]:
    """Registered runners that have not beaten for too long."""
    return [item for item in runners.all() if item.heartbeat_age_seconds > STALE_SECONDS]


def bury(runner: Runner, runners: Runners, inbox: Inbox) -> int:
    """Free what a dead runner held; returns the number of keys."""
    freed = inbox.release_run(runner.run_id)
    runners.leave(runner.run_id)
    return freed
