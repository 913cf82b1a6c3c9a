"""``/_control/``: act as a person in the base, set faults and settings, read what happened.

JSON in and out, no token, no limits: a tool for the same machine.

    GET            /_control/records?table=      all records, fields by name
    POST           /_control/records?table=      {"fields": {..}, "typecast"?} -> record
    PATCH, DELETE  /_control/records/{id}        the same, as a person (source "client")
    POST           /_control/fields?table=       {"name", "type", "options"?}
    PATCH, DELETE  /_control/fields/{name|id}?table=   {"name"?, "type"?, "options"?}
    POST           /_control/options/{name|id}?table=  {"name": "a new select option"}
    GET, DELETE    /_control/requests            counts and arrivals (?log=0: counts) | reset
    GET, DELETE    /_control/writes              ?since=sequence &table= &source= | forget
    GET, POST, DELETE  /_control/faults          a Fault | all
    GET, POST, DELETE  /_control/refusals        {"field", "key"}: one lead's field is refused
    GET, PATCH     /_control/settings
    POST           /_control/tokens              {"token", "user"?, "scopes"?, "bases"?, "role"?}
    POST           /_control/reset
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from pydantic import ValidationError

from kommo_airtable_sync.sandbox.airtable.access import Token
from kommo_airtable_sync.sandbox.airtable.answers import Answer, json_answer, refusal_answer
from kommo_airtable_sync.sandbox.airtable.cells import Writer, as_text
from kommo_airtable_sync.sandbox.airtable.data import Actor
from kommo_airtable_sync.sandbox.airtable.meta import rename_field
from kommo_airtable_sync.sandbox.airtable.model import PERSON, AirtableModel
from kommo_airtable_sync.sandbox.airtable.reading import Reader
from kommo_airtable_sync.sandbox.airtable.refusal import Refusal, bad_request, not_found, typed
from kommo_airtable_sync.sandbox.airtable.schema import (
    Base,
    Field,
    Table,
    new_choice,
    new_field,
)
from kommo_airtable_sync.sandbox.airtable.writing import Writing, body_object
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
    with model.lock:
        control = _Control(model, dict(parse_qsl(query)))
        try:
            parts = [unquote(each) for each in path.removeprefix(PREFIX).split("/")]
            return json_answer(200, control.serve(method, parts, json.loads(body or b"{}")))
        except Refusal as refusal:
            return refusal_answer(refusal)
        except ValidationError as error:
            return refusal_answer(bad_request(str(error)))
        except ValueError:
            return refusal_answer(bad_request("The body is not JSON, or a number is not one"))


class _Control:
    def __init__(self, model: AirtableModel, query: Mapping[str, str]) -> None:
        self._model = model
        self._query = query

    def serve(self, method: str, parts: list[str], body: Json) -> Json:
        given = body_object(body)
        match parts:
            case ["records" | "fields" | "options", *_]:
                return self._edit(method, parts, given)
            case ["requests" | "writes" as which]:
                return self._log(method, which)
            case ["faults"]:
                return self._faults(method, given)
            case ["refusals"]:
                return self._refusals(method, given)
            case ["settings"] if method in ("GET", "PATCH"):
                for name, value in given.items():
                    if name not in type(self._model.settings).model_fields:
                        raise bad_request(f"No such setting: {name}")
                    setattr(self._model.settings, name, value)
                return self._model.settings.model_dump()
            case ["tokens"] if method == "POST":
                secret = str(given.pop("token", ""))
                self._model.tokens[secret] = Token.model_validate({"user": PERSON["id"], **given})
                return {}
            case ["reset"] if method == "POST":
                self._model.reset()
                return {}
            case _:
                raise not_found()

    def _edit(self, method: str, parts: list[str], given: dict[str, Json]) -> Json:
        match method, parts:
            case "GET", ["records"]:
                base, table = self._table()
                reader = Reader(base, self._model.users, self._model.clock.now())
                return {"records": [reader.record(table, r) for r in table.records.values()]}
            case "POST", ["records"]:
                base, table = self._table()
                return self._write_record(base, table, "", given)
            case (("PATCH" | "DELETE"), ["records", record_id]):
                base, table = self._table_with(record_id)
                if method == "PATCH":
                    return self._write_record(base, table, record_id, given)
                self._model.data.delete(base, table, table.records[record_id], self._person())
                return {"id": record_id, "deleted": True}
            case "POST", ["fields"]:
                base, table = self._table()
                return new_field(self._model.ids, base, table, given, any_type=True).json()
            case (("PATCH" | "DELETE"), ["fields", name]):
                base, table = self._table()
                field = table.field_of(name)
                if method == "DELETE":
                    return self._delete_field(base, table, field)
                return self._change_field(base, table, field, given)
            case "POST", ["options", name]:
                field = self._table()[1].field_of(name)
                field.choices.append(new_choice(self._model.ids, str(given["name"])))
                return field.json()
            case _:
                raise not_found()

    def _person(self) -> Actor:
        return Actor("client", PERSON["id"], self._model.clock.now())

    def _table(self) -> tuple[Base, Table]:
        wanted = self._query.get("table", "")
        for base in self._model.bases.values():
            table = base.find_table(wanted)
            if table is not None:
                return base, table
        raise typed(404, "NO_SUCH_TABLE", f'No table "{wanted}": give ?table=name or id')

    def _table_with(self, record_id: str) -> tuple[Base, Table]:
        for base in self._model.bases.values():
            for table in base.tables.values():
                if record_id in table.records:
                    return base, table
        raise typed(404, "NO_SUCH_RECORD", f"No record {record_id}")

    def _write_record(
        self, base: Base, table: Table, record_id: str, given: dict[str, Json]
    ) -> Json:
        model = self._model
        writing = Writing(model.data, model.ids, model.users, model.settings, set())
        actor = self._person()
        body = {"fields": given.get("fields"), "typecast": given.get("typecast")}
        if record_id:
            written = writing.update_one(base, table, record_id, body, actor, replace=False)
        else:
            written = writing.create(base, table, body, actor)
        return Reader(base, model.users, actor.at).record(table, written.records[0])

    def _change_field(self, base: Base, table: Table, field: Field, given: dict[str, Json]) -> Json:
        rename_field(table, field, str(given.get("name", field.name)))
        if "type" in given:
            self._retype(base, table, field, str(given["type"]), given.get("options") or {})
        return field.json()

    def _retype(self, base: Base, table: Table, field: Field, kind: str, options: Json) -> None:
        """As in the UI: values that the new type cannot take are lost."""
        if "choices" in options:
            ids = self._model.ids
            options["choices"] = [new_choice(ids, each["name"]) for each in options["choices"]]
        table.indexes.pop(field.id, None)
        field.type, field.options = kind, options
        writer = Writer(base, self._model.ids, self._model.users, typecast=True)
        for record in table.records.values():
            old = record.cells.pop(field.id, None)
            try:
                new = None if old is None else writer.cell(field, _retypable(old, kind))
            except Refusal:
                new = None
            if new is not None:
                record.cells[field.id] = new
        self._model.data.create_missing(base, writer, self._person())

    def _delete_field(self, base: Base, table: Table, field: Field) -> Json:
        if field is table.primary:
            raise bad_request("The primary field cannot be deleted")
        inverse_id = field.options.get("inverseLinkFieldId")
        if inverse_id:
            other = base.tables[field.options["linkedTableId"]]
            _drop_field(other, other.fields[inverse_id])
        _drop_field(table, field)
        return {"id": field.id, "deleted": True}

    def _log(self, method: str, which: str) -> Json:
        data, log = self._model.data, self._model.requests
        if method == "DELETE":
            (log.reset if which == "requests" else data.changes.clear)()
            return {}
        if which == "requests":
            shown = log.as_json()
            return {**shown, "log": []} if self._query.get("log") == "0" else shown
        table, source = self._query.get("table"), self._query.get("source")
        found = [
            each.json()
            for each in data.changes_since(int(self._query.get("since", 0)))
            if table in (None, each.table.name, each.table.id)
            and source in (None, each.actor.source)
        ]
        return {"writes": found}

    def _faults(self, method: str, given: dict[str, Json]) -> Json:
        if method == "DELETE":
            self._model.faults.clear()
        elif method == "POST":
            self._model.faults.add(Fault.model_validate(given))
        return {"faults": [each.model_dump() for each in self._model.faults.current()]}

    def _refusals(self, method: str, given: dict[str, Json]) -> Json:
        refused = self._model.refused
        if method == "DELETE":
            refused.clear()
        elif method == "POST":
            refused.add((str(given["field"]), str(given["key"])))
        return {"refusals": [{"field": each, "key": key} for each, key in sorted(refused)]}


def _retypable(value: Json, kind: str) -> Json:
    return [value] if kind == "multipleSelects" and isinstance(value, str) else as_text(value)


def _drop_field(table: Table, field: Field) -> None:
    del table.fields[field.id]
    table.rename_fields()
    table.indexes.pop(field.id, None)
    for record in table.records.values():
        record.cells.pop(field.id, None)
