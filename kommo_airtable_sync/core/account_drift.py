"""What has changed in the Kommo account by itself: pipelines, filters, new fields, zone. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kommo_airtable_sync.core.config import SyncConfig
from kommo_airtable_sync.core.findings import Finding
from kommo_airtable_sync.core.schemas import KommoSchema
from kommo_airtable_sync.core.sources import CUSTOM_KINDS, READABLE
from kommo_airtable_sync.core.vocabulary import field_with_id

Told = tuple[str, Finding]
"""The path in sync.yaml that it is about, or ``""``, and what to say."""


def problem(message: str, remedy: str) -> Finding:
    """A change of which writes would fail."""
    return Finding("schema", "problem", message, remedy)


def warning(message: str, remedy: str = "Nothing has to be done.") -> Finding:
    """A change to know of."""
    return Finding("schema", "warning", message, remedy)


def account_changes(
    config: SyncConfig, seen: KommoSchema, now: KommoSchema, wrong: Mapping[str, str]
) -> Iterator[Told]:
    """What changed beside the mapped fields.

    Args:
        config: ``sync.yaml``.
        seen: the account as it was last seen.
        now: as it is.
        wrong: what of sync.yaml does not fit now, by path.
    """
    yield from _pipelines(config, seen, now)
    yield from _stages(config, seen, now, wrong)
    yield from _conditions(config, seen, now)
    yield from _rest(seen, now)


def _pipelines(config: SyncConfig, seen: KommoSchema, now: KommoSchema) -> Iterator[Told]:
    """Pipelines and stages by themselves: filters name them, and new ones bring new leads."""
    include = config.kommo.include
    before, after = seen.pipeline_by_id, now.pipeline_by_id
    for key in {**before, **after}:
        old, new = before.get(key), after.get(key)
        if old is None and new is not None:
            reach = "its leads are synced"
            if include.pipelines or include.stages:
                reach = "its leads are not synced"
            remedy = f"Right so? Else change kommo.include.pipelines ({key})."
            message = f"Kommo pipeline {new.name!r} ({key}) is new: {reach}."
            yield "", warning(message, remedy)
        elif old is not None and (new is None or new.name != old.name):
            yield from _pipeline_changed(config, key, old.name, new and new.name)


def _pipeline_changed(config: SyncConfig, key: int, old: str, new: str | None) -> Iterator[Told]:
    given = config.kommo.include.pipelines
    at = next((n for n, one in enumerate(given) if one in (key, old)), None)
    path = "" if at is None else f"kommo.include.pipelines[{at}]"
    what = f"Kommo pipeline {old!r} ({key})"
    if new is None:
        message = f"{what} was deleted."
        if not path:
            yield path, warning(message)
        else:
            yield path, problem(message, f"Take {path} out of sync.yaml.")
    elif path and given[at or 0] == old:
        remedy = f"In sync.yaml set {path}: {key}."
        yield path, problem(f"{what} is now called {new!r}.", remedy)
    else:
        yield path, warning(f"{what} is now called {new!r}.")


def _stages(
    config: SyncConfig, seen: KommoSchema, now: KommoSchema, wrong: Mapping[str, str]
) -> Iterator[Told]:
    """Stages that filters name, or that no mapped field shows."""
    given = config.kommo.include.stages
    before, after = seen.status_names, now.status_names
    names = {each.id: each.name for each in seen.pipelines}
    for stage, old in before.items():
        new = after.get(stage)
        spelled = (f"{names[stage[0]]} / {old}", f"{stage[0]}/{stage[1]}", stage[1])
        at = next((n for n, one in enumerate(given) if one in spelled), None)
        path = f"kommo.include.stages[{at}]"
        if at is None or path not in wrong:
            continue
        what = f"Kommo stage {spelled[0]!r}"
        if new is None:
            yield path, problem(f"{what} was deleted.", f"Take {path} out of sync.yaml.")
        else:
            remedy = f'In sync.yaml set {path}: "{spelled[1]}".'
            yield path, problem(f"{what} is now called {new!r}.", remedy)
    for n, part in enumerate(config.fields):
        for key in part.names:
            path = f"fields[{n}].names.{key}"
            if path in wrong:
                message = f"Kommo has no stage {key} any more ({path})."
                yield path, problem(message, f"Take {path} out of sync.yaml.")


def _conditions(config: SyncConfig, seen: KommoSchema, now: KommoSchema) -> Iterator[Told]:
    """Custom fields by whose value leads are filtered."""
    for side in ("include", "exclude"):
        for n, condition in enumerate(getattr(config.kommo, side).custom_fields):
            path = f"kommo.{side}.custom_fields[{n}].field"
            for was in seen.find_fields(condition.field):
                field = field_with_id(was.id, now)
                what = f"Kommo field {was.name!r}, by which leads are filtered,"
                if field is None:
                    remedy = f"Take kommo.{side}.custom_fields[{n}] out of sync.yaml."
                    yield path, problem(f"{what} was deleted ({path}).", remedy)
                elif field.name != was.name and condition.field == was.name:
                    remedy = f"In sync.yaml set {path}: {field.id}."
                    yield path, problem(f"{what} is now called {field.name!r}.", remedy)


def _rest(seen: KommoSchema, now: KommoSchema) -> Iterator[Told]:
    """New fields, people who are known by another name, the account's zone and currency."""
    known = {each.id for each in seen.fields}
    for field in now.fields:
        if field.id not in known and field.type in {*CUSTOM_KINDS, *READABLE}:
            message = f"Kommo has a new field {field.name!r} ({field.type}), not in sync.yaml."
            remedy = (
                f"To sync it: - {{airtable: {field.name}, kommo: {{custom_field: {field.id}}}}}"
            )
            yield "", warning(message, remedy)
    if now.time_zone != seen.time_zone:
        message = f"Kommo's time zone was {seen.time_zone}, now it is {now.time_zone}."
        remedy = "Dates are compared anew; set reconcile.timezone as well if nights moved."
        yield "", warning(message, remedy)
    if now.currency != seen.currency:
        message = f"Kommo's currency was {seen.currency}, now it is {now.currency}."
        remedy = "Amounts are copied as they are: change the symbol of Airtable's fields."
        yield "", warning(message, remedy)
