"""Webhook bodies, byte for byte as Kommo sends them (reference 6.2, captures CAP-1 to CAP-4)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from kommo_airtable_sync.sandbox.kommo.settings import Account, Settings
from kommo_airtable_sync.sandbox.kommo.shapes import SINGULAR
from kommo_airtable_sync.sandbox.kommo.state import Entity, State
from kommo_airtable_sync.sandbox.kommo.values import hook_values

Json = dict[str, Any]
ELEMENT_TYPES = {"contacts": 1, "leads": 2, "companies": 3}


@dataclass(frozen=True, slots=True)
class HookItem:
    """One change as one subscriber may be told of it.

    Args:
        code: the subscription it needs, e.g. ``update_lead``.
        top: ``leads`` or ``contacts`` (companies, too).
        action: ``add``, ``update``, ``status``...
        payload: what stands under ``top[action][n]``, in wire order.
    """

    code: str
    top: str
    action: str
    payload: Json


def item(kind: str, action: str, payload: Json) -> HookItem:
    """The hook item for an entity type; companies travel under ``contacts``."""
    top = "leads" if kind == "leads" else "contacts"
    # responsible changes of contacts and companies arrive under ``update`` (reference 6.2)
    under = "update" if action == "responsible" and kind != "leads" else action
    return HookItem(f"{action}_{SINGULAR[kind]}", top, under, payload)


def body(items: Iterable[HookItem], account: Account, *, account_last: bool) -> bytes:
    """A form-encoded body for one or more items, grouped by action, with the account block."""
    head: Json = {"subdomain": account.subdomain, "id": account.id}
    head["_links"] = {"self": account.url}
    grouped: Json = {}
    for each in items:
        grouped.setdefault(each.top, {}).setdefault(each.action, []).append(each.payload)
    blocks = grouped | {"account": head} if account_last else {"account": head} | grouped
    return encode(blocks)


def encode(structure: Json) -> bytes:
    """PHP's ``http_build_query``: brackets, ``+`` for a space, nulls left out."""
    pairs = [pair for key, value in structure.items() for pair in _pairs(key, value)]
    return urlencode(pairs).encode("ascii")


def _pairs(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        inner: Iterable[tuple[Any, Any]] = cast(Json, value).items()
    elif isinstance(value, list):
        inner = enumerate(cast("list[Any]", value))
    else:
        if value is not None:
            yield prefix, str(int(value)) if isinstance(value, bool) else str(value)
        return
    for key, each in inner:
        yield from _pairs(f"{prefix}[{key}]", each)


def digital_pipeline_body(lead: Entity, old: Json, account: Account) -> bytes:
    """The five ids of a Digital Pipeline hook (CAP-4): no links, account id first, block last."""
    payload = {
        "id": lead.id,
        "status_id": lead.status_id,
        "pipeline_id": lead.pipeline_id,
        "old_status_id": old["status_id"],
        "old_pipeline_id": old["pipeline_id"],
    }
    block = {"id": account.id, "subdomain": account.subdomain}
    return encode({"leads": {"status": [payload]}, "account": block})


def deleted_payload(entity: Entity) -> Json:
    """What a delete hook says: three ids for leads, else id and type."""
    if entity.kind != "leads":
        return {"id": entity.id, "type": SINGULAR[entity.kind]}
    return {key: getattr(entity, key) for key in ("id", "status_id", "pipeline_id")}


def note_payload(note: Json, kind: str, account_id: int, author: str, zone: ZoneInfo) -> Json:
    """A note in the hook's own spelling, ``attachement`` included."""
    stamps = [f"{datetime.fromtimestamp(note[key], zone):%Y-%m-%d %H:%M:%S}" for key in _STAMPS]
    source = {"id": note["created_by"], "author_name": author, "type": 1}
    inner: Json = {
        "text": note["params"].get("text", ""),
        "attachement": "",
        "date_create": stamps[0],
        "note_type": 4,
        "element_type": ELEMENT_TYPES[kind],
        "element_id": note["entity_id"],
        "catalog_id": 0,
        "group_id": 0,
        "timestamp_x": stamps[1],
        "account_id": account_id,
        "metadata": json.dumps({"event_source": source}, separators=(",", ":"), ensure_ascii=False),
        "created_by": note["created_by"],
        "modified_by": note["created_by"],
        "main_user_id": note["responsible_user_id"],
        "id": note["id"],
        "created_at": note["created_at"],
        "updated_at": note["updated_at"],
    }
    return {"note": inner} | ({} if kind == "leads" else {"type": SINGULAR[kind]})


_STAMPS = ("created_at", "updated_at")


class Payloads:
    """Entities in the old v2 spelling of webhooks.

    Args:
        state: where names of fields and tags come from.
        settings: the switches that change a spelling.
    """

    def __init__(self, state: State, settings: Settings) -> None:
        self._state = state
        self._settings = settings
        self._zone = ZoneInfo(state.account.timezone)

    def of(self, entity: Entity, old: Json) -> Json:
        """The payload of an entity; keys of ``old`` that differ appear as ``old_...``."""
        return self._lead(entity, old) if entity.kind == "leads" else self._contact(entity, old)

    def _lead(self, lead: Entity, old: Json) -> Json:
        moved = {key: old.get(key) for key in ("status_id", "pipeline_id")}
        is_moved = any(value not in (None, getattr(lead, key)) for key, value in moved.items())
        old_pipeline = moved["pipeline_id"] if moved["pipeline_id"] != lead.pipeline_id else None
        return {
            "id": lead.id,
            "name": lead.name,
            "status_id": lead.status_id,
            "old_status_id": moved["status_id"] if is_moved else None,
            "price": None if self._settings.hook_missing_price else lead.price,
            "responsible_user_id": lead.responsible_user_id,
            "last_modified": lead.updated_at,
            "modified_user_id": lead.updated_by,
            "created_user_id": lead.created_by,
            "date_create": lead.created_at,
            "pipeline_id": lead.pipeline_id,
            "old_pipeline_id": old_pipeline,
            "tags": self._tags(lead),
            "account_id": self._state.account.id,
            "custom_fields": self._custom_fields(lead),
            "old_responsible_user_id": self._old_responsible(lead, old),
            "created_at": lead.created_at,
            "updated_at": lead.updated_at,
        }

    def _contact(self, entity: Entity, old: Json) -> Json:
        node = (entity.kind, entity.id)
        leads = {str(lead): {"ID": lead} for lead, _ in self._state.linked(node, "leads")}
        payload: Json = {
            "id": entity.id,
            "name": entity.name,
            "responsible_user_id": entity.responsible_user_id,
            "date_create": entity.created_at,
            "last_modified": entity.updated_at,
            "created_user_id": entity.created_by,
            "modified_user_id": entity.updated_by,
            **self._company(entity),
            "account_id": self._state.account.id,
            "tags": self._tags(entity),
            "custom_fields": self._custom_fields(entity),
            "linked_leads_id": leads,
            "old_responsible_user_id": self._old_responsible(entity, old),
            "created_at": entity.created_at,
            "updated_at": entity.updated_at,
        }
        return payload | {"type": SINGULAR[entity.kind]}

    def _company(self, entity: Entity) -> Json:
        for company_id, _ in self._state.linked((entity.kind, entity.id), "companies"):
            if company := self._state.find("companies", company_id):
                return {"company_name": company.name, "linked_company_id": company_id}
        return {}

    def _old_responsible(self, entity: Entity, old: Json) -> int | None:
        before = old.get("responsible_user_id")
        shown = before != entity.responsible_user_id
        if entity.kind != "leads" and self._settings.hook_always_old_responsible:
            shown = True
        return before if shown else None

    def _tags(self, entity: Entity) -> list[Json]:
        names = self._state.tags[entity.kind]
        return [{"id": each, "name": names[each]} for each in entity.tags]

    def _custom_fields(self, entity: Entity) -> list[Json]:
        shown: list[Json] = []
        defined = self._state.fields[entity.kind].values()
        for field in sorted(defined, key=lambda each: (each.sort, each.id)):
            values = entity.fields.get(field.id)
            if not values and not self._settings.hook_empty_fields:
                continue
            inner = hook_values(field, values, self._zone) if values else None
            shown.append({"id": field.id, "name": field.name, "values": inner, "code": field.code})
        return shown
