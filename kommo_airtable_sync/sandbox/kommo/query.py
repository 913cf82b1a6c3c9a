"""Query strings: PHP-style brackets, paging, filters and order (reference 3.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qsl, urlencode

from kommo_airtable_sync.sandbox.kommo.problems import Refused, problem
from kommo_airtable_sync.sandbox.kommo.state import Entity, State

MAX_LIMIT = 250
_SET_FILTERS = ("id", "created_by", "updated_by", "responsible_user_id", "pipeline_id")
_RANGE_FILTERS = ("created_at", "updated_at", "closed_at", "price")

Predicate = Callable[[Entity], bool]


class Query:
    """A parsed query string.

    Args:
        raw: as in the URL, without the question mark.
    """

    def __init__(self, raw: str) -> None:
        self.pairs = parse_qsl(raw, keep_blank_values=True)
        self._paths = [(_path(key), value) for key, value in self.pairs]

    def values(self, *path: str) -> list[str]:
        """All values of ``a[b]``, ``a[b][]`` and ``a[b][0]`` for the path ``("a", "b")``."""
        size = len(path)
        return [
            value
            for found, value in self._paths
            if found == path
            or (len(found) == size + 1 and found[:size] == path and _is_index(found[size]))
        ]

    def keys(self, *path: str) -> list[str]:
        """The bracket keys that follow a path, each once, in order."""
        size = len(path)
        found = [each[size] for each, _ in self._paths if len(each) > size and each[:size] == path]
        return list(dict.fromkeys(found))

    def numbers(self, *path: str) -> set[int]:
        """``values`` as whole numbers.

        Raises:
            Refused: 400 if one is none.
        """
        return {_number(value) for value in self.values(*path)}

    def number(self, *path: str) -> int | None:
        """The number at exactly this path, if there is one."""
        for found, value in self._paths:
            if found == path:
                return _number(value)
        return None

    @property
    def with_(self) -> set[str]:
        """The comma list ``with``."""
        return {part.strip() for value in self.values("with") for part in value.split(",")}

    @property
    def page(self) -> int:
        """The 1-based page."""
        return max(1, self.number("page") or 1)

    def limit(self, default: int = 50, most: int = MAX_LIMIT) -> int:
        """Rows a page.

        Args:
            default: without ``limit``.
            most: silently used instead of a larger one that is still below 250.

        Raises:
            Refused: 422 above 250.
        """
        asked = self.number("limit") or default
        if asked > MAX_LIMIT:
            raise Refused(problem(422))
        return max(1, min(asked, most))

    def for_page(self, page: int, limit: int) -> str:
        """This query string for another page; page and limit come last, as Kommo writes them."""
        others = [pair for pair in self.pairs if pair[0] not in ("page", "limit")]
        return urlencode([*others, ("page", page), ("limit", limit)])


def _path(key: str) -> tuple[str, ...]:
    head, _, rest = key.partition("[")
    return (head, *re.findall(r"([^\[\]]*)\]", rest))


def _is_index(key: str) -> bool:
    return not key or key.isdigit()


def _number(value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise Refused(problem(400)) from None


def selected(entities: Iterable[Entity], query: Query, state: State) -> list[Entity]:
    """The entities that meet every filter, in the order asked for (by id without one)."""
    tests = list(_predicates(query, state))
    found = [each for each in entities if all(test(each) for test in tests)]
    for key in ("created_at", "updated_at", "id"):
        for direction in query.values("order", key):
            found.sort(key=lambda each: (getattr(each, key), each.id), reverse=direction == "desc")
            return found
    return sorted(found, key=lambda each: each.id)


def _predicates(query: Query, state: State) -> Iterable[Predicate]:
    deleted = "only_deleted" in query.with_
    yield lambda each: each.is_deleted == deleted
    for name in _SET_FILTERS:
        if wanted := query.numbers("filter", name):
            yield _one_of(name, wanted)
    if names := set(query.values("filter", "name")):
        yield lambda each: each.name in names
    for name in _RANGE_FILTERS:
        yield from _bounds(query, ("filter", name), lambda each, name=name: getattr(each, name))
    if pairs := _stages(query):
        yield lambda each: any(
            status == each.status_id and pipeline in (None, each.pipeline_id)
            for pipeline, status in pairs
        )
    for key in query.keys("filter", "custom_fields_values"):
        yield from _field_tests(query, _number(key))
    if text := "".join(query.values("query")).casefold():
        yield lambda each: text in _searchable(each, state)


def _one_of(name: str, wanted: set[int]) -> Predicate:
    return lambda each: getattr(each, name) in wanted


def _bounds(
    query: Query, path: tuple[str, ...], value: Callable[[Entity], Any]
) -> Iterable[Predicate]:
    """Inclusive ``[from]`` and ``[to]``; a scalar is an exact match (SDK#358)."""
    exact = query.number(*path)
    low, high = query.number(*path, "from"), query.number(*path, "to")
    if exact is not None:
        yield lambda each: value(each) == exact
    if low is not None:
        yield lambda each: value(each) is not None and value(each) >= low
    if high is not None:
        yield lambda each: value(each) is not None and value(each) <= high


def _stages(query: Query) -> list[tuple[int | None, int | None]]:
    path = ("filter", "statuses")
    return [
        (query.number(*path, key, "pipeline_id"), query.number(*path, key, "status_id"))
        for key in query.keys(*path)
    ]


def _field_tests(query: Query, field_id: int) -> Iterable[Predicate]:
    path = ("filter", "custom_fields_values", str(field_id))
    if wanted := set(query.values(*path)):
        yield lambda each: any(wanted & _spellings(v) for v in each.fields.get(field_id, []))

    def number(each: Entity) -> float | None:
        values = each.fields.get(field_id)
        return float(values[0]["value"]) if values else None

    if query.keys(*path):
        yield from _bounds(query, path, number)


def _spellings(value: dict[str, Any]) -> set[str]:
    """How a filter may name one value: enum id for choices, 1 and 0 for checkboxes."""
    if value.get("enum_id"):
        return {str(value["enum_id"])}
    raw = value.get("value")
    return {str(int(raw)) if isinstance(raw, bool) else str(raw)}


def _searchable(entity: Entity, state: State) -> str:
    texts = [entity.name, str(entity.id)]
    texts += [str(each.get("value")) for values in entity.fields.values() for each in values]
    texts += [state.tags[entity.kind][each] for each in entity.tags]
    return "\n".join(texts).casefold()
