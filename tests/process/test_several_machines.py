"""Several machines under ``kill -9``: nothing acknowledged is lost, doubled or out of order."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.machines import Storm, machines, verdict
from tests.stack import wait_until

pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]
EVENTS, LEADS = 400, 60


def test_two_receivers_and_two_workers_lose_nothing_while_any_part_is_killed(
    tmp_path: Path, postgres_url: str
) -> None:
    with machines(tmp_path, postgres_url) as here:
        leads = here.control("kommo", "POST", "seed", {"count": LEADS})["ids"]
        storm = Storm(here, random.Random(7), kill_every_seconds=1.5, per_second=40)
        storm.rage(leads, EVENTS, lambda _: None)
        wait_until(here.quiet, 120, "all is settled", 0.2)
        assert storm.acked == EVENTS
        assert sum(here.kills.values()) >= 4
        found = verdict(here)
    # One that was committed and not yet acknowledged when its receiver died was sent again.
    assert EVENTS <= found.pop("in the inbox") <= EVENTS + storm.resent
    assert found == {"not done": 0, "differences": 0, "duplicates": 0, "out of order": 0,
                     "first difference": ""}  # fmt: skip
