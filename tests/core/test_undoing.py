"""What can be taken back, to which value, and what is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.explaining import JournalRow
from kommo_airtable_sync.core.undoing import (
    CLIENT,
    CREATED,
    DELETED,
    FORGOTTEN,
    OPEN,
    Left,
    UndoPlan,
    plan_undo,
)


def row(id_: int, before: Any, after: Any, side: Any = "airtable", **more: Any) -> JournalRow:
    plain: dict[str, Any] = {
        "batch_id": id_, "run_id": "run", "key": "lead:1", "record_id": "rec1", "field": "fld",
        "operation": "update", "field_name": "Field", "rule": "kommo_changed", "state": "done",
        "at": 0.0,
    }  # fmt: skip
    return JournalRow(id=id_, side=side, before=before, after=after, **{**plain, **more})


def planned(
    selected: Sequence[JournalRow],
    others: Sequence[JournalRow] = (),
    *,
    stands: Any = ("b", "b"),
    obstacle: str | None = None,
) -> UndoPlan:
    return plan_undo(selected, others, {("lead:1", "fld"): stands}, lambda _: obstacle)


def reasons(plan: UndoPlan) -> list[str]:
    assert plan.reverts == ()
    return [each.reason for each in plan.left]


def test_both_sides_get_what_stood_before_the_first_write() -> None:
    plan = planned([row(1, "a", "c"), row(2, "c", "b", "kommo")], stands=("b", "b"))
    (revert,) = plan.reverts
    assert (revert.value, revert.kommo, revert.airtable) == ("a", "b", "b")
    assert plan.left == ()


def test_what_ended_as_it_began_is_passed_over() -> None:
    assert planned([row(1, "a", "b"), row(2, "b", "a")], stands=("a", "a")) == UndoPlan((), ())


def test_either_side_may_keep_the_value_in_its_own_way() -> None:
    assert len(planned([row(1, "a", "b")], stands=("B", "b")).reverts) == 1
    assert reasons(planned([row(1, "a", "b")], stands=("x", "x"))) == [
        "edited since, to the same value on both sides"
    ]


@pytest.mark.parametrize("other", [row(2, "b", "c"), row(2, "b", "c", "kommo")])
def test_a_later_write_that_was_not_chosen_leaves_the_field(other: JournalRow) -> None:
    plan = planned([row(1, "a", "b"), row(3, "c", "b")], [other])
    assert plan.left == (Left("lead:1", "Field", "edited since: it was changed in Kommo"),)
    assert plan.reverts == ()


def test_an_earlier_one_does_not_nor_one_that_never_arrived_nor_of_another_field() -> None:
    others = [
        row(1, "x", "a"),
        row(3, "b", "c", state="refused"),
        row(4, "b", "c", operation="note"),
        row(5, "b", "c", field="fld2"),
        row(6, "b", "c", key="lead:2"),
    ]
    assert len(planned([row(2, "a", "b")], others).reverts) == 1


def test_what_is_being_written_is_left_for_now() -> None:
    assert reasons(planned([row(1, "a", "b", state="open")])) == [OPEN]
    assert reasons(planned([row(1, "a", "b")], [row(2, "b", "c", state="open")])) == [OPEN]


def test_a_field_that_cannot_go_back_says_why() -> None:
    assert reasons(planned([row(1, "a", "b")], obstacle="read-only")) == ["read-only"]
    assert reasons(plan_undo([row(1, "a", "b")], [], {}, lambda _: None)) == [FORGOTTEN]


def test_whole_records_are_listed_once_and_their_status_not_at_all() -> None:
    rows = [
        row(1, None, "a", operation="create"),
        row(2, None, "7", operation="create", field="key"),
        row(3, "7", None, operation="delete", key="lead:2"),
        row(4, "a", "b", key="contact:7"),
        row(5, "a", "b", key="contact:7", field="fld2"),
        row(6, "ok", "refused", rule="status", field="status"),
        row(7, "a", "b", operation="note"),
    ]
    assert planned(rows) == UndoPlan(
        (),
        (
            Left("lead:1", "", CREATED),
            Left("lead:2", "", DELETED),
            Left("contact:7", "", CLIENT),
        ),
    )


STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1, max_size=8)


@given(STEPS)
def test_nothing_that_others_wrote_after_the_first_chosen_write_is_ever_replaced(
    steps: list[tuple[str, bool]],
) -> None:
    """A chain of writes to one field, some of which are chosen."""
    values = ["start", *(value for value, _ in steps)]
    rows = [row(n, values[n], values[n + 1]) for n in range(len(steps))]
    chosen = [each for each, (_, is_chosen) in zip(rows, steps, strict=True) if is_chosen]
    others = [each for each in rows if each not in chosen]
    plan = planned(chosen, others, stands=(values[-1], values[-1]))
    assert len(plan.reverts) + len(plan.left) <= 1
    for revert in plan.reverts:
        assert rows[-len(chosen) :] == chosen
        assert revert.value == chosen[0].before
        assert revert.value != values[-1]
