"""What both stand-ins are about to POST, and what became of it. No sockets here."""

from __future__ import annotations

import heapq
import random
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """One POST to make.

    Args:
        destination: URL.
        body: the exact bytes, ASCII.
        headers: all that go out.
        due_at: epoch seconds.
        attempt: 1 for the first.
    """

    destination: str
    body: bytes
    headers: dict[str, str]
    due_at: float
    attempt: int = 1


PostT = TypeVar("PostT", bound=Post)


class Outgoing(ABC, Generic[PostT]):
    """Deliveries to come and a log of those made. Not thread-safe: the model's lock guards it.

    Args:
        now: epoch seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self._waiting: list[tuple[float, int, PostT]] = []
        self._count = 0
        self.under_way = 0  # taken, and not answered yet
        self.log: deque[dict[str, Any]] = deque(maxlen=100_000)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def unanswered(self) -> int:
        """How many wait or are being delivered."""
        return len(self) + self.under_way

    def push(self, post: PostT) -> None:
        """Let one wait until it is due."""
        self._count += 1  # keeps the order of equal times
        heapq.heappush(self._waiting, (post.due_at, self._count, post))

    def next_due_at(self) -> float | None:
        """When the next one is due, if one waits."""
        return self._waiting[0][0] if self._waiting else None

    def take_due(self, most: int = 1000) -> list[PostT]:
        """Take out what is due now, oldest first."""
        now, due = self.now(), list[PostT]()
        while self._waiting and self._waiting[0][0] <= now and len(due) < most:
            due.append(heapq.heappop(self._waiting)[2])
        return due

    def note(self, post: PostT, status: int, sent_at: float) -> None:
        """Log an answer; see ``settle``."""
        entry = asdict(post) | {"body": post.body.decode("ascii"), "status": status}
        self.log.append(entry | {"sent_at": sent_at, "answered_at": self.now()})

    @abstractmethod
    def settle(self, delivery: PostT, status: int, sent_at: float) -> None:
        """Note an answer and draw the consequences.

        Args:
            delivery: from ``take_due``.
            status: HTTP code, 0 for no answer in time.
            sent_at: epoch seconds at which it was sent.
        """

    @abstractmethod
    def timeout_seconds(self, delivery: PostT) -> float:
        """A slower answer counts as none."""


class Sender(Generic[PostT]):
    """The side of a model that deliveries are taken from; safe to share between threads.

    ``hooks_waiting`` is set when something new waits.
    """

    lock: threading.RLock
    hooks_waiting: threading.Event
    outbox: Outgoing[PostT]

    def take_due_hooks(self) -> list[PostT]:
        """The deliveries to make now; tell each answer to ``settle_hook``."""
        with self.lock:
            due = self.outbox.take_due()
            self.outbox.under_way += len(due)
            return due

    def next_hook_at(self) -> float | None:
        """Epoch seconds at which the next delivery is due, if one waits."""
        with self.lock:
            return self.outbox.next_due_at()

    def settle_hook(self, delivery: PostT, status: int, sent_at: float) -> None:
        """Report what a delivery was answered; 0 = nothing within the time-out."""
        with self.lock:
            self.outbox.under_way = max(0, self.outbox.under_way - 1)  # none after a reset
            self.outbox.settle(delivery, status, sent_at)


def fates(
    dice: random.Random,
    *,
    lose: float,
    duplicate: float,
    reorder_seconds: float,
    late: float = 0.0,
    late_seconds: float = 0.0,
) -> list[float]:
    """How long each copy of a delivery is held back: none if it is lost, two if it comes twice.

    Args:
        dice: seeded.
        lose: chance of no delivery.
        duplicate: chance of a second copy.
        reorder_seconds: a copy is held for a random time up to this.
        late: chance that a copy is held ``late_seconds`` longer.
        late_seconds: see ``late``.
    """
    if dice.random() < lose:
        return []
    held: list[float] = []
    for _ in range(2 if dice.random() < duplicate else 1):
        seconds = dice.uniform(0, reorder_seconds)
        held.append(seconds + (late_seconds if dice.random() < late else 0))
    return held
