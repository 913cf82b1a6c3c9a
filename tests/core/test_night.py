"""What a reconciliation tells people, and when a check fails."""

from __future__ import annotations

from typing import Any

import pytest

from kommo_airtable_sync.core.alerts import OVERDUE_SECONDS_MAX
from kommo_airtable_sync.core.night import CHECKS, drift, night_report, numbers, verdicts
from kommo_airtable_sync.core.reconciling import KINDS, Summary


def remembered(**changes: Any) -> dict[str, Any]:
    """What the engine remembers of a reconciliation."""
    return {
        **Summary(leads=100, records=99).to_json(),
        "since": None,
        "brake": None,
        "outcomes": {},
        "cost_in_api_calls": {
            "made": {"kommo": 1, "airtable": 2},
            "to_apply": {"kommo": 3, "airtable": 4},
        },
        **changes,
    }


DRIFTED = remembered(
    kinds={"update": 6, "adopt": 2, "duplicate": 1},
    fields={"Amount": 6, "Stage|old": 1},
    outcomes={"updated": 5, "dead": 1},
    changed=200,
    unannounced=3,
)


def test_the_report_has_findings_and_charts_and_cost() -> None:
    text = night_report(DRIFTED, [("0.5 s", 40), ("0.75 s", 10)], 12.3)
    lines = text.split("\n")
    assert "**100 leads and 99 records** compared in 12 s." in lines
    assert "| update | 6 | leads that differ from their record: merged |" in lines
    assert "| dead | 1 |" in lines
    assert f"| Amount | 6 | {'█' * 24} |" in lines
    assert f"| Stage\\|old | 1 | {'█' * 4} |" in lines
    assert f"| 0.75 s | 10 | {'█' * 6} |" in lines
    assert "| to compare | 1 | 2 |" in lines
    assert "| to mend it, at most | 3 | 4 |" in lines


def test_every_table_of_the_report_stands_apart() -> None:
    lines = night_report(DRIFTED, [("0.5 s", 40)], 1.0).split("\n")
    heads = [n for n, line in enumerate(lines) if line.startswith("|--")]
    assert len(heads) == 5
    assert all(lines[n - 2] == "" for n in heads)


def test_a_night_without_drift_says_so_and_draws_nothing() -> None:
    text = night_report(remembered(), [], 1.0)
    assert "Both sides agree" in text
    assert "█" not in text
    assert "####" not in text.replace("#### Cost", "")


def test_a_braked_report_says_why() -> None:
    assert "**Held by the brake**" in night_report(remembered(brake="Held by the brake"), [], 1.0)


def test_the_numbers_name_every_kind_and_are_numbers() -> None:
    shown = numbers(DRIFTED, 12.345678)
    assert set(KINDS) <= set(shown)
    assert all(isinstance(value, (int, float)) for value in shown.values())
    assert (shown["drift"], shown["written"], shown["failed"]) == (7, 5, 1)
    assert (shown["api_calls_kommo"], shown["api_calls_airtable"]) == (1, 2)


def test_what_only_teaches_the_ledger_is_no_drift() -> None:
    assert drift(remembered(kinds={"adopt": 5})) == 0


def failing(*arguments: Any) -> dict[str, bool]:
    """The checks that fail; whether it is an error."""
    found = verdicts(*arguments)
    assert [each.name for each in found] == list(CHECKS)
    return {each.name: each.is_error for each in found if not each.passed}


CLEAN = remembered(kinds={"adopt": 3}, changed=100, unannounced=1)


@pytest.mark.parametrize(
    ("arguments", "failed"),
    [
        ((0, 0.0, CLEAN, CLEAN), {}),
        ((1, 0.0, CLEAN, CLEAN), {"no_dead_letters": True}),
        ((0, OVERDUE_SECONDS_MAX, CLEAN, CLEAN), {}),
        ((0, OVERDUE_SECONDS_MAX + 1, CLEAN, CLEAN), {"oldest_pending": True}),
        ((0, 0.0, CLEAN, remembered(kinds={"duplicate": 1})), {"no_duplicate_keys": True}),
        ((0, 0.0, remembered(kinds={"update": 1}), CLEAN), {"no_drift": False}),
        (
            (0, 0.0, remembered(kinds={"update": 1}, outcomes={"dead": 1}), CLEAN),
            {"no_drift": True},
        ),
        ((0, 0.0, remembered(kinds={"update": 1}, brake="Held"), CLEAN), {"no_drift": True}),
        (
            (0, 0.0, remembered(changed=100, unannounced=2), CLEAN),
            {"webhook_completeness": False},
        ),
        (
            (0, 0.0, None, None),
            {"no_duplicate_keys": False, "no_drift": False, "webhook_completeness": False},
        ),
    ],
)
def test_a_check_fails_for_what_it_names_and_for_nothing_else(
    arguments: tuple[Any, ...], failed: dict[str, bool]
) -> None:
    assert failing(*arguments) == failed
