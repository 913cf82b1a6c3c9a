"""The routes of API v4 (reference 3, 5 and 6.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
    """How a list is answered: rows a page at most (0 = all at once), totals, who may see it."""

    page: int = MAX_LIMIT
    totals: bool = False
    admins_only: bool = False


ENTITIES = Listing()
LISTINGS = {
    "leads/pipelines": Listing(page=0, totals=True),
    "leads/loss_reasons": Listing(),
    "users": Listing(totals=True, admins_only=True),
    "events": Listing(page=100),
    "webhooks": Listing(page=0, totals=True, admins_only=True),
    # 50 a page, however large the limit (A-cf)
    **{f"{kind}/custom_fields": Listing(page=50, totals=True) for kind in SINGULAR},
    **{f"{kind}/tags": Listing() for kind in SINGULAR},
}


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
    """Answers requests. The model's lock is held.

    Args:
        state: the account's data.
        settings: switches.
        writer: carries out writes.
    """

    def __init__(self, state: State, settings: Settings, writer: Writer) -> None:
        self._state = state
        self._settings = settings
        self._writer = writer
        self._kept: tuple[int, dict[Any, list[Json]]] = (-1, {})

    def answer(self, request: Request) -> Answer:
        """Route one call.

        Raises:
            Refused: instead of an answer.
        """
        kind, _, number = request.path.partition("/")
        by_method: dict[str, Callable[[Request], Answer]]
        if kind in SINGULAR and number.isdigit():
            by_method = {"GET": self._get, "PATCH": self._update_one}
        elif request.path in SINGULAR:
            by_method = {"GET": self._list, "POST": self._create, "PATCH": self._update}
        elif request.path in LISTINGS:
            by_method = {"GET": self._list}
            if request.path == "webhooks":
                by_method |= {"POST": self._subscribe, "DELETE": self._unsubscribe}
        elif request.path == "account":
            by_method = {"GET": self._account}
        else:
            address = f"{request.base}/api/v4/{request.path}"
            return problem(404, f"Cannot {request.method} {address}")
        handler = by_method.get(request.method)
        return handler(request) if handler else problem(405)

    def _shapes(self, request: Request) -> Shapes:
        return Shapes(self._state, self._settings, request.base)

    def _account(self, request: Request) -> Answer:
        return hal(self._shapes(request).account(request.query.with_, request.user_id))

    def _list(self, request: Request) -> Answer:
        """Any list: filters, order, page, envelope (reference 3.1)."""
        listing, query = LISTINGS.get(request.path, ENTITIES), request.query
        if listing.admins_only and not self._settings.token_is_admin:
            return problem(403)
        rows = self._selected(request)
        limit = query.limit(listing.page) if listing.page else max(1, len(rows))
        page = query.page if listing.page else 1
        start, pages = (page - 1) * limit, -(-len(rows) // limit)
        if listing.page and start >= len(rows):
            return no_content()
        envelope: Json = {"_links": self._page_links(request, page, pages, limit, listing)}
        if listing.totals:
            envelope["_total_items"] = len(rows)
        if listing.page:
            envelope["_page"] = page
            envelope |= {"_page_count": pages} if listing.totals else {}
        shown = [self._shown(request, row, limit) for row in rows[start : start + limit]]
        return hal(envelope | {"_embedded": {request.path.rpartition("/")[2]: shown}})

    def _page_links(
        self, request: Request, page: int, pages: int, limit: int, listing: Listing
    ) -> Json:
        wanted = {"self": page}
        if page < pages:
            wanted["next"] = page + 1
        if listing.totals:
            wanted["last"] = pages
        elif page > 1:
            wanted |= {"first": 1, "prev": page - 1}
        link, query = self._shapes(request).link, request.query
        return {
            key: link(f"{request.path}?{query.for_page(to, limit)}") for key, to in wanted.items()
        }

    def _shown(self, request: Request, row: Json, limit: int) -> Json:
        shapes, query = self._shapes(request), request.query
        if request.path in SINGULAR:
            return shapes.entity(row, query.with_, query.for_page(query.page, limit))
        return row if "destination" in row else shapes.linked(row, f"{request.path}/{row['id']}")

    def _selected(self, request: Request) -> list[Json]:
        """The sorted selection, kept until the next write: walking 100,000 leads sorts once."""
        if self._kept[0] != self._state.version:
            self._kept = (self._state.version, {})
        kept, key = self._kept[1], (request.path, request.query.others())
        kind, _, name = request.path.partition("/")
        rows: Iterable[Json] = self._state.rows[request.path].values()
        if name == "custom_fields":
            rows = self._state.fields(kind)
        elif request.path not in SINGULAR:
            return selected(rows, request.query)
        if key not in kept:
            kept[key] = selected(rows, request.query)
        return kept[key]

    def _get(self, request: Request) -> Answer:
        """204 for the unknown; the trash shows only via with=only_deleted."""
        kind, _, number = request.path.partition("/")
        row, with_ = self._state.rows[kind].get(int(number)), request.query.with_
        if row is None or row["is_deleted"] != ("only_deleted" in with_):
            return no_content()
        return hal(self._shapes(request).entity(row, with_))

    def _create(self, request: Request) -> Answer:
        items = _items_of(request.body)
        return self._written(
            request, self._write(request, request.path, [(None, i) for i in items])
        )

    def _update(self, request: Request) -> Answer:
        """An array of objects with ids."""
        items = _items_of(request.body)
        pairs = [(_found(self._state, request.path, item), item) for item in items]
        if self._settings.patch_missing == "refuse":
            refuse({
                str(item.get("request_id", index)): [Mistake("NotSupportedChoice", "id")]
                for index, (row, item) in enumerate(pairs) if row is None
            })  # fmt: skip
        known = [pair for pair in pairs if pair[0] is not None]
        return self._written(request, self._write(request, request.path, known))

    def _update_one(self, request: Request) -> Answer:
        """One object; the answer is bare, or wrapped by switch."""
        kind, _, number = request.path.partition("/")
        item = parsed(request.body, dict)
        row = self._state.find(kind, int(number))
        if row is None:
            return problem(404)
        applied = self._write(request, kind, [(row, item)])
        if self._settings.single_patch_answer == "wrapped":
            return self._written(request, applied)
        return hal(self._row(request, applied[0]))

    def _write(
        self, request: Request, kind: str, items: list[tuple[Json | None, Json]]
    ) -> list[Item]:
        return self._writer.write(kind, items, by=request.user_id, at=request.now)

    def _written(self, request: Request, applied: list[Item]) -> Answer:
        rows = [self._row(request, each) | {"request_id": each.request_id} for each in applied]
        kind = request.path.partition("/")[0]
        links = {"self": self._shapes(request).link(kind)}
        return hal({"_links": links, "_embedded": {kind: rows}})

    def _row(self, request: Request, applied: Item) -> Json:
        row, kind = applied.row, applied.row["kind"]
        shown: Json = {"id": row["id"], "updated_at": row["updated_at"]}
        if kind == "contacts":
            shown |= {"is_deleted": False, "is_unsorted": False}
        return self._shapes(request).linked(shown, f"{kind}/{row['id']}")

    def _subscribe(self, request: Request) -> Answer:
        """One object; the same destination again is an update."""
        if not self._settings.token_is_admin:
            return problem(403)
        asked, known = parsed(request.body, dict), self._state.rows["webhooks"]
        wrong = list(mistakes(asked, _SUBSCRIPTION, set()))
        wrong += [
            Mistake("FieldMissing", key) for key in ("destination", "settings") if key not in asked
        ]
        refuse({"0": wrong})
        refuse({"0": [
            Mistake("NotSupportedChoice", f"settings.{index}")
            for index, code in enumerate(asked["settings"]) if code not in HOOK_CODES
        ]})  # fmt: skip
        destination, now = asked["destination"], int(request.now)
        if destination not in known and len(known) >= WEBHOOKS_MAX:
            return problem(422, "Limit 100 webhooks per account")
        blank = {
            "id": self._state.next_id(),
            "account_id": self._state.account.id,
            "disabled": False,
        }
        blank |= {"created_at": now, "created_by": request.user_id, "sort": len(known) + 1}
        webhook = known.setdefault(destination, blank)
        webhook |= asked | {"updated_at": now}
        if self._settings.post_reenables:
            webhook["disabled"] = False
        return hal(webhook, 201)

    def _unsubscribe(self, request: Request) -> Answer:
        """By the destination in the body."""
        if not self._settings.token_is_admin:
            return problem(403)
        destination = parsed(request.body, dict).get("destination")
        gone = self._state.rows["webhooks"].pop(str(destination), None)
        return no_content() if gone else problem(404)


def _items_of(body: bytes) -> list[Json]:
    """The array of a batch write.

    Raises:
        Refused: 400 unless it holds objects; 422 over 250 items.
    """
    items = parsed(body, list)
    if len(items) > MAX_LIMIT:
        raise Refused(problem(422))
    wrong = [
        Mistake("InvalidType", str(n), "object")
        for n, each in enumerate(items)
        if not isinstance(each, dict)
    ]
    refuse({"0": wrong})
    return items


def _found(state: State, kind: str, item: Json) -> Json | None:
    wanted = item.get("id")
    return state.find(kind, wanted) if isinstance(wanted, int) else None
