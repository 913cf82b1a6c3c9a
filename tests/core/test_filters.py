from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.filters import qualifies
from tests.core.accounts import (
    CUSTOM_IDS,
    ENTERPRISE,
    IN_PROGRESS,
    NEW,
    SALES,
    WON,
    custom,
    lead,
    mapping_of,
)


def verdict(kommo: str, a_lead, *, synced: bool = False):
    filters = mapping_of("airtable: Deal Name, kommo: name", kommo=kommo).filters
    return qualifies(a_lead, filters, already_synced=synced)


def test_without_filters_every_lead_is_synced():
    assert verdict("{}", lead()).ok


@pytest.mark.parametrize("wanted", ["[Sales]", f"[{SALES}]", "[Enterprise, Sales]"])
def test_a_pipeline_is_included_by_name_or_id(wanted):
    kommo = f"{{include: {{pipelines: {wanted}}}}}"
    assert verdict(kommo, lead()).ok


def test_a_lead_of_another_pipeline_is_not_synced():
    found = verdict("{include: {pipelines: [Sales]}}", lead(pipeline_id=ENTERPRISE))
    assert (found.ok, found.reason) == (False, f"pipeline {ENTERPRISE} is not included")


@pytest.mark.parametrize(
    "wanted",
    ["['Enterprise / In Progress']", f"[{IN_PROGRESS}]", f"['{ENTERPRISE}/{IN_PROGRESS}']"],
)
def test_a_stage_is_included_by_path_or_id(wanted):
    kommo = f"{{include: {{stages: {wanted}}}}}"
    assert verdict(kommo, lead(pipeline_id=ENTERPRISE, status_id=IN_PROGRESS)).ok
    assert not verdict(kommo, lead()).ok


def test_won_of_one_pipeline_is_not_won_of_the_other():
    kommo = "{include: {stages: ['Sales / Won']}}"
    assert verdict(kommo, lead(status_id=WON)).ok
    assert not verdict(kommo, lead(status_id=WON, pipeline_id=ENTERPRISE)).ok
    both = "{include: {stages: [142]}}"
    assert verdict(both, lead(status_id=WON, pipeline_id=ENTERPRISE)).ok


def test_a_synced_lead_stays_when_it_leaves_the_stages():
    kommo = "{include: {stages: ['Sales / Won']}}"
    assert verdict(kommo, lead(status_id=NEW), synced=True).ok
    assert not verdict(kommo, lead(status_id=NEW), synced=False).ok
    loose = "{include: {stages: ['Sales / Won'], sticky: false}}"
    assert not verdict(loose, lead(status_id=NEW), synced=True).ok


def test_only_the_stages_are_sticky():
    kommo = "{include: {pipelines: [Sales], stages: ['Sales / Won']}}"
    assert not verdict(kommo, lead(pipeline_id=ENTERPRISE), synced=True).ok


def test_excludes_win_over_stickiness_and_includes():
    kommo = "{include: {stages: ['Sales / Won']}, exclude: {tags: [internal, test]}}"
    found = verdict(kommo, lead(status_id=WON, tags=["hot", "Internal "]), synced=True)
    assert (found.ok, found.reason) == (False, "tag internal is excluded")


def test_one_of_the_tags_is_enough():
    kommo = "{include: {tags: [hot, warm]}}"
    assert verdict(kommo, lead(tags=["HOT", "x"])).ok
    assert not verdict(kommo, lead(tags=["cold"])).ok


def test_a_name_is_excluded_by_a_regular_expression():
    kommo = r'{exclude: {name_matches: "(?i)^test\\b"}}'
    assert not verdict(kommo, lead(name="Test lead")).ok
    assert verdict(kommo, lead(name="Testament")).ok
    assert verdict(kommo, lead(name=None)).ok


@pytest.mark.parametrize(
    ("field", "wanted", "value", "ok"),
    [
        ("Region", "[EU, UK]", {"value": "EU", "enum_id": 1200}, True),
        ("Region", "[EU, UK]", {"value": "US", "enum_id": 1202}, False),
        ("Products", "[Core]", {"value": "Core"}, True),
        ("Seats", "[10]", {"value": "10.0"}, True),
        ("Seats", "['10.0']", {"value": 10}, True),
        ("Seats", "[10]", {"value": "100"}, False),
        ("Seats", "[10]", {"value": "1E1"}, False),
        ("VIP", "[true]", {"value": True}, True),
        ("VIP", "[false]", {"value": True}, False),
        ("Region code", "[EU-1]", {"value": " EU-1 "}, True),
    ],
)
def test_a_custom_field_is_included_by_value(field, wanted, value, ok):
    kommo = f"{{include: {{custom_fields: [{{field: {field}, in: {wanted}}}]}}}}"
    assert verdict(kommo, lead(custom(field, value))).ok is ok
    opposite = kommo.replace("include", "exclude")
    assert verdict(opposite, lead(custom(field, value))).ok is not ok


def test_an_absent_value_meets_no_condition_but_an_unticked_box():
    region = "{include: {custom_fields: [{field: Region, in: [EU]}]}}"
    assert not verdict(region, lead()).ok
    unticked = "{include: {custom_fields: [{field: VIP, in: [false]}]}}"
    assert verdict(unticked, lead()).ok


def test_every_list_given_must_be_met():
    kommo = "{include: {pipelines: [Sales], tags: [hot]}}"
    assert verdict(kommo, lead(tags=["hot"])).ok
    assert not verdict(kommo, lead()).ok


EVERYTHING = (
    "{include: {pipelines: [Sales], stages: [142], tags: [a], "
    "custom_fields: [{field: Seats, in: [1]}]}, exclude: {tags: [b], name_matches: x, "
    "custom_fields: [{field: VIP, in: [true]}]}}"
)
FILTERS = mapping_of("airtable: Deal Name, kommo: name", kommo=EVERYTHING).filters
raw = st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.just("1E999999999"))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.none() | st.text(),
            "pipeline_id": st.none() | st.sampled_from([SALES, 0]),
            "status_id": st.none() | st.sampled_from([NEW, WON]),
            "custom_fields_values": st.none()
            | st.lists(
                st.fixed_dictionaries(
                    {
                        "field_id": st.sampled_from([CUSTOM_IDS["Seats"], CUSTOM_IDS["VIP"], 0]),
                        "values": st.none() | st.lists(st.fixed_dictionaries({"value": raw})),
                    }
                )
            ),
            "_embedded": st.none()
            | st.fixed_dictionaries(
                {"tags": st.none() | st.lists(st.fixed_dictionaries({"name": raw}))}
            ),
        },
    ),
    st.booleans(),
)
def test_every_lead_gets_a_verdict_with_a_reason(a_lead, synced):
    found = qualifies(a_lead, FILTERS, already_synced=synced)
    assert found.ok is (found.reason == "")
