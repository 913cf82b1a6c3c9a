"""The API's endpoints: which there are, the scope each takes, and what it answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from kommo_airtable_sync.sandbox.airtable.data import Actor
from kommo_airtable_sync.sandbox.airtable.listing import list_page, show_record, whole_number
from kommo_airtable_sync.sandbox.airtable.refusal import (
    Refusal,
    bad_request,
    not_found,
    not_yours,
    refuse,
)
from kommo_airtable_sync.sandbox.airtable.schema import Base, Table, is_id
from kommo_airtable_sync.sandbox.airtable.schema_edits import body_object, new_field
from kommo_airtable_sync.sandbox.airtable.state import State, Token
from kommo_airtable_sync.sandbox.airtable.webhooks import (
    PAGE,
    Webhook,
    create_webhook,
    list_payloads,
    refresh,
)
from kommo_airtable_sync.sandbox.airtable.writing import delete_records, write_records

Json = Any


@dataclass(frozen=True, slots=True)
class Call:
    """One call, as it arrived; looking something up for it may refuse it.

    Args:
        state: of the stand-in.
        method: HTTP method.
        route: pattern of its path, ``unknown`` if there is none or an id is malformed.
        ids: what the path names: ``base``, ``table`` (id or name), ``record``, ``webhook``.
        query: by name; ``x[]`` as lists.
        headers: names in lower case.
        content: the raw body.
        seen: rows created after this point of the change log match no upsert; None = all do.
    """

    state: State
    method: str
    route: str
    ids: Mapping[str, str]
    query: Mapping[str, Json]
    headers: Mapping[str, str]
    content: bytes
    seen: int | None

    @property
    def token(self) -> Token:
        """The caller's token, or 401: one spelling for none and another for a wrong one."""
        scheme, _, secret = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise refuse("AUTHENTICATION_REQUIRED")
        if secret.strip() not in self.state.tokens:
            raise refuse("UNAUTHORIZED")
        return self.state.tokens[secret.strip()]

    @property
    def base(self) -> Base:
        """The base, or 403."""
        base = self.state.bases.get(self.ids["base"])
        if base is None or not self.token.sees(base.id):
            raise not_yours()
        return base

    @property
    def table(self) -> Table:
        """The table, or 403, or 404."""
        table = self.base.find_table(self.ids["table"])
        if table is None:
            raise self.missing("TABLE_NOT_FOUND", self.ids["table"], self.base.id)
        return table

    @property
    def webhook(self) -> Webhook:
        """The base's webhook, or 403, or 404."""
        found = self.state.webhooks.get(self.ids["webhook"])
        if found is None or found.base is not self.base:
            raise self.missing("MODEL_ID_NOT_FOUND")
        return found

    @property
    def actor(self) -> Actor:
        """Who writes."""
        return Actor("publicApi", self.token.user, self.state.clock.now())

    def body(self) -> Json:
        """The JSON body, None without one, or 400."""
        try:
            return json.loads(self.content) if self.content else None
        except ValueError:
            raise refuse("INVALID_REQUEST_BODY") from None

    def missing(self, kind: str, *parts: str) -> Refusal:
        """403 as documented today, or the 404 of 2022."""
        return refuse(kind, *parts) if self.state.settings.missing == "404" else not_yours()


def _whoami(call: Call) -> Json:
    email = {"email": call.state.users[call.token.user]["email"]}
    return {"id": call.token.user, **(email if "user.email:read" in call.token.scopes else {})}


def _list_bases(call: Call) -> Json:
    seen = [each for each in call.state.bases.values() if call.token.sees(each.id)]
    level = {"permissionLevel": "create"}
    return {"bases": [{"id": each.id, "name": each.name, **level} for each in seen]}


def _list_tables(call: Call) -> Json:
    return {"tables": [each.json() for each in call.base.tables.values()]}


def _create_field(call: Call) -> Json:
    return new_field(call.state.ids, call.table, call.body()).json()


def _list(call: Call) -> Json:
    table, by_post = call.table, call.method == "POST"
    given = body_object(call.body() or {}) if by_post else call.query
    return list_page(call.state, table, given)


def _get(call: Call) -> Json:
    """Not in the table asked: Airtable searches the whole base (AT:get-record)."""
    wanted = call.ids.get("record", "")
    for table in (call.table, *call.base.tables.values()):
        if wanted in table.records:
            return show_record(call.state, table, table.records[wanted], call.query)
    raise call.missing("MODEL_ID_NOT_FOUND")


def _write(call: Call) -> Json:
    """Create, update or upsert: one record alone, or up to ten."""
    table, body = call.table, body_object(call.body())
    item, creates = call.ids.get("record", ""), call.method == "POST"
    alone = bool(item) or (creates and "records" not in body)
    one = {"fields": body.get("fields"), **({"id": item} if item else {})}
    given = {**body, "records": [one]} if alone else body
    replace = call.method == "PUT"
    written = write_records(
        call.state, table, given, call.actor, creates=creates, replace=replace, seen=call.seen
    )
    flag = "returnFieldsByFieldId"
    by_id = {flag: body.get(flag, call.query.get(flag))}
    shown = [show_record(call.state, table, each, by_id) for each in written.records]
    if alone:
        return shown[0]
    if body.get("performUpsert") is None:
        return {"records": shown}
    updated = [each.id for each in written.records if each.id not in written.created]
    return {"records": shown, "createdRecords": written.created, "updatedRecords": updated}


def _delete(call: Call) -> Json:
    table, item = call.table, call.ids.get("record", "")
    if item and item not in table.records:
        raise call.missing("MODEL_ID_NOT_FOUND")
    ids = [item] if item else list[str](call.query.get("records") or [])
    if not all(is_id(each, "rec") for each in ids):
        raise bad_request()
    delete_records(call.state, table, ids, call.actor)
    deleted = [{"id": each, "deleted": True} for each in ids]
    return deleted[0] if item else {"records": deleted}


def _create_webhook(call: Call) -> Json:
    return create_webhook(call.state, call.base, body_object(call.body()))


def _list_webhooks(call: Call) -> Json:
    now, hooks = call.state.clock.now(), call.state.webhooks.values()
    return {"webhooks": [each.json(now) for each in hooks if each.base is call.base]}


def _delete_webhook(call: Call) -> None:
    del call.state.webhooks[call.webhook.id]


def _refresh_webhook(call: Call) -> Json:
    return refresh(call.webhook, call.state.clock.now())


def _enable_notifications(call: Call) -> None:
    enable = body_object(call.body()).get("enable")
    if not isinstance(enable, bool):
        raise bad_request()
    call.webhook.notifies = enable


def _list_payloads(call: Call) -> Json:
    cursor, limit = (whole_number(call.query, *each) for each in (("cursor", 1), ("limit", PAGE)))
    return list_payloads(call.webhook, cursor, limit, call.state.clock.now())


_READ, _WRITE = "data.records:read", "data.records:write"
_TABLES, _RECORDS = "/v0/meta/bases/{base}/tables", "/v0/{base}/{table}"
_RECORD = _RECORDS + "/{record}"
_HOOK, _HOOKS = "webhook:manage", "/v0/bases/{base}/webhooks"
# (method, route) -> what answers, and the scopes it takes
ENDPOINTS: dict[tuple[str, str], tuple[Callable[[Call], Json], str]] = {
    ("GET", "/v0/meta/whoami"): (_whoami, ""),
    ("GET", "/v0/meta/bases"): (_list_bases, "schema.bases:read"),
    ("GET", _TABLES): (_list_tables, "schema.bases:read"),
    ("POST", _TABLES + "/{table}/fields"): (_create_field, "schema.bases:write"),
    ("GET", _RECORDS): (_list, _READ),
    ("POST", _RECORDS + "/listRecords"): (_list, _READ),
    ("GET", _RECORD): (_get, _READ),
    **{(method, _RECORDS): (_write, _WRITE) for method in ("POST", "PATCH", "PUT")},
    **{(method, _RECORD): (_write, _WRITE) for method in ("PATCH", "PUT")},
    ("POST", _HOOKS): (_create_webhook, f"{_HOOK} {_READ}"),
    ("GET", _HOOKS): (_list_webhooks, _HOOK),
    ("DELETE", _HOOKS + "/{webhook}"): (_delete_webhook, _HOOK),
    ("POST", _HOOKS + "/{webhook}/refresh"): (_refresh_webhook, _HOOK),
    ("POST", _HOOKS + "/{webhook}/enableNotifications"): (_enable_notifications, _HOOK),
    ("GET", _HOOKS + "/{webhook}/payloads"): (_list_payloads, f"{_HOOK} {_READ}"),
    **{("DELETE", route): (_delete, _WRITE) for route in (_RECORDS, _RECORD)},
}
_PARTS = {
    "{base}": "(?P<base>app[0-9A-Za-z]{14})",
    "{table}": "(?P<table>[^/]+)",
    "{record}": "(?P<record>rec[0-9A-Za-z]{14})",
    "{webhook}": "(?P<webhook>ach[0-9A-Za-z]{14})",
}
_PATTERNS = {
    route: re.compile(re.sub(r"\{\w+\}", lambda part: _PARTS[part[0]], route))
    for _, route in ENDPOINTS
}


def route_of(path: str) -> tuple[str, dict[str, str]]:
    """The pattern and the ids of a raw (still percent-encoded) path, or ``unknown``."""
    for route, pattern in _PATTERNS.items():
        found = pattern.fullmatch(path)
        if found:
            return route, {part: unquote(text) for part, text in found.groupdict().items()}
    return "unknown", {}


def serve(call: Call) -> Json:
    """The JSON of a 200, None for an empty one; a Refusal says anything else."""
    token = call.token
    if (call.method, call.route) not in ENDPOINTS:
        raise not_found()
    answer, scopes = ENDPOINTS[call.method, call.route]
    if "base" in call.ids:
        _ = call.base  # or 403, before the scopes are looked at
    if not token.scopes.issuperset(scopes.split()):
        raise refuse("INVALID_PERMISSIONS")
    return answer(call)
