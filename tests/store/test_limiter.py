"""The shared rate budget: the pure decision by properties, the SQL by contract and processes."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timezone
from heapq import heappop, heappush
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.errors import SideUnavailable
from kommo_airtable_sync.core.quota import RESERVED, MonthlyQuota
from kommo_airtable_sync.core.types import BULK, LIVE, Priority
from kommo_airtable_sync.store import limiter
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.limiter import (
    LATE_SECONDS,
    MARGIN_SECONDS,
    WINDOW_SECONDS,
    BudgetState,
    SqlBudget,
    keep_place,
    next_grant,
)
from tests.conftest import HandClock
from tests.store.caller import call_often

# Doubles of seconds since the epoch are exact to about a quarter of a microsecond.
JITTER = 1e-5
START = 1_700_000_000.0

rates = st.integers(1, 7)
lanes = st.sampled_from([LIVE, BULK])
waits = st.one_of(st.just(0.0), st.floats(0, 0.4), st.floats(0, 3))
# (seconds since the last ask, lane, a 429 with so many seconds to wait, or none)
asks = st.lists(
    st.tuples(waits, lanes, st.one_of(st.none(), st.none(), st.floats(0.1, 30))), max_size=60
)


def most_in_a_second(times: Sequence[float], window: float = 1.0) -> int:
    ordered = sorted(times)
    return max((sum(at <= other < at + window for other in ordered) for at in ordered), default=0)


@given(rates, asks)
def test_no_second_ever_holds_more_grants_than_the_limit(
    rate: int, sequence: list[tuple[float, Priority, float | None]]
) -> None:
    state, now, granted = BudgetState(()), START, list[float]()
    for wait, lane, blocked_for in sequence:
        now += wait
        if blocked_for is not None:
            # A shorter block after a longer one must not bring the order into disorder either.
            state = replace(state, blocked_until=now + blocked_for)
        grant = next_grant(state, rate, lane, now)
        if grant.granted:
            granted.append(grant.at)
        state = grant.state
    assert most_in_a_second(granted, WINDOW_SECONDS - JITTER) <= rate
    assert granted == sorted(granted)


@given(rates, asks)
def test_nothing_is_granted_before_the_block_ends_or_in_the_past(
    rate: int, sequence: list[tuple[float, Priority, float | None]]
) -> None:
    state, now = BudgetState(()), START
    for wait, lane, blocked_for in sequence:
        now += wait
        if blocked_for is not None:
            state = replace(state, blocked_until=now + blocked_for)
        grant = next_grant(state, rate, lane, now)
        assert grant.at >= now
        if grant.granted:
            assert grant.at >= state.blocked_until
        else:
            assert lane == BULK
            assert grant.at > now
            assert grant.state == state
        state = grant.state


@given(rates, asks)
def test_bulk_goes_at_once_or_not_at_all_and_never_while_live_waits(
    rate: int, sequence: list[tuple[float, Priority, float | None]]
) -> None:
    state, now, live = BudgetState(()), START, [0.0]
    for wait, lane, blocked_for in sequence:
        now += wait
        if blocked_for is not None:
            state = replace(state, blocked_until=now + blocked_for)
        grant = next_grant(state, rate, lane, now)
        if lane == LIVE:
            live.append(grant.at)
        elif grant.granted:
            assert grant.at == now
            assert max(live) <= now
        state = grant.state


@given(rates, asks, st.integers(0, 30))
def test_a_live_caller_waits_only_for_the_live_callers_before_it(
    rate: int, sequence: list[tuple[float, Priority, float | None]], queue: int
) -> None:
    state, now = BudgetState(()), START
    for wait, _, _ in sequence:
        now += wait
        state = next_grant(state, rate, BULK, now).state
    for place in range(queue):
        grant = next_grant(state, rate, LIVE, now)
        assert grant.granted
        assert grant.at - now <= (place // rate + 1) * WINDOW_SECONDS + JITTER
        state = grant.state


@given(rates, st.lists(st.tuples(waits, waits), min_size=1, max_size=40))
def test_no_second_holds_more_calls_than_the_limit_however_late_the_callers_wake_up(
    rate: int, callers: list[tuple[float, float]]
) -> None:
    # Each caller asks so long after the one before, and wakes up so much too late, each time.
    state, called = BudgetState(()), list[float]()
    asks, asked_at = list[tuple[float, int]](), START
    for number, (pause, _) in enumerate(callers):
        asked_at += pause
        asks.append((asked_at, number))
    places = dict[int, float]()
    while asks:
        now, caller = heappop(asks)
        if caller in places:
            grant = keep_place(state, rate, places[caller], now)
        else:
            grant = next_grant(state, rate, LIVE, now)
        state, places[caller] = grant.state, grant.at
        if grant.at <= now:
            called.append(now)
        else:
            heappush(asks, (grant.at + callers[caller][1], caller))
    assert len(called) == len(callers)
    assert most_in_a_second(called, WINDOW_SECONDS - LATE_SECONDS - JITTER) <= rate


@given(rates, st.integers(1, 30))
def test_callers_who_wake_up_in_time_keep_their_places(rate: int, waiting: int) -> None:
    state = BudgetState(())
    for _ in range(waiting):
        state = next_grant(state, rate, LIVE, START).state
    for place in state.grants:
        kept = keep_place(state, rate, place, place + LATE_SECONDS / 2)
        assert kept.at == place
        assert set(kept.state.grants) <= set(state.grants)


@pytest.mark.parametrize("rate", [1, 5, 7])
@pytest.mark.parametrize("lane", [LIVE, BULK])
def test_nine_tenths_of_the_limit_are_used_when_always_asked(rate: int, lane: Priority) -> None:
    state, now, granted, seconds = BudgetState(()), START, 0, 60
    while now < START + seconds:
        grant = next_grant(state, rate, lane, now)
        state, now, granted = grant.state, grant.at, granted + grant.granted
    assert granted >= 0.9 * rate * seconds


def test_calls_may_go_together_as_long_as_the_second_is_not_full() -> None:
    state, times = BudgetState(()), list[float]()
    for _ in range(11):
        grant = next_grant(state, 5, LIVE, START)
        state = grant.state
        times.append(grant.at)
    assert times[:5] == [START] * 5
    assert times[5:10] == [START + WINDOW_SECONDS] * 5
    assert times[10] == pytest.approx(START + 2 * WINDOW_SECONDS)


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
    database: Database, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = SqlBudget(database, "airtable", 1)
    with monkeypatch.context() as patched:
        # What is read of the clock inside the transaction is half a second old at its end.
        store = limiter._store  # pyright: ignore[reportPrivateUsage]
        patched.setattr(limiter, "_store", lambda *a, **k: (store(*a, **k), clock.advance(0.5)))
        call(budget)
    sent_at = clock.now()
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
    late = 0.6 - 0.1 * 1.02 - MARGIN_SECONDS  # which the window has already
    assert elapsed(clock, start) == pytest.approx(WINDOW_SECONDS + late, abs=0.01)


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
