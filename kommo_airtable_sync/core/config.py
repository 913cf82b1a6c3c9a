"""``sync.yaml``: its shape, and reading it with every mistake named at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Annotated, ClassVar, Literal, cast
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    Tag,
    ValidationError,
)

from kommo_airtable_sync.core.config_errors import explain, load_yaml
from kommo_airtable_sync.core.problems import Mistakes, not_known
from kommo_airtable_sync.core.schemas import is_time_zone
from kommo_airtable_sync.core.types import LINK_KINDS, Json, LinkName

Owner = Literal["kommo", "airtable", "both"]
OnConflict = Literal["kommo", "airtable", "newest", "hold"]
Attribute = Literal[
    "name", "price", "stage", "pipeline", "responsible_user", "responsible_user_email", "tags",
    "created_at", "updated_at", "closed_at", "loss_reason", "company", "main_contact", "source",
    "url", "id", "score",
]  # fmt: skip
LinkedAttribute = Literal["name", "first_name", "last_name", "responsible_user", "url", "id"]


def _regex(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        message = f"is not a regular expression: {error}"
        raise ValueError(message) from error
    return pattern


def _zone(name: str) -> str:
    if not is_time_zone(name):
        raise ValueError(not_known(name, sorted(available_timezones()), "a time zone"))
    return name


_CRON_PARTS = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of the month", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 7),
)

_CRON_ATOM = re.compile(r"(?:\*|\w+(?:-\w+)?)(?:/0*[1-9]\d*)?")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_CRON_WORDS = {"month": set(_MONTHS), "day of the week": set(_DAYS)}


def _cron(line: str) -> str:
    parts = line.split()
    if len(parts) != 5:
        raise ValueError('is not a cron line of five parts, such as "0 3 * * *"')
    for part, (name, least, most) in zip(parts, _CRON_PARTS, strict=True):
        numbers = [int(number) for number in re.findall(r"(?<![/\d])\d+", part)]
        words = {word.lower() for word in re.findall(r"[A-Za-z]+", part)}
        # Dagster would not load what is wrong here, and nothing would run.
        if (
            not all(_CRON_ATOM.fullmatch(atom) for atom in part.split(","))
            or not all(least <= number <= most for number in numbers)
            or not words <= _CRON_WORDS.get(name, set[str]())
        ):
            raise ValueError(f"is not a cron line: {part!r} is no {name} ({least} to {most})")
    return line


def _text_keys(value: object) -> object:
    """YAML reads an unquoted ``142:`` as a number; stage ids are keys, so text."""
    if isinstance(value, Mapping):
        return {str(key): text for key, text in cast("Mapping[object, object]", value).items()}
    return value


def _source_kind(value: object) -> str:
    return "by_name" if isinstance(value, str) else "by_field"


def _some(fields: tuple[FieldPart, ...]) -> tuple[FieldPart, ...]:
    if not fields:
        raise ValueError("must hold at least one field")
    return fields


NameOrId = StrictStr | StrictInt
Name = Annotated[StrictStr, Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class CustomField(_Part):
    """A Kommo custom field."""

    custom_field: NameOrId
    """Its id, its CODE or its "Name"."""


Source = Annotated[
    Annotated[Attribute, Tag("by_name")] | Annotated[CustomField, Tag("by_field")],
    Discriminator(_source_kind),
]
LinkedSource = Annotated[
    Annotated[LinkedAttribute, Tag("by_name")] | Annotated[CustomField, Tag("by_field")],
    Discriminator(_source_kind),
]


class Condition(_Part):
    """A custom field holds one of these values."""

    field: NameOrId
    any_of: tuple[StrictStr | StrictBool | StrictInt | StrictFloat, ...] = Field(alias="in")


class Include(_Part):
    """A lead is synced if it meets every list given here; an empty list lets all pass."""

    pipelines: tuple[NameOrId, ...] = ()
    stages: tuple[NameOrId, ...] = ()
    """``"Pipeline / Stage"``, ``"pipeline_id/status_id"`` or a status id."""
    tags: tuple[StrictStr, ...] = ()
    custom_fields: tuple[Condition, ...] = ()
    sticky: StrictBool = True
    """Once synced, a lead stays synced when it leaves these stages."""


class Exclude(_Part):
    """A lead that meets any of these is not synced."""

    tags: tuple[StrictStr, ...] = ()
    name_matches: Annotated[StrictStr, AfterValidator(_regex)] | None = None
    custom_fields: tuple[Condition, ...] = ()


class KommoPart(_Part):
    """Which leads are synced, and what becomes of those that no longer are."""

    include: Include = Include()
    exclude: Exclude = Exclude()
    when_excluded: Literal["keep", "mark", "delete"] = "keep"
    """What to do with a record synced earlier whose lead no longer qualifies."""
    when_deleted: Literal["keep", "mark", "delete"] = "mark"
    """What to do with a record whose lead was deleted in Kommo."""


class AirtablePart(_Part):
    """The table that mirrors the leads."""

    table: Name
    key_field: Name
    """The number or text field that holds the Kommo lead id."""
    status_field: Name | None = None
    modified_field: Name | None = None
    """A lastModifiedTime field."""
    when_deleted: Literal["recreate", "ignore"] = "recreate"
    """What to do about a record that a person deleted."""


class FieldPart(_Part):
    """One Airtable field and what it mirrors."""

    airtable: Name
    kommo: Source
    owner: Owner = "kommo"
    on_conflict: OnConflict = "kommo"
    """With owner ``both``: which side wins when both were edited."""
    names: Annotated[dict[str, StrictStr], BeforeValidator(_text_keys)] = {}
    """For ``stage``: status id, or ``pipeline_id/status_id``, to the text to show."""
    create_options: StrictBool = False
    """Create missing select options; else such a lead is refused."""


class LinkField(_Part):
    """One field of a linked record; Kommo owns it."""

    airtable: Name
    kommo: LinkedSource
    create_options: StrictBool = False
    """Create missing select options; else such a contact or company is refused."""
    owner: ClassVar[Owner] = "kommo"
    on_conflict: ClassVar[OnConflict] = "kommo"
    names: ClassVar[Mapping[str, str]] = {}


class LinkPart(_Part):
    """A linked-record field filled with the lead's contact or company."""

    airtable: Name
    kommo: LinkName
    table: Name
    """The table of the contacts or companies, one record each."""
    key_field: Name
    """Its number or text field that holds the Kommo id."""
    fields: tuple[LinkField, ...] = ()


class Safety(_Part):
    """The brake: beyond this much change in an hour a person is asked."""

    max_share_changed: float = Field(default=0.3, ge=0, le=1)
    max_records_changed: int = Field(default=500, ge=0)
    max_deletes: int = Field(default=20, ge=0)


class Reconcile(_Part):
    """The nightly comparison of both sides."""

    cron: Annotated[StrictStr, AfterValidator(_cron)] = "0 3 * * *"
    timezone: Annotated[StrictStr, AfterValidator(_zone)] = "UTC"
    since: AwareDatetime | date | None = None


class Realtime(_Part):
    """The live run."""

    linger_seconds: float = Field(default=6, ge=0, allow_inf_nan=False)
    settle_seconds: float = Field(default=0, ge=0, allow_inf_nan=False)
    max_attempts: int = Field(default=8, ge=1)


class SyncConfig(_Part):
    """Which Kommo leads are mirrored into which Airtable table, field by field."""

    version: Literal[1]
    kommo: KommoPart = KommoPart()
    airtable: AirtablePart
    fields: Annotated[tuple[FieldPart, ...], AfterValidator(_some)]
    links: tuple[LinkPart, ...] = ()
    enrich: tuple[Annotated[StrictStr, Field(pattern=r"^[\w.]+:\w+$")], ...] = ()
    """``package.module:function``."""
    safety: Safety = Safety()
    reconcile: Reconcile = Reconcile()
    realtime: Realtime = Realtime()

    @property
    def clients(self) -> frozenset[LinkName]:
        """Which of main contact and company are mapped, by a link or by name."""
        mapped = [part.kommo for part in (*self.links, *self.fields)]
        return frozenset(name for name in LINK_KINDS if name in mapped)


def json_schema() -> dict[str, Json]:
    """JSON Schema (draft 2020-12) of ``sync.yaml``, for editors."""
    schema = SyncConfig.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def parse_config(text: str, source: str = "sync.yaml") -> SyncConfig:
    """Read ``sync.yaml``.

    Args:
        text: its content.
        source: its name, for messages.

    Raises:
        ConfigurationError: naming every mistake by the path of its key and what is allowed there.
    """
    raw = load_yaml(text, source)
    try:
        return SyncConfig.model_validate(raw)
    except ValidationError as error:
        found = explain(error.errors(), raw, json_schema())
        raise Mistakes(source, found) from error
