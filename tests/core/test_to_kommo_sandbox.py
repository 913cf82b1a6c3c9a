"""What we would PATCH, sent to the stand-in Kommo and read back, for its whole account."""

from __future__ import annotations

from datetime import date, datetime, timezone
from decimal import Decimal

import pytest

from kommo_airtable_sync.core.codecs import CELL_KINDS
from kommo_airtable_sync.core.destinations import (
    ATTRIBUTES,
    LOST,
    fields_at,
    is_writable,
    merge_fragments,
    patched,
)
from kommo_airtable_sync.core.errors import BatchRefused
from kommo_airtable_sync.core.field_mapping import FieldMapping
from kommo_airtable_sync.core.resolving import allowed_targets
from kommo_airtable_sync.core.schemas import AirtableField, KommoSchema
from kommo_airtable_sync.core.sources import (
    CUSTOM_KINDS,
    attribute_source,
    custom_field_source,
)
from kommo_airtable_sync.kommo.errors import classify
from kommo_airtable_sync.sandbox.kommo.model import KommoModel
from kommo_airtable_sync.sandbox.kommo.settings import Settings
from tests.sandbox.kommo.conftest import Caller, TurnedClock

VALUES = {
    "text": 'שלום "x" 👩‍👩‍👧',
    "number": Decimal(-120),
    "flag": True,
    "date": date(2024, 2, 29),
    "instant": datetime(2026, 10, 25, 0, 30, tzinfo=timezone.utc),
}


@pytest.fixture
def call() -> Caller:
    clock = TurnedClock()
    model = KommoModel(clock, settings=Settings(requests_per_second=1000))
    model.seed_account()
    return Caller(model, clock)


@pytest.fixture
def schema(call: Caller) -> KommoSchema:
    return KommoSchema.from_api(
        pipelines=call("GET", "leads/pipelines").rows("pipelines"),
        users=call("GET", "users").rows("users"),
        custom_fields=call("GET", "leads/custom_fields?limit=250").rows("custom_fields"),
        loss_reasons=call("GET", "leads/loss_reasons").rows("loss_reasons"),
        account=call("GET", "account?with=datetime_settings").json,
    )


def fields_of(schema: KommoSchema) -> list[FieldMapping]:
    """Each source of the account that can be written, on the first type that gives it back."""
    sources = [attribute_source(n, schema, stage_names={}, base_url="") for n in ATTRIBUTES]
    sources += [custom_field_source(f, schema) for f in schema.fields if f.type in CUSTOM_KINDS]
    return [
        FieldMapping(
            target=AirtableField(id=source.name, name=source.name, type=type_),
            source=source,
            owner="both",
            on_conflict="kommo",
            create_options=True,
            fingerprint="",
            schema=schema,
        )
        for source in sources
        if is_writable(source)
        for type_ in allowed_targets(source, both_ways=True)[:1]
    ]


def value_for(field: FieldMapping, schema: KommoSchema):
    named = {
        "stage": schema.pipelines[-1].statuses[-1].name,
        "responsible_user": schema.users[1].name,
        "loss_reason": schema.loss_reasons[-1].name,
        "tags": frozenset({"new tag", "b"}),
    }
    custom = field.source.custom_field
    if custom is not None and custom.enums:
        names = [enum.value for enum in custom.enums]
        return frozenset(names[:2]) if field.source.kind == "set" else names[-1]
    return named.get(field.source.name, VALUES.get(CELL_KINDS[field.type]))


def test_every_field_of_an_account_is_written_and_read_back_the_same(call, schema):
    fields = fields_of(schema)
    assert {f.source.kind for f in fields} >= {"text", "number", "flag", "date", "option", "set"}
    for field in fields:
        lead_id = call.lead(name="x", tags_to_add=[{"name": "a"}, {"name": "b"}])
        for value in (value_for(field, schema), None):
            if field.source.name == "loss_reason":
                assert call("PATCH", f"leads/{lead_id}", {"status_id": LOST}).status == 200
            before = call("GET", f"leads/{lead_id}").json
            if value is None and field.source.name in {"name", "stage", "responsible_user"}:
                continue
            item = field.to_kommo(value, before, final=True)
            reply = call("PATCH", "leads", [{"id": lead_id, **item}])
            assert reply.status == 200, (field.name, item, reply.body)
            after = field.from_kommo(call("GET", f"leads/{lead_id}").json)
            assert after == field.from_kommo(patched(before, item)), field.name
            zero = {"price": Decimal(0), "checkbox": False}
            wanted = zero.get(field.source.name, zero.get(field.type)) if value is None else value
            assert after == wanted, field.name


def spoilt(fragment: dict) -> dict:
    """A fragment with something in it that Kommo cannot take."""
    key, value = list(fragment.items())[-1]
    if key == "custom_fields_values":
        values = [{next(iter(each)): [1]} for each in value[0]["values"]]
        return {**fragment, key: [{**value[0], "values": values}]}
    wrong = {"tags_to_add": [{"name": 5}], "tags_to_delete": [{"id": "x"}], "name": 5}
    return {**fragment, key: wrong.get(key, -1 if key.endswith("_id") else "much")}


def test_what_kommo_refuses_is_traced_back_to_its_field(call, schema):
    fields = fields_of(schema)
    lead_id = call.lead(name="x", status_id=LOST, tags_to_add=[{"name": "a"}])
    before = call("GET", f"leads/{lead_id}").json
    fragments = {f.id: f.to_kommo(value_for(f, schema), before, final=True) for f in fields}
    for culprit in fields:
        parts = {**fragments, culprit.id: spoilt(fragments[culprit.id])}
        item = merge_fragments(parts.values())
        reply = call("PATCH", "leads", [{"id": lead_id, **item}])
        refusal = classify(reply.status, {}, reply.body, "")
        assert isinstance(refusal, BatchRefused), culprit.name
        assert fields_at(item, refusal.item_paths[0], fields) == {culprit.id}, refusal.item_errors
    assert call("GET", f"leads/{lead_id}").json == before
