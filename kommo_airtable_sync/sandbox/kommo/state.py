"""What the stand-in remembers: entities, dictionaries, links, webhooks and the change log."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from kommo_airtable_sync.sandbox.kommo.settings import Account

WON, LOST = 142, 143
ENTITY_TYPES = ("leads", "contacts", "companies")


@dataclass(slots=True)
class Entity:
    """A lead, contact or company; times are whole epoch seconds, as Kommo keeps them.

    Args:
        kind: ``leads``, ``contacts`` or ``companies``.
        fields: custom field id -> values in the v4 read shape, never empty.
        tags: tag ids in the order they were attached.
    """

    kind: str
    id: int
    name: str
    responsible_user_id: int
    created_by: int
    updated_by: int
    created_at: int
    updated_at: int
    price: int | float = 0
    status_id: int = 0
    pipeline_id: int = 0
    loss_reason_id: int | None = None
    closed_at: int | None = None
    first_name: str = ""
    last_name: str = ""
    is_deleted: bool = False
    fields: dict[int, list[dict[str, Any]]] = field(default_factory=dict[int, list[dict[str, Any]]])
    tags: list[int] = field(default_factory=list[int])


@dataclass(slots=True)
class Enum:
    """One choice of a select-like field."""

    id: int
    value: str
    sort: int = 500
    code: str | None = None


@dataclass(slots=True)
class CustomField:
    """The definition of a custom field (reference 4.1)."""

    id: int
    name: str
    type: str
    sort: int = 500
    code: str | None = None
    enums: list[Enum] = field(default_factory=list[Enum])
    currency: str | None = None


@dataclass(slots=True)
class Status:
    """A stage; ``type`` 1 = Incoming leads, 0 = normal."""

    id: int
    name: str
    sort: int
    type: int = 0
    color: str = "#99ccff"


@dataclass(slots=True)
class Pipeline:
    """A pipeline with its stages in order, 142 and 143 last."""

    id: int
    name: str
    sort: int
    is_main: bool
    statuses: list[Status]

    def first_stage(self) -> int:
        """Where a lead lands that names no stage."""
        return next(status.id for status in self.statuses if status.type == 0)


@dataclass(slots=True)
class User:
    """Somebody who works in the account."""

    id: int
    name: str
    email: str
    is_admin: bool = False
    is_active: bool = True


@dataclass(slots=True)
class Webhook:
    """A subscription, keyed by destination; ``invalid_at`` are the bad answers' epoch seconds."""

    id: int
    destination: str
    settings: list[str]
    sort: int
    created_at: int
    updated_at: int
    created_by: int
    disabled: bool = False
    invalid_at: list[float] = field(default_factory=list[float])


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened to an entity.

    Args:
        kind: ``add``, ``update``, ``delete``, ``restore`` or ``note``.
        changed_at: epoch seconds with their fraction, which Kommo itself never shows.
        updated_at: what the entity's ``updated_at`` was then.
        fields: names of what changed; custom fields as ``cf_{id}``.
        events: ``(type, value_before, value_after)`` as ``GET /events`` shows them.
    """

    entity_type: str
    entity_id: int
    kind: str
    changed_at: float
    updated_at: int
    by: int
    fields: tuple[str, ...]
    events: tuple[tuple[str, list[Any], list[Any]], ...] = ()


NodeKey = tuple[str, int]


class State:
    """All data of one account. Not thread-safe: the model's lock guards it."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.entities: dict[str, dict[int, Entity]] = {kind: {} for kind in ENTITY_TYPES}
        self.fields: dict[str, dict[int, CustomField]] = {kind: {} for kind in ENTITY_TYPES}
        self.tags: dict[str, dict[int, str]] = {kind: {} for kind in ENTITY_TYPES}
        self.pipelines: dict[int, Pipeline] = {}
        self.users: dict[int, User] = {}
        self.loss_reasons: dict[int, str] = {}
        self.notes: list[dict[str, Any]] = []
        self.webhooks: dict[str, Webhook] = {}
        self.changes: list[Change] = []
        self.version = 0  # moves with every write, so that a sorted list can be kept meanwhile
        self._links: dict[NodeKey, dict[NodeKey, bool]] = {}
        self._next_ids: dict[str, int] = {
            kind: (20 + 10 * n) * 1_000_000 + 1 for n, kind in enumerate(ENTITY_TYPES)
        }
        self._next_other = 500_001

    def next_id(self, kind: str = "") -> int:
        """A fresh id: of the entity type, or of the range all other things share."""
        if kind not in self._next_ids:
            self._next_other += 1
            return self._next_other - 1
        self._next_ids[kind] += 1
        return self._next_ids[kind] - 1

    def start_ids_at(self, kind: str, first: int) -> None:
        """Let the next entity of this type have the id ``first``."""
        self._next_ids[kind] = first

    def find(self, kind: str, entity_id: int) -> Entity | None:
        """An entity that is not in the trash."""
        found = self.entities[kind].get(entity_id)
        return found if found and not found.is_deleted else None

    def tag_id(self, kind: str, name: str) -> int:
        """The id of the tag with this name; an unknown name makes the tag."""
        for tag_id, known in self.tags[kind].items():
            if known == name:
                return tag_id
        tag_id = self.next_id()
        self.tags[kind][tag_id] = name
        return tag_id

    def link(self, one: NodeKey, other: NodeKey, *, is_main: bool = False) -> None:
        """Link two entities, both ways; a main contact demotes the others of its lead."""
        if is_main:
            for key, main in self._links.get(one, {}).items():
                if main and key[0] == other[0]:
                    self._set_link(one, key, is_main=False)
        self._set_link(one, other, is_main=is_main)

    def unlink(self, one: NodeKey, other: NodeKey) -> bool:
        """Undo ``link``; whether there was one."""
        self._links.get(other, {}).pop(one, None)
        return self._links.get(one, {}).pop(other, None) is not None

    def linked(self, node: NodeKey, kind: str) -> list[tuple[int, bool]]:
        """``(id, is_main)`` of the entities of one type linked to a node, in order of linking."""
        links = self._links.get(node, {})
        return [(key[1], main) for key, main in links.items() if key[0] == kind]

    def _set_link(self, one: NodeKey, other: NodeKey, *, is_main: bool) -> None:
        self._links.setdefault(one, {})[other] = is_main
        self._links.setdefault(other, {})[one] = is_main

    def add_fields(self, kind: str, fields: Iterable[CustomField]) -> None:
        """Define custom fields for an entity type."""
        self.fields[kind].update({each.id: each for each in fields})
