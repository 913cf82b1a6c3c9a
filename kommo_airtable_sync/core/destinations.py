"""Writing canonical values into a Kommo lead: fragments of a PATCH (reference 3.5, 3.6, 4.2).

Names become the ids of what they name now, so a renamed option, stage or user is still itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Protocol, TypeVar
from zoneinfo import ZoneInfo

from kommo_airtable_sync.core.canonical import plain
from kommo_airtable_sync.core.codecs import shift
from kommo_airtable_sync.core.problems import not_known
from kommo_airtable_sync.core.schemas import KommoField, KommoSchema, UnknownReference
from kommo_airtable_sync.core.sources import (
    CLIPPED_AT,
    CUSTOM_KINDS,
    EPOCH,
    Source,
    UnfitError,
    custom_values,
    embedded,
    person,
    responsible,
    stage_label,
)
from kommo_airtable_sync.core.types import Canonical, Json

Fragment = dict[str, Json]
Lead = Mapping[str, Json]
Id = TypeVar("Id")
SECOND = timedelta(seconds=1)

LOST = 143
"""The status of lost leads in every pipeline (reference 5)."""

JOINED = frozenset({"custom_fields_values", "tags_to_add", "tags_to_delete"})
"""Keys of a PATCH item that hold lists, to which each field adds its own."""


WRITTEN_AS = {
    "status_id": "stage",
    "pipeline_id": "stage",
    "responsible_user_id": "responsible_user",
    "loss_reason_id": "loss_reason",
    "tags_to_add": "tags",
    "tags_to_delete": "tags",
    "_embedded": "tags",
}
"""Keys of a PATCH item, and the attribute each spells; the others spell themselves."""


class MappedField(Protocol):
    """A field mapping, as far as `fields_at` looks at it."""

    @property
    def id(self) -> str:
        """The Airtable field's id."""
        ...

    @property
    def source(self) -> Source:
        """Where in the lead it is."""
        ...


@dataclass(frozen=True)
class _Job:
    """What a value is to become part of; the arguments of `fragment_of`."""

    source: Source
    schema: KommoSchema
    lead: Lead
    final: bool


def is_writable(source: Source) -> bool:
    """Whether Kommo takes a value for it."""
    field = source.custom_field
    if field is None:
        return source.name in ATTRIBUTES
    return field.type in CUSTOM_KINDS and not field.is_computed


def fragment_of(
    value: Canonical, source: Source, schema: KommoSchema, lead: Lead, *, final: bool
) -> Fragment:
    """What to send to give a lead's field a value; None clears it.

    Args:
        value: of the source's kind.
        source: one that `is_writable`.
        schema: the ids behind the names.
        lead: as it is now, for what is written in terms of it (tags, the pipeline).
        final: the schema was just read again, so a name that it lacks is wrong.

    Raises:
        UnknownReference: for a name that the schema lacks, unless ``final``.
        UnfitError: if Kommo cannot hold the value.
    """
    job, field = _Job(source, schema, lead, final), source.custom_field
    if field is None:
        return ATTRIBUTES[source.name](value, job)
    # An empty text would change nothing; null clears (reference 4.2).
    values = _custom_values(value, field, job)
    return {"custom_fields_values": [{"field_id": field.id, "values": values}]}


def merge_fragments(fragments: Iterable[Fragment]) -> Fragment:
    """One lead's PATCH item, still without its ``id``, from the fragments of several fields."""
    merged: Fragment = {}
    for fragment in fragments:
        for key, value in fragment.items():
            merged[key] = [*merged.get(key, ()), *value] if key in JOINED else value
    return merged


def fields_at(
    item: Mapping[str, Json], paths: Iterable[str], fields: Iterable[MappedField]
) -> frozenset[str]:
    """Which of the fields that an item was made from Kommo refused.

    Args:
        item: the PATCH item.
        paths: of its mistakes, e.g. ``custom_fields_values.0.values.0.value`` (reference 2).
        fields: those that the item was made from.

    Returns:
        Airtable field ids; none if the mistakes are elsewhere.
    """
    names = {_source_at(item, path.split(".")) for path in paths}
    return frozenset(field.id for field in fields if field.source.name in names)


def _source_at(item: Mapping[str, Json], path: list[str]) -> str | None:
    head, index = path[0], next(iter(path[1:]), "")
    if head != "custom_fields_values":
        return WRITTEN_AS.get(head, head)
    values: list[Json] = item.get(head) or []
    known = index.isascii() and index.isdigit() and int(index) < len(values)
    return f"custom_field:{values[int(index)].get('field_id')}" if known else None


def patched(lead: Lead, item: Fragment) -> dict[str, Json]:
    """The lead as Kommo will show it once it has taken a PATCH item (reference 3.5, 3.6, 4.2)."""
    after = {**lead, **{key: value for key, value in item.items() if key not in JOINED}}
    if item.get("status_id", LOST) != LOST:
        after["loss_reason_id"] = None  # it goes with that status only (reference 3.2)
    if "price" in item and "price_with_minor_units" in lead:
        after["price_with_minor_units"] = item["price"]
    old: list[Json] = lead.get("custom_fields_values") or []
    new: list[Json] = item.get("custom_fields_values", [])
    ids = {str(each["field_id"]) for each in new}
    after["custom_fields_values"] = [
        *(each for each in old if str(each.get("field_id")) not in ids),
        *(each for each in new if each["values"]),
    ]
    gone = [tag["id"] for tag in item.get("tags_to_delete", ())]
    kept = [tag for tag in embedded(lead, "tags") if tag.get("id") not in gone]
    inner: Json = lead.get("_embedded") or {}
    after["_embedded"] = {**inner, "tags": [*kept, *item.get("tags_to_add", ())]}
    return after


def _pick(
    what: str,
    wanted: str,
    known: Iterable[tuple[Id, str]],
    current: object,
    *,
    final: bool,
    show: Callable[[Id], str] = str,
) -> Id:
    """The id that has this name; of several the one that the lead has already.

    Raises:
        UnknownReference: for a name that is not known, unless ``final``.
        UnfitError: if then it still is not, or several have it; names what is allowed.
    """
    name, pairs = wanted.strip()[:CLIPPED_AT], list(known)
    found = list(dict.fromkeys(id for id, label in pairs if label.strip() == wanted.strip()))
    if len(found) > 1 and current not in found:
        listed = ", ".join(show(id) for id in found)
        message = f"{name!r} is the name of more than one {what} in Kommo ({listed})"
        raise UnfitError(message)
    if found:
        return next((id for id in found if id == current), found[0])
    if not final:
        raise UnknownReference(what, name)
    labels = dict.fromkeys(label for _, label in pairs)
    raise UnfitError(not_known(name, labels, f"a Kommo {what}"))


def _custom_values(value: Canonical, field: KommoField, job: _Job) -> list[Json] | None:
    """The ``values`` of a custom field (reference 4.2, write shapes); None clears it."""
    kind = CUSTOM_KINDS[field.type]
    if kind == "flag":
        value = bool(value)
    if value is None:
        return None
    if kind in {"option", "set"}:
        names = sorted(value) if isinstance(value, frozenset) else [str(value)]
        return [{"enum_id": _enum_id(name, field, job)} for name in names]
    return [{"value": _spelled(value, job.schema.zone)}]


def _spelled(value: Canonical, zone: ZoneInfo) -> Json:
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, datetime):
        return (value - EPOCH) // SECOND
    return _midnight(value, zone) if isinstance(value, date) else value


def _enum_id(name: str, field: KommoField, job: _Job) -> int:
    held = {item.get("enum_id") for item in custom_values(job.lead, field.id)}
    current = next((e.id for e in field.enums if e.id in held and e.value.strip() == name), None)
    known = [(enum.id, enum.value) for enum in field.enums]
    return _pick(f"{field.name} option", name, known, current, final=job.final)


def _midnight(day: date, zone: ZoneInfo) -> int:
    """The day's first moment in the account's zone, which is how Kommo keeps it.

    Raises:
        UnfitError: for a day that the zone skipped, or too near the end of the calendar.
    """
    seconds = (datetime.combine(day, time(), tzinfo=zone) - EPOCH) // SECOND
    try:
        kept = (EPOCH + seconds * SECOND).astimezone(zone).date()
    except OverflowError:
        kept = None
    if kept != day:
        message = f"{day} is not a day that Kommo can keep in {zone}"
        raise UnfitError(message)
    return seconds


def _price(value: Canonical, job: _Job) -> Fragment:
    # A lead without a price has 0; only newer accounts keep cents (reference 3.2).
    price = value if isinstance(value, Decimal) else Decimal(0)
    places = 2 if "price_with_minor_units" in job.lead else 0
    if not _is_whole(shift(price, places)):
        message = (
            f"{plain(price)} has more than the {places} decimals that Kommo's price keeps; "
            "round it, or map the field to a Kommo field of type monetary"
        )
        raise UnfitError(message)
    return {"price": int(price) if _is_whole(price) else float(price)}


def _is_whole(number: Decimal) -> bool:
    return number == number.to_integral_value()


def _stage(value: Canonical, job: _Job) -> Fragment:
    """A stage of the lead's own pipeline if it has one of that name (each has a Won and a Lost)."""
    known = [
        (stage, stage_label(stage, job.schema, job.source.stage_names) or "")
        for stage in job.schema.status_names
    ]
    name = _present(value, "stage")
    home = job.lead.get("pipeline_id")
    at_home = [pair for pair in known if pair[0][0] == home and pair[1] == name.strip()]
    current = (home, job.lead.get("status_id"))

    def show(stage: tuple[int, int]) -> str:
        pipeline = job.schema.pipeline_by_id[stage[0]].name
        return f"{pipeline} / {job.schema.status_names[stage]}, {stage[0]}/{stage[1]}"

    found = _pick("stage", name, at_home or known, current, final=job.final, show=show)
    return {"pipeline_id": found[0], "status_id": found[1]}


def _responsible_user(value: Canonical, job: _Job) -> Fragment:
    """By name or by e-mail, whichever the field shows."""
    wanted, by_id = _present(value, "responsible user"), job.schema.user_by_id
    by_email = job.source.kind == "person"
    now = responsible(job.lead, job.schema)
    users = [user for user in by_id.values() if user.is_active or user == now]
    users += [now] if now and now.id not in by_id else []
    known = [(user.id, user.email if by_email else user.name) for user in users]
    email = person(wanted)
    known += [(user.id, wanted) for user in users if email and person(user.email) == email]
    found = _pick(
        "user",
        wanted,
        [(id, label) for id, label in known if label],
        now and now.id,
        final=job.final,
        show=lambda id: by_id[id].email or str(id),
    )
    return {"responsible_user_id": found}


def _loss_reason(value: Canonical, job: _Job) -> Fragment:
    if value is None:
        return {"loss_reason_id": None}
    known = job.schema.loss_reason_names.items()
    current = job.lead.get("loss_reason_id")
    return {"loss_reason_id": _pick("loss reason", str(value), known, current, final=job.final)}


def _tags(value: Canonical, job: _Job) -> Fragment:
    """Only what is added and taken away, so that a tag set meanwhile stays (reference 3.6)."""
    wanted = value if isinstance(value, frozenset) else frozenset[str]()
    here = {tag.get("id"): str(tag.get("name") or "").strip() for tag in embedded(job.lead, "tags")}
    added: Json = [{"name": name} for name in sorted(wanted.difference(here.values()))]
    gone: Json = [{"id": id} for id, name in here.items() if name and name not in wanted]
    return {key: tags for key, tags in (("tags_to_add", added), ("tags_to_delete", gone)) if tags}


def _present(value: Canonical, noun: str) -> str:
    if value is None or not str(value).strip():
        message = f"it is empty, but a Kommo lead always has a {noun}"
        raise UnfitError(message)
    return str(value)


ATTRIBUTES: dict[str, Callable[[Canonical, _Job], Fragment]] = {
    "name": lambda value, _: {"name": _present(value, "name")},
    "price": _price,
    "stage": _stage,
    "responsible_user": _responsible_user,
    "tags": _tags,
    "loss_reason": _loss_reason,
}
"""The attributes of a lead that can be written."""
