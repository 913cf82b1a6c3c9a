"""What the stand-in remembers: rows in the API's spelling, links and the change log."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from kommo_airtable_sync.sandbox.kommo.settings import Account

WON, LOST = 142, 143
SINGULAR = {"leads": "lead", "contacts": "contact", "companies": "company"}

Json = dict[str, Any]
Node = tuple[str, int]


class State:
    """All data of one account. Not thread-safe: the model's lock guards it.

    ``rows`` holds every listed thing by resource (``leads``, ``leads/pipelines``, ``webhooks``...)
    and id, in the API's JSON without ``_links``. Rows of leads, contacts and companies hold
    besides: ``kind``; ``fields``, custom field id -> values as read, never empty; ``tags``, ids.
    """

    def __init__(self, account: Account) -> None:
        self.account = account
        self.rows: dict[str, dict[Any, Json]] = defaultdict(dict)
        self.changes: list[Json] = []
        self.version = 0
        self.kept: dict[Any, list[Json]] = {}  # sorted lists, until the next write
        self._links: dict[Node, dict[Node, bool]] = {}
        self._ids = {"": 500_001, "leads": 20_000_001, "contacts": 30_000_001} | {
            "companies": 40_000_001
        }

    def touch(self) -> None:
        """Say that entities have changed."""
        self.version += 1
        self.kept.clear()

    def next_id(self, kind: str = "") -> int:
        """A fresh id: of the entity type, or of the range all other things share."""
        self._ids[kind] += 1
        return self._ids[kind] - 1

    def start_ids_at(self, kind: str, first: int) -> None:
        """Let the next entity of this type have the id ``first``."""
        self._ids[kind] = first

    def find(self, kind: str, entity_id: Any) -> Json | None:
        """An entity that is not in the trash; None also for what is no id."""
        found = self.rows[kind].get(entity_id) if isinstance(entity_id, int) else None
        return found if found and not found["is_deleted"] else None

    def fields(self, kind: str) -> list[Json]:
        """The custom fields of an entity type, in the order in which they are shown."""
        rows = self.rows[f"{kind}/custom_fields"].values()
        return sorted(rows, key=lambda each: (each["sort"], each["id"]))

    def tag_id(self, kind: str, name: str) -> int:
        """The id of the tag with this name; an unknown name makes the tag."""
        known = self.rows[f"{kind}/tags"]
        for tag in known.values():
            if tag["name"] == name:
                return tag["id"]
        tag_id = self.next_id()
        known[tag_id] = {"id": tag_id, "name": name} | ({"color": None} if kind == "leads" else {})
        return tag_id

    def link(self, one: Node, other: Node, *, is_main: bool = False) -> None:
        """Link two entities, both ways; a main contact demotes the others of its lead."""
        others = self._links.setdefault(one, {})
        if is_main:
            others.update({key: False for key in others if key[0] == other[0]})
        others[other] = is_main
        self._links.setdefault(other, {})[one] = is_main

    def linked(self, row: Json, kind: str) -> list[tuple[Json, bool]]:
        """The entities of one type linked to an entity, and whether each is the main one."""
        links = self._links.get((row["kind"], row["id"]), {})
        found = [(self.find(*key), is_main) for key, is_main in links.items() if key[0] == kind]
        return [(other, is_main) for other, is_main in found if other]

    def add_field(
        self,
        kind: str,
        field_id: int,
        name: str,
        field_type: str,
        *,
        sort: int = 500,
        code: str | None = None,
        enums: tuple[tuple[int, str, str | None], ...] = (),
        currency: str | None = None,
    ) -> None:
        """Define a custom field with the key set of K-http's example; enums: (id, value, code)."""
        choices = [
            {"id": enum_id, "value": value, "sort": 500} | ({"code": label} if label else {})
            for enum_id, value, label in enums
        ]
        self.rows[f"{kind}/custom_fields"][field_id] = {
            **{"id": field_id, "name": name, "type": field_type, "code": code, "sort": sort},
            **{"account_id": self.account.id, "entity_type": kind, "currency": currency},
            **{"is_api_only": False, "is_deletable": True, "is_predefined": False},
            **{"required_statuses": [], "hidden_statuses": [], "triggers": []},
            **dict.fromkeys(("group_id", "tracking_callback", "remind", "chained_lists")),
            "enums": choices or None,
        }

    def add_pipeline(self, pipeline_id: int, name: str, stages: dict[int, str]) -> None:
        """A pipeline with Incoming leads, its stages by id, won and lost; the first one is main."""
        known, owner = self.rows["leads/pipelines"], {"account_id": self.account.id}
        statuses = [
            owner
            | {"id": status_id, "name": status, "sort": sort, "type": int(sort == 10)}
            | {"is_editable": 10 < sort < 10_000, "pipeline_id": pipeline_id, "color": color}
            for status_id, status, sort, color in (
                (pipeline_id * 10, "Incoming leads", 10, "#c1c1c1"),
                *((key, stages[key], 10 + 10 * n, "#99ccff") for n, key in enumerate(stages, 1)),
                (WON, "Closed - won", 10_000, "#CCFF66"),
                (LOST, "Closed - lost", 11_000, "#D5D8DB"),
            )
        ]
        pipeline: Json = {"id": pipeline_id, "name": name, "sort": len(known) + 1} | owner
        pipeline |= {"is_main": not known, "is_unsorted_on": True, "is_archive": False}
        known[pipeline_id] = pipeline | {"_embedded": {"statuses": statuses}}

    def add_user(
        self, user_id: int, name: str, *, admin: bool = False, active: bool = True
    ) -> None:
        """Somebody who works in the account, with the rights that matter here."""
        rights: Json = {"is_admin": admin, "is_free": False, "is_active": active}
        user: Json = {"id": user_id, "name": name, "email": f"user{user_id}@example.com"}
        user |= {"lang": "en", "rights": rights | {"group_id": None, "role_id": None}}
        self.rows["users"][user_id] = user | {"_embedded": {"roles": [], "groups": []}}
