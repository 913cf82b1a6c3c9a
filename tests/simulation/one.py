"""One story from its beginning to its verdict."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulation.acts import Act, acts_of
from tests.simulation.play import Story
from tests.simulation.shrink import shrunk
from tests.simulation.stage import Broken

ACTS = 400


@dataclass
class Told:
    """What became of a story.

    Args:
        broken: the invariant that does not hold, or the error that a worker died of; else "".
        happened: simulated events by kind.
        counts: what else is counted.
    """

    seed: int
    acts: Sequence[Act]
    broken: str = ""
    detail: str = ""
    happened: Counter[str] = field(default_factory=Counter[str])
    counts: Counter[str] = field(default_factory=Counter[str])
    trace: list[str] = field(default_factory=list[str])


def tell(seed: int, folder: Path, acts: Sequence[Act] | None = None) -> Told:
    """Play a seed's story, or some of its acts."""
    told = Told(seed, acts_of(seed, ACTS) if acts is None else acts)
    story = Story(seed, folder)
    try:
        story.play(told.acts)
        story.end()
        story.check()
    except Broken as broken:
        told.broken, told.detail = broken.invariant, str(broken)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        told.broken, told.detail = type(error).__name__, str(error)
    finally:
        story.close()
    told.happened, told.counts, told.trace = story.happened, story.counts, story.trace
    told.counts["steps"] = story.leases.steps
    return told


def keep_to_a_core() -> None:
    """Turns go from thread to thread of one process: faster if none of them moves."""
    logging.disable(logging.CRITICAL)
    gc.set_threshold(50_000, 20, 20)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        identity = multiprocessing.current_process()._identity
        os.sched_setaffinity(0, {cores[(identity[0] if identity else 0) % len(cores)]})


def shortest(told: Told, folder: Path) -> Told:
    """The same failure with as few acts as will do."""
    last = told

    def fails(acts: Sequence[Act]) -> bool:
        nonlocal last
        again = tell(told.seed, folder, acts)
        if again.broken == told.broken:
            last = again
            return True
        return False

    shrunk(told.acts, fails)
    return last
