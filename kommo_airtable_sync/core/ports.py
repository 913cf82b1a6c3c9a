"""What the pure core and the API clients ask of the world, as narrow protocols."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Where "now" comes from; tests and the simulator turn it by hand."""

    def now(self) -> datetime:
        """The present, aware UTC."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        ...


class Budget(Protocol):
    """One remote account's rate budget, shared by every process of ours (design 3.6)."""

    def slot(self) -> AbstractContextManager[None]:
        """Wait for the right to make one call; leave the context when the call has ended."""
        ...

    def throttled(self, retry_after_seconds: float) -> None:
        """The API answered 429: nobody calls it for so many seconds."""
        ...
