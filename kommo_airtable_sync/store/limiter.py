"""One rate budget for each remote account, shared by every process of ours (design 3.6).

The budget is a log of grants, N being the API's calls a second: call N+1 is granted one window
after the first of them. So five calls may go at once, and six never fall into one second. What
counts is when calls *arrive*, so the window is a little longer than a second, a call that was slow
on its way moves its own mark later when it ends, and whoever waited for a place looks again when it
has come: calls before it may have moved meanwhile.

Live callers reserve the next place and wait for it. Bulk callers take a place only when one is
free at once, so never before a live caller who waits: his place is the last of the log.

Airtable's monthly quota is counted with each grant (``core.quota``). Live calls never wait for it.
Bulk calls are refused once the rest is kept for live events, and while bulk is slowed each of them
puts off the next bulk batch: a batch that has begun is not held up, since it holds leads.

The state is disposable, so it lives outside the migrations: on SQLite in a file of its own that
never waits for the inbox's commits, on PostgreSQL in one table.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from kommo_airtable_sync.core.errors import SideUnavailable
from kommo_airtable_sync.core.quota import (
    RESERVED,
    MonthlyQuota,
    QuotaReport,
    bulk_pace,
    month_of,
    quota_report,
)
from kommo_airtable_sync.core.types import BULK, LIVE, Priority
from kommo_airtable_sync.store.database import Connection, Database, instant

MARGIN_SECONDS = 0.08
WINDOW_SECONDS = 1.0 + MARGIN_SECONDS
# So much of the margin is for those who wake up late; a mark that is later still is moved.
LATE_SECONDS = 0.02
# When a bulk call that was refused for the month's sake may ask again: not in a moment.
RESERVED_SECONDS = 3600.0
# Nobody reserves a place so far ahead, or is told to wait for so long: a clock was set back.
AHEAD_SECONDS_MAX = 60.0
BLOCK_SECONDS_MAX = 3600.0
CREATION_LOCK = 0x6B61_6C6D  # any fixed number; PostgreSQL advisory lock

_metadata = sa.MetaData()
budgets = sa.Table(
    "budgets",
    _metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("grants", sa.Text, nullable=False),
    sa.Column("blocked_until", sa.Double, nullable=False),
    sa.Column("calls", sa.BigInteger, nullable=False),
    sa.Column("throttled", sa.BigInteger, nullable=False),
)
quota_months = sa.Table(
    "quota_months",
    _metadata,
    sa.Column("base", sa.Text, primary_key=True),
    sa.Column("month", sa.Text, primary_key=True),
    sa.Column("calls", sa.BigInteger, nullable=False),
    # When the next bulk batch may begin, seconds since the epoch; heeded while bulk is slowed.
    sa.Column("bulk_at", sa.Double, nullable=False),
)


@dataclass(frozen=True, slots=True)
class BudgetState:
    """One account's row: times in seconds since the epoch, oldest grant first."""

    grants: tuple[float, ...]
    blocked_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Grant:
    """Go at ``at`` if granted, else ask again then."""

    granted: bool
    at: float
    state: BudgetState


def next_grant(state: BudgetState, calls_per_second: int, lane: Priority, now: float) -> Grant:
    """Decide when the next call may start. Pure; the caller stores the returned state."""
    sane = _sane(state, now)
    # Never before a place already given away: the log stays in order.
    earliest = max((_earliest(sane, calls_per_second, now), *sane.grants[-1:]))
    if lane == BULK and earliest > now:
        return Grant(False, earliest, state)
    return Grant(True, earliest, replace(sane, grants=(*sane.grants, earliest)))


def keep_place(state: BudgetState, calls_per_second: int, place: float, now: float) -> Grant:
    """Decide when a call may start whose place has come: now, or later if others came late."""
    sane = _sane(state, now)
    others = list(sane.grants)
    if place in others:
        others.remove(place)
    due = max(place, now)
    before = tuple(at for at in others if at <= due)
    earliest = _earliest(replace(sane, grants=before), calls_per_second, due)
    at = place if earliest - place <= LATE_SECONDS else earliest
    return Grant(True, at, replace(sane, grants=tuple(sorted([*others, at]))))


def _earliest(state: BudgetState, calls_per_second: int, now: float) -> float:
    recent = state.grants[-calls_per_second:]
    free = recent[0] + WINDOW_SECONDS if len(recent) == calls_per_second else now
    return max(now, state.blocked_until, free)


def _sane(state: BudgetState, now: float) -> BudgetState:
    """Without what is long past, or so far ahead that a clock must have been set back."""
    since, until = now - 2 * WINDOW_SECONDS, now + AHEAD_SECONDS_MAX
    blocked = state.blocked_until if state.blocked_until <= now + BLOCK_SECONDS_MAX else now
    return BudgetState(tuple(at for at in state.grants if since <= at <= until), blocked)


class SqlBudget:
    """A ``core.ports.Budget`` over SQL.

    Args:
        database: where the state lives; its clock also sleeps.
        account: ``kommo`` or ``airtable``.
        calls_per_second: the API's limit.
        lane: live callers go before bulk callers.
        quota: counts calls by month, and governs bulk if it has a limit.
    """

    def __init__(
        self,
        database: Database,
        account: str,
        calls_per_second: int,
        lane: Priority = LIVE,
        quota: MonthlyQuota | None = None,
    ) -> None:
        self._database = database
        self._account = account
        self._calls_per_second = calls_per_second
        self._quota = quota
        self.lane: Priority = lane
        self.calls = 0
        self._usual_seconds: float | None = None
        _prepare(database, account)

    @contextmanager
    def slot(self) -> Generator[None]:
        """Wait for the right to make one call; on leaving, correct when it must have arrived.

        Raises:
            SideUnavailable: (``reserved``) for a bulk call once the month's rest is kept for live.
        """
        place, since = self._wait()
        self.calls += 1
        try:
            yield
        finally:
            took = self._database.clock.now().timestamp() - since
            if took >= 0.0:  # else the clock was set back meanwhile, and says nothing
                self._learn(place, took)

    def _learn(self, place: float, took: float) -> None:
        """Move the mark of a call that took longer than usual from its mark to its answer."""
        # The first call knows no better than that it has arrived once it is answered.
        usual = 0.0 if self._usual_seconds is None else min(took, self._usual_seconds * 1.02)
        self._usual_seconds = usual or took
        # The window's margin covers a little lateness; only what is beyond it moves the mark.
        uncovered = took - usual - MARGIN_SECONDS
        if uncovered > 0.0:
            self._correct(place, uncovered)

    def wait_for_place(self) -> None:
        """Bulk takes its place before it claims, so that it holds no lease while waiting."""
        self._wait(take=False)

    def bulk_may_begin(self) -> bool:
        """Whether the month's quota lets bulk work begin now; asked before leads are claimed."""
        return self._quota is None or bulk_may_begin(self._database, self._quota)

    def throttled(self, retry_after_seconds: float) -> None:
        """The API answered 429: nobody calls it for so long."""
        with self._database.write() as connection:
            until = self._database.now(connection) + retry_after_seconds
            connection.execute(
                sa.update(budgets)
                .where(budgets.c.account == self._account)
                .values(
                    blocked_until=sa.case(
                        (budgets.c.blocked_until > until, budgets.c.blocked_until), else_=until
                    ),
                    throttled=budgets.c.throttled + 1,
                )
            )

    def _wait(self, *, take: bool = True) -> tuple[float, float]:
        """Returns the mark of the place, and the same moment by our own clock."""
        clock = self._database.clock
        place: float | None = None
        while True:
            with self._database.write() as connection:
                now = self._database.now(connection)
                now_here = clock.now().timestamp()
                state = _read(connection, self._account) or BudgetState(())
                if place is None:
                    grant = next_grant(state, self._calls_per_second, self.lane, now)
                else:
                    grant = keep_place(state, self._calls_per_second, place, now)
                if grant.granted and take:
                    _store(connection, self._account, grant.state, is_new=place is None)
                    if self._quota is not None and place is None:
                        _count(self._database, connection, self._quota, self.lane, grant.at)
                    place = grant.at
            wait = grant.at - now
            if grant.granted and wait <= 0.0:
                return grant.at, now_here + wait
            # Clocks have coarser grains than what is left of some waits.
            clock.sleep(max(0.001, wait))

    def _correct(self, place: float, late_by: float) -> None:
        with self._database.write() as connection:
            state = _read(connection, self._account)
            if state is None:
                return
            moved = list(state.grants)
            if place in moved:
                moved.remove(place)
            # It has arrived by now at the latest, whatever our own clock has done meanwhile.
            arrived_at = max(place, min(place + late_by, self._database.now(connection)))
            moved = sorted([*moved, arrived_at])
            connection.execute(
                sa.update(budgets)
                .where(budgets.c.account == self._account)
                .values(grants=json.dumps(moved))
            )


def _prepare(database: Database, account: str) -> None:
    """Create the table and the account's row; several processes may do so at once."""
    insert = (sqlite.insert if database.is_sqlite else postgresql.insert)(budgets)
    with database.write() as connection:
        if not database.is_sqlite:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(CREATION_LOCK)))
        _metadata.create_all(connection)
        connection.execute(
            insert.values(
                account=account,
                grants="[]",
                blocked_until=0.0,
                calls=0,
                throttled=0,
            ).on_conflict_do_nothing()
        )


def usage(database: Database) -> dict[str, tuple[int, int]]:
    """Calls made and 429s received by account since the limiter's state began."""
    with database.read() as connection:
        if not sa.inspect(connection).has_table("budgets"):
            return {}
        rows = connection.execute(sa.select(budgets)).all()
    return {row.account: (row.calls, row.throttled) for row in rows}


def bulk_may_begin(database: Database, quota: MonthlyQuota) -> bool:
    """Whether what is left of the month lets bulk work begin now."""
    if quota.limit is None:
        return True
    with database.read() as connection:
        now = database.now(connection)
        used, bulk_at = _month(connection, quota.base, now)
    speed = bulk_pace(used, quota.limit, instant(now)).speed
    return speed == "full speed" or (speed == "slowed" and bulk_at <= now)


def month_so_far(database: Database, quota: MonthlyQuota) -> QuotaReport:
    """How this month stands, for people."""
    with database.read() as connection:
        now = database.now(connection)
        used, _ = _month(connection, quota.base, now)
    return quota_report(used, quota.limit, instant(now))


def forget_months(database: Database, before: float) -> int:
    """Drop the counts of months that were over at that time; how many."""
    with database.write() as connection:
        if not sa.inspect(connection).has_table("quota_months"):
            return 0
        over = quota_months.c.month < month_of(instant(before))
        return connection.execute(sa.delete(quota_months).where(over)).rowcount


def _month(connection: Connection, base: str, now: float) -> tuple[int, float]:
    """Calls of this month, and when the next bulk batch may begin; nothing in an older store."""
    if not sa.inspect(connection).has_table("quota_months"):
        return 0, 0.0
    row = connection.execute(
        sa.select(quota_months).where(
            quota_months.c.base == base, quota_months.c.month == month_of(instant(now))
        )
    ).first()
    return (0, 0.0) if row is None else (int(row.calls), float(row.bulk_at))


def _count(
    database: Database, connection: Connection, quota: MonthlyQuota, lane: Priority, at: float
) -> None:
    """Count a call that may start at ``at``, or refuse it; the account's row is locked."""
    bulk_at = 0.0
    if lane == BULK and quota.limit is not None:
        used, bulk_at = _month(connection, quota.base, at)
        # Each call of a batch puts the next one off from where the call before it did.
        bulk_at = max(bulk_at, at)
        pace = bulk_pace(used, quota.limit, instant(bulk_at))
        if pace.speed == "stopped":
            detail = f"{used} of this month's {quota.limit} calls are made, the rest is for events"
            raise SideUnavailable(
                "airtable", RESERVED, detail, retry_after_seconds=RESERVED_SECONDS, sent=False
            )
        bulk_at += pace.seconds_between
    insert = (sqlite.insert if database.is_sqlite else postgresql.insert)(quota_months)
    changed = {"calls": quota_months.c.calls + 1} | ({"bulk_at": bulk_at} if bulk_at else {})
    connection.execute(
        insert.values(
            base=quota.base, month=month_of(instant(at)), calls=1, bulk_at=bulk_at
        ).on_conflict_do_update(
            index_elements=[quota_months.c.base, quota_months.c.month], set_=changed
        )
    )


def _read(connection: Connection, account: str) -> BudgetState | None:
    row = connection.execute(
        sa.select(budgets).where(budgets.c.account == account).with_for_update()
    ).first()
    if row is None:
        return None
    return BudgetState(tuple(json.loads(row.grants)), row.blocked_until)


def _store(connection: Connection, account: str, state: BudgetState, *, is_new: bool) -> None:
    connection.execute(
        sa.update(budgets)
        .where(budgets.c.account == account)
        .values(grants=json.dumps(state.grants), calls=budgets.c.calls + int(is_new))
    )
