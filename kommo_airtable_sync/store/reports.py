"""What people ask the inbox: how it stands, which events it has; try again, release, drop.

Counts look only at what is open: done events are many, and the counters know them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypedDict

import sqlalchemy as sa

from kommo_airtable_sync.core.stats import nearest_rank
from kommo_airtable_sync.core.types import LIVE, Priority, lead_key
from kommo_airtable_sync.store import leases
from kommo_airtable_sync.store.database import Database, instant
from kommo_airtable_sync.store.entries import Held, read_held
from kommo_airtable_sync.store.schema import due, events, held_fields
from kommo_airtable_sync.store.settling import RELEASED

ListedState = Literal[
    "pending",
    "claimed",
    "retrying",
    "held",
    "done",
    "dead",
    "quarantined",
    "ignored",
    "dropped",
    "all",
]
HOLDS_LISTED_MAX = 10_000
SIDE_BY_SIDE_SECONDS = 60.0
OPEN_STATES = ("pending", "claimed", "dead", "quarantined")
DROPPABLE_STATES = ("pending", "held", "dead", "quarantined")


class InboxCounts(TypedDict):
    """Events by what they wait for; each is counted once (``retrying`` is not ``pending``)."""

    pending: int
    claimed: int
    retrying: int
    dead: int
    quarantined: int


class Latency(TypedDict):
    """Seconds from received to settled; None where nothing has been settled yet."""

    p50: float | None
    p95: float | None
    max: float | None
    count: int


@dataclass(frozen=True, slots=True)
class ListedEvent:
    """One event, for people; ``state`` is ``retrying`` for a pending one that has failed before."""

    id: int
    key: str
    source: str
    kind: str
    state: str
    attempts: int
    outcome: str | None
    error: str | None
    run_id: str | None
    occurred_at: datetime | None
    received_at: datetime
    settled_at: datetime | None
    payload: str | None


@dataclass(frozen=True, slots=True)
class ListedConflict:
    """A held field of a lead or contact."""

    key: str
    held: Held


class Reports:
    """Questions to the inbox, and what a person may decide about single events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def inbox_counts(self) -> InboxCounts:
        """How many events wait, are worked on, are tried again, need a person, are unreadable."""
        state = _shown_state().label("shown")
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(state, sa.func.count().label("events"))
                .where(events.c.state.in_(OPEN_STATES))
                .group_by(state)
            )
            found: dict[str, int] = {row.shown: row.events for row in rows}
        return InboxCounts(
            pending=found.get("pending", 0),
            claimed=found.get("claimed", 0),
            retrying=found.get("retrying", 0),
            dead=found.get("dead", 0),
            quarantined=found.get("quarantined", 0),
        )

    def oldest_pending_seconds(self) -> float | None:
        """Age of the oldest event not settled yet, claimed ones included; None if there is none."""
        with self._database.read() as connection:
            now = self._database.now(connection)
            # Ids grow with time: the first of each state is read from the index's edge.
            oldest = [
                connection.scalar(
                    sa.select(events.c.received_at)
                    .where(events.c.state == state)
                    .order_by(events.c.id)
                    .limit(1)
                )
                for state in leases.UNSETTLED
            ]
        times = [float(at) for at in oldest if at is not None]
        return max(0.0, now - min(times)) if times else None

    def overdue_seconds(self) -> float:
        """For how long a live key has been due, claimed or not, and is not settled yet; or 0."""
        with self._database.read() as connection:
            now = self._database.now(connection)
            first = sa.select(sa.func.min(due.c.due_at)).where(due.c.priority == LIVE)
            at = connection.scalar(first)
        return 0.0 if at is None else max(0.0, now - float(at))

    def waiting_for_people(self) -> dict[str, int]:
        """How many events and fields wait for a person, by why (``core.alerts.WAITING``)."""
        held = events.c.outcome.in_(("braked", "vanished"))
        why = sa.case((held, events.c.outcome), else_=events.c.state).label("why")
        of_events = sa.select(why, sa.func.count().label("how_many")).where(
            events.c.state.in_(("dead", "quarantined", "held"))
        )
        field_why = held_fields.c.reason.label("why")
        of_fields = sa.select(field_why, sa.func.count().label("how_many"))
        with self._database.read() as connection:
            rows = [
                *connection.execute(of_events.group_by(why)),
                *connection.execute(of_fields.group_by(field_why)),
            ]
            return {row.why: row.how_many for row in rows}

    def latency(self, limit: int = 1000) -> Latency:
        """Of the live events settled last; those made good later by another do not count."""
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select((events.c.settled_at - events.c.received_at).label("seconds"))
                .where(
                    events.c.priority == LIVE,
                    events.c.settled_at.is_not(None),
                    events.c.state == "done",
                    events.c.outcome.is_distinct_from("superseded"),
                )
                .order_by(events.c.settled_at.desc())
                .limit(limit)
            )
            seconds = sorted(float(row.seconds) for row in rows)
        return Latency(
            p50=nearest_rank(seconds, 0.5) if seconds else None,
            p95=nearest_rank(seconds, 0.95) if seconds else None,
            max=seconds[-1] if seconds else None,
            count=len(seconds),
        )

    def outcomes_of(
        self, source: str, since: float = 0.0, kind: str | None = None
    ) -> dict[str, int]:
        """Events of a source received since then: outcomes of the done ones, states of the rest."""
        shown = sa.case(
            (events.c.state == "done", sa.func.coalesce(events.c.outcome, "done")),
            else_=_shown_state(),
        ).label("shown")
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(shown, sa.func.count().label("events"))
                .where(*_told(source, since, kind))
                .group_by(shown)
            )
            return {row.shown: row.events for row in rows}

    def dead_of(
        self, source: str, since: float, kind: str | None = None, limit: int = 100
    ) -> list[ListedEvent]:
        """Those of ``outcomes_of`` that want a person."""
        statement = sa.select(events, events.c.state.label("shown")).where(
            *_told(source, since, kind), events.c.state == "dead"
        )
        with self._database.read() as connection:
            return [_listed(row) for row in connection.execute(statement.limit(limit))]

    def list_events(
        self, state: ListedState = "all", lead_id: int | None = None, limit: int = 100
    ) -> list[ListedEvent]:
        """Events, newest first."""
        statement = sa.select(events, _shown_state().label("shown"))
        if state in ("pending", "retrying"):
            retried = events.c.attempts > 0
            statement = statement.where(
                events.c.state == "pending", retried if state == "retrying" else ~retried
            )
        elif state != "all":
            statement = statement.where(events.c.state == state)
        if lead_id is not None:
            statement = statement.where(events.c.key == lead_key(lead_id))
        with self._database.read() as connection:
            rows = connection.execute(statement.order_by(events.c.id.desc()).limit(limit))
            return [_listed(row) for row in rows]

    def list_holds(self) -> list[ListedEvent]:
        """Events that a person must let go first, newest first."""
        return self.list_events("held", limit=HOLDS_LISTED_MAX)

    def holds(self) -> int:
        """How many events are held."""
        with self._database.read() as connection:
            statement = sa.select(sa.func.count()).where(events.c.state == "held")
            return int(connection.scalar(statement) or 0)

    def list_conflicts(self) -> list[ListedConflict]:
        """Fields whose two values wait for a person, those held longest first."""
        with self._database.read() as connection:
            order = (held_fields.c.since, held_fields.c.key, held_fields.c.field)
            rows = connection.execute(sa.select(held_fields).order_by(*order))
            return [ListedConflict(row.key, read_held(row)) for row in rows]

    def conflicts_held(self) -> int:
        """How many fields wait for a person."""
        with self._database.read() as connection:
            statement = sa.select(sa.func.count()).select_from(held_fields)
            return int(connection.scalar(statement) or 0)

    def retry_events(
        self, ids: Sequence[int] = (), *, dead: bool = False, reason: str = ""
    ) -> list[int]:
        """Give dead events a fresh set of attempts, due now.

        Args:
            ids: which; those that are not dead are left alone.
            dead: all dead events, whatever else is said.
            reason: those whose error has this in it, in small letters or capitals, as well.

        Returns:
            The events that are pending again.
        """
        is_dead, anew = events.c.state == "dead", {"attempts": 0}
        if dead:
            return self._revive(is_dead, anew)
        return [
            event_id
            for some in leases.in_portions([*ids, *self._dead_of(reason)])
            for event_id in self._revive(sa.and_(is_dead, events.c.id.in_(some)), anew)
        ]

    def retry_keys(self, keys: Sequence[str]) -> None:
        """The same for all dead events of these keys."""
        for some in leases.in_portions(keys):
            chosen = sa.and_(events.c.state == "dead", events.c.key.in_(some))
            self._revive(chosen, {"attempts": 0})

    def _dead_of(self, reason: str) -> list[int]:
        found = sa.select(events.c.id, events.c.error).where(events.c.state == "dead")
        with self._database.read() as connection:
            rows = connection.execute(found).all() if reason else ()
        wanted = reason.casefold()  # not in SQL: SQLite knows the case of ASCII letters only
        return [row.id for row in rows if wanted in (row.error or "").casefold()]

    def release_holds(self, ids: Sequence[int]) -> list[int]:
        """Let held events go, due now: the brake passes what they lead to.

        Returns:
            The events that are pending again.
        """
        directive = events.c.directive
        released = sa.case(
            (sa.or_(directive.is_(None), directive == RELEASED), RELEASED),
            # Another decision stays what it is, and is released besides.
            else_=sa.literal(RELEASED[:-1] + ",").concat(sa.func.substr(directive, 2)),
        )
        return [
            event_id
            for some in leases.in_portions(ids)
            for event_id in self._revive(
                sa.and_(events.c.state == "held", events.c.id.in_(some)),
                {"directive": released, "error": None},
            )
        ]

    def _revive(self, chosen: sa.ColumnElement[bool], values: Mapping[str, Any]) -> list[int]:
        """Make events pending and due now."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            found = connection.execute(
                sa.select(events.c.key, sa.func.min(events.c.priority).label("priority"))
                .where(chosen)
                .group_by(events.c.key)
            )
            keys: dict[str, Priority] = {row.key: row.priority for row in found}
            leases.make_due(self._database, connection, keys, now)
            revived = connection.execute(
                sa.update(events)
                # Only of keys that are due (and locked) by now: none may be left waiting for ever.
                .where(chosen, events.c.key.in_(sa.select(due.c.key)))
                .values(state="pending", batch_id=None, settled_at=None, outcome=None, **values)
                .returning(events.c.id)
            ).scalars()
            revived_ids = sorted(revived.all())
            leases.forget_idle(connection, list(keys), now)
        return revived_ids

    def drop_events(self, ids: Sequence[int]) -> list[int]:
        """Nobody shall act on these events: pending, held, dead or quarantined ones.

        Returns:
            The events that were dropped.
        """
        return [event_id for some in leases.in_portions(ids) for event_id in self._drop(some)]

    def _drop(self, ids: Sequence[int]) -> list[int]:
        with self._database.write() as connection:
            keys = list(
                connection.execute(
                    sa.select(events.c.key).where(events.c.id.in_(ids)).distinct()
                ).scalars()
            )
            leases.lock(connection, due.c.key.in_(keys))
            now = self._database.now(connection)
            dropped = connection.execute(
                sa.update(events)
                .where(events.c.id.in_(ids), events.c.state.in_(DROPPABLE_STATES))
                .values(state="dropped", settled_at=now)
                .returning(events.c.id)
            ).scalars()
            dropped_ids = sorted(dropped.all())
            leases.forget_idle(connection, keys, now)
        return dropped_ids


def _told(source: str, since: float, kind: str | None) -> list[sa.ColumnElement[bool]]:
    # Ids grow with time, but for transactions side by side: found from the index's end.
    older = sa.select(events.c.id).where(events.c.received_at < since - SIDE_BY_SIDE_SECONDS)
    last = older.order_by(events.c.id.desc()).limit(1).scalar_subquery()
    conditions = [
        events.c.id > sa.func.coalesce(last, 0),
        events.c.source == source,
        events.c.received_at >= since,
    ]
    return conditions if kind is None else [*conditions, events.c.kind == kind]


def _shown_state() -> sa.ColumnElement[str]:
    retrying = sa.and_(events.c.state == "pending", events.c.attempts > 0)
    return sa.case((retrying, "retrying"), else_=events.c.state)


def _listed(row: Any) -> ListedEvent:
    return ListedEvent(
        id=row.id,
        key=row.key,
        source=row.source,
        kind=row.kind,
        state=row.shown,
        attempts=row.attempts,
        outcome=row.outcome,
        error=row.error,
        run_id=row.run_id,
        occurred_at=None if row.occurred_at is None else instant(row.occurred_at),
        received_at=instant(row.received_at),
        settled_at=None if row.settled_at is None else instant(row.settled_at),
        payload=row.payload,
    )
