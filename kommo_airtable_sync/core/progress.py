"""How far something has come, for people. Pure."""

from __future__ import annotations


def time_left(done: int, total: int, seconds: float) -> str:
    """How much longer it takes at the pace so far: ``, about 4 min left``; ``""`` if unknown.

    Args:
        done: of ``total``.
        total: what there is to do.
        seconds: that it took to do that much.
    """
    if not 0 < done < total:
        return ""
    left = seconds / done * (total - done)
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if left >= 2 * size:
            return f", about {left / size:.0f} {unit} left"
    return f", about {left:.0f} s left"
