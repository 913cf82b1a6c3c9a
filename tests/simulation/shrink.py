"""Fewer acts with the same end: delta debugging over a story."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def shrunk(items: Sequence[Item], fails: Callable[[Sequence[Item]], bool]) -> list[Item]:
    """A part of the items that still fails, and none of which can be left out.

    Args:
        items: which fail.
        fails: whether a part of them does; order is kept.
    """
    kept, size = list(items), len(items)
    while size >= 1:
        start, smaller = 0, False
        while start < len(kept):
            rest = kept[:start] + kept[start + size :]
            if fails(rest):
                kept, smaller = rest, True
            else:
                start += size
        if size == 1 and not smaller:
            return kept
        size = max(1, size // 2) if not smaller or size > 1 else 1
    return kept
