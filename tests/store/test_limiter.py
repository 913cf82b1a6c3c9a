"""The shared rate budget: its SQL by contract and processes (the decision: tests/core)."""

from __future__ import annotations

import json
import multiprocessing
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from kommo_airtable_sync.core.errors import SideUnavailable
from kommo_airtable_sync.core.quota import RESERVED, MonthlyQuota
from kommo_airtable_sync.core.rate_budget import MARGIN_SECONDS, WINDOW_SECONDS
from kommo_airtable_sync.core.types import BULK, LIVE, Priority
from kommo_airtable_sync.opening import SystemClock
from kommo_airtable_sync.store import limiter
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.limiter import SqlBudget
from tests.conftest import HandClock
from tests.stack import wait_until
from tests.store.caller import call_often


def most_in_a_second(times: Sequence[float], window: float = 1.0) -> int:
    ordered = sorted(times)
    return max((sum(at <= other < at + window for other in ordered) for at in ordered), default=0)


# ---------------------------------------------------------------------- SQL


def elapsed(clock: HandClock, since: datetime) -> float:
    return (clock.now() - since).total_seconds()


def call(budget: SqlBudget) -> None:
    with budget.slot():
        pass


def test_processes_share_one_budget_an_account(database: Database, clock: HandClock) -> None:
    ours, theirs = SqlBudget(database, "airtable", 2), SqlBudget(database, "airtable", 2)
    other = SqlBudget(database, "kommo", 2)
    start = clock.now()
    call(ours)
    call(theirs)
    call(other)
    assert elapsed(clock, start) == 0
    call(ours)
    assert elapsed(clock, start) == pytest.approx(WINDOW_SECONDS)
    assert limiter.usage(database) == {"airtable": (3, 0), "kommo": (1, 0)}
    assert (ours.calls, theirs.calls) == (2, 1)


def test_a_429_stops_every_caller_of_the_account(database: Database, clock: HandClock) -> None:
    ours, theirs = SqlBudget(database, "airtable", 5), SqlBudget(database, "airtable", 5)
    start = clock.now()
    ours.throttled(30)
    ours.throttled(2)
    call(theirs)
    assert elapsed(clock, start) == pytest.approx(30)
    assert limiter.usage(database) == {"airtable": (1, 2)}


def test_a_caller_asleep_when_the_429_came_does_not_go(
    database: Database, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = SqlBudget(database, "airtable", 1), SqlBudget(database, "airtable", 1)
    call(ours)
    start, asleep = clock.now(), list[float]()

    def sleep(seconds: float) -> None:
        if not asleep:
            theirs.throttled(30)
        asleep.append(seconds)
        clock.advance(seconds)

    monkeypatch.setattr(clock, "sleep", sleep)
    call(ours)
    assert len(asleep) == 2
    assert elapsed(clock, start) >= 30


def test_a_caller_asleep_when_another_arrived_late_waits_for_that_one(
    database: Database, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = SqlBudget(database, "airtable", 1), SqlBudget(database, "airtable", 1)
    underway, arrived_at = ExitStack(), list[datetime]()
    underway.enter_context(theirs.slot())

    def sleep(seconds: float) -> None:
        if not arrived_at:  # their call is answered, late, while ours waits for its place
            clock.advance(0.7)
            underway.close()
            arrived_at.append(clock.now())
            seconds -= 0.7
        clock.advance(seconds)

    monkeypatch.setattr(clock, "sleep", sleep)
    call(ours)
    assert elapsed(clock, arrived_at[0]) >= 1.0


def test_who_overslept_counts_from_when_he_woke_up_while_his_call_is_underway(
    database: Database, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = SqlBudget(database, "airtable", 1), SqlBudget(database, "airtable", 1)
    call(ours)
    with monkeypatch.context() as patched:
        patched.setattr(clock, "sleep", lambda seconds: clock.advance(seconds + 0.9))  # pyright: ignore[reportUnknownLambdaType]
        with ours.slot():
            sent_at = clock.now()
            patched.undo()
            call(theirs)
    assert elapsed(clock, sent_at) == pytest.approx(WINDOW_SECONDS)


def test_a_budget_that_was_slow_to_commit_counts_from_the_call(
    database: Database, clock: HandClock
) -> None:
    budget = SqlBudget(database, "airtable", 1)

    def slow(_: object) -> None:
        clock.advance(0.5)

    event.listen(database.engine, "commit", slow)
    with budget.slot():  # what was read of the clock is half a second old by now
        sent_at = clock.now()
        event.remove(database.engine, "commit", slow)
    call(budget)
    assert elapsed(clock, sent_at) >= 1.0


def test_the_first_call_of_a_process_counts_from_its_answer(
    database: Database, clock: HandClock
) -> None:
    ours, theirs = SqlBudget(database, "airtable", 1), SqlBudget(database, "airtable", 1)
    with ours.slot():
        clock.advance(0.6)  # nobody knows yet how long a call takes
    answered_at = clock.now()
    call(theirs)
    assert elapsed(clock, answered_at) >= 1.0


def test_a_budget_that_waited_for_its_row_counts_from_then(
    empty_database_url: str, clock: HandClock
) -> None:
    # On PostgreSQL, by the server's own clock: the row is held while the caller asks.
    database = Database(empty_database_url, SystemClock(), durable=False)
    if database.is_sqlite:
        database.close()
        return
    budget = SqlBudget(database, "airtable", 1)
    row = sa.select(limiter.budgets).with_for_update()
    with ThreadPoolExecutor(1) as pool, database.write() as connection:
        connection.execute(row)
        asked = pool.submit(call, budget)
        waiting = sa.text("select count(*) from pg_locks where not granted")
        wait_until(lambda: connection.scalar(waiting), 20, "the caller waits for the row")
        freed_at = database.now(connection)
        connection.rollback()
        asked.result(20)
    with database.read() as connection:
        [known] = connection.scalars(sa.select(limiter.budgets.c.grants))
    assert min(json.loads(known)["calls"]) >= freed_at
    database.close()


def test_a_budget_that_is_removed_while_processes_run_begins_anew(
    database: Database, clock: HandClock
) -> None:
    budget = SqlBudget(database, "airtable", 2)
    call(budget)
    with database.write() as connection:
        connection.execute(sa.delete(limiter.budgets))
    start = clock.now()
    for _ in range(3):
        call(budget)
    assert elapsed(clock, start) == pytest.approx(WINDOW_SECONDS)
    assert limiter.usage(database) == {"airtable": (3, 0)}


def test_a_wait_longer_than_an_hour_is_one_of_an_hour(database: Database, clock: HandClock) -> None:
    budget = SqlBudget(database, "airtable", 5)
    budget.throttled(7_200)
    start = clock.now()
    call(budget)
    assert elapsed(clock, start) == pytest.approx(3_600)
    call(budget)
    assert elapsed(clock, start) == pytest.approx(3_600)


def test_a_live_caller_waits_for_room_in_its_turn_and_takes_none(
    database: Database, clock: HandClock
) -> None:
    live, bulk = SqlBudget(database, "airtable", 1), SqlBudget(database, "airtable", 1, BULK)
    call(bulk)
    start = clock.now()
    live.wait_for_place()
    assert elapsed(clock, start) == pytest.approx(WINDOW_SECONDS)
    call(live)
    assert elapsed(clock, start) == pytest.approx(WINDOW_SECONDS)
    assert limiter.usage(database) == {"airtable": (2, 0)}


def test_bulk_waits_for_a_place_before_it_claims_and_takes_none(
    database: Database, clock: HandClock
) -> None:
    bulk = SqlBudget(database, "airtable", 1, BULK)
    call(bulk)
    start = clock.now()
    bulk.wait_for_place()
    bulk.wait_for_place()
    assert elapsed(clock, start) == pytest.approx(WINDOW_SECONDS)
    call(bulk)
    assert elapsed(clock, start) == pytest.approx(WINDOW_SECONDS)


def test_a_call_that_was_slow_on_its_way_counts_from_when_it_arrived(
    database: Database, clock: HandClock
) -> None:
    budget = SqlBudget(database, "airtable", 1)
    with budget.slot():
        clock.advance(0.1)
    clock.advance(10)
    start = clock.now()
    with budget.slot():
        clock.advance(0.6)
    call(budget)
    late = 0.6 - 0.1 - MARGIN_SECONDS / 2  # which the window has already
    assert elapsed(clock, start) == pytest.approx(WINDOW_SECONDS + late, abs=0.01)


@pytest.mark.parametrize("late", [0.01, 0.03, 0.06, 0.1, 0.4])
def test_a_call_that_arrived_late_leaves_more_than_a_second_before_the_next(
    database: Database, clock: HandClock, late: float
) -> None:
    budget = SqlBudget(database, "airtable", 1)
    for n in range(20):  # what is usual, with a little noise
        with budget.slot():
            clock.advance(0.12 + n % 3 / 500)
    with budget.slot():
        clock.advance(late)
        arrived_at = clock.now()
        clock.advance(0.12)
    call(budget)
    assert elapsed(clock, arrived_at) >= 1.0 + MARGIN_SECONDS / 3


def test_a_failed_call_keeps_its_place(database: Database, clock: HandClock) -> None:
    budget = SqlBudget(database, "airtable", 1)

    def fail() -> None:
        with budget.slot():
            raise ZeroDivisionError

    start = clock.now()
    with pytest.raises(ZeroDivisionError):
        fail()
    call(budget)
    assert elapsed(clock, start) == pytest.approx(WINDOW_SECONDS)


def test_several_may_create_the_budget_at_once(empty_database_url: str, clock: HandClock) -> None:
    together = threading.Barrier(4)

    def create(_: int) -> None:
        database = Database(empty_database_url, clock, durable=False)
        together.wait()
        call(SqlBudget(database, "kommo", 7))
        database.close()

    database = Database(empty_database_url, clock, durable=False)
    assert limiter.usage(database) == {}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(create, range(4)))
    assert limiter.usage(database) == {"kommo": (4, 0)}
    database.close()


@pytest.mark.process
def test_real_processes_together_keep_to_the_limit_and_use_it(tmp_path: Path) -> None:
    rate, processes, calls = 15, 3, 11
    spawn = multiprocessing.get_context("spawn")
    together, started = spawn.Barrier(processes), spawn.Queue()
    url = f"sqlite:///{tmp_path / 'limits.db'}"
    workers = [
        spawn.Process(target=call_often, args=(url, rate, calls, together, started))
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    times = sorted(started.get(timeout=60) for _ in range(processes * calls))
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * processes
    # A second less a tenth: on a crowded machine a process may wake up late.
    assert most_in_a_second(times, 0.9) <= rate
    assert times[-1] - times[0] < 2 * (processes * calls // rate) * WINDOW_SECONDS


# ---------------------------------------------------------------------- the month's quota


def governed(database: Database, lane: Priority, limit: int | None = 100) -> SqlBudget:
    return SqlBudget(database, "airtable", 5, lane, MonthlyQuota("appBase", limit))


def call_times(budget: SqlBudget, times: int) -> None:
    for _ in range(times):
        call(budget)


def test_calls_are_counted_by_calendar_month_and_base(database: Database, clock: HandClock) -> None:
    mine = governed(database, LIVE, None)
    call_times(mine, 3)
    call(SqlBudget(database, "airtable", 5, LIVE, MonthlyQuota("appOther")))
    call(SqlBudget(database, "kommo", 7))
    march = limiter.month_so_far(database, MonthlyQuota("appBase"))
    assert (march.month, march.used, march.limit, march.bulk) == ("2026-03", 3, None, "full speed")
    clock.advance(30 * 86_400)
    call(mine)
    april = limiter.month_so_far(database, MonthlyQuota("appBase"))
    assert (april.month, april.used, april.forecast) == ("2026-04", 1, 30)
    assert limiter.forget_months(database, clock.now().timestamp()) == 2
    assert limiter.month_so_far(database, MonthlyQuota("appBase")).used == 1


def test_a_call_that_waits_twice_is_counted_once(
    database: Database, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = governed(database, LIVE, None)
    call_times(budget, 5)
    sleeps = list[float]()

    def wake_up_early(seconds: float) -> None:
        sleeps.append(seconds)
        clock.advance(seconds / 2 if len(sleeps) < 4 else seconds)

    monkeypatch.setattr(clock, "sleep", wake_up_early)
    call(budget)
    assert len(sleeps) == 4
    assert limiter.month_so_far(database, MonthlyQuota("appBase", None)).used == 6
    assert limiter.usage(database) == {"airtable": (6, 0)}


def test_a_store_of_an_earlier_version_is_opened_and_counts_from_now(
    empty_database_url: str, clock: HandClock
) -> None:
    database = Database(empty_database_url, clock, durable=False, server_time=False)
    with database.write() as connection:
        limiter.budgets.create(connection)
    quota = MonthlyQuota("appBase", 100)
    assert limiter.month_so_far(database, quota).used == 0
    assert limiter.bulk_may_begin(database, quota)
    assert limiter.forget_months(database, clock.now().timestamp()) == 0
    call(governed(database, LIVE))
    assert limiter.month_so_far(database, quota).used == 1
    database.close()


def test_bulk_is_slowed_then_stopped_while_live_goes_on(
    database: Database, clock: HandClock
) -> None:
    live, bulk = governed(database, LIVE), governed(database, BULK)
    call_times(live, 79)
    assert bulk.bulk_may_begin()
    call(bulk)
    assert bulk.bulk_may_begin()  # the call that reached the share owes nothing
    start = clock.now()
    call_times(bulk, 2)  # a batch that has begun is not held up
    assert elapsed(clock, start) < 2
    assert not bulk.bulk_may_begin()
    left = datetime(2026, 4, 1, tzinfo=timezone.utc) - start
    clock.advance(left.total_seconds() * 2 / 15 + 2)
    assert bulk.bulk_may_begin()
    call_times(bulk, 13)
    with pytest.raises(SideUnavailable) as refused:
        call(bulk)
    assert (refused.value.reason, refused.value.sent) == (RESERVED, False)
    assert limiter.month_so_far(database, MonthlyQuota("appBase", 100)).bulk == "stopped"
    before = clock.now()
    call_times(live, 20)
    assert elapsed(clock, before) < 5 * WINDOW_SECONDS
    assert limiter.month_so_far(database, MonthlyQuota("appBase", 100)).used == 115
    clock.advance(31 * 86_400)
    assert bulk.bulk_may_begin()


def test_a_larger_plan_frees_bulk_at_once(database: Database) -> None:
    call_times(governed(database, LIVE), 80)
    call_times(governed(database, BULK), 10)
    assert not governed(database, BULK).bulk_may_begin()
    assert governed(database, BULK, 1000).bulk_may_begin()
