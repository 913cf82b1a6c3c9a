"""Nearest rank."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.stats import nearest_rank

LISTS = st.lists(st.floats(0, 100), min_size=1).map(sorted)


@given(LISTS, st.floats(0, 1))
def test_it_is_a_value_of_the_list_that_enough_do_not_exceed(
    values: list[float], share: float
) -> None:
    found = nearest_rank(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)


def test_the_95th_of_twenty_is_the_19th() -> None:
    assert nearest_rank([float(n) for n in range(1, 21)], 0.95) == 19.0
