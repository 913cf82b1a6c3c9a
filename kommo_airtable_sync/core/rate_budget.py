"""Who may call an API next, and when: one rate budget for each remote account (design 3.6).

What counts is when calls *arrive*: at most N of them, the API's calls a second, in any window.
That is a little longer than a second, for what is late on the wire. So five calls may go at once,
and six never fall into one second.

Live callers for whom there is no room stand in a queue, sleep until their turn should come, and
look again then: calls before theirs may have been late. Bulk callers go when there is room beside
those who wait, or not at all. They go evenly, not five at once and then none for a second: who
comes live meanwhile waits for about a third of one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from kommo_airtable_sync.core.types import BULK, Priority

MARGIN_SECONDS = 0.07
WINDOW_SECONDS = 1.0 + MARGIN_SECONDS
# Half of the margin is for calls that were late, before they were sent or on their way. The other
# half stays, for no call is on its way for exactly as long as another.
LATE_SECONDS = MARGIN_SECONDS / 2
# Bulk calls for a whole window are spread over so much of it; the rest is for late ones.
PACE_SECONDS = 0.9
# Who has not looked for so long after its time holds up nobody any more, but keeps its place ...
GRACE_SECONDS = 0.25
# ... and after so long it has died, or begins anew.
ABSENT_SECONDS = 60.0
# Nobody is blocked for longer; a later end is of a clock that was set back.
BLOCK_SECONDS_MAX = 3600.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """A caller in the queue: its number, and until when it sleeps."""

    number: int
    until: float


@dataclass(frozen=True, slots=True)
class BudgetState:
    """One account's row: times in seconds since the epoch; calls oldest first, queue in order."""

    calls: tuple[float, ...] = ()
    queue: tuple[Waiting, ...] = ()
    next_number: int = 1
    blocked_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Look:
    """What a caller finds: it may go, and counts from ``at``; or is to look again then."""

    go: bool
    at: float
    number: int | None
    state: BudgetState


def look(
    state: BudgetState, calls_per_second: int, lane: Priority, now: float, number: int | None = None
) -> Look:
    """Decide whether a caller may go. Pure; the caller stores the returned state.

    Args:
        state: of the account.
        calls_per_second: the API's limit.
        lane: bulk callers never stand in the queue.
        now: database time.
        number: of a caller that stands in the queue already.
    """
    state = sane(state, now)
    place = next((n for n, each in enumerate(state.queue) if each.number == number), None)
    ahead = sum(each.until >= now - GRACE_SECONDS for each in state.queue[:place])
    free = _turn(state, calls_per_second, ahead, now)
    if lane == BULK and len(state.calls) > 1:
        # Two calls' time after the last but one: a late one is made up for by the next.
        free = max(free, state.calls[-2] + 2 * PACE_SECONDS / calls_per_second)
    if free <= now:
        # Who comes a little late for its turn does not put off those behind it.
        mark = max(free, now - LATE_SECONDS) if now - free <= GRACE_SECONDS else now
        left = tuple(each for each in state.queue if each.number != number)
        calls = tuple(sorted([*state.calls, mark]))
        return Look(True, mark, None, replace(state, calls=calls, queue=left))
    if lane == BULK:
        return Look(False, free, None, state)
    if place is None:
        number, state = state.next_number, replace(state, next_number=state.next_number + 1)
        return Look(
            False, free, number, replace(state, queue=(*state.queue, Waiting(number, free)))
        )
    me = replace(state.queue[place], until=free)
    queue = (*state.queue[:place], me, *state.queue[place + 1 :])
    return Look(False, free, number, replace(state, queue=queue))


def _turn(state: BudgetState, calls_per_second: int, ahead: int, now: float) -> float:
    """Since when, or from when, there is room for one more call beside so many ahead of it."""
    calls, at = state.calls[-calls_per_second:], state.blocked_until
    for left in range(ahead, -1, -1):
        if len(calls) == calls_per_second:
            at = max(at, calls[0] + WINDOW_SECONDS)
        if left:  # those ahead are still to go
            at = max(at, now)
            calls = tuple(sorted([*calls, at]))[-calls_per_second:]
    return at


def sane(state: BudgetState, now: float) -> BudgetState:
    """Without what is long past, and what is still to come only by a clock that was set back."""
    latest = now + BLOCK_SECONDS_MAX
    since, until = now - 2 * WINDOW_SECONDS, now + WINDOW_SECONDS
    looking_since = now - ABSENT_SECONDS
    return replace(
        state,
        calls=tuple(at for at in state.calls if since < at <= until),
        queue=tuple(each for each in state.queue if looking_since <= each.until <= latest),
        blocked_until=state.blocked_until if state.blocked_until <= latest else now,
    )
