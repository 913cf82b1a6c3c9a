"""The routes of API v4 (reference 3, 5 and 6.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from kommo_airtable_sync.sandbox.kommo.answers import (
    Answer,
    Mistake,
    Refused,
    hal,
    mistakes,
    no_content,
    parsed,
    problem,
    refuse,
)
from kommo_airtable_sync.sandbox.kommo.query import MAX_LIMIT, Query, selected
from kommo_airtable_sync.sandbox.kommo.settings import Settings
from kommo_airtable_sync.sandbox.kommo.shapes import Shapes
from kommo_airtable_sync.sandbox.kommo.state import SINGULAR, State
from kommo_airtable_sync.sandbox.kommo.writes import Item, Writer

Json = dict[str, Any]
WEBHOOKS_MAX = 100
_SUBSCRIPTION = {"destination": str, "settings": [str], "sort": int}
HOOK_CODES = {
    f"{action}_{entity}"
    for entity in ("lead", "contact", "company", "customer")
    for action in ("add", "update", "delete", "restore", "status", "responsible", "note")
} - {"restore_customer"} | {
    "add_task", "update_task", "delete_task", "responsible_task",
    "add_talk", "update_talk", "add_chat_template_review",
}  # fmt: skip


class Listing(NamedTuple):
    """How a list is answered: rows a page at most (0 = all at once), and whether with totals."""

    page: int = MAX_LIMIT
    totals: bool = False


LISTINGS = {
    "leads/pipelines": Listing(0, totals=True),
    "leads/loss_reasons": Listing(),
    "users": Listing(totals=True),
    "events": Listing(100),
    "webhooks": Listing(0, totals=True),
    **dict.fromkeys(SINGULAR, Listing()),
    # 50 a page, however large the limit (A-cf)
    **{f"{kind}/custom_fields": Listing(50, totals=True) for kind in SINGULAR},
    **{f"{kind}/tags": Listing() for kind in SINGULAR},
}
ADMINS_ONLY = {"users", "webhooks"}


@dataclass(frozen=True, slots=True)
class Request:
    """One authenticated call.

    Args:
        path: without ``/api/v4/``, e.g. ``leads/1``.
        base: the host that was called, for links.
        user_id: who acts.
        now: epoch seconds at which the call takes effect.
    """

    method: str
    path: str
    query: Query
    body: bytes
    base: str
    user_id: int
    now: float


class Api:
    """Answers one request. The model's lock is held."""

    def __init__(self, state: State, settings: Settings, writer: Writer, request: Request) -> None:
        self._state = state
        self._settings = settings
        self._writer = writer
        self._request = request
        self._query = request.query
        self._shapes = Shapes(state, settings, request.base)
        self._kind, _, self._rest = request.path.partition("/")

    def answer(self) -> Answer:
        """Route the call.

        Raises:
            Refused: instead of an answer.
        """
        request = self._request
        by_method: dict[str, Callable[[], Answer]] = {"GET": self._list}
        if request.path in SINGULAR:
            by_method |= {"POST": self._create, "PATCH": self._update}
        elif self._kind in SINGULAR and self._rest.isdigit():
            by_method = {"GET": self._get, "PATCH": self._update_one}
        elif request.path == "account":
            by_method = {"GET": self._account}
        elif request.path == "webhooks":
            by_method |= {"POST": self._subscribe, "DELETE": self._unsubscribe}
        elif request.path not in LISTINGS:
            return problem(404, f"Cannot {request.method} {request.base}/api/v4/{request.path}")
        if request.path in ADMINS_ONLY and not self._settings.token_is_admin:
            return problem(403)
        return by_method.get(request.method, lambda: problem(405))()

    def _account(self) -> Answer:
        return hal(self._shapes.account(self._query.with_, self._request.user_id))

    def _list(self) -> Answer:
        """Any list: filters, order, page, envelope (reference 3.1)."""
        path, query, rows = self._request.path, self._query, self._selected()
        most, totals = LISTINGS[path]
        if not most:
            shown = [self._shown(row, "") for row in rows]
            whole: Json = {"_embedded": {path.rpartition("/")[2]: shown}}
            return hal(self._shapes.linked(whole | {"_total_items": len(rows)}, path))
        limit, page = query.limit(most), query.page
        start, pages = (page - 1) * limit, -(-len(rows) // limit)
        if start >= len(rows):
            return no_content()
        numbers = {"self": page} | ({"next": page + 1} if page < pages else {})
        if totals:
            numbers["last"] = pages
        elif page > 1:
            numbers |= {"first": 1, "prev": page - 1}
        link = self._shapes.link
        links = {key: link(f"{path}?{query.for_page(n, limit)}") for key, n in numbers.items()}
        envelope: Json = {"_page": page, "_links": links}
        if totals:
            envelope |= {"_total_items": len(rows), "_page_count": pages}
        repeated = query.for_page(page, limit)
        shown = [self._shown(row, repeated) for row in rows[start : start + limit]]
        return hal(envelope | {"_embedded": {path.rpartition("/")[2]: shown}})

    def _shown(self, row: Json, repeated: str) -> Json:
        if self._request.path in SINGULAR:
            return self._shapes.entity(row, self._query.with_, repeated)
        return self._shapes.linked(row, f"{self._request.path}/{row['id']}")

    def _selected(self) -> list[Json]:
        """The selection; of entities it is kept until the next write, for who walks 100,000."""
        path, query = self._request.path, self._query
        if self._is_hidden(path):
            return []
        if path not in SINGULAR:
            is_sorted = self._rest == "custom_fields"
            rows = self._state.fields(self._kind) if is_sorted else self._state.rows[path].values()
            return selected(rows, query)
        key, kept = (path, query.others()), self._state.kept
        if key not in kept:
            kept[key] = selected(self._state.rows[path].values(), query)
        return kept[key]

    def _is_hidden(self, kind: str) -> bool:
        return kind == "leads" and not self._settings.token_sees_leads

    def _found(self, entity_id: Any) -> Json | None:
        """What may be changed: the token sees it and it is not in the trash."""
        return None if self._is_hidden(self._kind) else self._state.find(self._kind, entity_id)

    def _get(self) -> Answer:
        """204 for the unknown; the trash shows only via with=only_deleted."""
        row, with_ = self._state.rows[self._kind].get(int(self._rest)), self._query.with_
        if (
            row is None
            or self._is_hidden(self._kind)
            or row["is_deleted"] != ("only_deleted" in with_)
        ):
            return no_content()
        return hal(self._shapes.entity(row, with_))

    def _create(self) -> Answer:
        return self._wrapped(self._write([(None, each) for each in self._items()]))

    def _update(self) -> Answer:
        """An array of objects with ids."""
        pairs = [(self._found(each.get("id")), each) for each in self._items()]
        gone = {
            str(each.get("request_id", n)): [Mistake("NotSupportedChoice", "id")]
            for n, (row, each) in enumerate(pairs)
            if row is None
        }
        if self._settings.patch_missing == "refuse":
            refuse(gone)
        return self._wrapped(self._write([pair for pair in pairs if pair[0] is not None]))

    def _update_one(self) -> Answer:
        """One object; the answer is bare."""
        asked, row = parsed(self._request.body, dict), self._found(int(self._rest))
        if row is None:
            return problem(404)
        return hal(self._row(self._write([(row, asked)])[0]))

    def _items(self) -> list[Json]:
        """The array of a batch write.

        Raises:
            Refused: 400 unless it holds objects; 422 over 250 items.
        """
        items: list[Any] = parsed(self._request.body, list)
        if len(items) > MAX_LIMIT:
            raise Refused(problem(422))
        odd = [n for n, each in enumerate(items) if not isinstance(each, dict)]
        refuse({str(n): [Mistake("InvalidType", "", "object")] for n in odd})
        return items

    def _write(self, items: list[tuple[Json | None, Json]]) -> list[Item]:
        request = self._request
        return self._writer.write(self._kind, items, by=request.user_id, at=request.now)

    def _wrapped(self, items: list[Item]) -> Answer:
        rows = [self._row(each) | {"request_id": each.request_id} for each in items]
        return hal(self._shapes.linked({"_embedded": {self._kind: rows}}, self._kind))

    def _row(self, item: Item) -> Json:
        row: Json = {"id": item.row["id"]}
        if self._request.method == "PATCH":
            row["updated_at"] = item.row["updated_at"]
        if self._kind == "contacts":
            row |= {"is_deleted": False, "is_unsorted": False}
        return self._shapes.linked(row, f"{self._kind}/{row['id']}")

    def _subscribe(self) -> Answer:
        """One object; the same destination again is an update."""
        asked, known = parsed(self._request.body, dict), self._state.rows["webhooks"]
        wrong = list(mistakes(asked, _SUBSCRIPTION, set()))
        missing = [key for key in ("destination", "settings") if key not in asked]
        refuse({"0": wrong + [Mistake("FieldMissing", key) for key in missing]})
        odd = [n for n, code in enumerate(asked["settings"]) if code not in HOOK_CODES]
        refuse({"0": [Mistake("NotSupportedChoice", f"settings.{n}") for n in odd]})
        destination, now = asked["destination"], int(self._request.now)
        if destination not in known and len(known) >= WEBHOOKS_MAX:
            return problem(422, "Limit 100 webhooks per account")
        if destination not in known:
            webhook: Json = {"id": self._state.next_id(), "account_id": self._state.account.id}
            webhook |= {"created_at": now, "created_by": self._request.user_id, "disabled": False}
            known[destination] = webhook | {"sort": len(known) + 1}
        known[destination] |= asked | {"updated_at": now}
        if self._settings.post_reenables:
            known[destination]["disabled"] = False
        return hal(known[destination], 201)

    def _unsubscribe(self) -> Answer:
        """By the destination in the body."""
        destination = str(parsed(self._request.body, dict).get("destination"))
        gone = self._state.rows["webhooks"].pop(destination, None)
        return no_content() if gone else problem(404)
