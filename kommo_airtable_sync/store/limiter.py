"""One rate budget for each remote account, shared by every process of ours (design 3.6).

Who may go when is decided in ``core.rate_budget``: live callers stand in a queue, sleep until their
turn should come, and look again. A call that was slow on its way moves its own mark when it ends.

Airtable's monthly quota is counted with each call (``core.quota``). Live calls never wait for it.
Bulk calls are refused once the rest is kept for live events, and while bulk is slowed each of them
puts off the next bulk batch: a batch that has begun is not held up, since it holds leads.

The state is disposable, so it lives outside the migrations: on SQLite in a file of its own that
never waits for the inbox's commits, on PostgreSQL in one table.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from kommo_airtable_sync.core.errors import SideUnavailable
from kommo_airtable_sync.core.quota import (
    RESERVED,
    MonthlyQuota,
    QuotaReport,
    bulk_pace,
    month_of,
    quota_report,
)
from kommo_airtable_sync.core.rate_budget import (
    BLOCK_SECONDS_MAX,
    LATE_SECONDS,
    BudgetState,
    Waiting,
    look,
    sane,
)
from kommo_airtable_sync.core.types import BULK, LIVE, Priority
from kommo_airtable_sync.store.database import Connection, Database, instant

# A call on its way for longer than this, from leave to answer, may have arrived late.
USUAL_SECONDS_MAX = 0.3
# When a bulk call that was refused for the month's sake may ask again: not in a moment.
RESERVED_SECONDS = 3600.0
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
        counts_from, since = self._wait()
        self.calls += 1
        try:
            yield
        finally:
            took = self._database.clock.now().timestamp() - since
            if took >= 0.0:  # else the clock was set back meanwhile, and says nothing
                self._learn(counts_from, took)

    def _learn(self, counts_from: float, took: float) -> None:
        """Move the mark of a call that took longer than usual."""
        # The first call knows no better than that it has arrived once it is answered.
        usual = 0.0 if self._usual_seconds is None else min(took, self._usual_seconds * 1.02)
        self._usual_seconds = min(usual or took, USUAL_SECONDS_MAX)
        uncovered = took - usual - LATE_SECONDS
        if uncovered > 0.0:
            self._correct(counts_from, uncovered)

    def wait_for_place(self) -> None:
        """Wait until there is room for a call, and take none: `slot` does.

        Bulk does so before it claims, so that it holds no lease while it waits; what is announced
        in the journal does not age meanwhile.
        """
        self._wait(take=False)

    def bulk_may_begin(self) -> bool:
        """Whether the month's quota lets bulk work begin now; asked before leads are claimed."""
        return self._quota is None or bulk_may_begin(self._database, self._quota)

    def throttled(self, retry_after_seconds: float) -> None:
        """The API answered 429: nobody calls it for so long, an hour at most."""
        with self._database.write() as connection:
            state, now = self._read(connection)
            until = now + min(retry_after_seconds, BLOCK_SECONDS_MAX)
            state = replace(state, blocked_until=max(state.blocked_until, until))
            self._store(connection, state, throttled=1)

    def _wait(self, *, take: bool = True) -> tuple[float, float]:
        """Returns from when the call counts, by the database's clock and by our own."""
        clock = self._database.clock
        number: int | None = None
        while True:
            with self._database.write() as connection:
                state, now = self._read(connection)
                now_here = clock.now().timestamp()
                found = look(state, self._calls_per_second, self.lane, now, number)
                goes = found.go and take
                if goes and self._quota is not None:
                    _count(self._database, connection, self._quota, self.lane, now)
                after = found.state
                if found.go and not take:
                    after = replace(after, calls=state.calls)
                if after != state:
                    self._store(connection, after, calls=int(goes))
            if found.go:
                return found.at, now_here + (found.at - now)
            number = found.number
            # Clocks have coarser grains than what is left of some waits.
            clock.sleep(max(0.001, found.at - now))

    def _correct(self, counts_from: float, late_by: float) -> None:
        with self._database.write() as connection:
            state, now = self._read(connection)
            calls = list(state.calls)
            if counts_from in calls:
                calls.remove(counts_from)
            # It has arrived by now at the latest, whatever our own clock has done meanwhile.
            arrived_at = max(counts_from, min(counts_from + late_by, now))
            self._store(connection, replace(state, calls=tuple(sorted([*calls, arrived_at]))))

    def _read(self, connection: Connection) -> tuple[BudgetState, float]:
        """The account's row, locked, and then the time: on PostgreSQL a lock may take a while."""
        mine = budgets.c.account == self._account
        row = connection.execute(sa.select(budgets).where(mine).with_for_update()).first()
        if row is None:  # removed under our feet
            _insert(self._database, connection, self._account)
            return BudgetState(), self._database.now(connection)
        now = self._database.now(connection)
        return sane(_from_json(row.grants, row.blocked_until), now), now

    def _store(
        self, connection: Connection, state: BudgetState, *, calls: int = 0, throttled: int = 0
    ) -> None:
        connection.execute(
            sa.update(budgets)
            .where(budgets.c.account == self._account)
            .values(
                grants=_to_json(state),
                blocked_until=state.blocked_until,
                calls=budgets.c.calls + calls,
                throttled=budgets.c.throttled + throttled,
            )
        )


def _to_json(state: BudgetState) -> str:
    queue = [(each.number, each.until) for each in state.queue]
    return json.dumps({"calls": state.calls, "queue": queue, "next": state.next_number})


def _from_json(text: str, blocked_until: float) -> BudgetState:
    known: Any = json.loads(text)
    if isinstance(known, list):  # of an earlier version: the calls alone
        return BudgetState(tuple(json.loads(text)), blocked_until=blocked_until)
    queue = tuple(Waiting(number, until) for number, until in known["queue"])
    return BudgetState(tuple(known["calls"]), queue, known["next"], blocked_until)


def _prepare(database: Database, account: str) -> None:
    """Create the table and the account's row; several processes may do so at once."""
    with database.write() as connection:
        if not database.is_sqlite:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(CREATION_LOCK)))
        _metadata.create_all(connection)
        _insert(database, connection, account)


def _insert(database: Database, connection: Connection, account: str) -> None:
    row = {"account": account, "grants": "[]", "blocked_until": 0.0, "calls": 0, "throttled": 0}
    connection.execute(database.insert(budgets).values(row).on_conflict_do_nothing())


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
    insert = database.insert(quota_months)
    changed = {"calls": quota_months.c.calls + 1} | ({"bulk_at": bulk_at} if bulk_at else {})
    connection.execute(
        insert.values(
            base=quota.base, month=month_of(instant(at)), calls=1, bulk_at=bulk_at
        ).on_conflict_do_update(
            index_elements=[quota_months.c.base, quota_months.c.month], set_=changed
        )
    )
