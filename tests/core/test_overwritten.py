"""Which edits of Airtable we replaced unseen, and which of them come back."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.canonical import same
from kommo_airtable_sync.core.overwritten import Lost, Told, find_lost, is_restored

FIELD = "fldA"


@dataclass(frozen=True)
class Write:
    before: object = "old"
    after: object = "ours"
    created_at: float = 100.0
    closed_at: float | None = 100.2
    side: str = "airtable"
    field: str = FIELD


def lost(*told: Told, writes=(Write(),), stands="ours", agreed="ours") -> Lost | None:
    return find_lost(FIELD, told, writes, stands, agreed)


def edit(value="theirs", at=99.9) -> Told:
    return Told(value, at, 7)


@pytest.mark.parametrize("at", [97.0, 99.9, 100.2])
def test_an_edit_inside_the_window_that_nobody_saw_is_lost(at: float):
    assert lost(edit(at=at)) == Lost(edit(at=at), "theirs", "old", is_set=False)


@pytest.mark.parametrize("at", [96.9, 100.3])
def test_an_edit_outside_the_window_is_not(at: float):
    assert lost(edit(at=at)) is None


@pytest.mark.parametrize("value", ["old", "ours"])
def test_what_we_had_read_or_written_is_not(value: str):
    assert lost(edit(value)) is None


def test_the_echo_of_an_earlier_write_is_not():
    writes = (Write(after="one"), Write("one", "two", 101.0, 101.2), Write("two", "ours", 102, 103))
    assert lost(edit("one", 100.1), writes=writes) is None


def test_of_several_edits_in_the_window_the_last_counts():
    found = lost(edit("th", 99.5), edit("theirs", 99.9), edit("the", 99.7))
    assert found is not None
    assert found.value == "theirs"


def test_edits_before_one_that_was_seen_were_seen_too():
    assert lost(edit("ol", 97.5), edit("old", 98.0)) is None


def test_whoever_has_edited_since_has_decided():
    assert lost(edit(), stands="later still") is None


@pytest.mark.parametrize("write", [Write(side="kommo"), Write(field="fldB"), Write(closed_at=None)])
def test_other_writes_make_no_window(write: Write):
    assert lost(edit(), writes=(write,)) is None


def test_of_a_set_only_what_was_added_or_removed_is_lost():
    old, ours, theirs = frozenset("ab"), frozenset("abk"), frozenset("at")
    found = lost(edit(theirs), writes=(Write(old, ours),), stands=ours, agreed=ours)
    assert found is not None
    assert (found.value, found.is_set) == (frozenset("akt"), True)


def test_a_set_whose_change_we_made_as_well_has_lost_nothing():
    ours = frozenset("abt")
    found = lost(
        edit(frozenset("at")), writes=(Write(frozenset("a"), ours),), stands=ours, agreed=ours
    )
    assert found is None


VALUES = st.one_of(st.none(), st.sampled_from(["old", "ours", "theirs"]))


@given(st.lists(st.builds(Told, VALUES, st.floats(90, 110), st.integers(1, 9))), VALUES)
def test_the_order_of_the_events_means_nothing_and_what_stands_is_never_lost(told, stands):
    writes = (Write(), Write("ours", "more", 104.0, 104.5))
    found = find_lost(FIELD, told, writes, stands, stands)
    again = find_lost(FIELD, told[::-1], writes, stands, stands)
    if len({each.at for each in told}) == len(told):
        assert found == again
    assert found is None or not same(found.value, stands)


@pytest.mark.parametrize(
    ("owner", "on_conflict", "kommo_at", "restored"),
    [
        ("kommo", "kommo", None, False),
        ("airtable", "kommo", 200.0, True),
        ("both", "kommo", None, False),
        ("both", "airtable", 200.0, True),
        ("both", "hold", None, False),
        ("both", "newest", 97.0, True),
        ("both", "newest", 99.0, False),
        ("both", "newest", None, False),
    ],
)
def test_the_field_s_rule_says_whether_it_comes_back(owner, on_conflict, kommo_at, restored):
    assert is_restored(Lost(edit(), "theirs", "old", False), owner, on_conflict, kommo_at) is (
        restored
    )


def test_elements_of_a_shared_set_always_come_back():
    assert is_restored(Lost(edit(), frozenset("a"), None, True), "both", "kommo", None)
