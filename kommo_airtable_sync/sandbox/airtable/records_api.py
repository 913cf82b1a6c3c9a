"""The record routes: who may, which table, and then listing, reading or writing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kommo_airtable_sync.sandbox.airtable.access import Token
from kommo_airtable_sync.sandbox.airtable.data import Actor
from kommo_airtable_sync.sandbox.airtable.listing import Listings, flag
from kommo_airtable_sync.sandbox.airtable.reading import Reader
from kommo_airtable_sync.sandbox.airtable.refusal import (
    Refusal,
    bad_request,
    not_found,
    not_permitted,
    not_yours,
    typed,
)
from kommo_airtable_sync.sandbox.airtable.routes import Route
from kommo_airtable_sync.sandbox.airtable.schema import Base, Table, is_id
from kommo_airtable_sync.sandbox.airtable.settings import Settings
from kommo_airtable_sync.sandbox.airtable.writing import Writing, Written, body_object

Json = Any


@dataclass(frozen=True, slots=True)
class RecordsCall:
    """One call on records.

    Args:
        method: HTTP method.
        route: where to.
        query: by name; ``x[]`` as lists, ``sort[i][..]`` as objects.
        body: the JSON body, None without one.
        token: the caller.
        now: aware UTC.
    """

    method: str
    route: Route
    query: Mapping[str, Json]
    body: Json
    token: Token
    now: datetime

    @property
    def lists(self) -> bool:
        """Whether it is a list, in either form."""
        by_post = self.route.name.endswith("/listRecords")
        return by_post or (self.method == "GET" and not self.route.item)

    @property
    def by_id(self) -> bool:
        """``returnFieldsByFieldId``, from the body or the query."""
        name = "returnFieldsByFieldId"
        body = self.body
        in_body = isinstance(body, dict) and flag(body_object(body).get(name))
        return in_body or flag(self.query.get(name))


class RecordsApi:
    """The routes under ``/v0/{base}/{table}``."""

    def __init__(
        self,
        bases: Mapping[str, Base],
        users: dict[str, dict[str, str]],
        settings: Settings,
        listings: Listings,
        writing: Writing,
    ) -> None:
        self._bases = bases
        self._users = users
        self._settings = settings
        self._listings = listings
        self._writing = writing

    def matches(self, route: Route, body: Json) -> Mapping[int, list[str]] | None:
        """What an upsert's records match now; None if there is no such table."""
        base = self._bases.get(route.base)
        table = base.find_table(route.table) if base else None
        return None if base is None or table is None else self._writing.matches(base, table, body)

    def serve(
        self, call: RecordsCall, base: Base, found: Mapping[int, list[str]] | None = None
    ) -> Json:
        """The JSON of a 200.

        Args:
            call: the call.
            base: its base, which the token sees.
            found: upsert matches taken when the call arrived; None = match now.

        Raises:
            Refusal: anything else.
        """
        reads = call.method == "GET" or call.lists
        _check_method(call)
        scope = "data.records:read" if reads else "data.records:write"
        call.token.require(base.id, scope)
        table = base.table_of(call.route.table, legacy=self._settings.missing == "404")
        if not reads and not call.token.can("edit"):
            verb = {"POST": "create", "DELETE": "delete"}.get(call.method, "update")
            raise not_permitted(f"{verb} records in table {table.name} ({table.id})")
        reader = Reader(base, self._users, call.now)
        if call.lists:
            life = self._settings.offset_life_seconds
            return self._listings.page(table, reader, _list_parameters(call), call.now, life)
        if reads:
            return self._get(base, table, call, reader)
        if call.method == "DELETE":
            return self._delete(base, table, call)
        return self._write(base, table, call, reader, found)

    def _missing_record(self) -> Refusal:
        if self._settings.missing == "404":
            return typed(404, "MODEL_ID_NOT_FOUND", "Record not found")
        return not_yours()

    def _get(self, base: Base, table: Table, call: RecordsCall, reader: Reader) -> Json:
        """Not in the table asked: Airtable searches the whole base (AT:get-record)."""
        record_id = call.route.item
        for each in (table, *base.tables.values()):
            if record_id in each.records:
                return reader.record(each, each.records[record_id], by_id=call.by_id)
        raise self._missing_record()

    def _delete(self, base: Base, table: Table, call: RecordsCall) -> Json:
        item, actor = call.route.item, Actor("publicApi", call.token.user, call.now)
        if item and item not in table.records:
            raise self._missing_record()
        ids = [item] if item else list[str](call.query.get("records") or [])
        if not all(is_id(each, "rec") for each in ids):
            raise bad_request()
        answer = self._writing.delete(base, table, ids, actor)
        return answer["records"][0] if item else answer

    def _write(
        self,
        base: Base,
        table: Table,
        call: RecordsCall,
        reader: Reader,
        found: Mapping[int, list[str]] | None,
    ) -> Json:
        body, actor = body_object(call.body), Actor("publicApi", call.token.user, call.now)
        replace = call.method == "PUT"
        single = bool(call.route.item) or (call.method == "POST" and "records" not in body)
        if call.route.item:
            item = call.route.item
            written = self._writing.update_one(base, table, item, body, actor, replace=replace)
        elif call.method == "POST":
            written = self._writing.create(base, table, body, actor)
        else:
            written = self._writing.update(base, table, body, actor, replace=replace, found=found)
        shown = [reader.record(table, each, by_id=call.by_id) for each in written.records]
        return shown[0] if single else {**_upserted(written), "records": shown}


def _check_method(call: RecordsCall) -> None:
    allowed = {
        "/v0/{base}/{table}": ("GET", "POST", "PATCH", "PUT", "DELETE"),
        "/v0/{base}/{table}/listRecords": ("POST",),
        "/v0/{base}/{table}/{record}": ("GET", "PATCH", "PUT", "DELETE"),
    }
    if call.method not in allowed[call.route.name]:
        raise not_found()


def _list_parameters(call: RecordsCall) -> Mapping[str, Json]:
    """On POST the body's, but for time zone and locale, which stay in the query (1.2)."""
    if call.method == "GET":
        return call.query
    in_query = {name: call.query.get(name) for name in ("timeZone", "userLocale")}
    return {**body_object({} if call.body is None else call.body), **in_query}


def _upserted(written: Written) -> Json:
    if not written.upsert:
        return {}
    created = set(written.created)
    updated = [each.id for each in written.records if each.id not in created]
    return {"createdRecords": written.created, "updatedRecords": updated}
