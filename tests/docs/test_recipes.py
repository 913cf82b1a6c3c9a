"""The blocks of docs/recipes.md and docs/mapping.md load, against the stand-ins' accounts."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from kommo_airtable_sync.store.database import Database
from tests.conftest import HandClock
from tests.docs.test_docs import ROOT
from tests.simulated import World

BLOCKS = [
    (page, number, text)
    for page in ("recipes", "mapping")
    for number, text in enumerate(
        re.findall(r"^```yaml\n(.*?)^```", (ROOT / f"docs/{page}.md").read_text(), re.S | re.M)
    )
]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's own function, where Python finds it."""
    text = re.search(r"^```python\n(.*?)^```", (ROOT / "docs/recipes.md").read_text(), re.S | re.M)
    assert text
    (tmp_path / "pricing.py").write_text(text.group(1))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("pricing", None)


@pytest.mark.parametrize("sql_engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("page", "number", "text"), BLOCKS, ids=lambda each: str(each)[:12])
def test_every_block_is_a_part_of_a_sync_yaml_that_works(
    database: Database, clock: HandClock, module: None, page: str, number: int, text: str
) -> None:
    parts = yaml.safe_load(text)
    world = World(database, clock, parts=parts)
    try:
        assert world.engine.directory.mapping().fields
        lead = world.add_lead(name="From the recipe", price=450)
        world.edit_lead(lead, price=500)
        world.deliver_hooks()
        world.work()
        assert world.errors() == []
        if "enrich" in parts:
            assert world.record(lead)["Seats"] == 5
    finally:
        world.close()


def test_there_are_recipes() -> None:
    assert len(BLOCKS) >= 10
