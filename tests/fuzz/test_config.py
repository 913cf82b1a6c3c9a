"""``sync.yaml`` as nobody should write it: a sentence with a path or a line, never a traceback."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.config import parse_config
from kommo_airtable_sync.core.errors import ConfigurationError

EXAMPLE = (Path(__file__).parents[2] / "sync.example.yaml").read_text(encoding="utf-8")
SECONDS_MAX = 5.0
MESSAGE_MAX = 20_000
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates()
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)


def refused(text: str) -> str:
    """What is said against it; an empty string if it was taken."""
    began, said = time.process_time(), ""
    try:
        parse_config(text)
    except ConfigurationError as error:
        said = str(error)
    assert time.process_time() - began < SECONDS_MAX
    assert len(said) < MESSAGE_MAX + 20 * len(text)
    assert not said or said.startswith("sync.yaml")
    return said


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value."""
    inner = {dict: dict, list: lambda listed: dict(enumerate(listed))}
    unfolded = inner.get(type(tree), lambda _: {})(tree)
    below = [found for key in unfolded for found in places(unfolded[key], (*path, key))]
    return [path, *below] if path else below


PLACES = places(yaml.safe_load(EXAMPLE))


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    refused(text)


@given(trees)
def test_any_tree(tree: Any) -> None:
    refused(yaml.safe_dump(tree))


@given(st.sampled_from(PLACES), trees)
def test_the_example_with_any_one_value_replaced(path: tuple[Any, ...], value: Any) -> None:
    tree = at = yaml.safe_load(EXAMPLE)
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    refused(yaml.safe_dump(tree))


@given(st.integers(0, len(EXAMPLE)), st.integers(0, 40), st.text(max_size=10))
def test_the_example_with_a_piece_cut_out_and_another_put_in(
    start: int, length: int, piece: str
) -> None:
    refused(EXAMPLE[:start] + piece + EXAMPLE[start + length :])


@pytest.mark.parametrize(
    "text",
    [
        "since: 2020-13-45",
        "a: !!bool maybe",
        "a: !!int ''",
        "a: !!int many",
        "a: !!float ''",
        "a: !!timestamp soon",
        "a: 0b_",
        "1" * 5_000,
    ],
    ids=lambda text: text[:20],
)
def test_a_value_that_is_not_what_it_looks_like_is_named_by_its_line(text: str) -> None:
    assert "not what it looks like; quote it (line 1, column" in refused(text)


@pytest.mark.parametrize("text", ["[" * 50_000, "{a: " * 50_000, "- " * 50_000])
def test_a_file_nested_without_end_is_refused(text: str) -> None:
    assert "nested too deep" in refused(text)


def test_aliases_that_multiply_or_hold_themselves_are_refused() -> None:
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
    assert "aliases unfolded" in refused("\n".join([*lines, "version: *a39"]))
    assert "aliases unfolded" in refused("version: &a [*a]")
