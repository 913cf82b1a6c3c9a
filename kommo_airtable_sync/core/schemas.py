"""What the two accounts look like: pipelines, users, custom fields; tables, fields, options.

Built from the APIs' own JSON and kept as JSON between runs, so that a run need not read it again.
Only what the mapping needs is kept; unknown keys in an answer are no error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, cast
from zoneinfo import ZoneInfo

from pydantic import AliasChoices, AliasPath, BaseModel, BeforeValidator, ConfigDict, Field
from typing_extensions import Self

from kommo_airtable_sync.core.errors import ConfigurationError, SyncError
from kommo_airtable_sync.core.types import EntityKind, Json


class UnknownReference(SyncError):
    """A lead names something that our copy of the Kommo schema does not know (yet).

    The engine reads the schema again, once, and repeats with ``final=True``.

    Args:
        what: ``user``, ``pipeline``, ``status``, ``loss reason`` or ``enum``.
        id: as the lead gives it; ``pipeline_id/status_id`` for a status.
    """

    def __init__(self, what: str, id: int | str) -> None:
        self.what = what
        self.id = id
        super().__init__(f"Kommo {what} {id} is not in the schema that was read last")


def is_time_zone(name: str) -> bool:
    """Whether the tz database knows this name."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # a folder such as "Europe" is an OSError
        return False
    return True


def _no_null(value: object) -> object:
    """Kommo writes "no enums" as null."""
    return () if value is None else value


def _choice_names(value: object) -> object:
    """Airtable's ``[{"id", "name", "color"}]`` as names; names as they are."""
    choices = cast("Sequence[object]", value or ())
    return [
        str(cast("Mapping[str, object]", choice)["name"]) if isinstance(choice, dict) else choice
        for choice in choices
    ]


class _Item(BaseModel):
    model_config = ConfigDict(frozen=True)


class _Cached(_Item):
    """What is kept as JSON between runs."""

    def to_json(self) -> dict[str, Json]:
        """As JSON, for the cache."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, stored: Json) -> Self:
        """From what `to_json` gave.

        Raises:
            ValueError: if it is something else (then read the schema again).
        """
        return cls.model_validate(stored)


class Named(_Item):
    """Something with an id and a name (a loss reason, a status)."""

    id: int
    name: str


class Pipeline(_Item):
    """A Kommo pipeline. Statuses 142 (won) and 143 (lost) are in each (reference 5)."""

    id: int
    name: str
    statuses: tuple[Named, ...] = Field(
        validation_alias=AliasChoices("statuses", AliasPath("_embedded", "statuses"))
    )


class User(_Item):
    """A Kommo user."""

    id: int
    name: str
    email: str | None = None
    is_active: bool = Field(
        default=True,
        validation_alias=AliasChoices("is_active", AliasPath("rights", "is_active")),
    )
    """Others cannot be given a lead, and the lead that they have shows them all the same."""


class Enum(_Item):
    """One choice of a Kommo select, radiobutton or multiselect field."""

    id: int
    value: str


class KommoField(_Item):
    """A custom field of leads, contacts or companies (reference 4.1)."""

    id: int
    name: str
    type: str
    code: str | None = None
    enums: Annotated[tuple[Enum, ...], BeforeValidator(_no_null)] = ()
    is_computed: bool = False


class KommoSchema(_Cached):
    """The Kommo account as the mapping sees it; other entities' fields only if links need them."""

    pipelines: tuple[Pipeline, ...]
    users: tuple[User, ...]
    fields: tuple[KommoField, ...]
    contact_fields: tuple[KommoField, ...] = ()
    company_fields: tuple[KommoField, ...] = ()
    loss_reasons: tuple[Named, ...]
    time_zone: str
    """``""`` if the account did not tell."""
    currency: str
    own_user_id: int | None = None
    """The user as whom the token acts."""

    @classmethod
    def from_api(
        cls,
        *,
        pipelines: Sequence[Json],
        users: Sequence[Json],
        custom_fields: Sequence[Json],
        loss_reasons: Sequence[Json],
        account: Json,
        contact_fields: Sequence[Json] = (),
        company_fields: Sequence[Json] = (),
    ) -> KommoSchema:
        """From the items of the lists' ``_embedded`` and from ``GET /account``.

        Args:
            pipelines: items of ``GET /leads/pipelines``.
            users: items of ``GET /users``.
            custom_fields: items of ``GET /leads/custom_fields``.
            loss_reasons: items of ``GET /leads/loss_reasons``.
            account: ``GET /account?with=datetime_settings`` (reference 4.2: dates are midnight
                in the account's zone).
            contact_fields: items of ``GET /contacts/custom_fields``.
            company_fields: items of ``GET /companies/custom_fields``.

        Raises:
            ConfigurationError: if the account's time zone is unknown here; dates read in a wrong
                zone would be off by a day. (Where it is not told, no date can be mapped.)
        """
        embedded: Json = account.get("_embedded") or {}
        settings: Json = embedded.get("datetime_settings")
        zone = str(settings.get("timezone") or "") if settings else ""
        if settings and not is_time_zone(zone):
            raise ConfigurationError(
                f"The Kommo account's time zone {zone!r} is not known on this machine.",
                "Set it in Kommo under Settings, or install the tzdata package.",
                side="kommo",
            )
        return cls.from_json(
            {
                "pipelines": pipelines,
                "users": users,
                "fields": custom_fields,
                "contact_fields": contact_fields,
                "company_fields": company_fields,
                "loss_reasons": loss_reasons,
                "time_zone": zone,
                "currency": str(account.get("currency") or ""),
                "own_user_id": account.get("current_user_id"),
            }
        )

    @cached_property
    def zone(self) -> ZoneInfo:
        """The account's time zone, in which Kommo keeps dates."""
        return ZoneInfo(self.time_zone or "UTC")

    @cached_property
    def user_by_id(self) -> dict[int, User]:
        """Users by id."""
        return {user.id: user for user in self.users}

    @cached_property
    def pipeline_by_id(self) -> dict[int, Pipeline]:
        """Pipelines by id."""
        return {pipeline.id: pipeline for pipeline in self.pipelines}

    @cached_property
    def status_names(self) -> dict[tuple[int, int], str]:
        """Status names by (pipeline id, status id)."""
        return {(p.id, s.id): s.name for p in self.pipelines for s in p.statuses}

    @cached_property
    def loss_reason_names(self) -> dict[int, str]:
        """Loss reasons by id."""
        return {reason.id: reason.name for reason in self.loss_reasons}

    def fields_of(self, entity: EntityKind) -> tuple[KommoField, ...]:
        """The custom fields of leads, contacts or companies."""
        known = {"contacts": self.contact_fields, "companies": self.company_fields}
        return known.get(entity, self.fields)

    def find_fields(
        self, wanted: int | str, entity: EntityKind = "leads"
    ) -> tuple[KommoField, ...]:
        """The custom fields with this id, else with this CODE, else with this name.

        More than one is possible by name: Kommo does not keep names unique.
        """
        fields = self.fields_of(entity)
        if isinstance(wanted, int):
            return tuple(field for field in fields if field.id == wanted)
        by_code = tuple(field for field in fields if field.code == wanted)
        return by_code or tuple(field for field in fields if field.name == wanted)


class AirtableField(_Item):
    """A field of an Airtable table, with those options that bound its values."""

    id: str
    name: str
    type: str
    choices: Annotated[tuple[str, ...], BeforeValidator(_choice_names)] = Field(
        default=(), validation_alias=AliasChoices("choices", AliasPath("options", "choices"))
    )
    max: int | None = Field(
        default=None, validation_alias=AliasChoices("max", AliasPath("options", "max"))
    )
    linked_table_id: str | None = Field(
        default=None,
        validation_alias=AliasChoices("linked_table_id", AliasPath("options", "linkedTableId")),
    )


class AirtableTable(_Item):
    """An Airtable table."""

    id: str
    name: str
    fields: tuple[AirtableField, ...]

    def find_field(self, wanted: str) -> AirtableField | None:
        """The field with this name or ``fld...`` id. Airtable keeps names unique in a table."""
        by_name = {field.name: field for field in self.fields}
        return by_name.get(wanted) or {field.id: field for field in self.fields}.get(wanted)


class AirtableSchema(_Cached):
    """The tables of the base (``GET /v0/meta/bases/{id}/tables``, reference 4)."""

    tables: tuple[AirtableTable, ...]

    @classmethod
    def from_api(cls, tables: Sequence[Json]) -> AirtableSchema:
        """From the list under ``tables`` in the API's answer."""
        return cls.from_json({"tables": tables})

    def find_table(self, wanted: str) -> AirtableTable | None:
        """The table with this name or ``tbl...`` id."""
        by_name = {table.name: table for table in self.tables}
        return by_name.get(wanted) or {table.id: table for table in self.tables}.get(wanted)
