"""The control surface under ``/_control/``: what people do in Kommo's screens, and the stage crew.

Neither limited nor authenticated: a tool for the same machine. All JSON.

    POST                /_control/leads               one lead or an array, in v4 write shapes
    POST                /_control/leads/bulk          {"leads": [{id, ...}]} | {"ids", "changes"}
    GET, PATCH, DELETE  /_control/leads/{id}          as a person (contacts, companies alike)
    POST                /_control/leads/{id}/restore | /_control/leads/{id}/notes {"text"}
    POST                /_control/seed {"count"} | /_control/reset | /_control/unblock
    GET                 /_control/account             {"leads", "pipelines", "users"}, all of them
    GET                 /_control/changes?since=n | /_control/deliveries (?log=0)
    GET, PATCH          /_control/settings
    GET, POST, DELETE   /_control/faults              a Fault or an array | all
    GET, DELETE         /_control/requests            counts and arrivals | forget
    GET                 /_control/oauth               what became of exchanges
    POST                /_control/oauth/code | /_control/oauth/revoke
    GET, POST           /_control/webhooks            the subscriptions | switch all on again
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from kommo_airtable_sync.sandbox.faults import Fault
from kommo_airtable_sync.sandbox.kommo.answers import Answer, hal, parsed, problem
from kommo_airtable_sync.sandbox.kommo.query import Query
from kommo_airtable_sync.sandbox.kommo.seed import seed_leads
from kommo_airtable_sync.sandbox.kommo.settings import Settings
from kommo_airtable_sync.sandbox.kommo.shapes import Shapes

if TYPE_CHECKING:
    from kommo_airtable_sync.sandbox.kommo.model import KommoModel

Json = dict[str, Any]
_LISTED = (("pipelines", "leads/"), ("users", ""))


class Control:
    """Answers ``/_control/...`` calls. The model's lock is held."""

    def __init__(self, model: KommoModel) -> None:
        self._model = model

    def answer(self, method: str, path: str, query: Query, body: bytes) -> Answer:
        """Route one call.

        Raises:
            Refused: for a body that Kommo would refuse, too.
        """
        parts = path.strip("/").split("/")[1:]
        try:
            match parts:
                case [("leads" | "contacts" | "companies") as kind, *rest]:
                    shown = self._entities(method, kind, rest, body)
                case _:
                    shown = self._crew(method, parts, query, body)
        except (ValidationError, KeyError) as error:
            return problem(400, str(error))
        if shown is None:
            return problem(404, f"No control {method} {path}")
        return hal(shown, 200, "json")

    def _crew(self, method: str, parts: list[str], query: Query, body: bytes) -> Any:
        model = self._model
        match (method, *parts):
            case ("GET", "account"):
                rows = model.state.rows
                leads = [self._shown(each) for each in rows["leads"].values()]
                listed = {key: list(rows[f"{path}{key}"].values()) for key, path in _LISTED}
                return listed | {"leads": [each for each in leads if not each["is_deleted"]]}
            case ("GET", "changes"):
                log = model.state.changes
                return {"changes": log[query.number("since") or 0 :], "next": len(log)}
            case ("GET", "deliveries"):
                log = list(model.outbox.log) if query.number("log") != 0 else []
                return {"deliveries": log, "waiting": model.outbox.unanswered}
            case ("POST", "seed"):
                count = int(parsed(body, dict)["count"])
                return {"ids": seed_leads(model.state, count, model.seed, model.now())}
            case ("POST", "unblock"):
                model.violations = 0
            case ("POST", "reset"):
                model.reset()
                model.seed_account()
            case ("GET" | "PATCH", "settings"):
                asked: Json = parsed(body, dict) if method == "PATCH" else {}
                Settings.model_validate(model.settings.model_dump() | asked)
                for key, value in asked.items():
                    setattr(model.settings, key, value)
                return model.settings.model_dump()
            case ("GET" | "POST" | "DELETE", "faults"):
                faults = _listed(parsed(body, object)) if method == "POST" else []
                for fault in [Fault.model_validate(each) for each in faults]:
                    model.faults.add(fault)
                if method == "DELETE":
                    model.faults.clear()
                return [each.model_dump() for each in model.faults.current()]
            case ("GET" | "DELETE", "requests"):
                if method == "DELETE":
                    model.requests.reset()
                return model.requests.as_json()
            case ("GET", "oauth"):
                return model.oauth.as_json()
            case ("POST", "oauth", "code"):
                return {"code": model.oauth.new_code(model.now())}
            case ("POST", "oauth", "revoke"):
                model.oauth.revoke()
            case ("GET" | "POST", "webhooks"):
                webhooks = list(model.state.rows["webhooks"].values())
                for webhook in webhooks if method == "POST" else ():
                    webhook["disabled"] = False  # what an admin does by hand
                return webhooks
            case _:
                return None
        return {}

    def _entities(self, method: str, kind: str, rest: list[str], body: bytes) -> Any:
        """People at work: create, edit, delete, restore, note, and edit many at once."""
        model, rows, at = self._model, self._model.state.rows[kind], self._model.now()
        row = rows.get(int(rest[0])) if rest and rest[0].isdigit() else None
        change: Json | None = None
        match (method, *rest):
            case ("POST",):
                asked = parsed(body, object)
                done = self._written(kind, [(None, each) for each in _listed(asked)])
                return {"leads": done} if isinstance(asked, list) else done[0]
            case ("POST", "bulk"):
                asked = parsed(body, dict)
                items = asked.get(kind) or [{"id": i} | asked["changes"] for i in asked["ids"]]
                return {"leads": self._written(kind, [(rows[each["id"]], each) for each in items])}
            case _ if row is None:
                return None
            case ("GET", _):
                return {"lead": self._shown(row)}
            case ("PATCH", _):
                return self._written(kind, [(row, parsed(body, dict))])[0]
            case ("DELETE", _):
                change = model.writer.set_deleted(row, deleted=True, by=self._person(), at=at)
            case ("POST", _, "restore"):
                change = model.writer.set_deleted(row, deleted=False, by=self._person(), at=at)
            case ("POST", _, "notes"):
                text = str(parsed(body, dict)["text"])
                model.writer.add_note(row, text, by=self._person(), at=at)
                change = {"changed_at": at}
            case _:
                return None
        return {"lead": self._shown(row), "changed_at": change["changed_at"]}

    def _written(self, kind: str, items: list[tuple[Json | None, Any]]) -> list[Json]:
        model = self._model
        applied = model.writer.write(kind, items, by=self._person(), at=model.now())
        return [
            {"lead": self._shown(each.row), "changed_at": (each.change or {}).get("changed_at")}
            for each in applied
        ]

    def _shown(self, row: Json) -> Json:
        shapes = Shapes(self._model.state, self._model.settings, self._model.account.url)
        return shapes.entity(row, {"contacts", "loss_reason", "leads"})

    def _person(self) -> int:
        """Who clicks: somebody other than the token's user."""
        rights = {key: user["rights"] for key, user in self._model.state.rows["users"].items()}
        return next((k for k, r in rights.items() if r["is_active"] and not r["is_admin"]), 0)


def _listed(raw: Any) -> list[Any]:
    return cast("list[Any]", raw) if isinstance(raw, list) else [raw]
