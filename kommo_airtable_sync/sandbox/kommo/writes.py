"""Changing entities: check a whole request, then apply it item by item, log it and tell of it.

The API and the control share this. Sources: reference 3.4 to 3.6, section 9 "Leads".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

from kommo_airtable_sync.sandbox.kommo import hooks
from kommo_airtable_sync.sandbox.kommo.answers import Mistake, mistakes, refuse
from kommo_airtable_sync.sandbox.kommo.delivery import Outbox
from kommo_airtable_sync.sandbox.kommo.fields import written
from kommo_airtable_sync.sandbox.kommo.settings import Settings
from kommo_airtable_sync.sandbox.kommo.state import LOST, SINGULAR, WON, State

Json = dict[str, Any]
ROBOT = 0
_TAG = {"id": int, "name": str, "color": str}
_LINK = {"id": int, "is_main": bool}
_FIELD = {"field_id": int, "values": object, "field_name": str, "field_type": str} | {
    "field_code": str,
    "is_computed": bool,
}
_COMMON: Json = {
    **dict.fromkeys(("id", "responsible_user_id", "created_by", "updated_by"), int),
    **dict.fromkeys(("created_at", "updated_at"), int),
    "name": str,
    "request_id": object,
    "custom_fields_values": [_FIELD],
    "tags_to_add": [_TAG],
    "tags_to_delete": [_TAG],
    "_embedded": {"tags": [_TAG], "contacts": [_LINK], "companies": [_LINK]},
}
_LEAD_KEYS = ("price", "status_id", "pipeline_id", "loss_reason_id", "closed_at")
_SCHEMAS: dict[str, Json] = {
    "leads": _COMMON | dict.fromkeys(_LEAD_KEYS, int),
    "contacts": _COMMON | {"first_name": str, "last_name": str},
    "companies": _COMMON,
}
_NULLABLE = {"loss_reason_id", "closed_at", "_embedded", "values", "color", "field_code"} | {
    "tags", "tags_to_add", "tags_to_delete", "custom_fields_values",
}  # fmt: skip
_BLANKS: dict[str, Json] = {
    "leads": dict.fromkeys(_LEAD_KEYS) | {"price": 0},
    "contacts": {"first_name": "", "last_name": ""},
    "companies": {},
}
_DERIVED = {"id", "updated_at", "updated_by"}
_USER_KEYS = ("created_by", "updated_by", "responsible_user_id")
# changed key -> event type (reference 5)
_EVENTS = {
    "responsible_user_id": "entity_responsible_changed",
    "price": "sale_field_changed",
    "name": "name_field_changed",
    "status_id": "lead_status_changed",
}


@dataclass(slots=True)
class Item:
    """One item of a write.

    Args:
        asked: its part of the request.
        row: the entity; none before it is created.
        fields: custom field id -> new values, empty = clear.
        old: the entity as it was.
        change: the log entry, if it changed.
    """

    request_id: str
    asked: Json
    row: Json
    fields: dict[int, list[Json]] = field(default_factory=dict[int, list[Json]])
    old: Json = field(default_factory=dict[str, Any])
    change: Json | None = None


class Writer:
    """Everything that moves an entity; hooks of it go to the outbox."""

    def __init__(self, state: State, settings: Settings, outbox: Outbox) -> None:
        self._state = state
        self._settings = settings
        self._outbox = outbox

    def write(
        self, kind: str, asked: Sequence[tuple[Json | None, Json]], *, by: int, at: float
    ) -> list[Item]:
        """Create or update by v4 write shapes: all or nothing, hooks included.

        Args:
            kind: entity type.
            asked: the entity (None = create) and its part of the request.
            by: acting user, unless the item names ``updated_by``.
            at: epoch seconds.

        Raises:
            Refused: 400 with all mistakes of all items; nothing is stored then.
        """
        items = [
            Item(str(each.get("request_id", index)), dict(each), row or {})
            for index, (row, each) in enumerate(asked)
        ]
        wrong: dict[str, list[Mistake]] = {}
        for item in items:
            wrong.setdefault(item.request_id, []).extend(self._check(kind, item))
        refuse(wrong)
        for item in items:
            self._apply(kind, item, by, at)
        self._tell([each for each in items if each.change])
        if by != ROBOT:
            self._run_robot([each.row for each in items if _moved_price(each)], at)
        return items

    def _run_robot(self, leads: list[Json], at: float) -> None:
        """Round prices by an edit of its own, where the setting ``price_rounding`` says so."""
        how = self._settings.price_rounding
        if how and how.robot:
            asked = [(lead, {"price": how.kept(lead["price"])}) for lead in leads]
            self.write("leads", asked, by=ROBOT, at=at)

    def _check(self, kind: str, item: Item) -> list[Mistake]:
        """What is wrong with an item; completes its stage and fields."""
        asked, schema = item.asked, _SCHEMAS[kind]
        if self._settings.decimal_price and isinstance(asked.get("price"), float):
            schema = schema | {"price": float}
        if wrong := list(mistakes(asked, schema, _NULLABLE)):
            return wrong
        if "price" in asked and (how := self._settings.price_rounding) and not how.robot:
            asked["price"] = how.kept(asked["price"])
        paths = [key for key in _USER_KEYS if key in asked and not self._may_name(key, asked[key])]
        if asked.get("loss_reason_id") not in (None, *self._state.rows["leads/loss_reasons"]):
            paths.append("loss_reason_id")
        paths += self._stage(item) if kind == "leads" else []
        paths += [
            f"_embedded.{other}.{index}.id"
            for other, index, each in _links(asked)
            if not self._state.find(other, each.get("id", 0))
        ]
        unknown = [Mistake("NotSupportedChoice", path) for path in paths]
        return unknown + self._custom_fields(kind, item)

    def _may_name(self, key: str, user_id: int) -> bool:
        """Whether a user may stand there: active ones, and the robot 0 as author."""
        if user_id == ROBOT:
            return key != "responsible_user_id"
        user = self._state.rows["users"].get(user_id)
        return bool(user and user["rights"]["is_active"])

    def _stage(self, item: Item) -> list[str]:
        """Make the stage a pair; a pipeline alone means its first stage. Paths that are wrong."""
        asked, pipelines = item.asked, self._state.rows["leads/pipelines"]
        main = next((key for key, each in pipelines.items() if each["is_main"]), 0)
        home = item.row.get("pipeline_id", main)
        pipeline_id = asked.setdefault("pipeline_id", home)
        if pipeline_id not in pipelines:
            return ["pipeline_id"]
        statuses = pipelines[pipeline_id]["_embedded"]["statuses"]
        if "status_id" in asked:
            return [] if asked["status_id"] in {each["id"] for each in statuses} else ["status_id"]
        if not item.row or pipeline_id != home:
            asked["status_id"] = next(each["id"] for each in statuses if each["type"] == 0)
        return []

    def _custom_fields(self, kind: str, item: Item) -> list[Mistake]:
        defined = self._state.rows[f"{kind}/custom_fields"].values()
        zone, found = ZoneInfo(self._state.account.timezone), list[Mistake]()
        for index, each in enumerate(item.asked.get("custom_fields_values") or ()):
            path = f"custom_fields_values.{index}"
            key = "field_id" if "field_id" in each else "field_code"
            named = [d for d in defined if d[key.removeprefix("field_")] == each.get(key, 0)]
            if not named:
                found.append(Mistake("NotSupportedChoice", f"{path}.{key}"))
            elif "values" not in each:
                found.append(Mistake("FieldMissing", f"{path}.values"))
            else:
                values, wrong = written(named[0], each["values"], zone)
                inner = f"{path}.values."
                found += [bad._replace(path=(inner + bad.path).strip(".")) for bad in wrong]
                if values is not None:
                    item.fields[named[0]["id"]] = values
        return found

    def _apply(self, kind: str, item: Item, by: int, at: float) -> None:
        now, asked, is_new = int(at), item.asked, not item.row
        row = item.row = item.row or self._created(kind, asked.get("created_by", by), by, now)
        old = item.old = dict(row)  # shallow: fields and tags are replaced, not changed in place
        row |= {key: asked[key] for key in asked if key in row and key not in _DERIVED}
        row["fields"] = {key: each for key, each in (row["fields"] | item.fields).items() if each}
        row["tags"] = self._tags(row, asked)
        for other, index, each in _links(asked):
            is_main = each.get("is_main", index == 0)
            self._state.link((kind, row["id"]), (other, each["id"]), is_main=is_main)
        if kind == "leads":
            _close(row, old["status_id"], asked, now)
        changed = _changed(old, row)
        if is_new or _links(asked) or self._touches(changed):
            row["updated_at"] = asked.get("updated_at", now)
            row["updated_by"] = asked.get("updated_by", by)
            events = [f"{SINGULAR[kind]}_added"] if is_new else _events(old, row, changed)
            item.change = self._log(row, "add" if is_new else "update", at, changed, events)

    def _created(self, kind: str, author: int, by: int, now: int) -> Json:
        entity_id = self._state.next_id(kind)
        row: Json = {"kind": kind, "id": entity_id, "is_deleted": False, "fields": {}, "tags": []}
        row |= {"name": f"Lead #{entity_id}" if kind == "leads" else "", **_BLANKS[kind]}
        row |= {"responsible_user_id": by or author, "created_by": author, "updated_by": author}
        row |= {"created_at": now, "updated_at": now}
        self._state.rows[kind][entity_id] = row
        return row

    def _touches(self, changed: list[str]) -> bool:
        """Whether a write counts as one; unclear for tags alone and for no change at all."""
        if changed == ["tags"]:
            return self._settings.tags_touch
        return bool(changed) or self._settings.noop_touches

    def _tags(self, row: Json, asked: Json) -> list[int]:
        """The new tag set; ``_embedded.tags`` wins over the incremental keys (reference 3.6)."""
        embedded: Json = asked.get("_embedded") or {}
        if "tags" in embedded:
            return self._tag_ids(row["kind"], embedded["tags"])
        gone = self._tag_ids(row["kind"], asked.get("tags_to_delete"))
        kept = [each for each in row["tags"] if each not in gone]
        return list(dict.fromkeys(kept + self._tag_ids(row["kind"], asked.get("tags_to_add"))))

    def _tag_ids(self, kind: str, tags: list[Json] | None) -> list[int]:
        known = self._state.rows[f"{kind}/tags"]
        ids = [
            each["id"] if each.get("id") in known else self._state.tag_id(kind, each["name"])
            for each in tags or ()
            if each.get("id") in known or each.get("name")
        ]
        return list(dict.fromkeys(ids))

    def _log(self, row: Json, action: str, at: float, fields: list[str], events: list[str]) -> Json:
        """Add to the change log (``changed_at`` with its fraction) and, without values, events."""
        state, kind, by = self._state, row["kind"], row["updated_by"]
        change: Json = {"lead_id": row["id"], "entity_type": kind, "kind": action, "by": by}
        change |= {"changed_at": at, "updated_at": row["updated_at"], "fields": fields}
        state.changes.append(change)
        state.touch()
        for name in events:
            event: Json = {"id": f"01{len(state.rows['events']):024x}", "type": name}
            event |= {"entity_id": row["id"], "entity_type": SINGULAR[kind], "created_by": by}
            event |= {
                "created_at": int(at),
                "account_id": state.account.id,
                "_embedded": {"entity": {"id": row["id"]}},
            }
            state.rows["events"][event["id"]] = event
        return change

    def _tell(self, items: list[Item]) -> None:
        """Hooks of what was written; stage and responsible changes also under their own names."""
        told: list[hooks.HookItem] = []
        for item in items:
            row, change = item.row, item.change or {}
            if change["kind"] == "add":
                actions, old = ["add"], {}
            else:
                actions, old = ["update"], item.old
                if _stage_of(row) != _stage_of(old):
                    actions.append("status")
                    body = hooks.digital_pipeline_body(row, old, self._state.account)
                    self._outbox.post_digital_pipeline(body)
                if "responsible_user_id" in change["fields"]:
                    actions.append("responsible")
            payload = hooks.payload(self._state, row, old)
            told += [hooks.item(row["kind"], action, payload) for action in actions]
        self._outbox.post(told)

    def set_deleted(self, row: Json, *, deleted: bool, by: int, at: float) -> Json:
        """Move an entity into the trash or out of it, as only people can; the log entry."""
        action = "delete" if deleted else "restore"
        row |= {"is_deleted": deleted, "updated_at": int(at), "updated_by": by}
        full = hooks.payload(self._state, row, {})
        payload = hooks.deleted_payload(row) if deleted else full
        self._outbox.post([hooks.item(row["kind"], action, payload)])
        return self._log(row, action, at, [], [f"{SINGULAR[row['kind']]}_{action}d"])

    def add_note(self, row: Json, text: str, *, by: int, at: float) -> None:
        """Tell of a new note, which moves nothing of its entity."""
        author = self._state.rows["users"].get(by, {"id": by, "name": ""})
        note_id = self._state.next_id()
        payload = hooks.note_payload(row, text, note_id, author, int(at), self._state)
        self._outbox.post([hooks.item(row["kind"], "note", payload)])


def _moved_price(item: Item) -> bool:
    return "price" in (item.change or {"fields": ()})["fields"]


def _links(asked: Json) -> list[tuple[str, int, Json]]:
    """``(entity type, index, link)`` of what ``_embedded`` names."""
    embedded: Json = asked.get("_embedded") or {}
    kinds = ("contacts", "companies")
    return [(kind, n, each) for kind in kinds for n, each in enumerate(embedded.get(kind) or ())]


def _changed(old: Json, row: Json) -> list[str]:
    """Names of what differs, custom fields as ``cf_{id}``."""
    found = [key for key in row if key not in ("fields", "tags") and row[key] != old[key]]
    ids = sorted(old["fields"].keys() | row["fields"].keys())
    found += [f"cf_{each}" for each in ids if old["fields"].get(each) != row["fields"].get(each)]
    return found + (["tags"] if set(old["tags"]) != set(row["tags"]) else [])


def _events(old: Json, row: Json, changed: list[str]) -> list[str]:
    """Event types of what differs."""
    found = [_EVENTS[key] for key in changed if key in _EVENTS]
    found += [f"custom_field_{key[3:]}_value_changed" for key in changed if key.startswith("cf_")]
    gone, added = set(old["tags"]) - set(row["tags"]), set(row["tags"]) - set(old["tags"])
    return found + ["entity_tag_deleted"] * bool(gone) + ["entity_tag_added"] * bool(added)


def _stage_of(row: Json) -> Json:
    return {"id": row.get("status_id"), "pipeline_id": row.get("pipeline_id")}


def _close(lead: Json, old_status: int, asked: Json, now: int) -> None:
    """Entering won or lost stamps ``closed_at``, leaving clears it; reasons are for lost only."""
    if lead["status_id"] not in (WON, LOST):
        lead["closed_at"] = None
    elif old_status not in (WON, LOST):
        lead["closed_at"] = asked.get("closed_at") or now
    if lead["status_id"] != LOST:
        lead["loss_reason_id"] = None
