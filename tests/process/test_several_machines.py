"""Several machines under ``kill -9``: nothing acknowledged is lost, doubled or out of order."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.machines import Proxy, machines
from tests.stack import wait_until
from tests.storm import Storm, verdict

pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]
EVENTS, LEADS = 400, 60


def test_two_receivers_and_two_workers_lose_nothing_while_any_part_is_killed(
    tmp_path: Path, postgres_url: str
) -> None:
    with machines(tmp_path, postgres_url) as here:
        leads = here.control("kommo", "POST", "seed", {"count": LEADS})["ids"]
        dice = random.Random(7)
        proxy = Proxy(here, leads, dice)
        storm = Storm(here, dice, kill_every_seconds=1.5, per_second=40, act=proxy.edit)
        storm.rage(lambda number: number < EVENTS)
        wait_until(here.quiet, 120, "all is settled", 0.2)
        assert proxy.acked == EVENTS
        assert storm.kills.total() >= 4
        found = verdict(here)
    # One that was committed and not yet acknowledged when its receiver died was sent again.
    assert EVENTS <= found.pop("in the inbox") <= EVENTS + proxy.resent
    assert found == {"not done": 0, "differences": 0, "duplicates": 0, "out of order": 0,
                     "first difference": ""}  # fmt: skip
