"""Lets an engine die at any step that it takes towards its store and the APIs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from kommo_airtable_sync.engine.context import Engine


class Crash(BaseException):
    """The process is gone: nothing catches it."""


@dataclasses.dataclass
class Trap:
    """Lets an engine die at one step, before or after it took effect; and notes all steps.

    Args:
        step: ``part.method``, e.g. ``journal.open``; ``""`` = never.
        after: die once the step has been done, else before.
        nth: at which of its calls.
    """

    step: str = ""
    after: bool = False
    nth: int = 1
    steps: list[str] = dataclasses.field(default_factory=list)

    def set(self, engine: Engine) -> Engine:
        """The engine with the trap at each of its doors to the store and the APIs."""
        parts = ("inbox", "journal", "runners", "kommo", "airtable", "directory")
        watched = {part: _Watched(getattr(engine, part), part, self) for part in parts}
        return dataclasses.replace(engine, **watched)

    def call(self, step: str, act: Callable[[], Any], _args: Sequence[Any] = ()) -> Any:
        self.steps.append(step)
        springs = step == self.step and self.steps.count(step) == self.nth
        if springs and not self.after:
            raise Crash(step)
        result = act()
        if springs:
            raise Crash(step)
        return result


class Meanwhile(Trap):
    """Lets somebody act just before a step that is taken for the first time."""

    def __init__(self, step: str, somebody: Callable[[], object]) -> None:
        super().__init__()
        self._at, self._somebody = step, somebody

    def call(self, step: str, act: Callable[[], Any], _args: Sequence[Any] = ()) -> Any:
        first = step == self._at and step not in self.steps
        self.steps.append(step)
        if first:
            self._somebody()
        return act()


class _Watched:
    def __init__(self, target: object, part: str, trap: Trap) -> None:
        self._target, self._part, self._trap = target, part, trap

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return found
        step = f"{self._part}.{name}"
        return lambda *args, **named: self._trap.call(step, lambda: found(*args, **named), args)
