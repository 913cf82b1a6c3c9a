"""Who is alive: heartbeats of runs, nudges that asked for one, and paused sides (design 3.5).

"A live runner exists" means a fresh heartbeat in ``runners``, never Dagster's run status: after
``kill -9`` that status stays STARTED for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from kommo_airtable_sync.core.types import Priority
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.schema import nudges, runners, sides

STALE_SECONDS = 6.0
"""A runner whose heartbeat is older is dead."""

RunnerState = Literal["standby", "running", "retiring"]


@dataclass(frozen=True, slots=True)
class Runner:
    """A run that works for a lane, or is about to end."""

    run_id: str
    lane: Priority
    host: str
    pid: int
    state: RunnerState
    heartbeat_age_seconds: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Why nobody calls a side at the moment; ``seconds``: from the first failure to its end."""

    side: str
    seconds_left: float
    seconds: float
    failures: int
    reason: str
    detail: str


class Runners:
    """Registry of runners, nudges and side pauses."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ------------------------------------------------------------------ heartbeats

    def beat(
        self, run_id: str, lane: Priority, host: str, pid: int, state: RunnerState
    ) -> RunnerState:
        """Say that a run is alive, and in which state.

        Returns:
            The state as recorded: ``retiring`` for a run that another one has replaced while it
            was silent. It must not claim any more.
        """
        with self._database.write() as connection:
            insert = (sqlite.insert if self._database.is_sqlite else postgresql.insert)(runners)
            values = {
                "lane": lane,
                "host": host,
                "pid": pid,
                "state": state,
                "heartbeat_at": self._database.now(connection),
            }
            # Nobody comes back from retirement, least of all by a heartbeat thread's old news.
            kept = sa.case((runners.c.state == "retiring", "retiring"), else_=state)
            recorded: RunnerState = connection.execute(
                insert.values(run_id=run_id, **values)
                .on_conflict_do_update(
                    index_elements=[runners.c.run_id], set_={**values, "state": kept}
                )
                .returning(runners.c.state)
            ).scalar_one()
        return recorded

    def leave(self, run_id: str) -> None:
        """The run's process has nothing more to do with the lane."""
        with self._database.write() as connection:
            connection.execute(sa.delete(runners).where(runners.c.run_id == run_id))

    def all(self) -> list[Runner]:
        """Every registered runner with the age of its heartbeat."""
        with self._database.read() as connection:
            now = self._database.now(connection)
            rows = connection.execute(sa.select(runners)).all()
        return [
            Runner(row.run_id, row.lane, row.host, row.pid, row.state, now - row.heartbeat_at)
            for row in rows
        ]

    def become_runner(self, run_id: str, lane: Priority, stale_seconds: float) -> bool:
        """Turn this run from standby into the lane's one runner, unless another one lives.

        A silent one is retired in the same transaction, in case it wakes up again.
        """
        with self._database.write() as connection:
            # The lane's rows are locked first: two standbys must not both find the place empty.
            found = connection.execute(
                sa.select(runners.c.run_id, runners.c.state, runners.c.heartbeat_at)
                .where(runners.c.lane == lane)
                .order_by(runners.c.run_id)
                .with_for_update()
            ).all()
            now = self._database.now(connection)
            others = [row for row in found if row.run_id != run_id and row.state == "running"]
            if any(row.heartbeat_at > now - stale_seconds for row in others):
                return False
            connection.execute(
                sa.update(runners)
                .where(runners.c.run_id.in_([row.run_id for row in others]))
                .values(state="retiring")
            )
            changed = connection.execute(
                sa.update(runners)
                .where(runners.c.run_id == run_id, runners.c.state != "retiring")
                .values(state="running", heartbeat_at=now)
            ).rowcount
        return bool(changed)

    # ------------------------------------------------------------------ nudges

    def nudge(self, lane: Priority) -> int:
        """Record that a run for the lane has been asked for; returns the nudge id."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            connection.execute(sa.delete(nudges).where(nudges.c.requested_at < now - 3600))
            created = connection.execute(
                sa.insert(nudges).values(lane=lane, requested_at=now)
            ).inserted_primary_key
        return int(created[0]) if created else 0

    def answer_nudges(self, run_id: str, lane: Priority) -> None:
        """The run is here: nobody need be asked again for the lane."""
        with self._database.write() as connection:
            connection.execute(
                sa.update(nudges)
                .where(nudges.c.lane == lane, nudges.c.run_id.is_(None))
                .values(run_id=run_id)
            )

    def unanswered_nudge_age(self, lane: Priority) -> float | None:
        """Seconds since the newest nudge that no run has answered yet; None without one."""
        with self._database.read() as connection:
            now = self._database.now(connection)
            at = connection.scalar(
                sa.select(sa.func.max(nudges.c.requested_at)).where(
                    nudges.c.lane == lane, nudges.c.run_id.is_(None)
                )
            )
        return None if at is None else now - float(at)

    def unanswered_nudges(self, lane: Priority, seconds: float) -> int:
        """How many nudges of the last so many seconds no run has answered yet."""
        with self._database.read() as connection:
            unanswered = sa.select(sa.func.count()).where(
                nudges.c.lane == lane,
                nudges.c.run_id.is_(None),
                nudges.c.requested_at > self._database.now(connection) - seconds,
            )
            return int(connection.scalar(unanswered) or 0)

    # ------------------------------------------------------------------ pauses

    def pause(self, side: str, seconds: float, failures: int, reason: str, detail: str) -> None:
        """Nobody claims for so long; the reason is shown to people. Never shortens a pause."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            insert = (sqlite.insert if self._database.is_sqlite else postgresql.insert)(sides)
            values = {
                "paused_until": now + seconds,
                "failures": failures,
                "reason": reason,
                "detail": detail[:500],
            }
            connection.execute(
                insert.values(side=side, paused_since=now, **values).on_conflict_do_update(
                    index_elements=[sides.c.side],
                    set_=values,
                    where=sides.c.paused_until <= insert.excluded.paused_until,
                )
            )

    def resume(self, reachable: Sequence[str]) -> list[str]:
        """These sides answered: lift their pauses; returns those that had one."""
        with self._database.write() as connection:
            lifted = connection.execute(
                sa.delete(sides).where(sides.c.side.in_(reachable)).returning(sides.c.side)
            ).scalars()
            return list(lifted.all())

    def pauses(self) -> dict[str, Pause]:
        """Pauses by side; ``seconds_left`` <= 0 means that the next call is the probe."""
        with self._database.read() as connection:
            now = self._database.now(connection)
            rows = connection.execute(sa.select(sides)).all()
        return {
            row.side: Pause(
                row.side, row.paused_until - now, row.paused_until - row.paused_since,
                row.failures, row.reason, row.detail,
            )
            for row in rows
        }  # fmt: skip
