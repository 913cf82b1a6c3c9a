"""The shared rate budget: laws of who may go, for callers who wake up late or never."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from heapq import heapify, heappop, heappush

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.rate_budget import (
    ABSENT_SECONDS,
    BLOCK_SECONDS_MAX,
    GRACE_SECONDS,
    LATE_SECONDS,
    PACE_SECONDS,
    WINDOW_SECONDS,
    BudgetState,
    Look,
    look,
)
from kommo_airtable_sync.core.types import BULK, LIVE, Priority

# Doubles of seconds since the epoch are exact to about a quarter of a microsecond.
JITTER = 1e-5
START = 1_700_000_000.0

rates = st.integers(1, 7)
lanes = st.sampled_from([LIVE, BULK])
waits = st.one_of(st.just(0.0), st.floats(0, 0.4), st.floats(0, 3))
blocks = st.one_of(st.floats(0.1, 30), st.floats(30, BLOCK_SECONDS_MAX))
# (seconds since the last ask, lane, a 429 with so many seconds to wait, or none)
asks = st.lists(
    st.tuples(waits, lanes, st.one_of(st.none(), st.none(), blocks)), min_size=1, max_size=40
)


def most_in_a_window(times: Sequence[float]) -> int:
    window = WINDOW_SECONDS - LATE_SECONDS - JITTER
    return max(sum(at <= other < at + window for other in times) for at in times)


class Account:
    """Callers who ask, sleep, wake up and go, in the order of time."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.state = BudgetState()
        self.went: list[tuple[float, int]] = []
        self.looks = 0

    def play(self, callers: Sequence[tuple[float, Priority]], late: Sequence[float]) -> None:
        """Each asks at its time, and wakes up later than it meant to, each time in turn."""
        todo = [(asked_at, caller) for caller, (asked_at, _) in enumerate(callers)]
        numbers = dict[int, int | None]()
        heapify(todo)
        while todo:
            self.looks += 1
            assert self.looks < 200 * len(callers), "nobody gets anywhere"
            now, caller = heappop(todo)
            found = look(self.state, self.rate, callers[caller][1], now, numbers.get(caller))
            self.state, numbers[caller] = found.state, found.number
            if found.go:
                self.went.append((now, caller))
            else:
                slept = found.at + (late[self.looks % len(late)] if late else 0.0)
                heappush(todo, (max(slept, now + 0.001), caller))


@given(rates, asks, st.lists(st.floats(0, 3), max_size=9))
def test_no_window_holds_more_calls_than_the_limit_however_late_callers_wake_up(
    rate: int, sequence: list[tuple[float, Priority, float | None]], late: list[float]
) -> None:
    account, now, callers = Account(rate), START, list[tuple[float, Priority]]()
    for wait, lane, _ in sequence:
        now += wait
        callers.append((now, lane))
    account.play(callers, late)
    assert len(account.went) == len(callers)
    assert most_in_a_window([at for at, _ in account.went]) <= rate
    assert len(account.state.calls) <= 3 * rate
    assert not account.state.queue


@given(rates, asks)
def test_nobody_goes_before_the_block_ends(
    rate: int, sequence: list[tuple[float, Priority, float | None]]
) -> None:
    state, now = BudgetState(), START
    for wait, lane, blocked_for in sequence:
        now += wait
        if blocked_for is not None:
            state = replace(state, blocked_until=max(state.blocked_until, now + blocked_for))
        blocked_until = state.blocked_until
        found = look(state, rate, lane, now)
        assert found.at >= max(now - LATE_SECONDS, blocked_until)
        assert found.go == (found.at <= now)
        state = found.state
        assert state.blocked_until == blocked_until


@given(rates, st.integers(2, 30), st.floats(1, BLOCK_SECONDS_MAX))
def test_those_who_wait_for_the_end_of_a_block_do_not_all_go_at_once(
    rate: int, callers: int, blocked_for: float
) -> None:
    account = Account(rate)
    account.state = BudgetState(blocked_until=START + blocked_for)
    account.play([(START, LIVE)] * callers, [])
    assert min(account.went)[0] >= START + blocked_for
    assert most_in_a_window([at for at, _ in account.went]) <= rate


@given(rates, st.integers(1, 30))
def test_live_callers_who_wake_up_in_time_go_in_the_order_in_which_they_came(
    rate: int, callers: int
) -> None:
    account = Account(rate)
    account.play([(START + n / 1_000, LIVE) for n in range(callers)], [])
    assert [caller for _, caller in account.went] == list(range(callers))
    for place, (at, _) in enumerate(account.went):
        assert at - START <= place // rate * WINDOW_SECONDS + callers / 1_000 + JITTER


@given(rates, st.lists(st.floats(0, 0.4), max_size=40), st.floats(0, 2))
def test_a_live_caller_among_bulk_calls_waits_for_a_part_of_the_window(
    rate: int, pauses: list[float], pause: float
) -> None:
    state, now = BudgetState(), START
    for each in pauses:
        now += each
        state = look(state, rate, BULK, now).state
    now += pause
    pairs = (rate + 1) // 2
    longest = WINDOW_SECONDS - (pairs - 1) * 2 * PACE_SECONDS / rate
    assert look(state, rate, LIVE, now).at - now <= longest + JITTER


@given(rates, st.integers(1, 20), st.floats(0, 5))
def test_bulk_leaves_room_for_those_who_wait(rate: int, waiting: int, pause: float) -> None:
    state, now = BudgetState(), START
    for _ in range(rate + waiting):
        state = look(state, rate, LIVE, now).state
    queue, now = len(state.queue), now + pause
    found = look(state, rate, BULK, now)
    assert found.number is None
    assert len(found.state.queue) == queue
    expected = [each for each in state.queue if each.until >= now - GRACE_SECONDS]
    if found.go:
        for each in expected:
            mine = look(found.state, rate, LIVE, now, each.number)
            assert mine.go
            found = mine


@pytest.mark.parametrize("rate", [1, 5, 7])
@pytest.mark.parametrize("lane", [LIVE, BULK])
@pytest.mark.parametrize("late", [0.0, 0.02])
def test_nine_tenths_of_the_limit_are_used_when_always_asked(
    rate: int, lane: Priority, late: float
) -> None:
    state, now, number, went, seconds = BudgetState(), START, None, 0, 60
    while now < START + seconds:
        found = look(state, rate, lane, now, number)
        state, number, went = found.state, found.number, went + found.go
        now = now if found.go else found.at + late
    assert went >= 0.9 * rate * seconds


def test_calls_may_go_together_as_long_as_the_second_is_not_full() -> None:
    account = Account(5)
    account.play([(START, LIVE)] * 11, [])
    times = [at - START for at, _ in account.went]
    expected = [0.0] * 5 + [WINDOW_SECONDS] * 5 + [2 * WINDOW_SECONDS]
    assert times == pytest.approx(expected, abs=0.002)


def test_who_comes_a_little_late_for_its_turn_does_not_put_off_those_behind_it() -> None:
    state = look(BudgetState(), 1, LIVE, START).state
    slept = queued(state)
    goes = look(slept.state, 1, LIVE, slept.at + LATE_SECONDS / 2, slept.number)
    assert (goes.go, goes.at) == (True, slept.at)
    late = look(slept.state, 1, LIVE, slept.at + 2 * LATE_SECONDS, slept.number)
    assert late.at == pytest.approx(slept.at + LATE_SECONDS)
    overslept = look(slept.state, 1, LIVE, slept.at + 1, slept.number)
    assert overslept.at == slept.at + 1


def queued(state: BudgetState, now: float = START) -> Look:
    found = look(state, 1, LIVE, now)
    assert not found.go
    return found


def test_who_died_in_the_queue_holds_up_nobody_for_long() -> None:
    state = look(BudgetState(), 1, LIVE, START).state
    dead = queued(state)
    behind = queued(dead.state)
    assert behind.at == pytest.approx(START + 2 * WINDOW_SECONDS)
    assert not look(behind.state, 1, LIVE, dead.at + GRACE_SECONDS - JITTER, behind.number).go
    goes = look(behind.state, 1, LIVE, dead.at + GRACE_SECONDS + JITTER, behind.number)
    assert goes.go
    assert look(goes.state, 1, LIVE, START + 2 * ABSENT_SECONDS).state.queue == ()


def test_who_overslept_keeps_its_place() -> None:
    state = look(BudgetState(), 1, LIVE, START).state
    slept = queued(state)
    late = slept.at + 5
    state = look(slept.state, 1, LIVE, late).state
    newcomer = look(state, 1, LIVE, late)
    assert newcomer.at == pytest.approx(late + WINDOW_SECONDS)
    mine = look(newcomer.state, 1, LIVE, late + 0.1, slept.number)
    assert mine.at == pytest.approx(late + WINDOW_SECONDS)
    assert mine.number == slept.number
    assert not look(mine.state, 1, LIVE, mine.at, newcomer.number).go
    assert look(mine.state, 1, LIVE, mine.at, slept.number).go


@pytest.mark.parametrize("back", [5.0, 7_200.0])
def test_a_clock_that_is_set_back_holds_nobody_up(back: float) -> None:
    state = look(BudgetState(), 1, LIVE, START).state
    slept = queued(state)
    found = look(slept.state, 1, LIVE, START - back, slept.number)
    assert found.at <= START - back + 2 * WINDOW_SECONDS
    assert look(BudgetState(blocked_until=START + back), 1, LIVE, START + back).go


def test_a_block_of_a_clock_that_was_set_back_is_none() -> None:
    state = BudgetState(blocked_until=START + BLOCK_SECONDS_MAX + 1)
    assert look(state, 1, LIVE, START).go
