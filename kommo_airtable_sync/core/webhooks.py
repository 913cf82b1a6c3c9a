"""What a Kommo webhook body says, as events: which lead may have changed, never what it holds.

Bodies are forms in PHP's bracket style, several entities and actions in one, account keys first or
last (reference/kommo-api 6.2). Every loop is bounded by the limits below: a body of the largest
size that the receiver takes costs a fixed amount of time and memory, whatever it holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, cast
from urllib.parse import parse_qsl

from kommo_airtable_sync.core.types import IncomingEvent

PAIRS_MAX = 50_000
"""A body of 1 MiB filled with Kommo's real keys holds about 30,000 pairs."""
DEPTH_MAX = 16
"""Kommo needs 8: leads, add, 0, custom_fields, 0, values, 0, value."""
ENTITIES_MAX = 1_000

# Top keys by which a body is known to be Kommo's. Only leads and contacts (companies come as
# contacts with type=company) make events; the rest is accepted and passed over.
_SYNCED = frozenset({"leads", "contacts"})
_KNOWN = _SYNCED | {
    "account", "companies", "task", "tasks", "customers", "catalogs", "unsorted", "message", "talk",
}  # fmt: skip
_KEY = re.compile(r"([A-Za-z_]+)((?:\[[^\[\]]*\])*)")
_TYPE_BY_ELEMENT = {"1": "contact", "2": "lead", "3": "company"}
_SECONDS_MAX = 253_402_300_800  # the year 10000, where datetime ends

# Answers that say "look again" whatever the clock says: what they announce may leave the lead's
# own updated_at alone (reference 6.5, design 3.2).
_ALWAYS_READ = frozenset({"delete", "restore"})

Node = dict[str, Any]


class Unreadable(ValueError):
    """The body is not a Kommo form.

    Args:
        reason: one clause for people; quotes nothing of the body.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class _Mention:
    """One entity under one action: ``leads[update][0]`` and all its keys."""

    head: str
    action: str
    entity: Node


def parse_kommo(body: bytes, *, links: bool = False) -> list[IncomingEvent]:
    """The events of one webhook body, in the order in which it names them.

    One entity under two actions gives two events: events are hints and coalesce in the inbox. An
    entity whose id cannot be read becomes a quarantined event of its own, so that it costs its
    neighbours nothing.

    Args:
        body: the request body, at most what the receiver takes (1 MiB).
        links: whether contacts and companies are mapped; without it their events are ``ignored``.

    Raises:
        Unreadable: not UTF-8, not a form with a key of Kommo's, nested too deep, or too large.
    """
    tree = _tree(_pairs(body))
    mentions = list(_mentions(tree))
    if not mentions and not _SYNCED.isdisjoint(tree):
        raise Unreadable("the body speaks of leads or contacts but names none")
    return [_event(mention, links=links) for mention in mentions]


def accepted(events: Iterable[IncomingEvent]) -> int:
    """How many of these somebody will act on: leads, and contacts if links are mapped."""
    return sum(event.state == "pending" for event in events)


def _pairs(body: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=PAIRS_MAX
        )
    except UnicodeDecodeError as error:
        raise Unreadable("the body is not UTF-8") from error
    except ValueError as error:
        raise Unreadable(f"the body holds more than {PAIRS_MAX} form fields") from error


def _tree(pairs: Iterable[tuple[str, str]]) -> dict[str, Node]:
    """Nest the keys of leads and contacts; note that the others are there."""
    tree: dict[str, Node] = {}
    for key, value in pairs:
        match = _KEY.fullmatch(key)
        if match is None or match[1] not in _KNOWN:
            continue
        head, brackets = match.groups()
        node = tree.setdefault(head, {})
        if head in _SYNCED and brackets:
            _put(node, brackets[1:-1].split("]["), value)
    if not tree:
        raise Unreadable("the body holds no key of a Kommo webhook")
    return tree


def _put(node: Node, path: list[str], value: str) -> None:
    if len(path) > DEPTH_MAX:
        raise Unreadable(f"a key is nested more than {DEPTH_MAX} deep")
    *parents, leaf = path
    for name in parents:
        child = node.get(name)
        if not isinstance(child, dict):
            child = node[name or f"+{len(node)}"] = Node()
        node = cast("Node", child)
    if not isinstance(node.get(leaf), dict):
        # NUL may stand in a form but not in PostgreSQL's text, and nobody types it.
        node[leaf or f"+{len(node)}"] = value.replace("\x00", "\ufffd")


def _mentions(tree: Mapping[str, Node]) -> Iterator[_Mention]:
    count = 0
    for head in tree:
        for action, listed in tree[head].items():
            for entity in _entities(listed):
                count += 1
                if count > ENTITIES_MAX:
                    raise Unreadable(f"the body names more than {ENTITIES_MAX} entities")
                yield _Mention(head, action[:32], entity)


def _entities(listed: object) -> Iterator[Node]:
    """The entities of one action: numbered, or (not seen yet) one alone without a number."""
    if not isinstance(listed, dict):
        return
    node = cast("Node", listed)
    if isinstance(node.get("id"), str):
        yield node
        return
    for entity in node.values():
        yield cast("Node", entity) if isinstance(entity, dict) else {"value": entity}


def _event(mention: _Mention, *, links: bool) -> IncomingEvent:
    kind, number, stamped = _subject(mention)
    wanted = kind == "lead" or links
    if number is None:
        return IncomingEvent(
            key="",
            source="kommo",
            kind=mention.action,
            payload={"error": f"a {kind} without a readable id", "entity": mention.entity},
            state="quarantined" if wanted else "ignored",
        )
    occurred_at = _instant(stamped.get("updated_at")) or _instant(stamped.get("last_modified"))
    return IncomingEvent(
        key=f"{kind}:{number}",
        source="kommo",
        kind=mention.action,
        occurred_at=occurred_at,
        payload=mention.entity,
        state="pending" if wanted else "ignored",
        always_read=kind != "lead" or mention.action in _ALWAYS_READ or occurred_at is None,
    )


def _subject(mention: _Mention) -> tuple[str, int | None, Node]:
    """What an entity is about: its kind, its id, and the node that carries its time.

    A note is about the lead (contact, company) in ``element_id``; its own id is the note's. Its
    time is the note's own: a note moves no field, so a read made after it has seen all there is.
    """
    entity = mention.entity
    note = entity.get("note")
    if mention.action == "note" and isinstance(note, dict):
        stamped = cast("Node", note)
        declared = _TYPE_BY_ELEMENT.get(str(stamped.get("element_type")))
        return declared or _kind_by_head(mention), _number(stamped.get("element_id")), stamped
    return _kind_by_head(mention), _number(entity.get("id")), entity


def _kind_by_head(mention: _Mention) -> str:
    if mention.head == "leads":
        return "lead"
    return "company" if mention.entity.get("type") == "company" else "contact"


def _number(value: object) -> int | None:
    """An id: decimal digits that fit 63 bits; None for anything else."""
    if not isinstance(value, str) or not value.isascii() or not value.isdigit() or len(value) > 19:
        return None
    number = int(value)
    return number if 0 < number < 2**63 else None


def _instant(value: object) -> datetime | None:
    seconds = _number(value)
    if seconds is None or seconds >= _SECONDS_MAX:
        return None
    return datetime.fromtimestamp(seconds, tz=timezone.utc)
