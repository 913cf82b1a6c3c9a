"""Where workers call the outside: another may have its turn there, and what passes is checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kommo_airtable_sync.core.errors import LeaseLost
from kommo_airtable_sync.core.overwritten import READ_SECONDS_MAX
from kommo_airtable_sync.engine.context import CALL_SECONDS_MAX, LEASE_SECONDS, Engine
from tests.simulation.stage import Broken, Stage
from tests.trap import Trap

BEAT_SECONDS = 5.0
"""How often a worker renews its leases on its way; when it sleeps, it does not."""

READS = ("kommo.leads_by_id", "airtable.find_records")


class Leases:
    """Who may act on a key, kept beside the store: what the store says is held against it."""

    def __init__(self) -> None:
        self.steps = 0
        self._held: dict[str, tuple[int, float]] = {}
        self._runs: dict[int, str] = {}

    def claimed(self, batch_id: int, run_id: str, keys: Iterable[str], now: float) -> None:
        self._runs[batch_id] = run_id
        for key in keys:
            holder, until = self._held.get(key, (batch_id, 0.0))
            if holder != batch_id and until > now:
                raise Broken("leases", f"{key} is held by {holder}, and {batch_id} gets it too")
            self._held[key] = batch_id, now + LEASE_SECONDS

    def renewed(self, batch_id: int, now: float) -> None:
        for key, (holder, until) in self._held.items():
            if holder == batch_id and until > now:
                self._held[key] = batch_id, now + LEASE_SECONDS

    def swept(self, run_id: str) -> None:
        self._drop(lambda batch_id: self._runs[batch_id] == run_id)

    def freed(self, batch_id: int, keys: Iterable[str]) -> None:
        chosen = set(keys)
        self._drop(lambda holder: holder == batch_id, chosen)

    def _drop(self, ours: Callable[[int], bool], keys: set[str] | None = None) -> None:
        self._held = {
            key: held
            for key, held in self._held.items()
            if not (ours(held[0]) and (keys is None or key in keys))
        }

    def must_hold(
        self, batch_id: int, keys: Iterable[str], now: float, seconds_left: float, what: str
    ) -> None:
        for key in keys:
            holder, until = self._held.get(key, (0, 0.0))
            if holder != batch_id or until < now + seconds_left:
                raise Broken("fencing", f"batch {batch_id} {what} {key}, which it does not hold")


class Doors(Trap):
    """Gives the turn back at every door to the store and the APIs.

    Args:
        stage: whose turns.
        leases: checked against.
        run_id: of the worker that goes through.
    """

    def __init__(self, stage: Stage, leases: Leases, run_id: str) -> None:
        super().__init__()
        self._stage, self._leases, self._run_id = stage, leases, run_id
        self._beaten_at = self._now()
        self._asked_at = self._read_at = self._true()
        self._calls_seconds = 0.0

    def set(self, engine: Engine) -> Engine:
        self._engine = dataclasses.replace(engine, batches={})
        # The directory reads through the clients, which it has already; its doors are theirs.
        return dataclasses.replace(super().set(self._engine), directory=engine.directory)

    def call(self, step: str, act: Callable[[], Any], args: Sequence[Any] = ()) -> Any:
        self._leases.steps += 1
        self._stage.turns.door()
        self._beat()
        begun_at = self._true()
        try:
            result = act()
        finally:
            self._time_call(step, begun_at)
        now = self._now()
        match step:
            case "inbox.claim" if result is not None:
                self._leases.claimed(result.batch_id, self._run_id, result.keys, now)
            case "inbox.rekey":
                self._leases.freed(args[0], args[1])
            case "inbox.settle":
                self._leases.must_hold(args[0], args[1], now, 0.0, "settles")
                self._leases.freed(args[0], args[1])
            case "journal.open":
                self._leases.must_hold(args[0], args[2], now, CALL_SECONDS_MAX, "writes")
                self._must_be_fresh(args[2], args[3])
            case _:
                pass
        return result

    def _time_call(self, step: str, begun_at: float) -> None:
        if step == "kommo.leads_by_id":
            self._asked_at = begun_at
        if step in READS:
            self._read_at, self._calls_seconds = self._true(), 0.0
        elif step.startswith(("kommo.", "airtable.")):
            self._calls_seconds += self._true() - begun_at

    def _must_be_fresh(self, keys: Iterable[str], intents: Iterable[Any]) -> None:
        """What is sent was read a moment ago; unless we stood still, or the clock jumped.

        Several requests to Airtable may follow one reading, however long that took: the time of
        these calls is not counted.
        """
        worker, clock = self._stage.turns.current, self._stage.clock
        quiet_since = max(worker.slept_until if worker else 0.0, clock.stepped_at)
        to_kommo = any(intent.side == "kommo" for intent in intents)
        since = self._asked_at if to_kommo else self._read_at + self._calls_seconds
        age = self._true() - since
        if age > READ_SECONDS_MAX and quiet_since <= self._asked_at:
            raise Broken("fresh", f"{list(keys)}: sent {age:.1f} s after it was read")

    def _true(self) -> float:
        return self._stage.clock.true.timestamp()

    def _beat(self) -> None:
        now = self._now()
        if now - self._beaten_at < BEAT_SECONDS:
            return
        self._beaten_at = now
        for batch_id in self._engine.batches:
            try:
                self._stage.inbox.renew(batch_id, LEASE_SECONDS)
            except LeaseLost:
                continue
            self._leases.renewed(batch_id, now)

    def _now(self) -> float:
        return self._stage.clock.now().timestamp()
