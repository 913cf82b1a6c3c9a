"""Which leads are synced: ``kommo.include`` and ``kommo.exclude``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from kommo_airtable_sync.core.canonical import plain
from kommo_airtable_sync.core.config import Condition, KommoPart
from kommo_airtable_sync.core.problems import Problems, not_known
from kommo_airtable_sync.core.schemas import KommoField, KommoSchema
from kommo_airtable_sync.core.sources import CUSTOM_KINDS, custom_values, embedded
from kommo_airtable_sync.core.types import EntityKind, Json

StageKey = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a lead is synced, and if not, why: one short clause for the journal."""

    ok: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FieldCondition:
    """A custom field holds one of these words (as `_word` spells values)."""

    field_id: int
    name: str
    words: frozenset[str]
    is_flag: bool


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters with names resolved to ids. Empty includes let everything pass.

    Args:
        pipelines: ids.
        stages: (pipeline id, status id): 142 and 143 are in every pipeline.
        tags: case-folded, like `not_tags`.
        sticky: a lead synced before stays when it leaves `stages`.
    """

    pipelines: frozenset[int] = frozenset()
    stages: frozenset[StageKey] = frozenset()
    tags: frozenset[str] = frozenset()
    fields: tuple[FieldCondition, ...] = ()
    sticky: bool = True
    not_tags: frozenset[str] = frozenset()
    not_name: re.Pattern[str] | None = None
    not_fields: tuple[FieldCondition, ...] = ()


def qualifies(lead: Mapping[str, Json], filters: Filters, *, already_synced: bool) -> Verdict:
    """Whether a lead is synced.

    Args:
        lead: as Kommo's API v4 gives it.
        filters: of the mapping.
        already_synced: the ledger knows it.

    Excludes win over everything. Of the includes only the stages are sticky: a lead that moved to
    a pipeline which is not listed, or lost a needed tag, no longer qualifies.
    """
    reason = _excluded(lead, filters) or _not_included(lead, filters, already_synced)
    return Verdict(not reason, reason)


def resolve_filters(part: KommoPart, schema: KommoSchema, problems: Problems) -> Filters:
    """Resolve names to ids; what is unknown is noted in ``problems`` by its path."""
    include, exclude = part.include, part.exclude
    at = "kommo.include"
    return Filters(
        pipelines=_pipelines(include.pipelines, schema, problems, f"{at}.pipelines"),
        stages=_stages(include.stages, schema, problems, f"{at}.stages"),
        tags=_folded(include.tags),
        fields=_conditions(include.custom_fields, schema, problems, f"{at}.custom_fields"),
        sticky=include.sticky,
        not_tags=_folded(exclude.tags),
        not_name=None if exclude.name_matches is None else re.compile(exclude.name_matches),
        not_fields=_conditions(
            exclude.custom_fields, schema, problems, "kommo.exclude.custom_fields"
        ),
    )


def _excluded(lead: Mapping[str, Json], filters: Filters) -> str:
    tags = _tags(lead) & filters.not_tags
    if tags:
        return f"tag {min(tags)} is excluded"
    if filters.not_name is not None and filters.not_name.search(str(lead.get("name") or "")):
        return "its name is excluded"
    met = next((c for c in filters.not_fields if _meets(lead, c)), None)
    return f"the value of {met.name} is excluded" if met else ""


def _not_included(lead: Mapping[str, Json], filters: Filters, already_synced: bool) -> str:
    pipeline_id, status_id = lead.get("pipeline_id"), lead.get("status_id")
    if filters.pipelines and pipeline_id not in filters.pipelines:
        return f"pipeline {pipeline_id} is not included"
    bound_to_stages = filters.stages and not (filters.sticky and already_synced)
    if bound_to_stages and (pipeline_id, status_id) not in filters.stages:
        return f"stage {pipeline_id}/{status_id} is not included"
    if filters.tags and not filters.tags & _tags(lead):
        return "none of its tags is included"
    unmet = next((c for c in filters.fields if not _meets(lead, c)), None)
    return f"the value of {unmet.name} is not included" if unmet else ""


def _tags(lead: Mapping[str, Json]) -> frozenset[str]:
    return _folded(str(tag.get("name") or "") for tag in embedded(lead, "tags"))


def _folded(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.strip().casefold() for name in names)


def _meets(lead: Mapping[str, Json], condition: FieldCondition) -> bool:
    words = {_word(item.get("value")) for item in custom_values(lead, condition.field_id)}
    if condition.is_flag:
        words = words or {"false"}  # an unticked box is absent
    return not words.isdisjoint(condition.words)


def _word(value: Json) -> str:
    """One spelling for ``10``, ``"10.0"`` and for ``true``; anything else is its text."""
    if isinstance(value, bool):
        return str(value).lower()
    spelled = str(value).strip()
    try:
        number = Decimal(spelled)
    except InvalidOperation:
        return spelled
    # An exponent is not how a person writes a figure: "1E9999999" stays the text it is.
    return plain(number) if number.is_finite() and "e" not in spelled.lower() else spelled


def _pipelines(
    wanted: Sequence[int | str], schema: KommoSchema, problems: Problems, path: str
) -> frozenset[int]:
    found: set[int] = set()
    for i, one in enumerate(wanted):
        ids = {p.id for p in schema.pipelines if one in (p.id, p.name)}
        if not ids:
            names = [p.name for p in schema.pipelines]
            problems.add(f"{path}[{i}]", not_known(one, names, "a Kommo pipeline"))
        found |= ids
    return frozenset(found)


def _stages(
    wanted: Sequence[int | str], schema: KommoSchema, problems: Problems, path: str
) -> frozenset[StageKey]:
    found: set[StageKey] = set()
    for i, one in enumerate(wanted):
        keys = {
            (p.id, s.id)
            for p in schema.pipelines
            for s in p.statuses
            if one in (s.id, f"{p.id}/{s.id}", f"{p.name} / {s.name}")
        }
        if not keys:
            names = [f"{p.name} / {s.name}" for p in schema.pipelines for s in p.statuses]
            problems.add(f"{path}[{i}]", not_known(one, names, "a Kommo stage"))
        found |= keys
    return frozenset(found)


def _conditions(
    wanted: Sequence[Condition], schema: KommoSchema, problems: Problems, path: str
) -> tuple[FieldCondition, ...]:
    found: list[FieldCondition] = []
    for i, condition in enumerate(wanted):
        field = find_custom_field(condition.field, schema, problems, f"{path}[{i}].field")
        if field is None:
            continue
        kind = CUSTOM_KINDS.get(field.type)
        if kind in {None, "date", "instant"}:
            problems.add(f"{path}[{i}].field", f"a {field.type} field cannot be a filter")
        words = frozenset(_word(value) for value in condition.any_of)
        known = {_word(enum.value) for enum in field.enums}
        if kind == "flag":
            known = {"true", "false"}
        for word in sorted(words - known) if known else ():
            problems.add(f"{path}[{i}].in", not_known(word, sorted(known), f"in {field.name!r}"))
        found.append(FieldCondition(field.id, field.name, words, kind == "flag"))
    return tuple(found)


def find_custom_field(
    wanted: int | str,
    schema: KommoSchema,
    problems: Problems,
    path: str,
    entity: EntityKind = "leads",
) -> KommoField | None:
    """The one custom field with this id, CODE or name; else None and a problem noted."""
    found = schema.find_fields(wanted, entity)
    if not found:
        names = [field.name for field in schema.fields_of(entity)]
        problems.add(path, not_known(wanted, names, f"a custom field of Kommo {entity}"))
        return None
    if len(found) > 1:
        ids = ", ".join(str(field.id) for field in found)
        problems.add(path, f"{wanted!r} is the name of several custom fields; use an id: {ids}")
        return None
    return next(iter(found))
