"""Everything of API v4 around the entities: definitions, users, tags, links, events, webhooks."""

from __future__ import annotations

from typing import Any, cast

from kommo_airtable_sync.sandbox.kommo.api import (
    Request,
    items_of,
    object_of,
    page_of,
    paged,
    require,
)
from kommo_airtable_sync.sandbox.kommo.changes import Changes
from kommo_airtable_sync.sandbox.kommo.delivery import Outbox
from kommo_airtable_sync.sandbox.kommo.problems import (
    Answer,
    ItemErrors,
    hal,
    no_content,
    problem,
)
from kommo_airtable_sync.sandbox.kommo.settings import Settings
from kommo_airtable_sync.sandbox.kommo.shapes import SINGULAR
from kommo_airtable_sync.sandbox.kommo.state import NodeKey, State, Webhook

Json = dict[str, Any]
FIELDS_PER_PAGE = 50  # however large the limit (A-cf)
EVENTS_PER_PAGE = 100
WEBHOOKS_MAX = 100
HOOK_CODES = {
    f"{action}_{entity}"
    for entity in ("lead", "contact", "company", "customer")
    for action in ("add", "update", "delete", "restore", "status", "responsible", "note")
} - {"restore_customer"} | {
    "add_task", "update_task", "delete_task", "responsible_task",
    "add_talk", "update_talk", "add_chat_template_review",
}  # fmt: skip


class DictionaryApi:
    """The routes of reference 5 and 6.1.

    Args:
        state: the account's data.
        settings: switches.
        changes: adds notes.
        outbox: switches hooks on again.
    """

    def __init__(self, state: State, settings: Settings, changes: Changes, outbox: Outbox) -> None:
        self._state = state
        self._settings = settings
        self._changes = changes
        self._outbox = outbox

    def account(self, request: Request) -> Answer:
        """``GET /account``."""
        return hal(request.shapes.account(request.query.with_, request.user_id))

    def pipelines(self, request: Request) -> Answer:
        """``GET /leads/pipelines``: all at once."""
        rows = [request.shapes.pipeline(each) for each in self._state.pipelines.values()]
        return _counted(request, "leads/pipelines", "pipelines", rows)

    def pipeline(self, request: Request, pipeline_id: int) -> Answer:
        """``GET /leads/pipelines/{id}``."""
        found = self._state.pipelines.get(pipeline_id)
        return hal(request.shapes.pipeline(found)) if found else problem(404)

    def loss_reasons(self, request: Request) -> Answer:
        """``GET /leads/loss_reasons``."""
        rows = [request.shapes.loss_reason(each) for each in self._state.loss_reasons]
        return paged(request, "loss_reasons", rows, request.query.limit())

    def users(self, request: Request) -> Answer:
        """``GET /users``: admins only (A-users)."""
        if not self._settings.token_is_admin:
            return problem(403)
        limit = request.query.limit()
        rows = [request.shapes.user(each) for each in self._state.users.values()]
        return _totalled(request, "users", rows, limit)

    def custom_fields(self, request: Request, kind: str) -> Answer:
        """``GET /{entity}/custom_fields``: 50 a page whatever the limit."""
        limit = request.query.limit(most=FIELDS_PER_PAGE)
        types = set(request.query.values("filter", "type"))
        fields = [f for f in self._state.fields[kind].values() if not types or f.type in types]
        by_id = "id" in request.query.keys("order")
        fields.sort(key=lambda each: (0 if by_id else each.sort, each.id))
        rows = [request.shapes.field_definition(kind, each) for each in fields]
        return _totalled(request, "custom_fields", rows, limit)

    def custom_field(self, request: Request, kind: str, field_id: int) -> Answer:
        """``GET /{entity}/custom_fields/{id}``."""
        found = self._state.fields[kind].get(field_id)
        return hal(request.shapes.field_definition(kind, found)) if found else problem(404)

    def tags(self, request: Request, kind: str) -> Answer:
        """``GET /{entity}/tags``."""
        ids, text = request.query.numbers("filter", "id"), "".join(request.query.values("query"))
        names = set(request.query.values("filter", "name"))
        rows = [
            request.shapes.tag(kind, tag_id, name)
            for tag_id, name in self._state.tags[kind].items()
            if (not ids or tag_id in ids) and (not names or name in names) and text in name
        ]
        limit = request.query.limit()
        return paged(request, "tags", page_of(request, rows, limit), limit)

    def add_tags(self, request: Request, kind: str) -> Answer:
        """``POST /{entity}/tags``: a known name answers with its id."""
        rows: list[Json] = []
        for index, each in enumerate(require(items_of(request.body), name=str)):
            tag_id = self._state.tag_id(kind, each["name"])
            row = request.shapes.tag(kind, tag_id, each["name"])
            rows.append(row | {"request_id": str(each.get("request_id", index))})
        self._state.version += 1
        return hal(
            {"_links": request.shapes.self_link(f"{kind}/tags"), "_embedded": {"tags": rows}}
        )

    def notes(self, request: Request, kind: str, entity_id: int | None = None) -> Answer:
        """``GET /{entity}/notes`` and ``GET /{entity}/{id}/notes``."""
        rows = [
            {key: value for key, value in note.items() if key != "entity_type"}
            for note in self._state.notes
            if note["entity_type"] == kind and entity_id in (None, note["entity_id"])
        ]
        limit = request.query.limit()
        return paged(request, "notes", page_of(request, rows, limit), limit)

    def add_notes(self, request: Request, kind: str, entity_id: int | None = None) -> Answer:
        """``POST /{entity}/notes`` and ``POST /{entity}/{id}/notes``."""
        errors, items = ItemErrors(), items_of(request.body)
        items = items if entity_id else require(items, entity_id=int)
        ids: list[int] = [entity_id or each.get("entity_id", 0) for each in items]
        found = [self._state.find(kind, each) for each in ids]
        for index, entity in enumerate(found):
            if entity is None:
                errors.add(str(index), "NotSupportedChoice", "entity_id")
        errors.raise_if_any()
        rows: list[Json] = []
        for index, (entity, each) in enumerate(zip(found, items, strict=True)):
            if entity:
                note = self._changes.add_note(entity, each, by=request.user_id, at=request.now)
                rows.append(
                    {"id": note["id"], "entity_id": entity.id}
                    | {"request_id": str(each.get("request_id", index))}
                )
        link = request.shapes.self_link(f"{kind}/notes")
        return hal({"_links": link, "_embedded": {"notes": rows}})

    def links(self, request: Request, kind: str, entity_id: int) -> Answer:
        """``GET /{entity}/{id}/links``."""
        if self._state.find(kind, entity_id) is None:
            return no_content()
        rows = self._link_rows((kind, entity_id))
        link = request.shapes.self_link(f"{kind}/{entity_id}/links")
        return hal({"_total_items": len(rows), "_links": link, "_embedded": {"links": rows}})

    def _link_rows(self, node: NodeKey) -> list[Json]:
        return [
            {
                "to_entity_id": other_id,
                "to_entity_type": kind,
                "metadata": {"main_contact": main} if kind == "contacts" else None,
            }
            for kind in self._state.entities
            for other_id, main in self._state.linked(node, kind)
        ]

    def link(self, request: Request, kind: str, entity_id: int, *, undo: bool = False) -> Answer:
        """``POST /{entity}/{id}/link`` (200, the links) and ``/unlink`` (204)."""
        if self._state.find(kind, entity_id) is None:
            return problem(404)
        node = (kind, entity_id)
        wanted = {"to_entity_type": str, "to_entity_id": int}
        for each in require(items_of(request.body), **wanted):
            other = (each["to_entity_type"], each["to_entity_id"])
            if undo:
                self._state.unlink(node, other)
            else:
                metadata = cast(Json, each.get("metadata") or {})
                is_main = bool(metadata.get("is_main"))
                self._state.link(node, other, is_main=is_main)
        self._state.version += 1
        return no_content() if undo else self.links(request, kind, entity_id)

    def events(self, request: Request) -> Answer:
        """``GET /events``: from the change log, newest first; no order is documented."""
        query = request.query
        limit = query.limit(most=EVENTS_PER_PAGE)
        types, entities = query.values("filter", "type"), query.values("filter", "entity")
        ids, by = query.numbers("filter", "entity_id"), query.numbers("filter", "created_by")
        after = query.number("filter", "created_at")
        low = query.number("filter", "created_at", "from") if after is None else after + 1
        high = query.number("filter", "created_at", "to")
        rows = [
            (change, number, index)
            for number, change in enumerate(self._state.changes)
            for index, event in enumerate(change.events)
            if (not types or event[0] in types)
            and (not entities or SINGULAR[change.entity_type] in entities)
            and (not ids or change.entity_id in ids)
            and (not by or change.by in by)
            and (low is None or int(change.changed_at) >= low)
            and (high is None or int(change.changed_at) <= high)
        ]
        rows.reverse()
        page = page_of(request, rows, limit)
        return paged(request, "events", [request.shapes.event(*each) for each in page], limit)

    def webhooks(self, request: Request) -> Answer:
        """``GET /webhooks``."""
        wanted = request.query.values("filter", "destination")
        rows = [
            request.shapes.webhook(each)
            for each in self._state.webhooks.values()
            if not wanted or each.destination in wanted
        ]
        return self._admins_only() or _counted(request, "webhooks", "webhooks", rows)

    def subscribe(self, request: Request) -> Answer:
        """``POST /webhooks``: one object; the same destination again is an update."""
        if refusal := self._admins_only():
            return refusal
        errors, wanted = ItemErrors(), {"destination": str, "settings": list}
        (asked,) = require([object_of(request.body)], **wanted)
        for index, code in enumerate(cast("list[Any]", asked["settings"])):
            if str(code) not in HOOK_CODES:
                errors.add("0", "NotSupportedChoice", f"settings.{index}")
        errors.raise_if_any()
        known = self._state.webhooks.get(asked["destination"])
        if known is None and len(self._state.webhooks) >= WEBHOOKS_MAX:
            return problem(422, "Limit 100 webhooks per account")
        webhook = known or self._new_webhook(request, asked["destination"])
        webhook.settings = list(asked["settings"])
        webhook.sort = int(asked.get("sort", webhook.sort))
        webhook.updated_at = int(request.now)
        if known and self._settings.post_reenables:
            self._outbox.enable(known)
        return hal(request.shapes.webhook(webhook), 201)

    def _new_webhook(self, request: Request, destination: str) -> Webhook:
        now, sort = int(request.now), len(self._state.webhooks) + 1
        webhook = Webhook(self._state.next_id(), destination, [], sort, now, now, request.user_id)
        self._state.webhooks[destination] = webhook
        return webhook

    def unsubscribe(self, request: Request) -> Answer:
        """``DELETE /webhooks``: by the destination in the body."""
        if refusal := self._admins_only():
            return refusal
        destination = str(object_of(request.body).get("destination"))
        gone = self._state.webhooks.pop(destination, None)
        return no_content() if gone else problem(404)

    def _admins_only(self) -> Answer | None:
        return None if self._settings.token_is_admin else problem(403)


def _counted(request: Request, path: str, name: str, rows: list[Json]) -> Answer:
    link = request.shapes.self_link(path)
    return hal({"_total_items": len(rows), "_links": link, "_embedded": {name: rows}})


def _totalled(request: Request, name: str, rows: list[Json], limit: int) -> Answer:
    """The envelope with totals and a last page, of custom fields and users."""
    shown = page_of(request, rows, limit)
    if not shown:
        return no_content()
    path, page = request.path.removeprefix("/api/v4/"), request.query.page
    pages = -(-len(rows) // limit)
    wanted = {"self": page, "last": pages} | ({"next": page + 1} if page < pages else {})
    links = {
        key: request.shapes.self_link(f"{path}?{request.query.for_page(to, limit)}")["self"]
        for key, to in wanted.items()
    }
    totals = {"_total_items": len(rows), "_page": page, "_page_count": pages, "_links": links}
    return hal(totals | {"_embedded": {name: shown[:limit]}})
