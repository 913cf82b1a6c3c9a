"""The one statistic that is told of latencies."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil


def nearest_rank(ascending: Sequence[float], share: float) -> float:
    """The value that ``share`` of a sorted, non-empty list does not exceed: one that did occur."""
    return ascending[max(0, ceil(share * len(ascending)) - 1)]
