"""Reading canonical values out of a Kommo lead (reference 3.2 and 4.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from typing import Literal

from kommo_airtable_sync.core.canonical import normalise
from kommo_airtable_sync.core.schemas import KommoField, KommoSchema, UnknownReference, User
from kommo_airtable_sync.core.types import Canonical, EntityKind, Json

Kind = Literal[
    "text", "option", "number", "flag", "date", "instant", "set", "person", "link", "attachment"
]
"""What a value is: a ``person`` is an e-mail address in small letters, a ``link`` record ids, an
``attachment`` a web address on its way there and the ids of files on its way back."""

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
EXPONENT_MAX = 300
"""Numbers beyond 1e300 are no business figures, and would fill the memory when written out."""

CLIPPED_AT = 80
"""So much of a value is shown in a message."""

CUSTOM_KINDS: dict[str, Kind] = {
    "text": "text",
    "textarea": "text",
    "streetaddress": "text",
    "url": "text",
    "tracking_data": "text",
    "numeric": "number",
    "monetary": "number",
    "price": "number",
    "checkbox": "flag",
    "select": "option",
    "radiobutton": "option",
    "multiselect": "set",
    "date": "date",
    "birthday": "date",
    "date_time": "instant",
}
"""Custom field types that hold one plain value, or a set of them (reference 4.2)."""

READABLE: dict[str, tuple[str, ...]] = {
    "smart_address": ("value",),
    "multitext": ("value",),
    "legal_entity": ("name", "vat_id", "address"),
    "file": ("file_name",),
}
"""Types with parts, and which parts make up their text; they cannot be written from one text."""

NAMES = "_names"
"""Key of a lead: the names of its ``main_contact`` and ``company``, which the engine looks up."""


class UnfitError(ValueError):
    """A value that its target cannot hold; the message ends a sentence ("... is not a number")."""


def clipped(value: object) -> str:
    """The value as a message shows it: quoted, and only the beginning of a long one."""
    shown = repr(value)
    return shown if len(shown) <= CLIPPED_AT else shown[:CLIPPED_AT] + "..."


@dataclass(frozen=True)
class Source:
    """Where in a lead a value comes from.

    Args:
        name: stable over renames: ``stage``, ``custom_field:789012``.
        kind: what it yields.
        read: (lead, final) -> value. Raises `UnfitError`, or `UnknownReference` unless ``final``.
        stage_names: of the mapping, for ``stage``.
        custom_field: if it is one.
    """

    name: str
    kind: Kind
    read: Callable[[Mapping[str, Json], bool], Canonical]
    stage_names: Mapping[str, str]
    custom_field: KommoField | None = None


def attribute_source(
    name: str,
    schema: KommoSchema,
    *,
    stage_names: Mapping[str, str],
    base_url: str,
    as_person: bool = False,
    entity: EntityKind = "leads",
) -> Source:
    """The source for one of the contract's ``kommo:`` names.

    Args:
        name: one that the entity has.
        schema: names behind the lead's ids.
        stage_names: status id or ``pipeline_id/status_id`` -> text.
        base_url: of the Kommo account, for ``url``.
        as_person: for ``responsible_user*``: as a collaborator, not as text.
        entity: what it is an attribute of; the readers' ``lead`` is one of these.
    """
    kinds: dict[str, tuple[Kind, Callable[[Mapping[str, Json], bool], Canonical]]] = {
        "name": ("text", lambda lead, _: text(lead.get("name"))),
        "price": ("number", lambda lead, _: _price(lead)),
        "stage": ("option", lambda lead, final: _stage(lead, final, schema, stage_names)),
        "pipeline": ("option", lambda lead, final: _pipeline(lead, final, schema)),
        "responsible_user": ("text", lambda lead, final: _user_name(lead, final, schema)),
        "responsible_user_email": ("text", lambda lead, final: _user_email(lead, final, schema)),
        "as_person": ("person", lambda lead, final: person(_user_email(lead, final, schema))),
        "tags": ("set", lambda lead, _: names_of(embedded(lead, "tags"))),
        "created_at": ("instant", lambda lead, _: instant(lead.get("created_at"))),
        "updated_at": ("instant", lambda lead, _: instant(lead.get("updated_at"))),
        "closed_at": ("instant", lambda lead, _: instant(lead.get("closed_at"))),
        "loss_reason": ("option", lambda lead, final: _loss_reason(lead, final, schema)),
        "source": ("number", lambda lead, _: number(lead.get("source_id"))),
        "url": ("text", lambda lead, _: f"{base_url.rstrip('/')}/{entity}/detail/{lead['id']}"),
        "id": ("number", lambda lead, _: number(lead["id"])),
        "score": ("number", lambda lead, _: number(lead.get("score"))),
        "main_contact": ("text", lambda lead, _: text(_names(lead).get("main_contact"))),
        "company": ("text", lambda lead, _: text(_names(lead).get("company"))),
        "first_name": ("text", lambda lead, _: text(lead.get("first_name"))),
        "last_name": ("text", lambda lead, _: text(lead.get("last_name"))),
    }
    kind, read = kinds["as_person" if as_person else name]
    return Source(name, kind, read, stage_names)


def custom_field_source(
    field: KommoField, schema: KommoSchema, *, first_only: bool = False
) -> Source:
    """The source for a custom field of a type in `CUSTOM_KINDS` or `READABLE`.

    Args:
        field: which.
        schema: the account, for its zone.
        first_only: of several phone numbers or e-mail addresses the first, which is the one that
            Kommo shows: for a target that is to hold one.
    """
    name = f"custom_field:{field.id}"
    if (parts := READABLE.get(field.type)) is not None:
        count = 1 if first_only and field.type == "multitext" else None
        return Source(
            name, "text", lambda lead, _: _of_parts(lead, field.id, parts, count), {}, field
        )
    kind = CUSTOM_KINDS[field.type]
    enums = {enum.id: enum.value for enum in field.enums}

    def day(raw: Json) -> Canonical:
        moment = instant(raw)
        return moment and moment.astimezone(schema.zone).date()

    scalars: dict[Kind, Callable[[Json], Canonical]] = {
        "text": text,
        "number": number,
        "flag": flag,
        "instant": instant,
        "date": day,
    }

    def read(lead: Mapping[str, Json], final: bool) -> Canonical:
        values = custom_values(lead, field.id)
        if kind == "set":
            return normalise(frozenset(_enum_name(item, enums, final) for item in values) - {""})
        if not values:
            return None
        if kind == "option":
            return normalise(_enum_name(values[0], enums, final))
        return scalars[kind](values[0].get("value"))

    return Source(name, kind, read, {}, field)


def custom_values(lead: Mapping[str, Json], field_id: int) -> list[Json]:
    """The ``values`` of a custom field; empty fields are absent, all of them a null (3.2)."""
    fields: list[Json] = lead.get("custom_fields_values") or []
    for field in fields:
        if field.get("field_id") in (field_id, str(field_id)):
            return list(field.get("values") or ())
    return []


def embedded(lead: Mapping[str, Json], what: str) -> list[Json]:
    """A list under ``_embedded``, be it absent or null."""
    inner: Json = lead.get("_embedded") or {}
    found: list[Json] = inner.get(what) or []
    return found


def _names(lead: Mapping[str, Json]) -> Mapping[str, Json]:
    names: Json = lead.get(NAMES) or {}
    return names


def names_of(items: list[Json]) -> Canonical:
    """The names of tags, without the blanks around them, which Airtable's options lack."""
    return normalise(frozenset(str(item.get("name") or "").strip() for item in items) - {""})


def _of_parts(
    lead: Mapping[str, Json], field_id: int, parts: tuple[str, ...], count: int | None
) -> Canonical:
    """The filled parts of all values (or of so many), in Kommo's order: ``1 High St, Leeds``."""
    items = custom_values(lead, field_id)
    values: list[Json] = [item if parts == ("value",) else item.get("value") for item in items]
    words = [str(value.get(part) or "").strip() for value in values if value for part in parts]
    return normalise(", ".join([word for word in words if word][:count]))


def person(email: Canonical) -> Canonical:
    """An e-mail address as both sides spell it: capitals do not matter."""
    return normalise(str(email).strip().lower()) if email else None


def text(raw: Json) -> Canonical:
    """Text as the API gives it; a number where text belongs is written out."""
    return None if raw is None else normalise(str(raw))


def number(raw: Json) -> Canonical:
    """Kommo writes numeric values as text or as a JSON number; read both, never through a float.

    Raises:
        UnfitError: if it is neither.
    """
    if raw is None or raw == "":
        return None
    try:
        value = Decimal(str(raw).strip())
    except InvalidOperation as error:
        message = f"{clipped(raw)} is not a number"
        raise UnfitError(message) from error
    if isinstance(raw, bool) or not value.is_finite() or abs(value.adjusted()) > EXPONENT_MAX:
        message = f"{clipped(raw)} is not a number"
        raise UnfitError(message)
    return normalise(value)


def flag(raw: Json) -> Canonical:
    """A checkbox: JSON bool, or ``1``/``0`` as number or text.

    Raises:
        UnfitError: for anything else.
    """
    known = {"true": True, "1": True, "false": False, "0": False, "": None, "none": None}
    if (spelling := str(raw).lower()) not in known:
        message = f"{clipped(raw)} is not a checkbox value"
        raise UnfitError(message)
    return known[spelling]


def instant(raw: Json) -> datetime | None:
    """Unix seconds, as number or text.

    Raises:
        UnfitError: if it is not that, or outside the years 1 to 9999.
    """
    seconds = number(raw)
    if seconds is None:
        return None
    try:
        return EPOCH + timedelta(seconds=int(str(seconds)))
    except (ValueError, OverflowError) as error:
        message = f"{clipped(raw)} is not a time in unix seconds"
        raise UnfitError(message) from error


def _enum_name(item: Json, enums: Mapping[int, str], final: bool) -> str:
    """The choice's name now; a removed choice keeps the text that the lead carries."""
    enum_id: int | None = item.get("enum_id")
    if enum_id is None or enum_id in enums or final:
        return str(enums.get(enum_id or 0) or item.get("value") or "").strip()
    raise UnknownReference("enum", enum_id)


def _price(lead: Mapping[str, Json]) -> Canonical:
    # Newer accounts keep cents, and then `price` is rounded (reference 3.2).
    exact = lead.get("price_with_minor_units")
    return number(lead.get("price") if exact is None else exact)


def stage_label(
    stage: tuple[int, int], schema: KommoSchema, names: Mapping[str, str]
) -> str | None:
    """The text for a (pipeline id, status id): the mapping's, else Kommo's; None if unknown."""
    chosen = names.get(f"{stage[0]}/{stage[1]}") or names.get(str(stage[1]))
    label = chosen or schema.status_names.get(stage)
    return label and label.strip()


def _stage(
    lead: Mapping[str, Json], final: bool, schema: KommoSchema, names: Mapping[str, str]
) -> Canonical:
    pipeline_id, status_id = lead.get("pipeline_id"), lead.get("status_id")
    if pipeline_id is None or status_id is None:  # a lead in the trash
        return None
    label = stage_label((pipeline_id, status_id), schema, names)
    if label is None:
        raise _unknown("status", f"{pipeline_id}/{status_id}", final)
    return normalise(label)


def _pipeline(lead: Mapping[str, Json], final: bool, schema: KommoSchema) -> Canonical:
    pipeline_id = lead.get("pipeline_id")
    if pipeline_id is None:
        return None
    pipeline = schema.pipeline_by_id.get(pipeline_id)
    if pipeline is None:
        raise _unknown("pipeline", pipeline_id, final)
    return normalise(pipeline.name.strip())


def responsible(lead: Mapping[str, Json], schema: KommoSchema) -> User | None:
    """The responsible user; one who is gone is ``User 123``, nobody (or the robot, 0) is None."""
    user_id = lead.get("responsible_user_id")
    known = schema.user_by_id.get(user_id) if user_id else None
    return known or (User(id=user_id, name=f"User {user_id}") if user_id else None)


def _user(lead: Mapping[str, Json], final: bool, schema: KommoSchema) -> User | None:
    user = responsible(lead, schema)
    if user and user.id not in schema.user_by_id and not final:
        raise UnknownReference("user", user.id)
    return user


def _user_name(lead: Mapping[str, Json], final: bool, schema: KommoSchema) -> Canonical:
    user = _user(lead, final, schema)
    return normalise(user.name) if user else None


def _user_email(lead: Mapping[str, Json], final: bool, schema: KommoSchema) -> Canonical:
    user = _user(lead, final, schema)
    return normalise(user.email) if user else None


def _loss_reason(lead: Mapping[str, Json], final: bool, schema: KommoSchema) -> Canonical:
    reason_id = lead.get("loss_reason_id")
    if not reason_id:
        return None
    # with=loss_reason gives the name too; it is an array, whatever the docs' table says (3.2).
    told = {item.get("id"): item.get("name") for item in embedded(lead, "loss_reason")}
    name = schema.loss_reason_names.get(reason_id) or told.get(reason_id)
    if name is None:
        raise _unknown("loss reason", reason_id, final)
    return normalise(str(name).strip())


def _unknown(what: str, ref: int | str, final: bool) -> UnknownReference | UnfitError:
    return UnfitError(f"{what} {ref} is not in Kommo") if final else UnknownReference(what, ref)
