"""Writes by the API's rules: check a whole request first, then apply it item by item.

Sources: reference 3.4 to 3.6 and section 9, "Leads".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from zoneinfo import ZoneInfo

from kommo_airtable_sync.sandbox.kommo.events import events_of
from kommo_airtable_sync.sandbox.kommo.problems import ItemErrors
from kommo_airtable_sync.sandbox.kommo.settings import Settings
from kommo_airtable_sync.sandbox.kommo.state import LOST, WON, Change, Entity, Pipeline, State
from kommo_airtable_sync.sandbox.kommo.values import written

Json = dict[str, Any]
_COMMON = {
    "name": "string",
    "responsible_user_id": "int",
    "created_by": "int",
    "updated_by": "int",
    "created_at": "int",
    "updated_at": "int",
}
_TYPES = {
    "leads": _COMMON
    | dict.fromkeys(("price", "status_id", "pipeline_id", "loss_reason_id", "closed_at"), "int"),
    "contacts": _COMMON | {"first_name": "string", "last_name": "string"},
    "companies": _COMMON,
}
_OTHER_KEYS = {"id", "request_id", "custom_fields_values", "tags_to_add", "tags_to_delete"} | {
    "_embedded"
}
_TYPE_NAMES: dict[type, str] = {int: "int", str: "string"}
_NULLABLE = {"loss_reason_id", "closed_at"}
_FIELD_KEYS = {"field_id", "field_code", "values", "field_name", "field_type", "is_computed"}


@dataclass(slots=True)
class Draft:
    """One checked item, ready to be applied.

    Args:
        entity: what to change; None = create.
        attributes: plain attributes to set.
        fields: custom field id -> new values, empty = clear.
        tags: the whole new set of tag ids; None = no change.
    """

    request_id: str
    entity: Entity | None
    attributes: Json = field(default_factory=dict[str, Any])
    fields: dict[int, list[Json]] = field(default_factory=dict[int, list[Json]])
    tags: list[int] | None = None
    links: list[tuple[str, int, bool]] = field(default_factory=list[tuple[str, int, bool]])


@dataclass(frozen=True, slots=True)
class Applied:
    """One applied item: the entity as it now is, what changed, and the old values hooks name."""

    draft: Draft
    entity: Entity
    change: Change | None
    old: Json


class Writer:
    """Checks and applies items of one entity type.

    Args:
        state: what is written to.
        settings: the switches for unclear behaviour.
        kind: entity type.
        user_id: who acts, unless ``updated_by`` says otherwise.
    """

    def __init__(self, state: State, settings: Settings, kind: str, user_id: int) -> None:
        self._state = state
        self._settings = settings
        self._kind = kind
        self._user_id = user_id
        self._errors = ItemErrors()

    def check(self, items: Sequence[tuple[Entity | None, Json]]) -> list[Draft]:
        """Check every item of a request; tags with unknown names come to be here.

        Args:
            items: the entity to change (None = create) with its part of the request.

        Raises:
            Refused: 400 with all errors of all items; nothing is stored then.
        """
        drafts = [self._draft(item, entity, index) for index, (entity, item) in enumerate(items)]
        self._errors.raise_if_any()
        for draft, (_, item) in zip(drafts, items, strict=True):
            draft.tags = self._tags(draft.entity, item)
        return drafts

    def _draft(self, item: Json, entity: Entity | None, index: int) -> Draft:
        draft = Draft(str(item.get("request_id", index)), entity)
        types = _TYPES[self._kind]
        for key, value in item.items():
            if key in types:
                self._attribute(draft, key, value, types[key])
            elif key not in _OTHER_KEYS:
                self._errors.add(draft.request_id, "FieldNotExpected", key)
        self._stage(draft)
        self._custom_fields(draft, item.get("custom_fields_values"))
        self._embedded(draft, item)
        return draft

    def _attribute(self, draft: Draft, key: str, value: Any, wanted: str) -> None:
        if key == "price" and isinstance(value, float) and self._settings.decimal_price != "refuse":
            keeps = self._settings.decimal_price == "keep"
            draft.attributes[key] = value if keeps else int(value)
        elif value is None and key in _NULLABLE:
            draft.attributes[key] = None
        elif isinstance(value, bool) or not isinstance(value, str if wanted == "string" else int):
            self._errors.add(draft.request_id, "InvalidType", key, wanted)
        elif not self._is_choice(key, value):
            self._errors.add(draft.request_id, "NotSupportedChoice", key)
        else:
            draft.attributes[key] = value

    def _is_choice(self, key: str, value: int | str) -> bool:
        """Whether ids of users and loss reasons exist; robots are user 0."""
        if key == "loss_reason_id":
            return value in self._state.loss_reasons
        if key not in ("created_by", "updated_by", "responsible_user_id"):
            return True
        user = self._state.users.get(int(value))
        return bool(user and user.is_active) or (value == 0 and key != "responsible_user_id")

    def _stage(self, draft: Draft) -> None:
        """Make the stage a pair; a pipeline alone means its first stage."""
        if self._kind != "leads":
            return
        status_id: int | None = draft.attributes.get("status_id")
        pipeline_id: int | None = draft.attributes.get("pipeline_id")
        if draft.entity and status_id is None and pipeline_id in (None, draft.entity.pipeline_id):
            return
        home = draft.entity.pipeline_id if draft.entity else self._main_pipeline().id
        pipeline = self._state.pipelines.get(home if pipeline_id is None else pipeline_id)
        if pipeline is None:
            self._errors.add(draft.request_id, "NotSupportedChoice", "pipeline_id")
        elif status_id is not None and status_id not in {each.id for each in pipeline.statuses}:
            self._errors.add(draft.request_id, "NotSupportedChoice", "status_id")
        else:
            draft.attributes["pipeline_id"] = pipeline.id
            draft.attributes["status_id"] = status_id or pipeline.first_stage()

    def _main_pipeline(self) -> Pipeline:
        return next(each for each in self._state.pipelines.values() if each.is_main)

    def _custom_fields(self, draft: Draft, raw: Any) -> None:
        if raw is None:
            return
        if not isinstance(raw, list):
            self._errors.add(draft.request_id, "InvalidType", "custom_fields_values", "array")
            return
        zone = ZoneInfo(self._state.account.timezone)
        for index, item in enumerate(cast("list[Any]", raw)):
            self._custom_field(draft, f"custom_fields_values.{index}", item, zone)

    def _custom_field(self, draft: Draft, path: str, raw: Any, zone: ZoneInfo) -> None:
        if not isinstance(raw, dict):
            self._errors.add(draft.request_id, "InvalidType", path, "array")
            return
        item = cast(Json, raw)
        for key in item.keys() - _FIELD_KEYS:
            self._errors.add(draft.request_id, "FieldNotExpected", f"{path}.{key}")
        key = "field_id" if "field_id" in item else "field_code"
        attribute = key.removeprefix("field_")
        defined = self._state.fields[self._kind].values()
        found = next((each for each in defined if getattr(each, attribute) == item.get(key)), None)
        if found is None or item.get(key) is None:
            self._errors.add(draft.request_id, "NotSupportedChoice", f"{path}.{key}")
            return

        def report(code: str, where: str, wanted: str) -> None:
            inner = f"{path}.values.{where}" if where else f"{path}.values"
            self._errors.add(draft.request_id, code, inner, wanted)

        if "values" not in item:
            self._errors.add(draft.request_id, "FieldMissing", f"{path}.values")
            return
        values = written(found, item["values"], zone, report)
        if values is not None:
            draft.fields[found.id] = values

    def _embedded(self, draft: Draft, item: Json) -> None:
        if not isinstance(item.get("_embedded"), dict | None):
            self._errors.add(draft.request_id, "InvalidType", "_embedded", "array")
        for key in ("tags_to_add", "tags_to_delete", "_embedded.tags"):
            for index, tag in enumerate(self._dicts(draft, item, key)):
                for odd, value in tag.items():
                    self._tag_key(draft, f"{key}.{index}.{odd}", odd, value)
        for kind in ("contacts", "companies"):
            for index, each in enumerate(self._dicts(draft, item, f"_embedded.{kind}")):
                known = isinstance(each.get("id"), int) and self._state.find(kind, each["id"])
                if not known:
                    path = f"_embedded.{kind}.{index}.id"
                    self._errors.add(draft.request_id, "NotSupportedChoice", path)
                else:
                    draft.links.append((kind, each["id"], bool(each.get("is_main", index == 0))))

    def _tag_key(self, draft: Draft, path: str, key: str, value: Any) -> None:
        wanted = {"id": int, "name": str, "color": str}.get(key)
        if wanted is None:
            self._errors.add(draft.request_id, "FieldNotExpected", path)
        elif value is not None and not isinstance(value, wanted):
            self._errors.add(draft.request_id, "InvalidType", path, _TYPE_NAMES[wanted])

    def _dicts(self, draft: Draft, item: Json, path: str) -> list[Json]:
        """The objects at a path, or an InvalidType and none."""
        found = _at(item, path)
        listed = cast("list[Any]", found) if isinstance(found, list) else []
        if (found is None or isinstance(found, list)) and all(isinstance(i, dict) for i in listed):
            return listed
        self._errors.add(draft.request_id, "InvalidType", path, "array")
        return []

    def _tags(self, entity: Entity | None, item: Json) -> list[int] | None:
        """The new tag set; ``_embedded.tags`` wins over the incremental keys (reference 3.6)."""
        if "tags" in (item.get("_embedded") or ()):
            return self._tag_ids(_at(item, "_embedded.tags"))
        if not (item.get("tags_to_add") or item.get("tags_to_delete")):
            return None
        gone = set(self._tag_ids(item.get("tags_to_delete")))
        kept = [each for each in (entity.tags if entity else []) if each not in gone]
        return list(dict.fromkeys(kept + self._tag_ids(item.get("tags_to_add"))))

    def _tag_ids(self, tags: list[Json] | None) -> list[int]:
        known = self._state.tags[self._kind]
        ids = [
            each["id"]
            if each.get("id") in known
            else self._state.tag_id(self._kind, str(each.get("name", "")))
            for each in tags or []
            if each.get("id") in known or each.get("name")
        ]
        return list(dict.fromkeys(ids))

    def apply(self, draft: Draft, at: float) -> Applied:
        """Carry out one checked item.

        Args:
            draft: from ``check``.
            at: epoch seconds, with their fraction.
        """
        is_new = draft.entity is None
        entity = draft.entity or self._created(draft, int(at))
        old = _snapshot(entity)
        for key, value in draft.attributes.items():
            if key not in ("updated_at", "updated_by"):
                setattr(entity, key, value)
        for field_id, values in draft.fields.items():
            _set_field(entity, field_id, values)
        if draft.tags is not None:
            entity.tags = draft.tags
        for kind, other_id, is_main in draft.links:
            self._state.link((self._kind, entity.id), (kind, other_id), is_main=is_main)
        _close(entity, old["status_id"], draft.attributes, int(at))
        changed = _differences(old, _snapshot(entity))
        if not is_new and not self._touches(changed, draft):
            return Applied(draft, entity, None, old)
        entity.updated_at = draft.attributes.get("updated_at", int(at))
        entity.updated_by = draft.attributes.get("updated_by", self._user_id)
        self._state.version += 1
        change = Change(
            entity_type=self._kind,
            entity_id=entity.id,
            kind="add" if is_new else "update",
            changed_at=at,
            updated_at=entity.updated_at,
            by=entity.updated_by,
            fields=changed,
            events=tuple(events_of(self._state, entity, old, changed, is_new=is_new)),
        )
        self._state.changes.append(change)
        return Applied(draft, entity, change, old)

    def _created(self, draft: Draft, now: int) -> Entity:
        user_id = draft.attributes.get("created_by", self._user_id)
        entity_id = self._state.next_id(self._kind)
        default_name = f"Lead #{entity_id}" if self._kind == "leads" else ""
        entity = Entity(
            self._kind,
            entity_id,
            default_name,
            self._user_id or user_id,
            user_id,
            user_id,
            now,
            now,
        )
        self._state.entities[self._kind][entity_id] = entity
        return entity

    def _touches(self, changed: tuple[str, ...], draft: Draft) -> bool:
        """Whether the write counts as one; unclear for tags alone and for no change at all."""
        if changed == ("tags",):
            return self._settings.tags_touch
        return bool(changed) or bool(draft.links) or self._settings.noop_touches


def _at(item: Json, path: str) -> Any:
    found: Any = item
    for key in path.split("."):
        found = cast(Json, found).get(key) if isinstance(found, dict) else None
    return found


_COMPARED = (
    "name", "first_name", "last_name", "price", "status_id", "pipeline_id",
    "responsible_user_id", "loss_reason_id", "closed_at", "created_at", "created_by",
)  # fmt: skip


def _snapshot(entity: Entity) -> Json:
    kept: Json = {name: getattr(entity, name) for name in _COMPARED}
    return kept | {"fields": dict(entity.fields), "tags": list(entity.tags)}


def _differences(old: Json, new: Json) -> tuple[str, ...]:
    changed = [key for key in old if key not in ("fields", "tags") and old[key] != new[key]]
    both = old["fields"].keys() | new["fields"].keys()
    cf = sorted(each for each in both if old["fields"].get(each) != new["fields"].get(each))
    changed += [f"cf_{each}" for each in cf]
    return (*changed, "tags") if set(old["tags"]) != set(new["tags"]) else tuple(changed)


def _set_field(entity: Entity, field_id: int, values: list[Json]) -> None:
    if values:
        entity.fields[field_id] = values
    else:
        entity.fields.pop(field_id, None)


def _close(lead: Entity, old_status: int, asked: Json, now: int) -> None:
    """Entering won or lost stamps ``closed_at``, leaving clears it; reasons are for lost only."""
    if lead.status_id not in (WON, LOST):
        lead.closed_at = None
    elif old_status not in (WON, LOST):
        lead.closed_at = asked.get("closed_at") or now
    if lead.status_id != LOST:
        lead.loss_reason_id = None
