"""Which texts Kommo can give a select: stages, pipelines, people, loss reasons, choices."""

from __future__ import annotations

from collections.abc import Mapping

from kommo_airtable_sync.core.schemas import KommoField, KommoSchema
from kommo_airtable_sync.core.sources import Source, stage_label
from kommo_airtable_sync.core.types import EntityKind

SELECTS = frozenset({"singleSelect", "multipleSelects"})
Words = Mapping[str, str]
"""Kommo's id of a thing (``pipeline_id/status_id`` for a stage) -> its text."""


def words_of(source: Source, schema: KommoSchema, entity: EntityKind = "leads") -> Words | None:
    """What a source can say by this schema; None if that is not to be foreseen (tags, texts).

    Args:
        source: one that was made from this schema or from an older one.
        schema: the account.
        entity: what it is a source of.
    """
    if source.custom_field is not None:
        field = field_with_id(source.custom_field.id, schema, entity)
        fixed = field is not None and source.kind in {"option", "set"}
        return {str(e.id): e.value.strip() for e in field.enums} if field and fixed else None
    found: dict[str, Words] = {
        "stage": {
            f"{stage[0]}/{stage[1]}": stage_label(stage, schema, source.stage_names) or ""
            for stage in schema.status_names
        },
        "pipeline": {str(each.id): each.name.strip() for each in schema.pipelines},
        "loss_reason": {str(each.id): each.name.strip() for each in schema.loss_reasons},
        "responsible_user": {str(each.id): each.name for each in schema.users if each.is_active},
        "responsible_user_email": {
            str(each.id): each.email for each in schema.users if each.is_active and each.email
        },
    }
    return found.get(source.name)


def field_with_id(
    field_id: int, schema: KommoSchema, entity: EntityKind = "leads"
) -> KommoField | None:
    """The custom field with this id."""
    return next((each for each in schema.fields_of(entity) if each.id == field_id), None)
