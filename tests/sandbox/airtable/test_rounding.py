"""Numbers that Airtable, or an automation of its base, does not keep as they were written."""

from __future__ import annotations

import json

import pytest

from kommo_airtable_sync.sandbox.rounding import Rounding
from tests.sandbox.airtable.caller import Caller


@pytest.mark.parametrize(
    ("written", "kept"), [(0, 0), (14, 10), (15, 20), (-15, -20), (10.49, 10), (2**53, 2**53 - 2)]
)
def test_the_nearest_multiple_is_kept(written: float, kept: float) -> None:
    assert Rounding(step=10).kept(written) == kept


def test_a_fraction_stays_exact() -> None:
    assert Rounding(step=0.1, plus=0.05).kept(0.3) == 0.35


def test_a_write_is_answered_with_what_is_kept(api: Caller) -> None:
    api.control("PATCH", "settings", {"rounding": {"Amount": {"step": 10}}})
    record = api.create(Amount=17.5, Seats=17)
    assert api.get(record) == {**api.get(record), "Amount": 20, "Seats": 17}
    assert api.set(record, {"Amount": 34})["Amount"] == 30
    assert "Amount" not in api.set(record, {"Amount": None})


def test_an_automation_rounds_by_an_edit_of_its_own(api: Caller) -> None:
    api.control("PATCH", "settings", {"rounding": {"Amount": {"step": 10, "robot": True}}})
    api.control("POST", "automations", {"url": "https://x.example", "secret": "s"})
    record = api.create()
    assert api.set(record, {"Amount": 34})["Amount"] == 34
    assert api.get(record)["Amount"] == 30
    writes = api.control("GET", "writes")[1]["writes"]
    made = [(each["source"], each["fields"].get("Amount")) for each in writes[1:]]
    assert made == [
        ("publicApi", {"old": None, "new": 34}),
        ("automation", {"old": 34, "new": 30}),
    ]
    bodies = [json.loads(each.body) for each in api.model.take_due_hooks()]
    assert [each["recordId"] for each in bodies] == [record] * 3
