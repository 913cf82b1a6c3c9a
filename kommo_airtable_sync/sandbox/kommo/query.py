"""Query strings: PHP-style brackets, paging, filters and order (reference 3.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode

from kommo_airtable_sync.sandbox.kommo.answers import Refused, problem

MAX_LIMIT = 250
# filter[key][] -> the key of a row
_ID_FILTERS = (
    "id", "created_by", "updated_by", "responsible_user_id", "pipeline_id", "entity_id",
)  # fmt: skip
_TEXT_FILTERS = {"name": "name", "type": "type", "destination": "destination"} | {
    "entity": "entity_type"
}
_RANGE_FILTERS = ("created_at", "updated_at", "closed_at", "price")

Json = dict[str, Any]
Test = Callable[[Json], bool]


class Query:
    """A parsed query string.

    Args:
        raw: as in the URL, without the question mark.
    """

    def __init__(self, raw: str) -> None:
        self.pairs = parse_qsl(raw, keep_blank_values=True)
        self._found = [(_path(key), value) for key, value in self.pairs]

    def values(self, *path: str) -> list[str]:
        """All values of ``a[b]``, ``a[b][]`` and ``a[b][0]`` for the path ``("a", "b")``."""
        return [value for found, value in self._found if found == path]

    def numbers(self, *path: str) -> set[int]:
        """``values`` as whole numbers.

        Raises:
            Refused: 400 if one is none.
        """
        try:
            return {int(value) for value in self.values(*path)}
        except ValueError:
            raise Refused(problem(400)) from None

    def number(self, *path: str) -> int | None:
        """One of the numbers, if there is one."""
        return next(iter(self.numbers(*path)), None)

    def keys(self, *path: str) -> list[str]:
        """The bracket keys that follow a path, each once, in order."""
        size = len(path)
        found = [each[size] for each, _ in self._found if len(each) > size and each[:size] == path]
        return list(dict.fromkeys(found))

    @property
    def with_(self) -> set[str]:
        """The comma list ``with``."""
        return set(",".join(self.values("with")).split(","))

    @property
    def page(self) -> int:
        """The 1-based page."""
        return max(1, self.number("page") or 1)

    def limit(self, most: int) -> int:
        """Rows a page: what is asked for (50 without) up to ``most``.

        Raises:
            Refused: 422 above 250.
        """
        asked = self.number("limit") or 50
        if asked > MAX_LIMIT:
            raise Refused(problem(422))
        return max(1, min(asked, most))

    def others(self) -> tuple[tuple[str, str], ...]:
        """The pairs that choose and order rows: all but page and limit."""
        return tuple(pair for pair in self.pairs if pair[0] not in ("page", "limit"))

    def for_page(self, page: int, limit: int) -> str:
        """This query string for another page; page and limit come last, as Kommo writes them."""
        return urlencode([*self.others(), ("page", page), ("limit", limit)])


def _path(key: str) -> tuple[str, ...]:
    """``a[b][c]`` in parts, without the ``[]`` or ``[0]`` that makes it a list."""
    head, _, rest = key.partition("[")
    path = (head, *re.findall(r"([^\[\]]*)\]", rest))
    return path[:-1] if len(path) > 1 and (not path[-1] or path[-1].isdigit()) else path


def selected(rows: Iterable[Json], query: Query) -> list[Json]:
    """The rows that meet every filter, in the order asked for, else as they come."""
    tests = list(_tests(query))
    found = [row for row in rows if all(test(row) for test in tests)]
    for key in ("created_at", "updated_at", "id"):
        for direction in query.values("order", key):
            found.sort(key=lambda row: (row.get(key) or 0, row["id"]), reverse=direction == "desc")
    return found


def _tests(query: Query) -> Iterator[Test]:
    deleted = "only_deleted" in query.with_
    yield lambda row: row.get("is_deleted", deleted) == deleted
    for name in _ID_FILTERS:
        if numbers := query.numbers("filter", name):
            yield lambda row, name=name, wanted=numbers: row.get(name) in wanted
    for name, key in _TEXT_FILTERS.items():
        if texts := query.values("filter", name):
            yield lambda row, key=key, wanted=texts: row.get(key) in wanted
    for name in _RANGE_FILTERS:
        yield from _bounds(query, ("filter", name), lambda row, name=name: row.get(name))
    if stages := _stages(query):
        yield (
            lambda row: (
                (row["pipeline_id"], row["status_id"]) in stages
                or ((None, row["status_id"]) in stages)
            )
        )
    for key in query.keys("filter", "custom_fields_values"):
        yield from _field_tests(query, key)
    if text := "".join(query.values("query")).casefold():
        yield lambda row: text in _searchable(row)


def _bounds(query: Query, path: tuple[str, ...], value: Callable[[Json], Any]) -> Iterator[Test]:
    """Inclusive ``[from]`` and ``[to]``; a scalar is exact (SDK#358)."""
    exact = query.number(*path)
    low, high = query.number(*path, "from"), query.number(*path, "to")
    if exact is not None:
        yield lambda row: value(row) == exact
    if low is not None:
        yield lambda row: value(row) is not None and value(row) >= low
    if high is not None:
        yield lambda row: value(row) is not None and value(row) <= high


def _stages(query: Query) -> set[tuple[int | None, int | None]]:
    path = ("filter", "statuses")
    return {
        (query.number(*path, key, "pipeline_id"), query.number(*path, key, "status_id"))
        for key in query.keys(*path)
    }


def _field_tests(query: Query, key: str) -> Iterator[Test]:
    path, field_id = ("filter", "custom_fields_values", key), int(key)

    def values(row: Json) -> list[Json]:
        return row.get("fields", {}).get(field_id, [])

    if wanted := set(query.values(*path)):
        yield lambda row: any(_spelling(each) in wanted for each in values(row))
    if query.keys(*path):
        yield from _bounds(
            query, path, lambda row: float(values(row)[0]["value"]) if values(row) else None
        )


def _spelling(value: Json) -> str:
    """How a filter names one value: enum id for choices, 1 and 0 for checkboxes."""
    raw = value.get("enum_id") or value.get("value")
    return str(int(raw)) if isinstance(raw, bool) else str(raw)


def _searchable(row: Json) -> str:
    values = [each.get("value") for values in row.get("fields", {}).values() for each in values]
    return "\n".join(str(each) for each in (row.get("name"), row["id"], *values)).casefold()
