"""A storm over running processes: work at a steady rate while parts of the product are killed."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import psutil
import sqlalchemy as sa

from kommo_airtable_sync.core import canonical
from kommo_airtable_sync.sandbox.observe import agreement
from kommo_airtable_sync.store.schema import events, journal
from tests.stack import Stack

# More than any deal is worth at first: from edit to edit a lead's amount only grows.
ABOVE_ALL = 1_000_000
LOOK_SECONDS = 0.2


class Mortal(Protocol):
    """What a storm can rage over."""

    @property
    def mortals(self) -> Sequence[str]:
        """Names of the parts that may be killed."""
        ...

    def kill(self, name: str) -> bool:
        """``kill -9`` of a part with all its processes; whether any of it was alive."""
        ...

    def revive(self, name: str) -> None:
        """Start a killed part again, unless something else does."""
        ...


def kill_all(processes: Iterable[psutil.Process], mark: str) -> bool:
    """``kill -9`` of those whose command line has ``mark``; whether there were any."""
    killed = False
    for process in processes:
        try:
            if mark in " ".join(process.cmdline()):
                process.kill()
                killed = True
        except psutil.NoSuchProcess:
            continue
    return killed


@dataclass
class Storm:
    """Something done again and again, while parts are killed.

    Args:
        over_whom: whose parts are killed.
        dice: decides who is killed when.
        kill_every_seconds: between two kills.
        per_second: at most so many acts.
        act: one of them, by its number.
    """

    over_whom: Mortal
    dice: random.Random
    kill_every_seconds: float
    per_second: float
    act: Callable[[int], None]
    kills: Counter[str] = field(default_factory=Counter[str])
    _over: threading.Event = field(default_factory=threading.Event)

    def rage(self, goes_on: Callable[[int], bool]) -> int:
        """Act, by number, for as long as ``goes_on``; the killer is at work meanwhile."""
        number = 0
        with ThreadPoolExecutor(1) as pool:
            killing = pool.submit(self._kill)
            try:
                while goes_on(number) and not killing.done():
                    began = time.monotonic()
                    self.act(number)
                    number += 1
                    self._over.wait(max(0.0, 1 / self.per_second - (time.monotonic() - began)))
            finally:
                self._over.set()
            killing.result()
        return number

    def _kill(self) -> None:
        bag: list[str] = []
        while not self._over.wait(self.kill_every_seconds):
            names = self.over_whom.mortals
            bag = bag or self.dice.sample(names, len(names))  # each has its turn
            name = bag.pop()
            # Who is dead already comes back first.
            while not self.over_whom.kill(name):
                if self._over.wait(LOOK_SECONDS):
                    return
            self.kills[name] += 1
            self.over_whom.revive(name)


def verdict(here: Stack, sources: Sequence[str] = ("kommo",)) -> dict[str, Any]:
    """What became of it, by the stand-ins, the inbox and the journal.

    Args:
        here: what the storm was over.
        sources: of the events that are counted.
    """
    compared = agreement(here.stand_ins)
    with here.database().read() as connection:
        told = connection.execute(
            sa.select(events.c.state, sa.func.count())
            .where(events.c.source.in_(sources))
            .group_by(events.c.state)
        ).all()
        rows = connection.execute(
            sa.select(journal.c.key, journal.c.side, journal.c.after)
            .where(journal.c.field_name == "Amount", journal.c.state == "done")
            .order_by(journal.c.id)
        ).all()
    states = {str(state): int(count) for state, count in told}
    written: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for row in rows:
        written[row.key, row.side].append(canonical.from_json(json.loads(row.after)))
    backwards = sum(
        one > two for values in written.values() for one, two in itertools.pairwise(values)
    )
    return {
        "in the inbox": sum(states.values()),
        "not done": sum(count for state, count in states.items() if state != "done"),
        "differences": len(compared.differences),
        "duplicates": compared.duplicates,
        "out of order": backwards,
        "first difference": (compared.differences or ("",))[0],
    }
