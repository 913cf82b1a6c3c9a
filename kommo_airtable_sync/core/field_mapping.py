"""One mapped field, and the key field: canonical values from the lead and from the cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kommo_airtable_sync.core.codecs import fit, from_cell, to_cell
from kommo_airtable_sync.core.config import OnConflict, Owner
from kommo_airtable_sync.core.destinations import Fragment, fragment_of, patched
from kommo_airtable_sync.core.errors import LeadFailed
from kommo_airtable_sync.core.schemas import AirtableField, KommoSchema
from kommo_airtable_sync.core.sources import Source, UnfitError
from kommo_airtable_sync.core.types import Canonical, Json


class OptionMissing(LeadFailed):
    """A select lacks the option; reading the Airtable schema again may show it."""


@dataclass(frozen=True)
class KeyField:
    """The Airtable field that holds the Kommo lead id."""

    id: str
    name: str
    type: str

    def cell(self, lead_id: int) -> Json:
        """The id as this field takes it: a number, or text (which the API tells apart)."""
        return lead_id if self.type == "number" else str(lead_id)

    def lead_id_of(self, cell: Json) -> int | None:
        """The lead id in a cell; None if it is empty or no id (a person may type anything)."""
        if isinstance(cell, float) and cell.is_integer():
            cell = int(cell)
        if isinstance(cell, str) and cell.strip().isascii() and cell.strip().isdigit():
            cell = int(cell.strip())
        return cell if type(cell) is int and cell > 0 else None


@dataclass(frozen=True)
class FieldMapping:
    """One mapped field.

    Args:
        target: the Airtable field.
        source: where in the lead its value comes from.
        owner: the side that decides.
        on_conflict: who wins if the owner is ``both`` and both were edited.
        create_options: missing select options are made by Airtable (typecast).
        fingerprint: changes when the mapping gives the values another meaning; the ledger's
            values then no longer count (design 3.2, first meeting).
        schema: the Kommo account, for its zone.
    """

    target: AirtableField
    source: Source
    owner: Owner
    on_conflict: OnConflict
    create_options: bool
    fingerprint: str
    schema: KommoSchema

    @property
    def id(self) -> str:
        """The Airtable field's id."""
        return self.target.id

    @property
    def name(self) -> str:
        """The Airtable field's name."""
        return self.target.name

    @property
    def type(self) -> str:
        """The Airtable field's type."""
        return self.target.type

    def from_kommo(self, lead: Mapping[str, Json], *, final: bool = False) -> Canonical:
        """The lead's value in the terms of the Airtable field.

        Args:
            lead: as Kommo's API v4 gives it.
            final: the schema was just read again: an unknown user becomes ``User 123``, a removed
                choice keeps the text in the lead, anything else unknown fails the lead.

        Raises:
            UnknownReference: unless ``final``; read the schema again and repeat.
            LeadFailed: if Airtable's field cannot hold the value.
        """
        try:
            value = self.source.read(lead, final)
            return fit(value, self.source.kind, self.target, self.schema.zone)
        except UnfitError as error:
            reason = f"{self.name}: {error}. Correct the lead's {self.source.name}."
            raise LeadFailed(reason) from error

    def to_kommo(
        self, value: Canonical, lead: Mapping[str, Json], *, final: bool = False
    ) -> Fragment:
        """What to PATCH so that the lead takes an Airtable value; None clears.

        What Kommo will then show may be spelled otherwise (a user named by e-mail, no fraction of
        a second, 0 for no price): that is ``from_kommo(patched(lead, fragment))``.

        Args:
            value: in the terms of the Airtable field.
            lead: as it is now; tags are written as what changes of its own.
            final: the schema was just read again.

        Raises:
            UnknownReference: for a name that Kommo's schema lacks, unless ``final``.
            LeadFailed: if Kommo cannot hold the value, or we could not read it again.
        """
        try:
            fragment = fragment_of(value, self.source, self.schema, lead, final=final)
            kept = self.source.read(patched(lead, fragment), True)
            fit(kept, self.source.kind, self.target, self.schema.zone)
        except UnfitError as error:
            reason = f"{self.name}: {error}. Correct the record's {self.name} in Airtable."
            raise LeadFailed(reason) from error
        return fragment

    def to_cell(self, value: Canonical) -> Json:
        """The cell to send; null clears.

        Raises:
            OptionMissing: if the select lacks the option and may not get it.
        """
        missing = self._missing_options(value)
        if missing and not self.create_options:
            options = ", ".join(self.target.choices) or "none"
            wanted = ", ".join(repr(name) for name in missing)
            reason = (
                f"{self.name}: {wanted} is not an option of Airtable field {self.name} "
                f"(options: {options}); add it or set create_options: true"
            )
            raise OptionMissing(reason)
        return to_cell(value, self.target)

    def from_cell(self, cell: Json) -> Canonical:
        """The value of a cell of this field, absent being None (or an unticked box).

        Raises:
            LeadFailed: if the cell is not of the field's type.
        """
        try:
            return from_cell(cell, self.target)
        except UnfitError as error:
            reason = f"{self.name}: {error}; read the Airtable schema again."
            raise LeadFailed(reason) from error

    def needs_typecast(self, value: Canonical) -> bool:
        """Whether Airtable has to create an option for this value."""
        return self.create_options and bool(self._missing_options(value))

    def _missing_options(self, value: Canonical) -> list[str]:
        if self.type not in {"singleSelect", "multipleSelects"} or value is None:
            return []
        names = value if isinstance(value, frozenset) else {str(value)}
        return sorted(names - {choice.strip() for choice in self.target.choices})
