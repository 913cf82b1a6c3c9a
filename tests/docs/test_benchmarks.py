"""The benchmark's report hides nothing, and its charts are the same for the same figures."""

from __future__ import annotations

from pathlib import Path

from tests.bench import charts
from tests.bench.report import MARKS, promises
from tests.docs.test_docs import read

WHOLE = {"pattern": "whole stack", "processes": 8, "cpu_percent": 6.0, "pss_mb": 700.0}
STOCK = {"pattern": "stock Dagster, whole", "processes": 6, "cpu_percent": 3.0, "pss_mb": 600.0}
PART = {"pattern": "receiver", "processes": 1, "cpu_percent": 6.0, "pss_mb": 700.0}
KNOWN = {"idle": [PART, WHOLE, STOCK]}


def test_a_missed_bar_is_called_missed_and_what_was_not_measured_is_named() -> None:
    verdicts = {row["promise"]: row["verdict"] for row in promises(KNOWN)}
    assert verdicts["idle, whole stack: processor"] == "MISSED"
    assert verdicts["idle, whole stack: memory (PSS)"] == "ok"
    assert verdicts["latency"] == "not measured"
    assert "ok" not in {verdicts[name] for name in verdicts if not name.startswith("idle")}


def test_the_same_figures_give_the_same_picture(tmp_path: Path) -> None:
    pictures = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        charts.draw(KNOWN, tmp_path / name)
        pictures.append((tmp_path / name / "bench-idle.svg").read_bytes())
    assert pictures[0] == pictures[1]


def test_the_page_has_the_place_for_the_table() -> None:
    page = read("docs/benchmarks.md")
    assert all(page.count(mark) == 1 for mark in MARKS)
