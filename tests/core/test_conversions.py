"""Every pair of the types table, through both stand-ins and the real clients, both ways.

A value is put into Kommo, read, converted, written to Airtable and read again; where the way back is
allowed, it is converted back, written to another lead and read again. Many rows go in one request.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
import requests

from kommo_airtable_sync.airtable.client import AirtableClient
from kommo_airtable_sync.core.canonical import is_blank, same
from kommo_airtable_sync.core.codecs import CELL_KINDS
from kommo_airtable_sync.core.destinations import patched
from kommo_airtable_sync.core.errors import LeadFailed
from kommo_airtable_sync.core.field_mapping import FieldMapping
from kommo_airtable_sync.core.resolving import PEOPLE
from kommo_airtable_sync.core.schemas import AirtableField, KommoSchema
from kommo_airtable_sync.core.sources import (
    CUSTOM_KINDS,
    READABLE,
    custom_field_source,
    custom_values,
)
from kommo_airtable_sync.core.types import Canonical
from kommo_airtable_sync.kommo.client import KommoClient
from kommo_airtable_sync.sandbox.airtable.model import SANDBOX_TOKEN as AIRTABLE_TOKEN
from kommo_airtable_sync.sandbox.airtable.model import AirtableModel
from kommo_airtable_sync.sandbox.airtable.schema_edits import new_table
from kommo_airtable_sync.sandbox.airtable.seed import BASE_ID
from kommo_airtable_sync.sandbox.airtable.settings import Settings as AirtableSettings
from kommo_airtable_sync.sandbox.kommo.model import KommoModel
from kommo_airtable_sync.sandbox.kommo.settings import SANDBOX_TOKEN as KOMMO_TOKEN
from kommo_airtable_sync.sandbox.kommo.settings import Account
from kommo_airtable_sync.sandbox.kommo.settings import Settings as KommoSettings
from tests.conftest import HandClock
from tests.core.conversion_cases import (
    REFUSED,
    TYPED,
    ZONES,
    cell_of,
    inputs,
    plainly,
    wanted,
)
from tests.core.pairs import BOTH_WAYS, OPTIONS, TARGETS, source_of
from tests.kommo.loopback import CountingBudget
from tests.simulated import AIRTABLE_URL, KOMMO_URL
from tests.wire import Wire, body_of

Json = Any
OPTIONS_OF: dict[str, Json] = {
    "currency": {"precision": 2, "symbol": "$"},
    "rating": {"max": 5, "icon": "star", "color": "yellowBright"},
    "duration": {"durationFormat": "h:mm"},
    "date": {"dateFormat": {"name": "iso"}},
    "dateTime": {"timeZone": "utc"},
    "checkbox": {"icon": "check", "color": "greenBright"},
    **{type_: {"precision": 8} for type_ in ("number", "percent")},
    **{
        type_: {"choices": [{"name": name} for name in OPTIONS]}
        for type_ in ("singleSelect", "multipleSelects")
    },
}


# The stand-in's leads have neither score nor source, and no id is a rating from 1 to 5.
NEVER_FILLED = {
    *((name, type_) for name in ("score", "source") for type_ in TARGETS[name]),
    ("id", "rating"),
}


class Row(NamedTuple):
    """One value of one pair: what went in, and what it shall be in Airtable's terms."""

    name: str
    field: FieldMapping
    item: Json
    wanted: Canonical

    def __str__(self) -> str:
        return f"{self.name} -> {self.field.type}, {str(self.item)[:200]}"


class Accounts:
    """An account with a field of every type, and a base with a table of every type."""

    def __init__(self, zone: str) -> None:
        clock = HandClock()
        settings = KommoSettings(requests_per_second=100_000, decimal_price=True)
        self.kommo_model = KommoModel(clock, account=Account(timezone=zone), settings=settings)
        self.kommo_model.seed_account()
        state = self.kommo_model.state
        for n, type_ in enumerate((*CUSTOM_KINDS, *READABLE)):
            many = CUSTOM_KINDS.get(type_) in {"option", "set"}
            values = (
                OPTIONS if many else ("WORK",) if type_ in {"multitext", "smart_address"} else ()
            )
            enums = tuple((9_000_000 + n * 100 + i, value, None) for i, value in enumerate(values))
            state.add_field("leads", 1_500_000 + n, type_, type_, enums=enums)
        model = AirtableModel(clock, settings=AirtableSettings(rate_limit="off"))
        for user in state.rows["users"].values():
            known = {"id": f"usr{user['id']:014}", "email": user["email"], "name": user["name"]}
            model.users[known["id"]] = known
        fields = [
            {"name": type_, "type": type_, "options": OPTIONS_OF.get(type_)}
            for type_ in ("number", *CELL_KINDS)
            if type_ != "multipleRecordLinks"  # of contacts and companies: tests/engine
        ]
        fields[0]["name"] = "Key"
        self.table = new_table(model.ids, model.seed_base(), "Everything", fields)
        session = requests.Session()
        session.mount(KOMMO_URL, Wire(self._to_kommo, clock))
        self.kommo = KommoClient(
            KOMMO_URL, lambda: KOMMO_TOKEN, CountingBudget(), clock=clock, session=session
        )
        self.airtable = AirtableClient(
            AIRTABLE_TOKEN, BASE_ID, AIRTABLE_URL, CountingBudget(), clock
        )
        self.airtable_model = model
        self.airtable._api.session.mount(AIRTABLE_URL, Wire(self._to_airtable, clock))
        self.schema = KommoSchema.from_api(
            pipelines=self.kommo.pipelines(),
            users=self.kommo.users() or [],
            custom_fields=self.kommo.custom_fields("leads"),
            loss_reasons=self.kommo.loss_reasons(),
            account=self.kommo.account(),
        )
        table = next(t for t in self.airtable.tables() if t["id"] == self.table.id)
        self.fields = {f["name"]: AirtableField.model_validate(f) for f in table["fields"]}

    def _to_kommo(self, request: requests.PreparedRequest) -> Any:
        path, _, query = request.path_url.partition("?")
        arrival = self.kommo_model.arrive(str(request.method), path, query, request.headers)
        return 0, lambda: self.kommo_model.apply(arrival, body_of(request))

    def _to_airtable(self, request: requests.PreparedRequest) -> Any:
        path, _, query = request.path_url.partition("?")
        arrival = self.airtable_model.arrive(
            str(request.method), path, query, request.headers, body_of(request)
        )
        return 0, lambda: self.airtable_model.finish(arrival)

    def field(self, name: str, type_: str) -> FieldMapping:
        as_person = name in PEOPLE and CELL_KINDS[type_] == "person"
        (custom,) = self.schema.find_fields(name.removeprefix("custom ")) or (None,)
        return FieldMapping(
            target=self.fields[type_],
            source=custom_field_source(custom, self.schema)
            if custom and name.startswith("custom ")
            else source_of(name, self.schema, as_person=as_person),
            owner="both",
            on_conflict="kommo",
            create_options=True,
            fingerprint="",
            schema=self.schema,
        )

    def leads(self, items: Iterable[Json]) -> list[Json]:
        """Somebody creates leads; as the API shows them."""
        body = json.dumps(list(items)).encode()
        status, _, answer = self.kommo_model.handle("POST", "/_control/leads", "", {}, body)
        assert status == 200, answer
        ids = [row["lead"]["id"] for row in json.loads(answer)["leads"]]
        found = self.kommo.leads_by_id(ids)
        return [found[lead_id] for lead_id in ids]

    def records(self, cells: list[tuple[FieldMapping, Json]]) -> list[Json]:
        """Write one record for each cell, in tens; the cells as a later reading shows them."""
        key = self.fields["Key"].id
        for start in range(0, len(cells), 10):
            rows = [
                (None, {key: start + n, field.id: cell})
                for n, (field, cell) in enumerate(cells[start : start + 10])
            ]
            self.airtable.upsert(self.table.id, key, rows, typecast=True)
        shown: dict[int, Json] = {}
        for page in self.airtable.record_pages(self.table.id, []):
            shown.update({record["fields"][key]: record["fields"] for record in page})
        return [shown[n].get(field.id) for n, (field, _) in enumerate(cells)]


@pytest.fixture(params=ZONES)
def accounts(request: pytest.FixtureRequest) -> Accounts:
    return Accounts(request.param)


def rows_of(accounts: Accounts, pairs: dict[str, list[str]]) -> list[Row]:
    zone = accounts.schema.time_zone
    return [
        Row(name, field, {"name": "x"} | item, wanted(value, field.source.kind, type_, zone))
        for name, types in pairs.items()
        for type_ in types
        for field in [accounts.field(name, type_)]
        for item, value in inputs(name, accounts.schema, as_person=CELL_KINDS[type_] == "person")
    ]


def complaint(failed: LeadFailed, field: FieldMapping) -> str:
    """The sentence that a person reads."""
    assert failed.permanent
    assert failed.reason.startswith(f"{field.name}: ")
    assert failed.reason.endswith((".", "create_options: true"))
    assert len(failed.reason) < 1000
    return failed.reason


def not_shown(pairs: dict[str, list[str]], shown: set[tuple[str, str]]) -> set[tuple[str, str]]:
    return {(name, type_) for name, types in pairs.items() for type_ in types} - shown


def test_kommos_values_arrive_in_airtable_or_are_refused_with_a_sentence(accounts):
    rows = rows_of(accounts, TARGETS)
    sent, wrong = [], []
    for row, plain in zip(rows, accounts.leads(sent_of(row) for row in rows), strict=True):
        lead = {**plain, **row.item} if "_names" in row.item else plain
        expected = row.wanted if row.name not in {"id", "url"} else of_lead(row.wanted, lead)
        try:
            value = row.field.from_kommo(lead, final=True)
        except LeadFailed as failed:
            complaint(failed, row.field)
            wrong += [str(row)] if expected != REFUSED else []
        else:
            wrong += [] if same(value, expected) else [f"{row}: {value!r}"[:300]]
            sent.append((row, value))
    cells = accounts.records([(row.field, row.field.to_cell(value)) for row, value in sent])
    for (row, value), cell in zip(sent, cells, strict=True):
        type_ = row.field.type
        if plainly(cell, type_) != cell_of(value, type_):
            wrong.append(f"{row}: {cell!r}"[:300])
    assert not wrong, "\n".join(wrong[:20])
    shown = {(row.name, row.field.type) for row, value in sent if not is_blank(value)}
    assert not_shown(TARGETS, shown) <= NEVER_FILLED


def sent_of(row: Row) -> Json:
    """The part of an item that Kommo takes."""
    return {key: value for key, value in row.item.items() if not key.startswith("_")}


def of_lead(value: Canonical, lead: Json) -> Canonical:
    """What is known only when there is a lead: its id."""
    return type(value)(str(value).replace("20000001", str(lead["id"])))


def spellings(lead: Json, field_id: int, kind: str) -> set[Json]:
    values = custom_values(lead, field_id)
    if kind == "number":
        return {Decimal(each["value"]) for each in values}
    return {each.get("enum_id") or each["value"] for each in values}


def others(rows: list[Row]) -> Iterable[Row]:
    """For each row another of its pair, so that what is written meets what is there, or clears it."""
    for _, group in itertools.groupby(rows, lambda row: (row.name, row.field.type)):
        pair = list(group)
        yield from (*pair[1:], pair[0])


def test_airtables_values_arrive_in_kommo_and_mean_the_same(accounts):
    rows = [row for row in rows_of(accounts, BOTH_WAYS) if row.wanted != REFUSED]
    firsts = accounts.leads(row.item for row in rows)
    cells = accounts.records([(row.field, cell_of(row.wanted, row.field.type)) for row in rows])
    seconds = accounts.leads(row.item for row in others(rows))
    items, values = [], []
    for row, cell, lead in zip(rows, cells, seconds, strict=True):
        values.append(row.field.from_cell(cell))
        assert same(values[-1], row.wanted), str(row)
        items.append(row.field.to_kommo(values[-1], lead, final=True))
    sent = [{"id": lead["id"]} | item for lead, item in zip(seconds, items, strict=True)]
    for start in range(0, len(sent), 250):
        accounts.kommo.update_leads(sent[start : start + 250])
    after = accounts.kommo.leads_by_id(lead["id"] for lead in seconds)
    wrong, shown = [], set()
    for row, first, second, item, value in zip(rows, firsts, seconds, items, values, strict=True):
        lead = after[second["id"]]
        back = row.field.from_kommo(lead, final=True)
        assert same(row.field.from_kommo(patched(second, item), final=True), back), str(row)
        wrong += [] if same(back, value) else [f"{row}: {back!r}"[:300]]
        custom, type_ = row.field.source.custom_field, row.field.type
        # In Kommo's own spelling, too, but for what Airtable cannot tell apart.
        if custom and CELL_KINDS[type_] != "option" and type_ not in {"checkbox", "rating"}:
            was, now = (spellings(each, custom.id, row.field.source.kind) for each in (first, lead))
            wrong += [] if was == now else [f"{row}: {now}"[:300]]
        if not is_blank(back):
            shown.add((row.name, type_))
    assert not wrong, "\n".join(wrong[:20])
    assert not_shown(BOTH_WAYS, shown) == set()


def test_what_kommo_cannot_hold_is_refused_with_a_sentence(accounts):
    fields = {pair: accounts.field(*pair) for pair in TYPED}
    cells = accounts.records([(fields[pair], cell) for pair, (cell, _) in TYPED.items()])
    (lead,) = accounts.leads([{"name": "x", "status_id": 143}])
    for (pair, (_, said)), cell in zip(TYPED.items(), cells, strict=True):
        assert pair[1] in BOTH_WAYS[pair[0]]
        field = fields[pair]
        with pytest.raises(LeadFailed) as caught:
            field.to_kommo(field.from_cell(cell), lead, final=True)
        assert said in complaint(caught.value, field)
