"""What Airtable says has changed, as events: an automation's bodies, and a webhook's payloads.

Both say which record may have changed; what it holds is kept for audit, and for finding out that
an edit was overwritten (design 3.3). Every loop is bounded, as in ``core.webhooks``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn, cast

from kommo_airtable_sync.core.canonical import parse_instant
from kommo_airtable_sync.core.types import IncomingEvent, Json
from kommo_airtable_sync.core.webhooks import DEPTH_MAX, ENTITIES_MAX, Unreadable

CELLS_CHARACTERS_MAX = 100_000
"""Of a record's changed cells, as JSON, so much is kept; Airtable's longest text has as many."""

_RECORD_ID = re.compile(r"rec[0-9A-Za-z]{14}")
# Airtable has ended the webhook for good; any other error is about this payload (reference 5.4).
_ENDING = frozenset({"INVALID_FILTERS", "INVALID_HOOK"})

Node = dict[str, Json]


@dataclass(frozen=True, slots=True)
class Told:
    """What some payloads of a webhook say.

    Args:
        events: in the order of the payloads, one for each record in each.
        own: dedupe keys of those that an API call with our own user made. That is not yet an
            echo: the user's token may serve other programs, too.
        broken: the code with which Airtable ended the webhook, "" if it did not.
    """

    events: list[IncomingEvent]
    own: frozenset[str]
    broken: str


def ping_event(webhook_id: str, kind: str = "ping", dedupe_key: str | None = None) -> IncomingEvent:
    """Payloads of this webhook may wait to be pulled."""
    return IncomingEvent(
        f"webhook:{webhook_id}", "airtable", kind, always_read=True, dedupe_key=dedupe_key
    )


def parse_automation(body: bytes) -> list[IncomingEvent]:
    """The events of an automation's POST: one object with a ``recordId``, or a list of such.

    An object without a readable record id becomes a quarantined event of its own, so that it costs
    its neighbours nothing.

    Raises:
        Unreadable: not JSON in UTF-8, nested too deep, no object at all, or too many.
    """
    told = _json(body)
    items = cast("list[Json]", told) if isinstance(told, list) else [told]
    if not items:
        raise Unreadable("the body is an empty list")
    if len(items) > ENTITIES_MAX:
        raise Unreadable(f"the body names more than {ENTITIES_MAX} records")
    return [_automation_event(item) for item in items]


def parse_payloads(
    payloads: Sequence[Json], *, webhook_id: str, first: int, table_id: str, user_id: str
) -> Told:
    """The events of a page of webhook payloads (reference/airtable-api 5.4 to 5.6).

    A payload that cannot be read becomes a quarantined event; what it told of is then found by
    reconciliation only.

    Args:
        payloads: as the API lists them.
        webhook_id: ``ach...``.
        first: number of the first payload, by Airtable's cursor; numbers never repeat.
        table_id: the mirrored table; changes of others are passed over.
        user_id: of the token, as ``whoami`` says; "" if unknown.
    """
    events: list[IncomingEvent] = []
    own: set[str] = set()
    broken = ""
    for number, payload in enumerate(payloads, first):
        mark = f"{webhook_id}:{number}"
        try:
            code = _error_code(payload)
            found = [] if code in _ENDING else list(_payload_events(payload, mark, table_id))
        except Unreadable as error:
            events.append(_unreadable_payload(payload, mark, error.reason))
            continue
        broken = code or broken
        events += found
        if user_id and _actor(payload) == ("publicApi", user_id):
            own |= {str(event.dedupe_key) for event in found}
    return Told(events, frozenset(own), broken)


def _json(body: bytes) -> Json:
    try:
        told = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise Unreadable("the body is not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise Unreadable("the body is not JSON") from error
    level: list[Json] = [told]
    for _ in range(DEPTH_MAX):
        level = [child for node in level for child in _children(node)]
    if level:
        raise Unreadable(f"the body is nested more than {DEPTH_MAX} deep")
    return told


def _no_constant(name: str) -> NoReturn:
    message = f"{name} is not JSON"
    raise ValueError(message)


def _children(node: Json) -> Sequence[Json]:
    if isinstance(node, dict):
        return list(cast("Node", node).values())
    return cast("list[Json]", node) if isinstance(node, list) else ()


def _automation_event(item: Json) -> IncomingEvent:
    told: Node = cast("Node", item) if isinstance(item, dict) else {}
    record_id = told.get("recordId")
    if not _is_record_id(record_id):
        return IncomingEvent(
            key="",
            source="airtable",
            kind="automation",
            payload={"error": "a record without a readable recordId", "entity": item},
            state="quarantined",
        )
    return IncomingEvent(
        key=f"record:{record_id}",
        source="airtable",
        kind="automation",
        occurred_at=_instant(told.get("changedAt")),
        payload=told,
        always_read=True,
    )


def _error_code(payload: Json) -> str:
    """Code of an error payload that ends the webhook, "" for a payload of changes."""
    told = _object(payload)
    if told.get("error") is not True:
        return ""
    code = str(told.get("code"))
    if code not in _ENDING:
        raise Unreadable(f"Airtable could not tell what changed ({code[:50]})")
    return code


def _payload_events(payload: Json, mark: str, table_id: str) -> Iterator[IncomingEvent]:
    told = _object(payload)
    source, user_id = _actor(payload)
    table = _object(_object(told.get("changedTablesById")).get(table_id))
    for record_id, (kind, cells) in _mentions(table).items():
        if not _is_record_id(record_id):
            raise Unreadable("a record's id cannot be one")
        kept = _bounded(cells)
        yield IncomingEvent(
            key=f"record:{record_id}",
            source="airtable",
            kind=kind,
            occurred_at=_instant(told.get("timestamp")),
            payload={
                "payload": mark,
                "by": {"source": source, "user": user_id},
                "fields": kept,
                "left_out": sorted(cells.keys() - kept.keys()),
            },
            always_read=True,
            dedupe_key=f"{mark}:{record_id}",
        )


def _mentions(table: Node) -> dict[str, tuple[str, Node]]:
    """What befell each record, and its changed cells by field id; the last word is a deletion."""
    created = _object(table.get("createdRecordsById"))
    changed = _object(table.get("changedRecordsById"))
    found: dict[str, tuple[str, Node]] = {}
    for record_id, change in changed.items():
        found[record_id] = ("update", _cells(_object(change).get("current")))
    for record_id, fresh in created.items():
        _, later = found.get(record_id, ("", {}))
        found[record_id] = ("create", {**_cells(fresh), **later})
    destroyed: Json = table.get("destroyedRecordIds") or []
    if not isinstance(destroyed, list):
        raise Unreadable("destroyedRecordIds is not a list")
    for record_id in cast("list[Json]", destroyed):
        found[str(record_id)] = ("delete", {})
    return found


def _cells(shown: Json) -> Node:
    return _object(_object(shown).get("cellValuesByFieldId"))


def _bounded(cells: Node) -> Node:
    """As many cells as fit, each of them whole."""
    kept: Node = {}
    room = CELLS_CHARACTERS_MAX
    for field_id, value in cells.items():
        room_after = room - len(json.dumps(value, ensure_ascii=False))
        if room_after >= 0:
            kept[field_id], room = value, room_after
    return kept


def _actor(payload: Json) -> tuple[str, str]:
    """(source, user id); each "" where the payload does not say."""
    metadata = _object(_object(payload).get("actionMetadata"))
    user = _object(_object(metadata.get("sourceMetadata")).get("user"))
    return str(metadata.get("source") or "")[:50], str(user.get("id") or "")[:50]


def _unreadable_payload(payload: Json, mark: str, reason: str) -> IncomingEvent:
    text = json.dumps(payload, ensure_ascii=False)[:CELLS_CHARACTERS_MAX]
    return IncomingEvent(
        key="",
        source="airtable",
        kind="payload",
        payload={"error": reason, "payload": mark, "body": text},
        state="quarantined",
        dedupe_key=mark,
    )


def _object(value: Json) -> Node:
    """A JSON object; what is absent is an empty one.

    Raises:
        Unreadable: for anything else.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Unreadable("the payload is not built as Airtable's are")
    return cast("Node", value)


def _is_record_id(value: Json) -> bool:
    return isinstance(value, str) and _RECORD_ID.fullmatch(value) is not None


def _instant(value: Json) -> datetime | None:
    try:
        return parse_instant(value) if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None
