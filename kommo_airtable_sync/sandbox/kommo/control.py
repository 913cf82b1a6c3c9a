"""The control surface under ``/_control/``: what people do in Kommo's screens, and the stage crew.

Loopback only, so neither limited nor authenticated. All JSON.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from kommo_airtable_sync.sandbox.faults import Fault
from kommo_airtable_sync.sandbox.kommo import seed
from kommo_airtable_sync.sandbox.kommo.api import json_of, object_of
from kommo_airtable_sync.sandbox.kommo.problems import Answer, problem
from kommo_airtable_sync.sandbox.kommo.query import Query
from kommo_airtable_sync.sandbox.kommo.settings import Settings
from kommo_airtable_sync.sandbox.kommo.shapes import Shapes
from kommo_airtable_sync.sandbox.kommo.state import Change, Entity
from kommo_airtable_sync.sandbox.kommo.writes import Applied

if TYPE_CHECKING:
    from kommo_airtable_sync.sandbox.kommo.model import KommoModel

Json = dict[str, Any]
_ALL_WITH = {"contacts", "loss_reason", "leads"}


class Control:
    """Answers ``/_control/...`` calls. The model's lock is held.

    Args:
        model: whose control this is.
    """

    def __init__(self, model: KommoModel) -> None:
        self._model = model

    def answer(self, method: str, path: str, query: Query, body: bytes) -> Answer:
        """Route one call.

        Raises:
            Refused: for a body that Kommo would refuse, too.
        """
        parts = path.strip("/").split("/")[1:]
        try:
            match (method, *parts):
                case (_, ("leads" | "contacts" | "companies") as kind, *rest):
                    return self._entities(method, kind, rest, body)
                case (_, ("settings" | "faults" | "requests" | "webhooks") as name):
                    return self._crew(method, name, body)
                case ("GET", "changes"):
                    return _json(self._changes(query))
                case ("GET", "deliveries"):
                    log = list(self._model.outbox.log)
                    return _json({"deliveries": log, "waiting": len(self._model.outbox)})
                case ("POST", "seed"):
                    count = int(object_of(body)["count"])
                    made = seed.seed_leads(self._model.state, count, self._model.seed, self._now())
                    return _json({"ids": made})
                case ("POST", "unblock"):
                    self._model.violations = 0
                    return _json({})
                case ("POST", "reset"):
                    self._model.reset()
                    self._model.seed_account()
                    return _json({})
                case _:
                    return problem(404, f"No control {method} {path}")
        except (ValidationError, KeyError) as error:
            return problem(400, str(error))

    def _crew(self, method: str, name: str, body: bytes) -> Answer:
        """Settings, faults, the request log and the subscriptions."""
        model = self._model
        match (name, method):
            case ("settings", "PATCH"):
                asked = Settings.model_validate(model.settings.model_dump() | object_of(body))
                for key in asked.model_fields_set:
                    setattr(model.settings, key, getattr(asked, key))
            case ("faults", "POST"):
                raw = json_of(body)
                faults = [Fault.model_validate(each) for each in _listed(raw)]
                for fault in faults:
                    model.faults.add(fault)
            case ("faults", "DELETE"):
                model.faults.clear()
            case ("requests", "DELETE"):
                model.requests.reset()
            case ("webhooks", "POST"):  # what an admin does by hand: switch all on again
                for webhook in model.state.webhooks.values():
                    model.outbox.enable(webhook)
            case (_, "GET"):
                pass
            case _:
                return problem(405)
        shown: dict[str, Any] = {
            "settings": model.settings.model_dump(),
            "faults": [each.model_dump() for each in model.faults.current()],
            "requests": model.requests.as_json() if name == "requests" else None,
            "webhooks": [asdict(each) for each in model.state.webhooks.values()],
        }
        return _json(shown[name])

    def _entities(self, method: str, kind: str, rest: list[str], body: bytes) -> Answer:
        """People at work: create, edit, delete, restore, note, and edit many at once."""
        match (method, *rest):
            case ("POST",):
                asked = json_of(body)
                return self._written(kind, [(None, each) for each in _listed(asked)], asked)
            case ("POST", "bulk"):
                return self._bulk(kind, object_of(body))
            case (_, number, *action) if number.isdigit():
                entity = self._model.state.entities[kind].get(int(number))
                return self._one(method, action, entity, body) if entity else problem(404)
            case _:
                return problem(404)

    def _one(self, method: str, action: list[str], entity: Entity, body: bytes) -> Answer:
        changes, by, at = self._model.changes, self._person(), self._now()
        match (method, *action):
            case ("GET",):
                return _json({"lead": self._shown(entity)})
            case ("PATCH",):
                return self._written(entity.kind, [(entity, object_of(body))], {})
            case ("DELETE",):
                change = changes.set_deleted(entity, deleted=True, by=by, at=at)
            case ("POST", "restore"):
                change = changes.set_deleted(entity, deleted=False, by=by, at=at)
            case ("POST", "notes"):
                changes.add_note(entity, object_of(body), by=by, at=at)
                change = self._model.state.changes[-1]
            case _:
                return problem(405)
        return _json({"lead": self._shown(entity), "changed_at": change.changed_at})

    def _bulk(self, kind: str, asked: Json) -> Answer:
        """``{"leads": [{id, ...}]}``, or ``{"ids": [...], "changes": {...}}`` for all the same."""
        items: list[Json] = asked.get(kind) or [{"id": i} | asked["changes"] for i in asked["ids"]]
        entities = self._model.state.entities[kind]
        return self._written(kind, [(entities[each["id"]], each) for each in items], [])

    def _written(self, kind: str, items: list[tuple[Entity | None, Any]], asked: Any) -> Answer:
        applied = self._model.changes.write(kind, items, by=self._person(), at=self._now())
        rows = [self._row(each) for each in applied]
        return _json({"leads": rows} if isinstance(asked, list) else rows[0])

    def _row(self, applied: Applied) -> Json:
        changed_at = applied.change.changed_at if applied.change else None
        return {"lead": self._shown(applied.entity), "changed_at": changed_at}

    def _shown(self, entity: Entity) -> Json:
        model = self._model
        return Shapes(model.state, model.settings, model.account.url).entity(entity, _ALL_WITH)

    def _changes(self, query: Query) -> Json:
        """The log, from the ``since``-th change on."""
        since = query.number("since") or 0
        log = self._model.state.changes
        return {"changes": [_change(each) for each in log[since:]], "next": len(log)}

    def _person(self) -> int:
        """Who clicks: somebody other than the token's user."""
        users = self._model.state.users.values()
        return next((each.id for each in users if each.is_active and not each.is_admin), 0)

    def _now(self) -> float:
        return self._model.now()


def _listed(raw: Any) -> list[Any]:
    return cast("list[Any]", raw) if isinstance(raw, list) else [raw]


def _change(change: Change) -> Json:
    return {
        "lead_id": change.entity_id,
        "entity_type": change.entity_type,
        "kind": change.kind,
        "changed_at": change.changed_at,
        "updated_at": change.updated_at,
        "by": change.by,
        "fields": list(change.fields),
    }


def _json(payload: Any) -> Answer:
    body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    return Answer(200, {"content-type": "application/json"}, body)
