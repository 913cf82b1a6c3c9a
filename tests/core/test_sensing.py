from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.sensing import NUDGE_SECONDS, LaneView, describe, wants_run

STATES = st.lists(st.sampled_from(["standby", "running", "retiring"])).map(tuple)
AGES = st.none() | st.floats(0, 1e6)
VIEWS = st.builds(LaneView, st.booleans(), STATES, AGES)


@given(VIEWS)
def test_a_run_is_wanted_only_for_something_due_that_nobody_has_or_was_asked_to_take(
    view: LaneView,
):
    age = view.nudge_age_seconds
    asked_lately = age is not None and age < NUDGE_SECONDS
    nobody = not view.runner_states
    assert wants_run(view) == (view.is_due and nobody and not asked_lately)


@given(STATES.filter(bool), AGES)
def test_any_live_runner_is_trusted_to_take_what_is_due(states: tuple[str, ...], age: float | None):
    assert not wants_run(LaneView(True, states, age))


def test_a_run_that_was_asked_for_is_waited_for_and_then_asked_for_again():
    assert wants_run(LaneView(True, (), None))
    assert not wants_run(LaneView(True, (), NUDGE_SECONDS - 0.01))
    assert wants_run(LaneView(True, (), NUDGE_SECONDS))


@given(AGES)
def test_nothing_due_asks_for_nothing(age: float | None):
    assert not wants_run(LaneView(False, (), age))


@given(st.lists(st.tuples(st.sampled_from(["live", "bulk"]), VIEWS), max_size=4))
def test_the_description_is_one_line_that_names_each_lane_and_its_runners(
    views: list[tuple[str, LaneView]],
):
    line = describe(views)
    assert "\n" not in line
    parts = line.split("; ") if line else []
    assert len(parts) == len(views)
    for part, (name, view) in zip(parts, views, strict=True):
        assert part.startswith(f"{name}: {'due' if view.is_due else 'nothing due'}, ")
        assert part.endswith(", ".join(view.runner_states) or "no runner")
