"""Webhook bodies, byte for byte as Kommo sends them (reference 6.2, captures CAP-1 to CAP-4)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from kommo_airtable_sync.sandbox.kommo.answers import members
from kommo_airtable_sync.sandbox.kommo.fields import hook_values
from kommo_airtable_sync.sandbox.kommo.settings import Account
from kommo_airtable_sync.sandbox.kommo.state import SINGULAR, State

Json = dict[str, Any]
# wire order of the keys, ``key=source`` where our name differs (CAP-1, CAP-3)
_LEAD_WIRE = """
id name status_id old_status_id price responsible_user_id last_modified=updated_at
modified_user_id=updated_by created_user_id=created_by date_create=created_at pipeline_id
old_pipeline_id tags account_id custom_fields old_responsible_user_id created_at updated_at"""
_CONTACT_WIRE = """
id name responsible_user_id date_create=created_at last_modified=updated_at
created_user_id=created_by modified_user_id=updated_by company_name linked_company_id account_id
tags custom_fields linked_leads_id old_responsible_user_id created_at updated_at type"""
_ELEMENT_TYPES = {"contacts": 1, "leads": 2, "companies": 3}


class HookItem(NamedTuple):
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
    head: Json = {"subdomain": account.subdomain, "id": account.id, "_links": {"self": account.url}}
    grouped: Json = {}
    for each in items:
        grouped.setdefault(each.top, {}).setdefault(each.action, []).append(each.payload)
    return encode(grouped | {"account": head} if account_last else {"account": head} | grouped)


def encode(structure: Json) -> bytes:
    """PHP's ``http_build_query``: brackets, ``+`` for a space, nulls left out."""
    pairs = [pair for key, value in structure.items() for pair in _pairs(key, value)]
    return urlencode(pairs).encode("ascii")


def _pairs(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict | list):
        for key, each in members(value):
            yield from _pairs(f"{prefix}[{key}]", each)
    elif value is not None:
        yield prefix, str(int(value)) if isinstance(value, bool) else str(value)


def digital_pipeline_body(lead: Json, old: Json, account: Account) -> bytes:
    """The five ids of a Digital Pipeline hook (CAP-4): no links, account id first, block last."""
    payload = {key: lead[key] for key in ("id", "status_id", "pipeline_id")}
    payload |= {f"old_{key}": old[key] for key in ("status_id", "pipeline_id")}
    block = {"id": account.id, "subdomain": account.subdomain}
    return encode({"leads": {"status": [payload]}, "account": block})


def deleted_payload(row: Json) -> Json:
    """What a delete hook says: three ids for leads, else id and type."""
    if row["kind"] != "leads":
        return {"id": row["id"], "type": SINGULAR[row["kind"]]}
    return {key: row[key] for key in ("id", "status_id", "pipeline_id")}


def note_payload(row: Json, text: str, note_id: int, author: Json, at: int, state: State) -> Json:
    """A note in the hook's own spelling, ``attachement`` included."""
    stamp = f"{datetime.fromtimestamp(at, ZoneInfo(state.account.timezone)):%Y-%m-%d %H:%M:%S}"
    source = {"id": author["id"], "author_name": author["name"], "type": 1}
    note: Json = {
        "text": text,
        "attachement": "",
        "date_create": stamp,
        "note_type": 4,
        "element_type": _ELEMENT_TYPES[row["kind"]],
        "element_id": row["id"],
        "catalog_id": 0,
        "group_id": 0,
        "timestamp_x": stamp,
        "account_id": state.account.id,
        "metadata": json.dumps({"event_source": source}, separators=(",", ":"), ensure_ascii=False),
        "created_by": author["id"],
        "modified_by": author["id"],
        "main_user_id": row["responsible_user_id"],
        "id": note_id,
        "created_at": at,
        "updated_at": at,
    }
    return {"note": note} | ({} if row["kind"] == "leads" else {"type": SINGULAR[row["kind"]]})


def payload(state: State, row: Json, old: Json) -> Json:
    """An entity in the old v2 spelling, in wire order; what differs from ``old`` is told, too."""
    is_lead, tags = row["kind"] == "leads", state.rows[f"{row['kind']}/tags"]
    values = row | {
        "account_id": state.account.id,
        "tags": [{key: tags[each][key] for key in ("id", "name")} for each in row["tags"]],
        "custom_fields": _custom_fields(state, row),
        "type": SINGULAR[row["kind"]],
    }
    before = old.get("responsible_user_id")
    if not is_lead or before != row["responsible_user_id"]:  # contacts name it always (CAP-1)
        values["old_responsible_user_id"] = before
    if not is_lead:
        leads = [lead["id"] for lead, _ in state.linked(row, "leads")]
        values["linked_leads_id"] = {str(lead): {"ID": lead} for lead in leads}
        for company, _ in state.linked(row, "companies"):
            values |= {"company_name": company["name"], "linked_company_id": company["id"]}
        return {key: values.get(source) for key, source in _wire(_CONTACT_WIRE)}
    if old and (old["status_id"], old["pipeline_id"]) != (row["status_id"], row["pipeline_id"]):
        values["old_status_id"] = old["status_id"]
    if old and old["pipeline_id"] != row["pipeline_id"]:
        values["old_pipeline_id"] = old["pipeline_id"]
    return {key: values.get(source) for key, source in _wire(_LEAD_WIRE)}


def _wire(order: str) -> Iterator[tuple[str, str]]:
    for word in order.split():
        key, _, source = word.partition("=")
        yield key, source or key


def _custom_fields(state: State, row: Json) -> list[Json]:
    values, zone = row["fields"], ZoneInfo(state.account.timezone)
    return [
        {"id": field["id"], "name": field["name"]}
        | {"values": hook_values(field, values[field["id"]], zone), "code": field["code"]}
        for field in state.fields(row["kind"])
        if field["id"] in values
    ]
