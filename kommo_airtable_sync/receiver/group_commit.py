"""One commit for whatever requests wait: the durable answer without one disk flush a request.

While one transaction is being flushed, the requests that arrive gather; the next transaction takes
them all. So a lone event waits for one flush, and a storm for two at most.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from kommo_airtable_sync.core.types import IncomingEvent

WAITING_MAX = 1_000
"""Requests in the queue; beyond it the sender is told to come back."""
COMMIT_EVENTS_MAX = 1_000
"""Events in one transaction, so that a storm does not grow one that outlasts its senders."""
ANSWER_SECONDS_MAX = 1.8
"""Kommo gives up at 2 s (reference/kommo-api 6.4); an honest 503 just before costs no more."""


class Inbox(Protocol):
    """What the receiver asks of the store."""

    def receive(self, incoming: Sequence[IncomingEvent], /) -> None:
        """Store all of these in one committed transaction, or raise."""
        ...

    def writable(self) -> bool:
        """Whether an event could be stored now."""
        ...


class NotStored(Exception):
    """The events are not known to be committed; the sender is to send them again.

    Args:
        reason: a few words for the log, without any data.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class _Waiting:
    """One request's events, and the future that its handler waits on."""

    def __init__(self, events: Sequence[IncomingEvent]) -> None:
        self.events = events
        # The error is the result, not the exception: nobody may be left to retrieve it.
        self.outcome: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()


class GroupCommit:
    """The queue, and the one thread that writes to the inbox; belongs to one event loop.

    Args:
        inbox: where events go.
        waiting_max: requests that may wait.
        answer_seconds_max: how long one request waits before it is told 503; its events may still
            be committed then, which does no harm: a repeated event merges to nothing.
    """

    def __init__(
        self,
        inbox: Inbox,
        *,
        waiting_max: int = WAITING_MAX,
        answer_seconds_max: float = ANSWER_SECONDS_MAX,
    ) -> None:
        self._inbox = inbox
        self._waiting_max = waiting_max
        self._answer_seconds_max = answer_seconds_max
        self._waiting: deque[_Waiting] = deque()
        self._committing: asyncio.Task[None] | None = None
        self._stopped = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inbox-writer")

    async def submit(self, events: Sequence[IncomingEvent]) -> None:
        """Return once these events are committed.

        Raises:
            NotStored: the queue is full or closed, the inbox refused, or it took too long.
        """
        if self._stopped or len(self._waiting) >= self._waiting_max:
            raise NotStored("stopping" if self._stopped else "too many requests wait")
        waiting = _Waiting(events)
        self._waiting.append(waiting)
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit_all())
        done, _ = await asyncio.wait({waiting.outcome}, timeout=self._answer_seconds_max)
        error = waiting.outcome.result() if done else "the commit takes too long"
        if error is not None:
            raise NotStored(error)

    async def stop(self) -> None:
        """Take no more, commit what waits, and end the thread."""
        self._stopped = True
        if self._committing is not None:
            await self._committing
        self._thread.shutdown(wait=False)

    async def _commit_all(self) -> None:
        while self._waiting:
            group = self._take()
            error = await self._receive(group)
            if (
                error is not None
                and len(group) > 1
                and await self._run(self._inbox.writable) is True
            ):
                # The inbox works, so one request's events are at fault: the others go in alone.
                for waiting in group:
                    waiting.outcome.set_result(await self._receive([waiting]))
                continue
            for waiting in group:
                waiting.outcome.set_result(error)

    def _take(self) -> list[_Waiting]:
        group = [self._waiting.popleft()]
        count = len(group[0].events)
        while self._waiting and count + len(self._waiting[0].events) <= COMMIT_EVENTS_MAX:
            count += len(self._waiting[0].events)
            group.append(self._waiting.popleft())
        return group

    async def _receive(self, group: Sequence[_Waiting]) -> str | None:
        """Commit these; the kind of error if that failed (its text may quote a person's data)."""
        events = [event for waiting in group for event in waiting.events]
        outcome = await self._run(self._inbox.receive, events)
        return type(outcome).__name__ if isinstance(outcome, BaseException) else None

    async def _run(self, call: Callable[..., Any], *arguments: Any) -> object:
        """What the call gives, or the error it raises, as a value: one failure stops no queue."""
        running = asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)
        [outcome] = await asyncio.gather(running, return_exceptions=True)
        return outcome
