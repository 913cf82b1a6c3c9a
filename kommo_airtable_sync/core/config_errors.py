"""Reading ``sync.yaml`` as YAML, and turning pydantic's errors into sentences with a path."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from typing import Any, cast

import yaml
from pydantic_core import ErrorDetails

from kommo_airtable_sync.core.problems import Mistakes, not_known
from kommo_airtable_sync.core.types import Json

VALUES_MAX = 100_000
"""A mapping of 500 fields, fully spelled out, has 6,000."""


def load_yaml(text: str, source: str) -> Json:
    """The file as plain data.

    Raises:
        ConfigurationError: if it is not YAML, gives a key twice, or grows out of hand by its
            aliases; with line and column.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        raise Mistakes(source, [f"not valid YAML: {_one_line(error)}"]) from error
    except RecursionError as error:
        raise Mistakes(source, ["not valid YAML: nested too deep to be read"]) from error


def explain(errors: Sequence[ErrorDetails], raw: Json, schema: Json) -> list[str]:
    """What is wrong, one line a path; a union's alternatives (text or number) share theirs.

    Args:
        errors: pydantic's, of one validation.
        raw: what was validated.
        schema: its JSON Schema, to name the keys that are allowed.
    """
    lines: dict[str, list[str]] = {}
    for error in errors:
        sentences = lines.setdefault(_path(error["loc"], raw), [])
        sentences.append(_sentence(error, schema))
    return [
        f"{path}: {' or '.join(dict.fromkeys(sentences))}".removeprefix(": ")
        for path, sentences in lines.items()
    ]


def _path(loc: Sequence[int | str], raw: Json) -> str:
    """``fields[2].owner``: the parts of pydantic's loc that are in the file, without union tags."""
    path, at = "", raw
    for n, part in enumerate(loc):
        if isinstance(part, int) and isinstance(at, list):
            path, at = f"{path}[{part}]", cast("list[Json]", at)[part]
        elif isinstance(at, dict) and (part in at or n == len(loc) - 1):
            path, at = f"{path}.{part}", cast("dict[str, Json]", at).get(str(part))
    return path.lstrip(".")


def _sentence(error: ErrorDetails, schema: Json) -> str:
    kind, given = error["type"], error["input"]
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return not_known(
            str(error["loc"][-1]), _keys_at(error["loc"][:-1], schema), "a key known here"
        )
    if kind == "literal_error":
        allowed = re.findall(r"'([^']+)'|(\d+)", str(error.get("ctx", {}).get("expected")))
        return not_known(given, [text or number for text, number in allowed], "allowed")
    if kind == "value_error":
        return error["msg"].removeprefix("Value error, ")
    must = error["msg"].replace("Input should", "must").replace("valid dictionary", "mapping")
    return f"{must.partition(' or instance of')[0]}, not {str(given)[:60]!r}"


def _keys_at(loc: Sequence[int | str], schema: Json) -> list[str]:
    """The keys that the JSON Schema allows at a pydantic loc."""
    nodes: list[Json] = [schema]
    for part in loc:
        inner = [_step(node, part, schema["$defs"]) for node in nodes]
        nodes = [node for found in inner for node in found] or nodes  # a union tag: stay
    expanded = [node for at in nodes for node in _variants(at, schema["$defs"])]
    return [key for node in expanded for key in node.get("properties", {})]


def _step(node: Json, part: int | str, defs: Json) -> list[Json]:
    found: list[Json] = []
    for variant in _variants(node, defs):
        if isinstance(part, int):
            found += [variant["items"]] if "items" in variant else []
        elif part in variant.get("properties", {}):
            found.append(variant["properties"][part])
    return found


def _variants(node: Json, defs: Json) -> list[Json]:
    """A schema node without references and unions."""
    if "$ref" in node:
        return _variants(defs[node["$ref"].rpartition("/")[2]], defs)
    inner = [variant for key in ("anyOf", "oneOf") for variant in node.get(key, [])]
    return [found for variant in inner for found in _variants(variant, defs)] or [node]


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses what YAML takes in silence, or breaks at in words of its own.

    A key given twice, of which YAML would drop the first; aliases that multiply to more than any
    real file holds; and ``2020-13-45`` or ``!!int x``, which end in whatever Python raises.
    """

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _size(node, {}) > VALUES_MAX:
            raise yaml.constructor.ConstructorError(
                None, None, f"more than {VALUES_MAX} values, aliases unfolded", node.start_mark
            )
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)  # pyright: ignore[reportUnknownMemberType]
        except (ValueError, LookupError, AttributeError) as error:
            raise yaml.constructor.ConstructorError(
                None, None, "a value that is not what it looks like; quote it", node.start_mark
            ) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is given twice", key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node holds with its aliases unfolded; one inside itself, too many."""
    if id(node) not in known:
        known[id(node)] = VALUES_MAX + 1  # until it is known: who asks meanwhile is inside it
        inner: list[Any] = []
        if isinstance(node, yaml.SequenceNode):
            inner = node.value
        elif isinstance(node, yaml.MappingNode):
            inner = [each for pair in node.value for each in pair]
        known[id(node)] = 1 + sum(_size(each, known) for each in inner)
    return known[id(node)]


def _one_line(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{error.problem} (line {mark.line + 1}, column {mark.column + 1})"
    return str(error)
