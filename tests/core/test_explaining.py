"""Who wrote what stands: one write, or nobody of us."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.canonical import same
from kommo_airtable_sync.core.explaining import (
    EDITED_ON,
    FROM_THE_OTHER,
    RULES,
    CauseEvent,
    JournalRow,
    cause_of,
    told_by,
    why,
)
from kommo_airtable_sync.core.merge import Rule


def told(source: str, id_: int = 1, actor: str | None = None) -> CauseEvent:
    return CauseEvent(id_, source, "update", None, 0.0, actor)


def row(id_: int, side: Any, after: Any, rule: str = "kommo_changed", **more: Any) -> JournalRow:
    """Each in a batch of its own."""
    plain = JournalRow(
        id=id_, batch_id=id_, run_id="run", key="lead:1", record_id="rec1", side=side,
        operation="update", field="fld", field_name="Field", before=None, after=after, rule=rule,
        state="done", at=0.0,
    )  # fmt: skip
    return replace(plain, **more)


def test_every_rule_of_the_merge_has_words() -> None:
    assert set(get_args(Rule)) <= set(RULES)
    assert {*EDITED_ON, *FROM_THE_OTHER} <= set(RULES)


def test_the_latest_write_is_the_cause_if_its_value_stands() -> None:
    rows = [row(1, "airtable", "a"), row(2, "airtable", "b"), row(3, "airtable", "b")]
    assert cause_of(rows, "airtable", "fld", "b") is rows[2]
    assert cause_of(rows, "airtable", "fld", "a") is None
    assert cause_of(rows, "kommo", "fld", "b") is None
    assert cause_of(rows, "airtable", "other", "b") is None


def test_a_person_who_puts_our_value_back_is_the_cause() -> None:
    ours = row(1, "airtable", "a")
    away, back = (row(n, "kommo", v, "airtable_changed") for n, v in ((2, "b"), (3, "a")))
    assert cause_of([ours, away, back], "airtable", "fld", "a") is None
    assert cause_of([ours, away, back], "kommo", "fld", "a") is back


@pytest.mark.parametrize(
    ("rule", "still_ours"),
    [
        ("airtable_changed", False),
        ("set_merged", False),
        ("conflict_airtable", False),
        ("conflict_newest", False),
        ("airtable_owns", True),
        ("directive", True),
        ("recreated", True),
    ],
)
def test_a_later_write_to_the_other_side_tells_whether_ours_was_edited(
    rule: str, still_ours: bool
) -> None:
    ours, other = row(1, "airtable", "a"), row(2, "kommo", "a", rule)
    assert (cause_of([ours, other], "airtable", "fld", "a") is ours) == still_ours
    alike = replace(other, batch_id=1)
    assert cause_of([ours, alike], "airtable", "fld", "a") is ours


def test_what_was_sent_and_never_acknowledged_counts_only_if_it_stands() -> None:
    ours, lost = row(1, "airtable", "a"), row(2, "airtable", "b", state="superseded")
    assert cause_of([ours, lost], "airtable", "fld", "b") is lost
    assert cause_of([ours, lost], "airtable", "fld", "a") is ours
    for state in ("open", "refused"):
        rows = [ours, replace(lost, state=state)]
        assert cause_of(rows, "airtable", "fld", "a") is ours
        assert cause_of(rows, "airtable", "fld", "b") is None


def test_a_note_writes_nothing() -> None:
    rows = [row(1, "airtable", "a"), row(2, "airtable", "b", operation="note")]
    assert cause_of(rows, "airtable", "fld", "a") is rows[0]


def test_a_value_that_a_side_keeps_in_its_own_way_is_ours() -> None:
    rows = [row(1, "kommo", None, "airtable_changed")]

    def kept(value: Any) -> Any:
        return Decimal(0) if value is None else value

    assert cause_of(rows, "kommo", "fld", Decimal(0), kept) is rows[0]
    assert cause_of(rows, "kommo", "fld", Decimal(0)) is None


ROWS = st.lists(
    st.tuples(
        st.sampled_from(("kommo", "airtable")),
        st.sampled_from("abc"),
        st.sampled_from(sorted(RULES)),
        st.sampled_from(("open", "done", "refused", "superseded")),
    ),
    max_size=8,
)


@given(ROWS, st.sampled_from("abc"))
def test_a_cause_wrote_that_value_to_that_side_and_no_other_write_followed(
    made: list[Any], value: str
) -> None:
    rows = [
        row(n, side, after, rule, state=state) for n, (side, after, rule, state) in enumerate(made)
    ]
    cause = cause_of(rows, "airtable", "fld", value)
    if cause is not None:
        assert (cause.side, same(cause.after, value)) == ("airtable", True)
        later = [each for each in rows[cause.id + 1 :] if each.side == "airtable"]
        assert not any(each.state == "done" for each in later)


def test_the_event_is_one_of_the_side_that_was_edited_the_latest() -> None:
    events = [told("kommo", 1), told("airtable", 2), told("kommo", 3), told("reconcile", 4)]

    def chosen(rule: str, side: Any) -> int:
        event = told_by(rule, side, events)
        assert event is not None
        return event.id

    assert chosen("kommo_changed", "airtable") == 3
    assert chosen("airtable_changed", "kommo") == 2
    assert chosen("kommo_owns", "airtable") == 2
    assert chosen("set_merged", "airtable") == 3
    assert chosen("set_merged", "kommo") == 2
    assert chosen("created", "airtable") == 4
    assert told_by("airtable_changed", "kommo", events[:1]) == events[0]
    assert told_by("created", "airtable", []) is None


def test_a_decision_says_whose_it_was() -> None:
    decided = row(1, "kommo", "a", "directive", event=told("undo", actor="ann"))
    assert why(decided) == "a person took earlier changes back (ann)"
    assert why(replace(decided, event=told("elsewhere"))) == "a person decided it"
    assert why(replace(decided, event=None)) == "a person decided it"
    assert why(row(1, "kommo", "a")) == "it was changed in Kommo"
    assert why(row(1, "kommo", "a", "a rule of old")) == "a rule of old"
