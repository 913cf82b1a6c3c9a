"""How long it will take, as people are told."""

from __future__ import annotations

import pytest

from kommo_airtable_sync.core.progress import time_left


@pytest.mark.parametrize(
    ("done", "total", "seconds", "said"),
    [
        (0, 10, 5.0, ""),
        (10, 10, 5.0, ""),
        (1, 2, 30.0, ", about 30 s left"),
        (1, 3, 90.0, ", about 3 min left"),
        (100, 1_000, 3_600.0, ", about 9 h left"),
        (100, 4_000, 86_400.0, ", about 39 days left"),
    ],
)
def test_the_time_left_is_told_at_the_pace_so_far(
    done: int, total: int, seconds: float, said: str
) -> None:
    assert time_left(done, total, seconds) == said
