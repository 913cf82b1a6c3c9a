"""Notices that the wall clock was set back; imports no Dagster, for ``up`` has none."""

from __future__ import annotations

import time

from kommo_airtable_sync.store.set_back import STEP_SECONDS

WATCH = "watch"
"""Argument of ``runtime.ticking``: look for a while."""


class SetBacks:
    """Tells when the wall clock was set back, by the one that nobody can set."""

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def noticed(self) -> bool:
        """Whether it was, since this was last asked."""
        before, self._ahead = self._ahead, time.time() - time.monotonic()
        return self._ahead < before - STEP_SECONDS
