"""What a story is made of: its acts, and what may go wrong in them."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "drop_before"},
    {"kind": "drop_after"},
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 502},
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 429},
    {"kind": "status", "status": 401},
    {"kind": "status", "status": 500, "applied": True},
    {"kind": "delay", "seconds": 19.0},
    {"kind": "delay", "seconds": 5.0},
)


@dataclasses.dataclass(frozen=True, slots=True)
class Act:
    """One act: what happens, and what its dice are seeded with."""

    name: str
    seed: str


WEIGHTS = {
    "people": 7,
    "haste": 1.5,
    "hooks": 7,
    "run": 6,
    "step": 12,
    "crash": 0.8,
    "sweep": 0.8,
    "sleep": 0.3,
    "trouble": 0.8,
    "mend": 1.2,
    "time": 3,
    "foreign": 0.2,
    "token": 0.2,
    "clock": 0.15,
    "schema": 0.15,
    "offsets": 0.2,
    "night": 0.15,
    "calm": 0.5,
}
"""Which acts there are, and how often they happen."""


def acts_of(seed: int, count: int) -> list[Act]:
    """The acts of a seed's story."""
    names = random.Random(seed).choices(list(WEIGHTS), list(WEIGHTS.values()), k=count)
    return [Act(name, f"{seed}/{n}") for n, name in enumerate(names)]
