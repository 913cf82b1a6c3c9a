"""Which Airtable webhook sent a ping: by its MAC, before anybody looks into the body.

The MAC is over the raw bytes, in hexadecimal (reference/airtable-api 5.3). Every secret is tried,
so the body need not say whose it is; and secrets are kept for a while, so that strangers cannot
make us ask the database as often as they like.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping

FRESH_SECONDS = 60.0
"""A secret that was removed is good for so long at most."""
MISS_SECONDS = 2.0
"""A MAC that fits none may be of a new webhook: then secrets older than this are read again."""

_MAC = re.compile(r"hmac-sha256=([0-9a-f]{64})", re.IGNORECASE)


def mac_of(header: str) -> str | None:
    """The hexadecimal digest in ``X-Airtable-Content-MAC``; None if it holds none."""
    found = _MAC.fullmatch(header.strip())
    return found[1].lower() if found else None


class PingSenders:
    """The secrets of the registered webhooks; belongs to one event loop.

    Args:
        read: gives them by webhook id; called in a thread.
        monotonic: seconds that only grow.
    """

    def __init__(
        self,
        read: Callable[[], Mapping[str, bytes]],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._monotonic = monotonic
        self._secrets: Mapping[str, bytes] = {}
        self._read_at: float | None = None
        self._reading = asyncio.Lock()

    async def find(self, body: bytes, mac: str) -> str | None:
        """The id of the webhook whose secret makes this MAC of the body; None if none does.

        Raises:
            whatever ``read`` does.
        """
        await self._read_if_older(FRESH_SECONDS)
        found = _match(self._secrets, body, mac)
        if found is None and await self._read_if_older(MISS_SECONDS):
            found = _match(self._secrets, body, mac)
        return found

    async def _read_if_older(self, seconds: float) -> bool:
        async with self._reading:
            now = self._monotonic()
            if self._read_at is not None and now - self._read_at < seconds:
                return False
            self._read_at = now
            self._secrets = await asyncio.to_thread(self._read)
            return True


def _match(secrets: Mapping[str, bytes], body: bytes, mac: str) -> str | None:
    # All of them, found or not: the time taken tells nothing.
    fits = [
        webhook_id
        for webhook_id, secret in secrets.items()
        if hmac.compare_digest(hmac.new(secret, body, hashlib.sha256).hexdigest(), mac)
    ]
    return fits[0] if fits else None
