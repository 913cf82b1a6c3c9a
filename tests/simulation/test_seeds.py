"""Whatever happens on the way, in the end both sides agree: a fixed number of seeds.

``make simulate SEEDS=1000`` plays more of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.simulation import one
from tests.simulation.acts import acts_of
from tests.simulation.one import shortest, tell
from tests.simulation.planted import PLANTED
from tests.simulation.shrink import shrunk

SEEDS = 16


@pytest.mark.parametrize("seed", range(SEEDS))
def test_after_any_story_both_sides_agree(tmp_path: Path, seed: int) -> None:
    told = tell(seed, tmp_path)
    assert not told.broken, "\n".join([*told.trace, told.detail])
    # People here edit while a call is under way far oftener than real ones do.
    assert told.counts["in the window"] <= 0.05 * told.counts["judged"]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_seed_tells_the_same_story_in_another_process_byte_for_byte(seed: int) -> None:
    """In memory and on disk; in two processes that order sets differently."""
    one, other = (_trace(seed, hash_seed) for hash_seed in ("1", "2"))
    assert one == other
    assert len(one) > 10_000


def _trace(seed: int, hash_seed: str) -> bytes:
    script = (
        "import pathlib, sys, tempfile; from tests.simulation.one import tell;"
        "folder = tempfile.mkdtemp(); told = tell(int(sys.argv[1]), pathlib.Path(folder));"
        "print(*told.trace, dict(told.happened), dict(told.counts), told.broken, sep='\\n')"
    )
    return subprocess.run(
        [sys.executable, "-c", script, str(seed)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE,
        check=True,
    ).stdout


def test_an_act_draws_from_dice_of_its_own() -> None:
    assert acts_of(3, 50) == acts_of(3, 100)[:50]
    assert acts_of(3, 50) != acts_of(4, 50)


@pytest.mark.parametrize("culprits", [(3,), (3, 4), (0, 17, 39), tuple(range(40))])
def test_what_fails_is_shrunk_to_what_it_takes(culprits: Sequence[int]) -> None:
    assert shrunk(range(40), lambda some: set(culprits) <= set(some)) == list(culprits)


@pytest.mark.parametrize("bug", ["settle before write", "claim by event", "limiter not shared"])
def test_a_planted_bug_is_found_and_its_story_shrunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: str
) -> None:
    monkeypatch.setattr(one, "ACTS", 100)
    with PLANTED[bug].sown():
        told = next(told for seed in range(20) if (told := tell(seed, tmp_path)).broken)
        few = shortest(told, tmp_path)
    assert few.broken == told.broken
    assert len(few.acts) < len(told.acts) / 3
    assert not tell(told.seed, tmp_path, few.acts).broken, "without the bug"
