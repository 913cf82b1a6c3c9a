"""The receiver's heartbeat: while it beats, webhooks are listened to."""

from __future__ import annotations

import logging
import threading

from kommo_airtable_sync.store.database import StoreError
from kommo_airtable_sync.store.gaps import BEAT_SECONDS, Gaps

_log = logging.getLogger("kommo_airtable_sync.receiver")


def start_beating(gaps: Gaps, seconds: float = BEAT_SECONDS) -> threading.Event:
    """Beat at once and then on, in a thread that ends with the process.

    Returns:
        Set it to stop.
    """
    over = threading.Event()

    def beat() -> None:
        while True:
            try:
                gaps.beat()
            except StoreError as error:
                # Nor can events be stored now; if it lasts, the next beat finds a gap.
                _log.warning("no heartbeat: %s", type(error).__name__)
            if over.wait(seconds):
                return

    threading.Thread(target=beat, name="receiver-beat", daemon=True).start()
    return over
