"""Changing entities: apply, log, and tell the subscribers. The API and the control share this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast
from zoneinfo import ZoneInfo

from kommo_airtable_sync.sandbox.kommo import hooks
from kommo_airtable_sync.sandbox.kommo.delivery import Outbox
from kommo_airtable_sync.sandbox.kommo.settings import Settings
from kommo_airtable_sync.sandbox.kommo.shapes import SINGULAR
from kommo_airtable_sync.sandbox.kommo.state import Change, Entity, State
from kommo_airtable_sync.sandbox.kommo.writes import Applied, Writer

Json = dict[str, Any]


class Changes:
    """Everything that moves an entity.

    Args:
        state: what is changed.
        settings: switches.
        outbox: where the hooks go.
    """

    def __init__(self, state: State, settings: Settings, outbox: Outbox) -> None:
        self._state = state
        self._settings = settings
        self._outbox = outbox

    def write(
        self, kind: str, items: Sequence[tuple[Entity | None, Json]], *, by: int, at: float
    ) -> list[Applied]:
        """Create or update by v4 write shapes: all or nothing, hooks included.

        Args:
            kind: entity type.
            items: the entity (None = create) and its part of the request.
            by: acting user, unless the item names ``updated_by``.
            at: epoch seconds.

        Raises:
            Refused: 400, with nothing stored.
        """
        writer = Writer(self._state, self._settings, kind, by)
        applied = [writer.apply(draft, at) for draft in writer.check(items)]
        self._tell(applied)
        return applied

    def _tell(self, applied: list[Applied]) -> None:
        payloads = hooks.Payloads(self._state, self._settings)
        told: list[hooks.HookItem] = []
        for each in applied:
            if each.change is None:
                continue
            if each.change.kind == "add":
                told.append(hooks.item(each.entity.kind, "add", payloads.of(each.entity, {})))
                continue
            told.extend(_update_items(each, payloads.of(each.entity, each.old)))
            if _is_moved(each.change):
                body = hooks.digital_pipeline_body(each.entity, each.old, self._state.account)
                self._outbox.post_digital_pipeline(body)
        self._outbox.post(told)

    def set_deleted(self, entity: Entity, *, deleted: bool, by: int, at: float) -> Change:
        """Move an entity into the trash or out of it, as only people can."""
        kind = "delete" if deleted else "restore"
        entity.is_deleted = deleted
        entity.updated_at, entity.updated_by = int(at), by
        change = self._log(entity, kind, by, at, f"{SINGULAR[entity.kind]}_{kind}d")
        payloads = hooks.Payloads(self._state, self._settings)
        payload = hooks.deleted_payload(entity) if deleted else payloads.of(entity, {})
        self._outbox.post([hooks.item(entity.kind, kind, payload)])
        return change

    def add_note(self, entity: Entity, raw: Json, *, by: int, at: float) -> Json:
        """Attach a note; it does not move the entity's ``updated_at``."""
        params = cast(Json, raw.get("params") or {"text": raw.get("text", "")})
        note: Json = {
            "id": self._state.next_id(),
            "entity_id": entity.id,
            "created_by": raw.get("created_by", by),
            "updated_by": by,
            "created_at": int(at),
            "updated_at": int(at),
            "responsible_user_id": entity.responsible_user_id,
            "group_id": 0,
            "note_type": raw.get("note_type", "common"),
            "params": params,
            "account_id": self._state.account.id,
        }
        self._state.notes.append(note | {"entity_type": entity.kind})
        self._log(entity, "note", by, at, "common_note_added")
        author = self._state.users.get(by)
        zone = ZoneInfo(self._state.account.timezone)
        payload = hooks.note_payload(
            note, entity.kind, self._state.account.id, author.name if author else "", zone
        )
        self._outbox.post([hooks.item(entity.kind, "note", payload)])
        return note

    def _log(self, entity: Entity, kind: str, by: int, at: float, event: str) -> Change:
        change = Change(
            entity.kind, entity.id, kind, at, entity.updated_at, by, (), ((event, [], []),)
        )
        self._state.changes.append(change)
        self._state.version += 1
        return change


def _is_moved(change: Change) -> bool:
    return bool({"status_id", "pipeline_id"} & set(change.fields))


def _update_items(applied: Applied, payload: Json) -> list[hooks.HookItem]:
    """A stage or responsible change is told twice: as update, and under its own name."""
    change = cast(Change, applied.change)
    actions = ["update"]
    if _is_moved(change):
        actions.append("status")
    if "responsible_user_id" in change.fields:
        actions.append("responsible")
    return [hooks.item(applied.entity.kind, action, payload) for action in actions]
