"""Every pair of a Kommo source and an Airtable type that the mapping allows, ready to use."""

from __future__ import annotations

from kommo_airtable_sync.core.codecs import CELL_KINDS
from kommo_airtable_sync.core.destinations import ATTRIBUTES, is_writable
from kommo_airtable_sync.core.field_mapping import FieldMapping
from kommo_airtable_sync.core.resolving import PEOPLE, allowed_targets
from kommo_airtable_sync.core.schemas import AirtableField, KommoField, KommoSchema
from kommo_airtable_sync.core.sources import (
    CUSTOM_KINDS,
    READABLE,
    Source,
    attribute_source,
    custom_field_source,
)
from tests.core.accounts import kommo_schema

OPTIONS = ("EU", "Великобритания", "אירופה 🇪🇺", 'a "quoted", one', " padded ")
READ_ONLY = (
    "pipeline", "responsible_user_email", "created_at", "updated_at", "closed_at", "source", "url",
    "id", "score", "main_contact", "company",
)  # fmt: skip
ZONES = (
    "UTC", "Europe/Moscow", "America/Sao_Paulo", "Asia/Beirut", "America/Havana", "Asia/Kathmandu",
    "Pacific/Auckland",
)  # fmt: skip


def kommo_field(type_: str, field_id: int = 77) -> KommoField:
    options = OPTIONS if CUSTOM_KINDS.get(type_) in {"option", "set"} else ()
    enums = [{"id": i, "value": value} for i, value in enumerate(options, 500)]
    return KommoField.model_validate({"id": field_id, "name": "X", "type": type_, "enums": enums})


def source_of(name: str, schema: KommoSchema, *, as_person: bool = False) -> Source:
    """The source for an attribute, or for a custom field as in ``custom date``."""
    if name.startswith("custom "):
        return custom_field_source(kommo_field(name.removeprefix("custom ")), schema)
    return attribute_source(name, schema, stage_names={}, base_url="", as_person=as_person)


def field_of(name: str, type_: str, zone: str = "Europe/Moscow") -> FieldMapping:
    schema = kommo_schema(zone)
    as_person = name in PEOPLE and CELL_KINDS[type_] == "person"
    choices = OPTIONS if CELL_KINDS[type_] in {"option", "set"} else ()
    return FieldMapping(
        target=AirtableField(id="fldX", name="X", type=type_, choices=choices, max=5),
        source=source_of(name, schema, as_person=as_person),
        owner="both",
        on_conflict="kommo",
        create_options=True,
        fingerprint="",
        schema=schema,
    )


CUSTOM = tuple(f"custom {type_}" for type_ in (*CUSTOM_KINDS, *READABLE))
NAMES = (*ATTRIBUTES, *READ_ONLY, *CUSTOM)
TARGETS = {name: allowed_targets(source_of(name, kommo_schema())) for name in NAMES}
BOTH_WAYS = {
    name: allowed_targets(source, both_ways=True) if is_writable(source) else []
    for name in NAMES
    for source in [source_of(name, kommo_schema())]
}
