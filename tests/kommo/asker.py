"""What each process of the tests of access does; imports little, so that processes start fast."""

from __future__ import annotations

import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

from kommo_airtable_sync.core.oauth import Grant
from kommo_airtable_sync.kommo.access import Integration, KommoAccess
from kommo_airtable_sync.sandbox.kommo.oauth import CLIENT_ID, CLIENT_SECRET, REDIRECT_URI
from kommo_airtable_sync.store.consents import Consents
from kommo_airtable_sync.store.database import Database
from tests.kommo.loopback import CountingBudget
from tests.store.caller import WallClock

LEASE_SECONDS = 2.0


def access(url: str, database: Database, refresh_token: str = "", **more: object) -> KommoAccess:
    integration = Integration(CLIENT_ID, CLIENT_SECRET, REDIRECT_URI, refresh_token)
    clock = more.get("clock") or WallClock()
    store = more.get("store") or Consents(database, url, lease_seconds=LEASE_SECONDS)
    return KommoAccess(url, integration, store, CountingBudget(), clock, timeout=(0.9, 0.9))


def ask(url: str, database_url: str, refresh_token: str, together: Barrier, said: Queue) -> None:
    mine = access(url, Database(database_url, WallClock()), refresh_token)
    together.wait(60)
    said.put(mine.token())


class Hanging(Consents):
    """Never gets to store what it was granted."""

    said: Queue

    def keep(self, grant: Grant, generation: int | None) -> bool:
        self.said.put("answered")
        time.sleep(60)  # it is killed here
        return False


def ask_and_hang(url: str, database_url: str, refresh_token: str, said: Queue) -> None:
    database = Database(database_url, WallClock())
    store = Hanging(database, url, lease_seconds=LEASE_SECONDS)
    store.said = said
    access(url, database, refresh_token, store=store).token()
