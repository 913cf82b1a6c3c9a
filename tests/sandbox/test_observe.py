"""How both sides are judged from outside."""

from __future__ import annotations

from typing import Any

import pytest

from kommo_airtable_sync.sandbox.observe import (
    Names,
    Seen,
    compare,
    following,
    latencies,
    quantiles,
    unanswered,
)

NAMES = Names({(1, 10): "New"}, {7: "Ada"})
LEAD = {
    "id": 5,
    "name": "Deal",
    "price": 100,
    "pipeline_id": 1,
    "status_id": 10,
    "responsible_user_id": 7,
    "custom_fields_values": [
        {"field_name": "Onboarding status", "values": [{"value": "Done"}]},
    ],
    "_embedded": {"tags": [{"name": "hot"}, {"name": "VIP"}]},
}
RECORD = {
    "Kommo Deal ID": 5,
    "Deal Name": "Deal",
    "Amount": 100,
    "Stage": "New",
    "Manager": "Ada",
    "Tags": ["hot", "VIP"],
    "Onboarding Status": "Done",
}


def test_a_lead_and_its_record_agree_whatever_the_order_of_tags() -> None:
    record = RECORD | {"Tags": ["VIP", "hot"]}
    assert compare([LEAD], NAMES, [record]) == compare([LEAD], NAMES, [RECORD])
    assert compare([LEAD], NAMES, [RECORD]).differences == ()


@pytest.mark.parametrize(
    "edit",
    [
        {"Deal Name": "Other"},
        {"Amount": 99},
        {"Amount": None},
        {"Tags": ["hot"]},
        {"Tags": None},
        {"Onboarding Status": "In progress"},
        {"Onboarding Status": None},
        {"Region": "EU"},
    ],
)
def test_every_field_is_compared_whoever_owns_it(edit: dict[str, Any]) -> None:
    (difference,) = compare([LEAD], NAMES, [RECORD | edit]).differences
    assert next(iter(edit)) in difference


def test_kommo_has_no_blank_price() -> None:
    lead, record = LEAD | {"price": 0}, {k: v for k, v in RECORD.items() if k != "Amount"}
    assert compare([lead], NAMES, [record]).differences == ()


def test_missing_doubled_and_foreign_records_are_told() -> None:
    internal = LEAD | {"id": 6, "_embedded": {"tags": [{"name": " Internal "}]}}
    found = compare([LEAD, internal], NAMES, [RECORD | {"Kommo Deal ID": 6}] * 2)
    assert (found.leads, found.duplicates) == (1, 1)
    assert found.differences == ("lead 5 has no record", "record 6 has no lead that qualifies")


def test_each_cause_is_answered_by_the_first_effect_on_its_lead() -> None:
    causes = [(1, 10.0), (1, 11.0), (2, 12.0), (3, 13.0)]
    effects = [(2, 20.0), (1, 11.5), (2, 14.0), (3, 9.0), (3, 13.0)]
    assert following(causes, effects) == [
        ((1, 10.0), (1, 11.5)),
        ((1, 11.0), (1, 11.5)),
        ((2, 12.0), (2, 14.0)),
        ((3, 13.0), (3, 13.0)),
    ]
    assert latencies(causes, effects) == [1.5, 0.5, 2.0, 0.0]


def test_a_lead_whose_last_cause_nothing_followed_is_unanswered() -> None:
    assert unanswered([(1, 1.0), (1, 3.0), (2, 1.0)], [(1, 2.0), (2, 2.0)]) == 1
    assert unanswered([], []) == 0


def test_quantiles_of_nothing_are_nothing() -> None:
    assert quantiles([]).p95 is None
    assert quantiles([3.0, 1.0, 2.0]).max == 3.0


def test_the_way_back_is_counted_from_what_airtable_told() -> None:
    seen = Seen(
        edits=[],
        record_edits=[(1, 10.0), (2, 10.0), (3, 10.0), (4, 10.0)],
        # Of 2 it told late, of 3 never.
        posts=[(1, 10.5), (2, 13.0), (4, 11.0)],
        created=[],
        updated=[],
        lead_updates=[(1, 11.5), (2, 12.0), (3, 12.0), (1, 20.0), (2, 20.0)],
    )
    assert seen.back() == [1.0, 0.0]


def test_an_edit_in_kommo_is_answered_by_a_new_or_a_changed_record() -> None:
    seen = Seen([(1, 1.0), (2, 2.0)], [], [], [(2, 4.0)], [(1, 1.5)], [])
    assert seen.there() == [0.5, 2.0]
    assert seen.written == [(1, 1.5), (2, 4.0)]
