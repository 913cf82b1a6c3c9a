"""The heartbeat of a run: it says that the run lives and keeps its leases, API waits included."""

from __future__ import annotations

import logging
import os
import socket
import threading

from kommo_airtable_sync.core.errors import LeaseLost
from kommo_airtable_sync.engine.context import HEARTBEAT_SECONDS, LEASE_SECONDS, Engine
from kommo_airtable_sync.store.database import StoreError
from kommo_airtable_sync.store.runners import RunnerState

log = logging.getLogger(__name__)


class Heart:
    """A daemon thread that beats for one run.

    Args:
        engine: whose lane and store.
        run_id: the Dagster run.
    """

    def __init__(self, engine: Engine, run_id: str) -> None:
        self._engine = engine
        self._run_id = run_id
        self._state: RunnerState = "standby"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"heart-{run_id[:8]}", daemon=True)

    def start(self) -> None:
        """Beat once, then on until ``stop``."""
        self.beat()
        self._thread.start()

    def stop(self) -> None:
        """Beat no more; the last state stays written."""
        self._over.set()
        self._thread.join(timeout=2 * HEARTBEAT_SECONDS)

    @property
    def state(self) -> RunnerState:
        """What this run is to its lane at the moment."""
        return self._state

    def become(self, state: RunnerState) -> None:
        """Change the state and say so at once."""
        self._state = state
        self.beat()

    def beat(self) -> None:
        """One heartbeat; the answer may be that another run has taken the lane over."""
        self._state = self._engine.runners.beat(
            self._run_id, self._engine.lane, socket.gethostname(), os.getpid(), self._state
        )

    def _run(self) -> None:
        while not self._over.wait(HEARTBEAT_SECONDS):
            try:
                self.beat()
                self._renew()
            except StoreError as error:
                # The next beat may get through; if none does, the sweep takes over, rightly.
                log.warning("heartbeat of run %s failed: %s", self._run_id, error)

    def _renew(self) -> None:
        for batch_id, batch in list(self._engine.batches.items()):
            if batch.run_id != self._run_id:
                continue
            try:
                self._engine.inbox.renew(batch_id, LEASE_SECONDS)
            except LeaseLost:
                log.debug("batch %d is settled or lost", batch_id)
