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
_USER_KEYS = ("created_by", "updated_by", "responsible_user_id")
# changed key -> event type, and the key and inner key that wrap its value (reference 5)
_EVENTS = {
    "responsible_user_id": ("entity_responsible_changed", "responsible_user", "id"),
    "price": ("sale_field_changed", "sale_field_value", "sale"),
    "name": ("name_field_changed", "name_field_value", "name"),
}


@dataclass(slots=True)
class Draft:
    """One item of a write.

    Args:
        row: what to change; None = create.
        item: its part of the request.
        attributes: plain attributes to set.
        fields: custom field id -> new values, empty = clear.
    """

    request_id: str
    row: Json | None
    item: Json
    attributes: Json = field(default_factory=dict[str, Any])
    fields: dict[int, list[Json]] = field(default_factory=dict[int, list[Json]])


@dataclass(frozen=True, slots=True)
class Applied:
    """One applied item: the entity as it now is, as it was, and the log entry, if it changed."""

    request_id: str
    row: Json
    old: Json
    change: Json | None


class Writer:
    """Everything that moves an entity.

    Args:
        state: what is written to.
        settings: the switches for unclear behaviour.
        outbox: where the hooks go.
    """

    def __init__(self, state: State, settings: Settings, outbox: Outbox) -> None:
        self._state = state
        self._settings = settings
        self._outbox = outbox

    def write(
        self, kind: str, items: Sequence[tuple[Json | None, Json]], *, by: int, at: float
    ) -> list[Applied]:
        """Create or update by v4 write shapes: all or nothing, hooks included.

        Args:
            kind: entity type.
            items: the entity (None = create) and its part of the request.
            by: acting user, unless the item names ``updated_by``.
            at: epoch seconds.

        Raises:
            Refused: 400 with all mistakes of all items; nothing is stored then.
        """
        drafts = [
            Draft(str(item.get("request_id", index)), row, item)
            for index, (row, item) in enumerate(items)
        ]
        wrong: dict[str, list[Mistake]] = {}
        for draft in drafts:
            wrong.setdefault(draft.request_id, []).extend(self._check(kind, draft))
        refuse(wrong)
        applied = [self._apply(kind, draft, by, at) for draft in drafts]
        self._tell(applied)
        return applied

    def _check(self, kind: str, draft: Draft) -> list[Mistake]:
        """What is wrong with an item; fills in its attributes and fields."""
        item, schema = draft.item, _SCHEMAS[kind]
        if self._settings.decimal_price != "refuse" and isinstance(item.get("price"), float):
            schema = schema | {"price": float}
        if wrong := list(mistakes(item, schema, _NULLABLE)):
            return wrong
        plain = _BLANKS[kind].keys() | {"name", "created_at", "updated_at", *_USER_KEYS}
        draft.attributes = {key: value for key, value in item.items() if key in plain}
        if self._settings.decimal_price == "truncate" and "price" in item:
            draft.attributes["price"] = int(item["price"])
        paths = [key for key in _USER_KEYS if key in item and not self._may_name(key, item[key])]
        if item.get("loss_reason_id") not in (None, *self._state.rows["leads/loss_reasons"]):
            paths.append("loss_reason_id")
        paths += self._stage(draft) if kind == "leads" else []
        for other in ("contacts", "companies"):
            for index, each in enumerate((item.get("_embedded") or {}).get(other) or ()):
                if not self._state.find(other, each.get("id", 0)):
                    paths.append(f"_embedded.{other}.{index}.id")
        unknown = [Mistake("NotSupportedChoice", path) for path in paths]
        return unknown + self._custom_fields(kind, draft)

    def _may_name(self, key: str, user_id: int) -> bool:
        """Whether a user may stand there: active ones, and the robot 0 as author."""
        user = self._state.rows["users"].get(user_id)
        return bool(user and user["rights"]["is_active"]) or (
            user_id == 0 and key != "responsible_user_id"
        )

    def _stage(self, draft: Draft) -> list[str]:
        """Make the stage a pair; a pipeline alone means its first stage. Paths that are wrong."""
        asked, row, pipelines = draft.attributes, draft.row, self._state.rows["leads/pipelines"]
        if (
            row
            and "status_id" not in asked
            and asked.get("pipeline_id", 0)
            in (
                0,
                row["pipeline_id"],
            )
        ):
            return []
        main = next((key for key, each in pipelines.items() if each["is_main"]), 0)
        pipeline_id = asked.get("pipeline_id", row["pipeline_id"] if row else main)
        if pipeline_id not in pipelines:
            return ["pipeline_id"]
        statuses = pipelines[pipeline_id]["_embedded"]["statuses"]
        first = next(each["id"] for each in statuses if each["type"] == 0)
        asked |= {"pipeline_id": pipeline_id, "status_id": asked.get("status_id", first)}
        known = asked["status_id"] in {each["id"] for each in statuses}
        return [] if known else ["status_id"]

    def _custom_fields(self, kind: str, draft: Draft) -> list[Mistake]:
        defined = self._state.rows[f"{kind}/custom_fields"].values()
        zone, found = ZoneInfo(self._state.account.timezone), list[Mistake]()
        for index, item in enumerate(draft.item.get("custom_fields_values") or ()):
            path = f"custom_fields_values.{index}"
            key = "field_id" if "field_id" in item else "field_code"
            named = [
                each for each in defined if each[key.removeprefix("field_")] == item.get(key, 0)
            ]
            if not named:
                found.append(Mistake("NotSupportedChoice", f"{path}.{key}"))
            elif "values" not in item:
                found.append(Mistake("FieldMissing", f"{path}.values"))
            else:
                values, wrong = written(named[0], item["values"], zone)
                inner = f"{path}.values."
                found += [each._replace(path=(inner + each.path).strip(".")) for each in wrong]
                if values is not None:
                    draft.fields[named[0]["id"]] = values
        return found

    def _apply(self, kind: str, draft: Draft, by: int, at: float) -> Applied:
        now, asked = int(at), draft.attributes
        row = draft.row or self._created(kind, asked.get("created_by", by), by, now)
        old = dict(row)  # shallow: fields and tags are replaced, never changed in place
        row |= {key: value for key, value in asked.items() if not key.startswith("updated_")}
        fields = row["fields"] | draft.fields
        row["fields"] = {key: values for key, values in fields.items() if values}
        row["tags"] = self._tags(row, draft.item)
        links = self._link(row, draft.item)
        if kind == "leads":
            _close(row, old["status_id"], asked, now)
        changed = _changed(old, row)
        is_new = draft.row is None
        if not (is_new or links or self._touches(changed)):
            return Applied(draft.request_id, row, old, None)
        row["updated_at"] = asked.get("updated_at", now)
        row["updated_by"] = asked.get("updated_by", by)
        events = (
            [(f"{SINGULAR[kind]}_added", [], [])] if is_new else self._events(old, row, changed)
        )
        change = self._log(
            row, "add" if is_new else "update", row["updated_by"], at, changed, events
        )
        return Applied(draft.request_id, row, old, change)

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

    def _tags(self, row: Json, item: Json) -> list[int]:
        """The new tag set; ``_embedded.tags`` wins over the incremental keys (reference 3.6)."""
        embedded = item.get("_embedded") or {}
        if "tags" in embedded:
            return self._tag_ids(row["kind"], embedded["tags"])
        gone = self._tag_ids(row["kind"], item.get("tags_to_delete"))
        kept = [each for each in row["tags"] if each not in gone]
        return list(dict.fromkeys(kept + self._tag_ids(row["kind"], item.get("tags_to_add"))))

    def _tag_ids(self, kind: str, tags: list[Json] | None) -> list[int]:
        known = self._state.rows[f"{kind}/tags"]
        ids = [
            each["id"] if each.get("id") in known else self._state.tag_id(kind, each["name"])
            for each in tags or ()
            if each.get("id") in known or each.get("name")
        ]
        return list(dict.fromkeys(ids))

    def _link(self, row: Json, item: Json) -> bool:
        """Link what ``_embedded`` names; whether there was something."""
        links = [
            (kind, each["id"], each.get("is_main", index == 0))
            for kind in ("contacts", "companies")
            for index, each in enumerate((item.get("_embedded") or {}).get(kind) or ())
        ]
        for kind, other_id, is_main in links:
            self._state.link((row["kind"], row["id"]), (kind, other_id), is_main=is_main)
        return bool(links)

    def _events(self, old: Json, row: Json, changed: list[str]) -> list[tuple[str, Any, Any]]:
        """``(type, value_before, value_after)`` as ``GET /events`` shows them."""
        found: list[tuple[str, Any, Any]] = []
        for key in changed:
            if key in _EVENTS:
                name, outer, inner = _EVENTS[key]
                found.append((name, *([{outer: {inner: each[key]}}] for each in (old, row))))
            elif key.startswith("cf_"):
                found.append((f"custom_field_{key[3:]}_value_changed",
                              *(_field_values(each, int(key[3:])) for each in (old, row))))  # fmt: skip
        if _is_moved(changed):
            stages = (
                [{"lead_status": {"id": each["status_id"], "pipeline_id": each["pipeline_id"]}}]
                for each in (old, row)
            )
            found.append(("lead_status_changed", *stages))
        tags = self._state.rows[f"{row['kind']}/tags"]
        for tag in [each for each in row["tags"] if each not in old["tags"]]:
            found.append(("entity_tag_added", [], [{"tag": {"name": tags[tag]["name"]}}]))
        for tag in [each for each in old["tags"] if each not in row["tags"]]:
            found.append(("entity_tag_deleted", [{"tag": {"name": tags[tag]["name"]}}], []))
        return found

    def _log(
        self,
        row: Json,
        action: str,
        by: int,
        at: float,
        fields: list[str],
        events: list[tuple[str, Any, Any]],
    ) -> Json:
        """Add to the change log (``changed_at`` with its fraction) and to the event list."""
        state, kind = self._state, row["kind"]
        change: Json = {"lead_id": row["id"], "entity_type": kind, "kind": action}
        change |= {"changed_at": at, "updated_at": row["updated_at"], "by": by, "fields": fields}
        state.changes.append(change)
        state.version += 1
        for name, before, after in events:
            event_id = f"01{len(state.rows['events']):024x}"  # 26 characters
            state.rows["events"][event_id] = {
                "id": event_id,
                "type": name,
                "entity_id": row["id"],
                "entity_type": SINGULAR[kind],
                "created_by": by,
                "created_at": int(at),
                "value_after": after,
                "value_before": before,
                "account_id": state.account.id,
                "_embedded": {"entity": {"id": row["id"]}},
            }
        return change

    def _tell(self, applied: list[Applied]) -> None:
        """Hooks of what was written; stage and responsible changes also under their own names."""
        told: list[hooks.HookItem] = []
        for each in (each for each in applied if each.change):
            row, change = each.row, each.change or {}
            is_new, moved = change["kind"] == "add", _is_moved(change["fields"])
            actions = ["add"] if is_new else ["update"]
            if moved and not is_new:
                actions.append("status")
                body = hooks.digital_pipeline_body(row, each.old, self._state.account)
                self._outbox.post_digital_pipeline(body)
            if "responsible_user_id" in change["fields"] and not is_new:
                actions.append("responsible")
            body = hooks.payload(self._state, self._settings, row, {} if is_new else each.old)
            told += [hooks.item(row["kind"], action, body) for action in actions]
        self._outbox.post(told)

    def set_deleted(self, row: Json, *, deleted: bool, by: int, at: float) -> Json:
        """Move an entity into the trash or out of it, as only people can; the log entry."""
        action = "delete" if deleted else "restore"
        row |= {"is_deleted": deleted, "updated_at": int(at), "updated_by": by}
        name = f"{SINGULAR[row['kind']]}_{action}d"
        change = self._log(row, action, by, at, [], [(name, [], [])])
        full = hooks.payload(self._state, self._settings, row, {})
        payload = hooks.deleted_payload(row) if deleted else full
        self._outbox.post([hooks.item(row["kind"], action, payload)])
        return change

    def add_note(self, row: Json, text: str, *, by: int, at: float) -> Json:
        """Tell of a new note, which does not move ``updated_at``; the log entry."""
        author = self._state.rows["users"].get(by, {"id": by, "name": ""})
        payload = hooks.note_payload(row, text, self._state.next_id(), author, int(at), self._state)
        self._outbox.post([hooks.item(row["kind"], "note", payload)])
        return self._log(row, "note", by, at, [], [("common_note_added", [], [])])


def _changed(old: Json, row: Json) -> list[str]:
    """Names of what differs, custom fields as ``cf_{id}``."""
    found = [key for key in row if key not in ("fields", "tags") and row[key] != old[key]]
    ids = sorted(old["fields"].keys() | row["fields"].keys())
    found += [f"cf_{each}" for each in ids if old["fields"].get(each) != row["fields"].get(each)]
    return found + (["tags"] if set(old["tags"]) != set(row["tags"]) else [])


def _is_moved(changed: Sequence[str]) -> bool:
    return "status_id" in changed or "pipeline_id" in changed


def _field_values(row: Json, field_id: int) -> list[Json]:
    return [
        {
            "custom_field_value": {
                "field_id": field_id,
                "enum_id": value.get("enum_id"),
                "text": str(value.get("value")),
            }
        }
        for value in row["fields"].get(field_id, [])
    ]


def _close(lead: Json, old_status: int, asked: Json, now: int) -> None:
    """Entering won or lost stamps ``closed_at``, leaving clears it; reasons are for lost only."""
    if lead["status_id"] not in (WON, LOST):
        lead["closed_at"] = None
    elif old_status not in (WON, LOST):
        lead["closed_at"] = asked.get("closed_at") or now
    if lead["status_id"] != LOST:
        lead["loss_reason_id"] = None
