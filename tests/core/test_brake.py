from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.brake import Brake, PlannedChange, Usage
from kommo_airtable_sync.core.config import Safety

FIELDS = {"fldA": "Amount", "fldB": "Stage"}
SAFETIES = st.builds(Safety, max_records_changed=st.integers(0, 8), max_deletes=st.integers(0, 5))
USAGES = st.builds(
    Usage,
    st.integers(0, 10),
    st.integers(0, 6),
    st.dictionaries(st.sampled_from(list(FIELDS)), st.integers(0, 6)),
)
CHANGES = st.builds(
    PlannedChange,
    key=st.integers(1, 99).map("lead:{}".format),
    is_create=st.booleans(),
    is_delete=st.booleans(),
    blanked=st.sets(st.sampled_from(list(FIELDS))).map(lambda ids: {i: FIELDS[i] for i in ids}),
    released=st.booleans(),
)
PLANS = st.lists(CHANGES, max_size=20, unique_by=lambda change: change.key)


def limits(records: int = 500, deletes: int = 20) -> Brake:
    return Brake(Safety(max_records_changed=records, max_deletes=deletes))


def edits(count: int) -> list[PlannedChange]:
    return [PlannedChange(f"lead:{n}") for n in range(count)]


@given(SAFETIES, USAGES, PLANS)
def test_every_change_is_either_allowed_or_held_with_a_sentence(
    safety: Safety, usage: Usage, planned: list[PlannedChange]
):
    verdict = Brake(safety).decide(usage, planned)
    assert verdict.allowed | verdict.held.keys() == {change.key for change in planned}
    assert not verdict.allowed & verdict.held.keys()
    for sentence in verdict.held.values():
        assert "safety.max_" in sentence
        assert "holds release" in sentence


@given(SAFETIES, USAGES, PLANS)
def test_creations_and_released_changes_always_pass(
    safety: Safety, usage: Usage, planned: list[PlannedChange]
):
    free = {change.key for change in planned if change.is_create or change.released}
    assert free <= Brake(safety).decide(usage, planned).allowed


@given(SAFETIES, USAGES, PLANS)
def test_what_nobody_released_never_goes_beyond_a_limit(
    safety: Safety, usage: Usage, planned: list[PlannedChange]
):
    verdict = Brake(safety).decide(usage, planned)
    went = [c for c in planned if c.key in verdict.allowed and not c.is_create]
    plain = [c for c in went if not c.released]
    if any(c.is_delete for c in plain):
        before_last = [c for c in went[: went.index([c for c in plain if c.is_delete][-1])]]
        assert usage.deletes + sum(c.is_delete for c in before_last) < safety.max_deletes
    if any(not c.is_delete for c in plain):
        before_last = [c for c in went[: went.index([c for c in plain if not c.is_delete][-1])]]
        spent = usage.records_changed + sum(not c.is_delete for c in before_last)
        assert spent < safety.max_records_changed


@given(SAFETIES, USAGES, PLANS)
def test_more_room_holds_no_more_of_plain_edits(
    safety: Safety, usage: Usage, planned: list[PlannedChange]
):
    plain = [PlannedChange(c.key) for c in planned]
    wider = safety.model_copy(update={"max_records_changed": safety.max_records_changed + 1})
    assert Brake(safety).decide(usage, plain).allowed <= Brake(wider).decide(usage, plain).allowed


def test_records_beyond_the_limit_of_the_hour_are_held():
    verdict = limits(records=500).decide(Usage(records_changed=497), edits(5))
    assert sorted(verdict.allowed) == ["lead:0", "lead:1", "lead:2"]
    assert verdict.held["lead:3"] == (
        "Held by the brake: it would be more than 500 records changed within an hour "
        "(safety.max_records_changed). If that is meant, let it go with kommo-airtable-sync "
        "holds release ID."
    )


def test_an_ordinary_busy_minute_on_a_small_table_passes():
    """225 edits on 200 deals: decision 7."""
    assert limits().decide(Usage(records_changed=150), edits(50)).held == {}


def test_deletions_have_a_limit_of_their_own():
    planned = [PlannedChange(f"lead:{n}", is_delete=True) for n in range(3)]
    verdict = limits(deletes=20).decide(Usage(records_changed=500, deletes=18), planned)
    assert sorted(verdict.held) == ["lead:2"]
    assert "20 deletions" in verdict.held["lead:2"]
    assert "safety.max_deletes" in verdict.held["lead:2"]


def test_a_field_emptied_on_many_records_is_held_and_other_edits_go_on():
    emptied = PlannedChange("lead:1", blanked={"fldA": "Amount", "fldB": "Stage"})
    usage = Usage(records_changed=30, blanked={"fldA": 20, "fldB": 19})
    verdict = limits().decide(usage, [emptied, PlannedChange("lead:2", blanked={"fldB": "Stage"})])
    assert '"Amount" emptied on more than 20 records' in verdict.held["lead:1"]
    # What was held has not used up the last place of the other field.
    assert verdict.allowed == {"lead:2"}


def test_released_changes_use_up_what_they_change():
    planned = [PlannedChange("lead:1", released=True), PlannedChange("lead:2")]
    verdict = limits(records=1).decide(Usage(), planned)
    assert verdict.allowed == {"lead:1"}


def test_creations_use_nothing_up():
    planned = [*(PlannedChange(f"lead:{n}", is_create=True) for n in range(9)), *edits(1)]
    assert limits(records=1).decide(Usage(), planned).held == {}
