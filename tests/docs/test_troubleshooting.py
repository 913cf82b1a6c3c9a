"""docs/troubleshooting.md lists messages that the code makes: each of them, and no other."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kommo_airtable_sync.store.database import Database
from tests.conftest import HandClock
from tests.docs.messages import all_cases, said
from tests.docs.test_docs import ROOT
from tests.simulated import World

PAGE = ROOT / "docs" / "troubleshooting.md"


@pytest.fixture
def world(database: Database, clock: HandClock) -> Iterator[World]:
    made = World(database, clock)
    yield made
    made.close()


def listed() -> dict[str, re.Pattern[str]]:
    """The first column of every table: `...` stands for what differs from case to case."""
    rows = re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(encoding="utf-8"), re.M)
    return {
        row: re.compile(".+".join(re.escape(part) for part in row.split("...")), re.S)
        for row in rows
    }


@pytest.mark.parametrize("sql_engine", ["sqlite"], indirect=True)
def test_every_message_of_the_page_is_made_by_the_code_and_every_case_is_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: HandClock, world: World
) -> None:
    made = {name: said(act) for name, act in all_cases(tmp_path, monkeypatch, clock, world)}
    if os.environ.get("SHOW"):
        print("\n".join(f"{name}: {text}" for name, text in made.items()))
    patterns = listed()
    unlisted = {
        name: text
        for name, text in made.items()
        if not any(pattern.match(text) for pattern in patterns.values())
    }
    unmade = [
        row
        for row, pattern in patterns.items()
        if not any(pattern.match(text) for text in made.values())
    ]
    assert (unlisted, unmade) == ({}, [])
    assert len(patterns) >= 60


def test_every_row_says_why_and_what_to_do() -> None:
    rows = [
        line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    ]
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) == 3, row
        assert all(cells), row
