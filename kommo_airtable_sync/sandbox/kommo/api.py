"""The API v4 routes of leads, contacts and companies (reference 3 and 5)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from kommo_airtable_sync.sandbox.kommo.changes import Changes
from kommo_airtable_sync.sandbox.kommo.problems import (
    Answer,
    ItemErrors,
    Refused,
    hal,
    no_content,
    problem,
)
from kommo_airtable_sync.sandbox.kommo.query import MAX_LIMIT, Query, selected
from kommo_airtable_sync.sandbox.kommo.settings import Settings
from kommo_airtable_sync.sandbox.kommo.shapes import Shapes
from kommo_airtable_sync.sandbox.kommo.state import Entity, State
from kommo_airtable_sync.sandbox.kommo.writes import Applied

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """One authenticated call.

    Args:
        path: e.g. ``/api/v4/leads/1``.
        query: parsed query string.
        body: raw.
        shapes: spells answers for the host that was called.
        user_id: who acts.
        now: epoch seconds at which the call takes effect.
    """

    method: str
    path: str
    query: Query
    body: bytes
    shapes: Shapes
    user_id: int
    now: float


def items_of(body: bytes) -> list[Json]:
    """The array of a batch write.

    Raises:
        Refused: 400 for an empty body or another kind of JSON; 422 over 250 items.
    """
    parsed = json_of(body)
    if not isinstance(parsed, list):
        raise Refused(wrong_kind("array"))
    items = cast("list[Any]", parsed)
    if not all(isinstance(each, dict) for each in items):
        raise Refused(wrong_kind("array"))
    if not items:
        raise Refused(problem(400, "Request data can not be empty"))
    if len(items) > MAX_LIMIT:
        raise Refused(problem(422))
    return items


def require(items: list[Json], **types: type) -> list[Json]:
    """The items, if each has these keys with these types.

    Raises:
        Refused: 400 that names every key missing or wrong.
    """
    errors = ItemErrors()
    for index, item in enumerate(items):
        for key, wanted in types.items():
            if not isinstance(item.get(key), wanted):
                code = "InvalidType" if key in item else "FieldMissing"
                errors.add(str(item.get("request_id", index)), code, key, wanted.__name__)
    errors.raise_if_any()
    return items


def object_of(body: bytes) -> Json:
    """The one object of a single write.

    Raises:
        Refused: 400 for an empty body or another kind of JSON.
    """
    parsed = json_of(body)
    if not isinstance(parsed, dict):
        raise Refused(wrong_kind("object"))
    return cast(Json, parsed)


def json_of(body: bytes) -> Any:
    """The parsed body.

    Raises:
        Refused: 400 if there is none.
    """
    try:
        return json.loads(body)
    except ValueError:
        raise Refused(problem(400, "Request data can not be empty")) from None


def wrong_kind(wanted: str) -> Answer:
    """The 400 for an object where an array belongs, and the other way round."""
    detail = f"This value should be of type {wanted}."
    error = {"code": "InvalidType", "path": "", "detail": detail}
    return problem(400, "", {"validation-errors": [{"request_id": "0", "errors": [error]}]})


def paged(request: Request, name: str, rows: list[Json], limit: int) -> Answer:
    """A page of rows already cut to ``limit + 1``, in the list envelope (reference 3.1)."""
    if not rows:
        return no_content()
    page, base = request.query.page, request.path.removeprefix("/api/v4/")

    def link(to: int) -> Json:
        return request.shapes.self_link(f"{base}?{request.query.for_page(to, limit)}")["self"]

    links: Json = {"self": link(page)}
    if len(rows) > limit:
        links["next"] = link(page + 1)
    if page > 1:
        links |= {"first": link(1), "prev": link(page - 1)}
    return hal({"_page": page, "_links": links, "_embedded": {name: rows[:limit]}})


def page_of(request: Request, rows: list[Any], limit: int) -> list[Any]:
    """The rows of the page asked for, and one more if there is a next page."""
    start = (request.query.page - 1) * limit
    return rows[start : start + limit + 1]


class EntityApi:
    """Lists, reads and writes of the three entity types.

    Args:
        state: the account's data.
        settings: switches.
        changes: carries out writes.
    """

    def __init__(self, state: State, settings: Settings, changes: Changes) -> None:
        self._state = state
        self._settings = settings
        self._changes = changes
        self._sorted: tuple[int, dict[tuple[Any, ...], list[Entity]]] = (-1, {})

    def list(self, request: Request, kind: str) -> Answer:
        """``GET /leads``: filters, order, pages."""
        limit = request.query.limit()
        rows = page_of(request, self._selected(request, kind), limit)
        query, with_ = request.query.for_page(request.query.page, limit), request.query.with_
        shown = [request.shapes.entity(each, with_, query) for each in rows]
        return paged(request, kind, shown, limit)

    def _selected(self, request: Request, kind: str) -> list[Entity]:
        """The sorted selection, kept until the next write: walking 100,000 leads sorts once."""
        others = [pair for pair in request.query.pairs if pair[0] not in ("page", "limit")]
        key = (kind, *others)
        if self._sorted[0] != self._state.version:
            self._sorted = (self._state.version, {})
        kept = self._sorted[1]
        if key not in kept:
            kept[key] = selected(self._state.entities[kind].values(), request.query, self._state)
        return kept[key]

    def get(self, request: Request, kind: str, entity_id: int) -> Answer:
        """``GET /leads/{id}``: 204 for the unknown; the trash shows only via with=only_deleted."""
        entity = self._state.entities[kind].get(entity_id)
        with_ = request.query.with_
        if entity is None or entity.is_deleted != ("only_deleted" in with_):
            return no_content()
        return hal(request.shapes.entity(entity, with_))

    def create(self, request: Request, kind: str) -> Answer:
        """``POST /leads``: an array."""
        items = items_of(request.body)
        applied = self._write(request, kind, [(None, each) for each in items])
        rows = [self._row(request, each, {"request_id": each.draft.request_id}) for each in applied]
        return hal({"_links": request.shapes.self_link(kind), "_embedded": {kind: rows}})

    def update(self, request: Request, kind: str) -> Answer:
        """``PATCH /leads``: an array of objects with ids."""
        items = items_of(request.body)
        found = [self._state.find(kind, _id_of(each)) for each in items]
        errors = ItemErrors()
        for index, (entity, item) in enumerate(zip(found, items, strict=True)):
            if entity is None:
                errors.add(str(item.get("request_id", index)), "NotSupportedChoice", "id")
        if self._settings.patch_missing == "refuse":
            errors.raise_if_any()
        pairs = [pair for pair in zip(found, items, strict=True) if pair[0] is not None]
        applied = self._write(request, kind, pairs)
        return self._updated(request, kind, applied)

    def update_one(self, request: Request, kind: str, entity_id: int) -> Answer:
        """``PATCH /leads/{id}``: one object; the answer is bare, or wrapped by switch."""
        item = object_of(request.body)
        entity = self._state.find(kind, entity_id)
        if entity is None:
            return problem(404)
        applied = self._write(request, kind, [(entity, item)])
        if self._settings.single_patch_answer == "wrapped":
            return self._updated(request, kind, applied)
        return hal(self._row(request, applied[0], {"updated_at": entity.updated_at}))

    def _write(
        self, request: Request, kind: str, items: list[tuple[Entity | None, Json]]
    ) -> list[Applied]:
        return self._changes.write(kind, items, by=request.user_id, at=request.now)

    def _updated(self, request: Request, kind: str, applied: Iterable[Applied]) -> Answer:
        rows = [
            self._row(
                request,
                each,
                {"updated_at": each.entity.updated_at, "request_id": each.draft.request_id},
            )
            for each in applied
        ]
        return hal({"_links": request.shapes.self_link(kind), "_embedded": {kind: rows}})

    def _row(self, request: Request, applied: Applied, extra: Json) -> Json:
        entity = applied.entity
        row: Json = {"id": entity.id} | extra
        if entity.kind == "contacts":
            row |= {"is_deleted": False, "is_unsorted": False}
        return row | {"_links": request.shapes.self_link(f"{entity.kind}/{entity.id}")}


def _id_of(item: Json) -> int:
    raw = item.get("id")
    return raw if isinstance(raw, int) else -1
