"""``/_control/``: act as a person in the base, set faults and settings, read what happened.

JSON in and out, no token, no limits: a tool for the same machine.

    GET            /_control/records?table=      all records, fields by name
    POST           /_control/records?table=      {"fields": {..}, "typecast"?} -> record
                                                 {"records": [..any number]} -> records, as the API
    PATCH, DELETE  /_control/records/{id}        the same, as a person (?source=client)
    POST           /_control/fields?table=       {"name", "type", "options"?}
    PATCH, DELETE  /_control/fields/{name|id}?table=   {"name"?, "type"?, "options"?}
    POST           /_control/options/{name|id}?table=  {"name": "a new select option"}
    GET, DELETE    /_control/requests            counts and arrivals (?log=0: counts) | reset
    GET, DELETE    /_control/writes              ?since=sequence &table= &source= | forget
    GET, POST, DELETE  /_control/faults          a Fault | all
    GET, POST, DELETE  /_control/refusals        {"field", "key"}: one lead's field is refused
    GET, POST, DELETE  /_control/automations     an Automation, or with its id | all
    GET, DELETE    /_control/deliveries          what was POSTed (?log=0: how much waits) | forget
    POST           /_control/webhooks/{id}/error {"code"}: the webhook dies of INVALID_FILTERS...
    GET, PATCH     /_control/settings
    POST           /_control/tokens              {"token", "user"?, "scopes"?, "bases"?}
    POST           /_control/reset
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from pydantic import ValidationError

from kommo_airtable_sync.sandbox.airtable.data import Actor
from kommo_airtable_sync.sandbox.airtable.kinds import Writer
from kommo_airtable_sync.sandbox.airtable.listing import show_record
from kommo_airtable_sync.sandbox.airtable.model import AirtableModel
from kommo_airtable_sync.sandbox.airtable.notifying import Automation, break_webhook
from kommo_airtable_sync.sandbox.airtable.refusal import (
    Answer,
    Refusal,
    bad_request,
    json_answer,
    not_found,
    refusal_answer,
)
from kommo_airtable_sync.sandbox.airtable.schema import LINK, Field, Table
from kommo_airtable_sync.sandbox.airtable.schema_edits import (
    body_object,
    check_name,
    drop_field,
    new_field,
    set_options,
)
from kommo_airtable_sync.sandbox.airtable.state import PERSON, State, Token
from kommo_airtable_sync.sandbox.airtable.writing import BATCH, write_records
from kommo_airtable_sync.sandbox.faults import Fault

Json = Any
PREFIX = "/_control/"


def handle_control(model: AirtableModel, method: str, path: str, query: str, body: bytes) -> Answer:
    """Answer one call of the control surface.

    Args:
        model: the stand-in.
        method: HTTP method.
        path: from ``/_control/`` on.
        query: the raw query string.
        body: JSON, or empty.
    """
    parts = [unquote(each) for each in path.removeprefix(PREFIX).split("/")]
    with model.lock:
        try:
            given = body_object(json.loads(body or b"{}"))
            asked = dict(parse_qsl(query))
            edits = parts[0] in ("records", "fields", "options")
            shown = (_edit if edits else _stage)(model, method, parts, asked, given)
            model.tell()
            return json_answer(200, shown)
        except Refusal as refusal:
            return refusal_answer(refusal)
        except ValidationError as error:
            return refusal_answer(bad_request(str(error)))
        except (KeyError, ValueError) as error:
            return refusal_answer(bad_request(f"Not as it should be: {error!r}"))


def begin_airtable(
    model: AirtableModel,
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    body: bytes,
) -> tuple[float, Callable[[], Answer]]:
    """A call of the API or of the control surface arrives: its delay, and what applies it."""
    if path.startswith(PREFIX):
        return 0.0, lambda: handle_control(model, method, path, query, body)
    arrival = model.arrive(method, path, query, headers, body)
    return arrival.delay_seconds, lambda: model.finish(arrival)


def _edit(
    state: State,
    method: str,
    parts: list[str],
    asked: Mapping[str, str],
    given: dict[str, Json],
) -> Json:
    """What a person does in the grid, or somebody else whom ``?source=`` names."""
    actor = Actor(asked.get("source", "client"), PERSON["id"], state.clock.now())
    table = _table(
        state, asked.get("table", ""), parts[1] if parts[0] == "records" and parts[1:] else ""
    )
    match method, parts:
        case "GET", ["records"]:
            records = table.records.values()
            return {"records": [show_record(state, table, each, {}) for each in records]}
        case "POST", ["records"] if "records" in given:
            rows = list[Json](given["records"])
            parts_of_ten = (rows[at : at + BATCH] for at in range(0, len(rows), BATCH))
            written = (
                write_records(state, table, {**given, "records": some}, actor, creates=True)
                for some in parts_of_ten
            )
            shown = [show_record(state, table, r, given) for w in written for r in w.records]
            return {"records": shown}
        case "POST" | "PATCH", ["records", *ids] if len(ids) == (method == "PATCH"):
            row = {"fields": given.get("fields"), **({"id": ids[0]} if ids else {})}
            body = {"records": [row], "typecast": given.get("typecast")}
            written = write_records(state, table, body, actor, creates=not ids)
            return show_record(state, table, written.records[0], {})
        case "DELETE", ["records", record_id]:
            state.data.delete(table, table.records[record_id], actor)
            return {"id": record_id, "deleted": True}
        case "POST", ["fields"]:
            return new_field(state.ids, table, given, by_person=True).json()
        case "PATCH", ["fields", name]:
            return _change_field(state, table, table.field_of(name), given)
        case "DELETE", ["fields", name]:
            field = table.field_of(name)
            if field is table.primary:
                raise bad_request("The primary field cannot be deleted")
            drop_field(table, field)
            return {"id": field.id, "deleted": True}
        case "POST", ["options", name]:
            table.field_of(name).add_choice(state.ids, str(given["name"]))
            return table.field_of(name).json()
        case _:
            raise not_found()


def _table(state: State, name: str, record_id: str) -> Table:
    for base in state.bases.values():
        for table in base.tables.values():
            if record_id in table.records or (not record_id and base.find_table(name) is table):
                return table
    raise not_found()


def _add_automation(state: State, automation: Automation) -> None:
    """By ids from now on, so that nothing renamed stops it; as in Airtable."""
    table = _table(state, automation.table, "")
    watch, send = (
        tuple(table.field_of(each).id for each in names)
        for names in (automation.watch, automation.send)
    )
    by_id = {"table": table.id, "watch": watch, "send": send}
    state.automations[state.ids.new("wfl")] = automation.model_copy(update=by_id)


def _change_field(state: State, table: Table, field: Field, given: dict[str, Json]) -> Json:
    """Rename, or retype: values that do not fit the new type as they are are lost."""
    name = str(given.get("name", field.name))
    check_name(table, name, field)
    field.name = name
    if "type" in given:
        retyped = Field(field.id, name, str(given["type"]))
        if LINK in (field.type, retyped.type):
            raise bad_request("A link stays a link")
        set_options(state.ids, retyped, given.get("options") or {})
        table.fields[field.id] = retyped
        table.indexes.pop(field.id, None)
        writer = Writer(table, state.ids, state.users)
        for record in table.records.values():
            if field.id in record.cells:
                _refit(writer, retyped, record.cells)
    return table.fields[field.id].json()


def _refit(writer: Writer, field: Field, cells: dict[str, Json]) -> None:
    try:
        cells[field.id] = writer.cell(field, cells[field.id])
    except Refusal:
        del cells[field.id]


def _stage(
    state: State,
    method: str,
    parts: list[str],
    asked: Mapping[str, str],
    given: dict[str, Json],
) -> Json:
    """Logs, faults and settings."""
    whole = asked.get("log") != "0"
    match method, parts:
        case "GET", ["requests"]:
            shown = state.requests.as_json()
            return shown if whole else {**shown, "log": []}
        case "DELETE", ["requests"]:
            state.requests.reset()
        case "GET", ["writes"]:
            table, source = asked.get("table"), asked.get("source")
            changes = state.data.changes_since(int(asked.get("since", 0)))
            changes = [e for e in changes if table in (None, e.table.name, e.table.id)]
            return {"writes": [e.json() for e in changes if source in (None, e.actor.source)]}
        case "DELETE", ["writes"]:
            state.data.changes.clear()
        case "POST", ["faults"]:
            state.faults.add(Fault.model_validate(given))
        case "DELETE", ["faults"]:
            state.faults.clear()
        case "POST", ["refusals"]:
            state.refused.add((str(given["field"]), str(given["key"])))
        case "DELETE", ["refusals"]:
            state.refused.clear()
        case "PATCH", ["settings"]:
            wrong = set(given) - set(type(state.settings).model_fields)
            if wrong:
                raise bad_request(f"No such settings: {wrong}")
            for name, value in given.items():
                setattr(state.settings, name, value)
        case "POST", ["tokens"]:
            secret = str(given.pop("token"))
            state.tokens[secret] = Token.model_validate(given)
        case "POST", ["reset"]:
            state.reset()
        case "POST", ["automations"]:
            _add_automation(state, Automation.model_validate(given))
        case "DELETE", ["automations", automation_id]:
            del state.automations[automation_id]
        case "DELETE", ["automations"]:
            state.automations.clear()
        case "DELETE", ["deliveries"]:
            state.outbox.log.clear()
        case "POST", ["webhooks", webhook_id, "error"]:
            break_webhook(state, state.webhooks[webhook_id], str(given["code"]))
        case "GET", ["automations" | "deliveries" | "faults" | "refusals" | "settings"]:
            pass
        case _:
            raise not_found()
    return _shown(state, parts[0], whole=whole)


def _shown(state: State, what: str, *, whole: bool) -> Json:
    """How things now stand, which is the answer to setting them as well."""
    refused = [{"field": field, "key": key} for field, key in sorted(state.refused)]
    automations = [{"id": k, **each.model_dump()} for k, each in state.automations.items()]
    log = list(state.outbox.log) if whole else []
    shown: dict[str, Json] = {
        "automations": {"automations": automations},
        "deliveries": {"deliveries": log, "waiting": state.outbox.unanswered},
        "settings": state.settings.model_dump(),
        "faults": {"faults": [each.model_dump() for each in state.faults.current()]},
        "refusals": {"refusals": refused},
    }
    return shown.get(what, {})
