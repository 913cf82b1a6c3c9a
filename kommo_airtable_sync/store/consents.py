"""The Kommo account's consent in SQL: exchanged by one process at a time."""

from __future__ import annotations

import hashlib
from typing import Any

import sqlalchemy as sa

from kommo_airtable_sync.core.oauth import Consent, Grant
from kommo_airtable_sync.store.database import Connection, Database
from kommo_airtable_sync.store.schema import consents

LEASE_SECONDS = 30.0
"""Longer than the time-outs of one exchange."""
SEEDS_MAX = 50
NOTHING_YET: dict[str, Any] = {
    "generation": 0,
    "access_token": "",
    "refresh_token": "",
    "granted_at": 0.0,
    "expires_at": 0.0,
    "lease_id": 0,
    "seeds": "",
}


class Consents:
    """One account's row.

    Args:
        database: the store.
        account: the account's address.
        lease_seconds: for how long a process that may have died keeps others from exchanging.
    """

    def __init__(
        self, database: Database, account: str, *, lease_seconds: float = LEASE_SECONDS
    ) -> None:
        self._database = database
        self._account = account
        self._lease_seconds = lease_seconds
        self._mine = consents.c.account == account

    def load(self) -> Consent | None:
        """The consent as it stands; None if there never was one."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(consents).where(self._mine)).first()
        return None if row is None or not row.refresh_token else _consent(row)

    def seed(self, refresh_token: str) -> None:
        """Take a refresh token that a person has set, unless it was taken before.

        Ours changes with every exchange while the setting stays: what was taken once is spent.
        """
        if not refresh_token:
            return
        seed = hashlib.sha256(refresh_token.encode()).hexdigest()
        with self._database.read() as connection:
            if seed in self._seeds(connection):
                return
        with self._database.write() as connection:
            self._lock(connection)
            seeds = self._seeds(connection)
            if seed in seeds:
                return
            kept = " ".join([*seeds[-SEEDS_MAX:], seed])
            self._put(connection, Grant("", refresh_token, 0.0, 0.0), seeds=kept)

    def begin(self) -> Consent | None:
        """Take the right to exchange, and note that it is begun; None while another has it."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            free = sa.or_(consents.c.lease_until.is_(None), consents.c.lease_until <= now)
            row = connection.execute(
                sa.update(consents)
                .where(self._mine, free)
                .values(
                    lease_until=now + self._lease_seconds,
                    lease_id=consents.c.lease_id + 1,
                    asked_at=now,
                )
                .returning(*consents.c)
            ).first()
        return None if row is None else _consent(row)

    def keep(self, grant: Grant, generation: int | None) -> bool:
        """Store a grant; the exchange is over.

        Args:
            grant: of the token endpoint.
            generation: on which it was got; None for a person's own consent, which always counts.

        Returns:
            False if another process has stored one since: that one is newer.
        """
        with self._database.write() as connection:
            self._lock(connection)
            here = connection.scalar(sa.select(consents.c.generation).where(self._mine))
            if generation is not None and here != generation:
                return False
            self._put(connection, grant)
        return True

    def give_up(self, lease_id: int, *, refused: bool) -> None:
        """The exchange brought nothing: others may try.

        Args:
            lease_id: of the exchange; one that was taken over meanwhile is none of ours.
            refused: Kommo does not take the refresh token.
        """
        with self._database.write() as connection:
            now = self._database.now(connection)
            connection.execute(
                sa.update(consents)
                .where(self._mine, consents.c.lease_id == lease_id)
                .values(lease_until=None, **({"refused_at": now} if refused else {}))
            )

    def _seeds(self, connection: Connection) -> list[str]:
        found = connection.scalar(sa.select(consents.c.seeds).where(self._mine))
        return str(found or "").split()

    def _lock(self, connection: Connection) -> None:
        # A row that is not there cannot be locked: whoever comes second would not see the first.
        connection.execute(
            self._database.insert(consents)
            .values(account=self._account, **NOTHING_YET)
            .on_conflict_do_nothing()
        )
        connection.execute(sa.select(consents.c.account).where(self._mine).with_for_update())

    def _put(self, connection: Connection, grant: Grant, **more: str) -> None:
        values: dict[str, Any] = {
            "access_token": grant.access_token,
            "refresh_token": grant.refresh_token,
            "granted_at": grant.granted_at,
            "expires_at": grant.expires_at,
            "asked_at": None,
            "refused_at": None,
            "lease_until": None,
            **more,
        }
        connection.execute(
            sa.update(consents)
            .where(self._mine)
            .values(generation=consents.c.generation + 1, **values)
        )


def _consent(row: Any) -> Consent:
    grant = Grant(row.access_token, row.refresh_token, row.granted_at, row.expires_at)
    return Consent(grant, row.generation, row.asked_at, row.refused_at, row.lease_id)
