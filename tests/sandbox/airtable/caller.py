"""Calls the model in process, as the tests read best."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote, urlencode

from kommo_airtable_sync.sandbox.airtable.control import handle_control
from kommo_airtable_sync.sandbox.airtable.model import SANDBOX_TOKEN, AirtableModel
from kommo_airtable_sync.sandbox.airtable.schema import Field, Table
from kommo_airtable_sync.sandbox.airtable.schema_edits import new_field
from kommo_airtable_sync.sandbox.airtable.seed import BASE_ID

Json = Any


class TurnedClock:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.at = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=timezone.utc)

    def now(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class Caller:
    """A seeded model with limits off, and short ways to call it."""

    def __init__(self, seed: int = 0) -> None:
        self.clock = TurnedClock()
        self.model = AirtableModel(self.clock, seed=seed)
        self.base = self.model.seed_base()
        self.model.settings.rate_limit = "off"
        self.token = SANDBOX_TOKEN

    def table(self, name: str = "Deals") -> Table:
        found = self.base.find_table(name)
        assert found
        return found

    def field(self, name: str, table: str = "Deals") -> Field:
        return self.table(table).field_of(name)

    def add_field(self, kind: str, name: str, options: Json = None, table: str = "Deals") -> Field:
        definition = {"name": name, "type": kind, "options": options or {}}
        return new_field(self.model.ids, self.table(table), definition, by_person=True)

    def raw(self, method: str, path: str, query: Json = (), body: Json = None):
        content = body if isinstance(body, bytes) else b"" if body is None else _json(body)
        headers = {"Authorization": f"Bearer {self.token}"}
        text = query if isinstance(query, str) else urlencode(list(query))
        return self.model.handle(method, path, text, headers, content)

    def call(self, method: str, path: str, query: Json = (), body: Json = None) -> tuple[int, Json]:
        """``path`` is below the base: ``Deals``, ``Deals/rec...``; absolute if it starts with /."""
        full = path if path.startswith("/") else f"/v0/{BASE_ID}/{quote(path)}"
        answer = self.raw(method, full, query, body)
        return answer.status, json.loads(answer.body)

    def ok(self, method: str, path: str, query: Json = (), body: Json = None) -> Json:
        status, shown = self.call(method, path, query, body)
        assert status == 200, shown
        return shown

    def refused(self, method: str, path: str, query: Json = (), body: Json = None) -> tuple:
        """(status, error type, message)."""
        status, shown = self.call(method, path, query, body)
        assert status >= 400, shown
        error = shown["error"]
        return status, error["type"], error.get("message")

    def create(self, table: str = "Deals", typecast: bool = False, **fields: Json) -> str:
        spelled = {name.replace("_", " "): value for name, value in fields.items()}
        body = {"fields": spelled, "typecast": typecast}
        return self.ok("POST", table, body=body)["id"]

    def set(self, record: str, fields: Json, method: str = "PATCH", **more: Json) -> Json:
        return self.ok(method, f"Deals/{record}", body={"fields": fields, **more})["fields"]

    def refused_value(self, name: str, value: Json, **more: Json) -> tuple:
        return self.refused("POST", "Deals", body={"fields": {name: value}, **more})

    def get(self, record: str, table: str = "Deals") -> Json:
        return self.ok("GET", f"{table}/{record}")["fields"]

    def upsert(
        self, *rows: Json, on: Json = ("Kommo Deal ID",), method: str = "PATCH", **more: Json
    ):
        return self.call(method, "Deals", body=upsert_body(*rows, on=on, **more))

    def names(self, formula: str = "", **query: Json) -> list[str]:
        asked = {"filterByFormula": formula, **query}
        shown = self.ok("GET", "Deals", asked.items())
        return [each["fields"].get("Deal Name", "") for each in shown["records"]]

    def control(
        self, method: str, path: str, body: Json = None, query: Json = ()
    ) -> tuple[int, Json]:
        content = b"" if body is None else _json(body)
        answer = handle_control(
            self.model, method, f"/_control/{path}", urlencode(list(query)), content
        )
        return answer.status, json.loads(answer.body)


def upsert_body(*rows: Json, on: Json = ("Kommo Deal ID",), **more: Json) -> Json:
    records = [row if "fields" in row else {"fields": row} for row in rows]
    return {"performUpsert": {"fieldsToMergeOn": list(on)}, "records": records, **more}


def _json(body: Json) -> bytes:
    return json.dumps(body).encode()
