"""Seeded faults for both stand-ins: what goes wrong, on which calls, and how often.

A fault is decided once, when a call arrives (``Faults.verdict``), so that a seed reproduces a run.
The model carries the verdict out; ``DroppingProtocol`` lets a server really cut the connection.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class ConnectionDropped(Exception):
    """The stand-in cuts the connection instead of answering.

    Args:
        applied: True if the request took effect before the answer was lost.
    """

    def __init__(self, *, applied: bool) -> None:
        self.applied = applied
        super().__init__("answer lost" if applied else "connection dropped before the request")


class Fault(BaseModel):
    """One thing that goes wrong on matching calls. Its JSON is what ``/_control/faults`` takes.

    Attributes:
        kind: answer ``status``; drop the connection before or after the request is applied;
            or ``delay`` it by ``seconds`` before it is applied.
        method: HTTP method, ``*`` for all.
        route: shell pattern over the whole path, e.g. ``/api/v4/leads*``.
        status: for kind ``status``; the stand-in supplies its API's body for it.
        applied: for kind ``status``: the request takes effect although it is answered so.
        variant: a spelling of the body, where the stand-in knows several.
        seconds: for kind ``delay``.
        probability: chance on each matching call, 0 to 1.
        times: how many more calls it hits; None = until cleared.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["status", "drop_before", "drop_after", "delay"]
    method: str = "*"
    route: str = "*"
    status: int = Field(default=500, ge=100, le=599)
    applied: bool = False
    variant: str = ""
    seconds: float = Field(default=0.0, ge=0)
    probability: float = Field(default=1.0, ge=0, le=1)
    times: int | None = Field(default=None, ge=0)

    def matches(self, method: str, path: str) -> bool:
        """Whether a call is of the kind this fault may hit; spends nothing."""
        if self.times == 0 or self.method not in ("*", method.upper()):
            return False
        return fnmatchcase(path, self.route)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to go wrong with one call; the default is nothing.

    Args:
        fault: the status or drop to carry out, if any.
        delay_seconds: to wait before the request is applied, on top of the normal latency.
    """

    fault: Fault | None = None
    delay_seconds: float = 0.0

    @property
    def status(self) -> int | None:
        """The status to answer in place of the API's own."""
        return self.fault.status if self.fault and self.fault.kind == "status" else None

    @property
    def drop(self) -> Literal["before", "after"] | None:
        """Whether the connection is cut, and on which side of applying the request."""
        kinds: dict[str, Literal["before", "after"]] = {
            "drop_before": "before",
            "drop_after": "after",
        }
        return kinds.get(self.fault.kind) if self.fault else None

    @property
    def applies(self) -> bool:
        """Whether the request still takes effect."""
        return self.drop != "before" and (
            self.status is None or bool(self.fault and self.fault.applied)
        )


class Faults:
    """The faults now set, with the seeded dice. Not thread-safe: the model's lock guards it.

    Args:
        seed: the same seed, faults and calls give the same verdicts.
    """

    def __init__(self, seed: int = 0) -> None:
        self._dice = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Set one more fault; earlier ones are asked first."""
        self._faults.append(fault.model_copy())

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        self._faults.clear()

    def current(self) -> list[Fault]:
        """The faults that can still hit, oldest first, with ``times`` as left."""
        return [fault.model_copy() for fault in self._faults if fault.times != 0]

    def verdict(self, method: str, path: str) -> Verdict:
        """Decide one call, spending ``times``: all delays add up, the first other fault wins."""
        chosen: Fault | None = None
        delay = 0.0
        for fault in self._faults:
            if fault.kind != "delay" and chosen is not None:
                continue
            if not fault.matches(method, path) or self._dice.random() >= fault.probability:
                continue
            if fault.times is not None:
                fault.times -= 1
            if fault.kind == "delay":
                delay += fault.seconds
            else:
                chosen = fault.model_copy()
        return Verdict(chosen, delay)


class DroppingProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol (``http=DroppingProtocol``) whose apps may cut the connection.

    An app calls ``scope["state"]["abort"]()``, awaits ``http.disconnect`` and returns; the caller
    then sees a reset connection without one byte of an answer, as when a proxy dies.
    """

    def on_message_begin(self) -> None:
        """Hand every request the way to cut its connection."""
        super().on_message_begin()
        state = self.scope.setdefault("state", {})
        state["abort"] = self.transport.abort
