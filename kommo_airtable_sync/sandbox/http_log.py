"""What both stand-ins count: calls as they arrive, and calls a second."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(slots=True)
class Call:
    """One call, from its arrival on.

    Args:
        at: arrival, epoch seconds.
        method: HTTP method.
        path: the path as called.
        route: the path with ids replaced (``/api/v4/leads/{id}``), to count by.
        status: the answer; 0 while there is none, which stays so if the connection is dropped.
    """

    at: float
    method: str
    path: str
    route: str
    status: int = 0


class RequestLog:
    """Every call since the last reset. Not thread-safe: the model's lock guards it.

    Args:
        keep: how many calls are listed one by one; the counts know all.
    """

    def __init__(self, keep: int = 100_000) -> None:
        self._keep = keep
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._calls: deque[Call] = deque(maxlen=self._keep)
        self._routes: Counter[str] = Counter()
        self._statuses: Counter[int] = Counter()

    def arrived(self, at: float, method: str, path: str, route: str) -> Call:
        """Note a call at its arrival; hand the returned entry to ``answered``."""
        call = Call(at, method, path, route)
        self._calls.append(call)
        self._routes[f"{method} {route}"] += 1
        return call

    def answered(self, call: Call, status: int) -> None:
        """Note what the call was answered; 0 = the connection was dropped."""
        call.status = status
        self._statuses[status] += 1

    def as_json(self) -> dict[str, Any]:
        """``{total, by_route: {"GET /x": n}, by_status: {"200": n}, too_many_requests, log}``."""
        return {
            "total": sum(self._routes.values()),
            "by_route": dict(sorted(self._routes.items())),
            "by_status": {str(status): n for status, n in sorted(self._statuses.items())},
            "too_many_requests": self._statuses[429],
            "log": [asdict(call) for call in self._calls],
        }


class RateWindow:
    """A sliding window over accepted calls: at most ``limit`` in any ``seconds``.

    Args:
        limit: calls; may be changed while running.
        seconds: length of the window.
    """

    def __init__(self, limit: int, seconds: float = 1.0) -> None:
        self.limit = limit
        self.seconds = seconds
        self._accepted: dict[str, deque[float]] = {}

    def admit(self, at: float, key: str = "") -> bool:
        """Whether a call arriving at ``at`` (epoch seconds) is within the limit of ``key``.

        Refused calls do not count against the window.
        """
        accepted = self._accepted.setdefault(key, deque())
        while accepted and accepted[0] <= at - self.seconds:
            accepted.popleft()
        if len(accepted) >= self.limit:
            return False
        accepted.append(at)
        return True

    def reset(self) -> None:
        """Forget all calls."""
        self._accepted.clear()
