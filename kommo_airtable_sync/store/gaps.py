"""Times in which nobody listened to the webhooks: found, kept, and left to a reconciliation."""

from __future__ import annotations

import sqlalchemy as sa

from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.documents import Documents
from kommo_airtable_sync.store.schema import documents
from kommo_airtable_sync.store.standing import database_now

BEAT = "receiver beat"
GAP = "gap since"
BEAT_SECONDS = 15.0
# A restart is no gap: both sides' senders try again for longer, or it is over before they notice.
GAP_SECONDS = 120.0


class Gaps:
    """The receiver's heartbeat and the gap that no reconciliation has been asked for yet."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._documents = Documents(database)

    def beat(self) -> None:
        """Say that webhooks are listened to. If nobody said so for long, that was a gap.

        Raises:
            StoreError: if it cannot be stored.
        """
        silent = self._documents.age_seconds(BEAT)
        if silent is not None and silent > GAP_SECONDS:
            self.note(database_now(self._database) - silent)
        self._documents.put(BEAT, "")

    def note(self, since: float) -> None:
        """Nobody may have listened since then (seconds since the epoch); the earliest counts."""
        known = self.since()
        if known is None or since < known:
            self._documents.put(GAP, repr(since))

    def since(self) -> float | None:
        """When the gap began that is still to be looked through; None without one."""
        body = self._documents.get(GAP)
        return None if body is None else float(body)

    def clear(self, since: float) -> None:
        """That gap is taken care of; one that was noted meanwhile stays."""
        with self._database.write() as connection:
            connection.execute(
                sa.delete(documents).where(documents.c.name == GAP, documents.c.body == repr(since))
            )
