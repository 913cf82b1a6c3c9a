"""``sync.yaml`` against the two live schemas, one table: which field is what, by id."""

from __future__ import annotations

import hashlib
import json

from kommo_airtable_sync.core.codecs import CELL_KINDS, COMPUTED, targets_of
from kommo_airtable_sync.core.config import CustomField, FieldPart, LinkField, LinkPart
from kommo_airtable_sync.core.destinations import is_writable
from kommo_airtable_sync.core.field_mapping import FieldMapping
from kommo_airtable_sync.core.filters import find_custom_field
from kommo_airtable_sync.core.links import link_source
from kommo_airtable_sync.core.problems import Problems, not_known
from kommo_airtable_sync.core.schemas import AirtableField, AirtableTable, KommoSchema
from kommo_airtable_sync.core.sources import (
    CUSTOM_KINDS,
    READABLE,
    Source,
    attribute_source,
    custom_field_source,
)
from kommo_airtable_sync.core.types import EntityKind

KEY_TYPES = ("number", "singleLineText", "multilineText")
"""Types that Airtable's upsert can match on and that hold an id (reference 1.7)."""

STATUS_TYPES = ("singleLineText", "multilineText", "singleSelect")
"""Types that can say how a record stands."""

PEOPLE = frozenset({"responsible_user", "responsible_user_email"})
"""Attributes that a collaborator field can show."""


def allowed_targets(source: Source, *, both_ways: bool = False) -> list[str]:
    """The Airtable types for a source: those of its kind, and what only some sources fit.

    Files are fetched by the addresses of url fields. Amounts are looked for in free text only (a
    lead's name is none), and only people are collaborators: their kind follows the target.
    """
    kind = "text" if source.kind == "person" else source.kind
    allowed = set(targets_of(kind, both_ways=both_ways))
    free = source.custom_field is not None and source.custom_field.type in {"text", "textarea"}
    if kind == "text" and not free:
        allowed -= {name for name, held in CELL_KINDS.items() if held == "number"}
    if source.custom_field is None or source.custom_field.type != "url":
        allowed.discard("multipleAttachments")
    if source.name in PEOPLE:
        allowed |= set(targets_of("person", both_ways=both_ways))
    return [name for name in CELL_KINDS if name in allowed]


class TableResolver:
    """Resolves what the file says of one table, part after part, and notes the problems.

    Args:
        table: of Airtable.
        kommo: the account.
        entity: what the table's records are in Kommo.
        base_url: of the Kommo account.
        problems: where they are noted.
    """

    def __init__(
        self,
        table: AirtableTable,
        kommo: KommoSchema,
        entity: EntityKind,
        base_url: str,
        problems: Problems,
    ) -> None:
        self._table = table
        self._kommo = kommo
        self._entity: EntityKind = entity
        self._base_url = base_url
        self._problems = problems
        self._taken: dict[str, str] = {}
        self._written: dict[str, str] = {}

    def special(self, path: str, name: str | None, types: tuple[str, ...]) -> AirtableField | None:
        """A field that the sync itself uses, of one of these types."""
        found = None if name is None else self._target(path, name)
        if found is not None and found.type not in types:
            allowed = " or ".join(types)
            self._problems.add(path, f"{name!r} is a {found.type} field; it must be {allowed}")
        return found

    def field(self, path: str, part: FieldPart | LinkField) -> FieldMapping | None:
        """One entry of ``fields``; None if it does not fit."""
        target = self._target(f"{path}.airtable", part.airtable)
        source = self._source(f"{path}.kommo", part, target)
        self._check_options(path, part, target)
        if target is None or source is None or not self._check_pair(path, source, target):
            return None
        if part.owner != "kommo":
            self._check_way_back(path, source, target)
        return FieldMapping(
            target=target,
            source=source,
            owner=part.owner,
            on_conflict=part.on_conflict,
            create_options=part.create_options,
            fingerprint=self._fingerprint(source, target),
            schema=self._kommo,
        )

    def link(self, path: str, part: LinkPart, table: AirtableTable | None) -> FieldMapping | None:
        """The field that links to the records of `table`; None if it does not fit."""
        target = self.special(f"{path}.airtable", part.airtable, ("multipleRecordLinks",))
        if target is None or table is None:
            return None
        if target.linked_table_id not in {None, table.id}:
            message = f"{target.name!r} links to another table than {table.name!r}"
            self._problems.add(f"{path}.airtable", message)
        source = link_source(part.kommo)
        return FieldMapping(
            target=target,
            source=source,
            owner="kommo",
            on_conflict="kommo",
            create_options=False,
            fingerprint=self._fingerprint(source, target, table.id),
            schema=self._kommo,
        )

    def _target(self, path: str, name: str) -> AirtableField | None:
        found = self._table.find_field(name)
        if found is None:
            names = [field.name for field in self._table.fields]
            noun = f"a field of table {self._table.name!r}"
            self._problems.add(path, not_known(name, names, noun))
            return None
        first = self._taken.setdefault(found.id, path)
        if first != path:
            self._problems.add(path, f"{found.name!r} is already the field of {first}")
        return found

    def _source(
        self, path: str, part: FieldPart | LinkField, target: AirtableField | None
    ) -> Source | None:
        wanted = part.kommo
        if isinstance(wanted, CustomField):
            path = f"{path}.custom_field"
            field = find_custom_field(
                wanted.custom_field, self._kommo, self._problems, path, self._entity
            )
            if field is not None and field.type not in {*CUSTOM_KINDS, *READABLE}:
                message = f"{field.name!r} is of type {field.type}, which cannot be mapped"
                allowed = ", ".join([*CUSTOM_KINDS, *READABLE])
                self._problems.add(path, f"{message}; allowed: {allowed}")
                return None
            one = target is not None and target.type in {"email", "phoneNumber"}
            return field and custom_field_source(field, self._kommo, first_only=one)
        if self._entity == "companies" and wanted in {"first_name", "last_name"}:
            self._problems.add(path, f"a company has no {wanted}; allowed: name")
            return None
        if wanted == "url" and not self._base_url:
            self._problems.add(path, "url needs the address of the Kommo account")
        if wanted == "stage":
            self._check_stage_names(path.replace(".kommo", ".names"), part)
        person = target is not None and CELL_KINDS.get(target.type) == "person"
        return attribute_source(
            wanted,
            self._kommo,
            stage_names=part.names,
            base_url=self._base_url,
            as_person=person and wanted in PEOPLE,
            entity=self._entity,
        )

    def _check_stage_names(self, path: str, part: FieldPart | LinkField) -> None:
        stages = self._kommo.status_names
        known = {str(key[1]) for key in stages} | {f"{key[0]}/{key[1]}" for key in stages}
        for key in part.names.keys() - known:
            listed = [f"{p}/{s} ({name})" for (p, s), name in stages.items()]
            self._problems.add(f"{path}.{key}", not_known(key, listed, "the id of a stage"))

    def _check_options(
        self, path: str, part: FieldPart | LinkField, target: AirtableField | None
    ) -> None:
        if part.names and part.kommo != "stage":
            self._problems.add(f"{path}.names", "is only for kommo: stage")
        selects = {"singleSelect", "multipleSelects"}
        if part.create_options and target is not None and target.type not in selects:
            message = f"is only for single and multiple selects, not for {target.type}"
            self._problems.add(f"{path}.create_options", message)

    def _check_pair(self, path: str, source: Source, target: AirtableField) -> bool:
        allowed = allowed_targets(source)
        if target.type in COMPUTED:
            message = f"{target.name!r} is computed by Airtable ({target.type}), not writable"
        elif target.type not in CELL_KINDS:
            message = f"{target.name!r} is of type {target.type}, which cannot be mapped"
        elif target.type == "multipleRecordLinks":
            message = f"{target.name!r} links to records: map it under links"
        elif target.type not in allowed:
            message = (
                f"{target.name!r} is a {target.type} field, which cannot hold Kommo's "
                f"{source.name} ({source.kind})"
            )
        elif "date" in {source.kind, CELL_KINDS[target.type]} and not self._kommo.time_zone:
            message = "Kommo does not tell the account's time zone, without which a day is not sure"
            self._problems.add(f"{path}.kommo", message)
            return False
        else:
            return True
        self._problems.add(f"{path}.airtable", f"{message}; allowed: {', '.join(allowed)}")
        return False

    def _check_way_back(self, path: str, source: Source, target: AirtableField) -> None:
        """Whether Airtable may have a say in the field."""
        path = f"{path}.owner"
        first = self._written.setdefault(source.name, path)
        if not is_writable(source):
            message = f"Kommo's {source.name} is read-only; allowed: kommo"
            self._problems.add(path, message)
        elif first != path:
            message = f"Kommo's {source.name} is already written by {first}; allowed: kommo"
            self._problems.add(path, message)
        elif target.type not in (lossless := allowed_targets(source, both_ways=True)):
            message = (
                f"a {target.type} field cannot give back Kommo's {source.name} ({source.kind}) "
                f"whole; allowed: kommo, or a field of type {', '.join(lossless)}"
            )
            self._problems.add(path, message)

    def _fingerprint(self, source: Source, target: AirtableField, table_id: str = "") -> str:
        kinds = {source.kind, CELL_KINDS[target.type]}
        meaning = {
            "source": source.name,
            "field": target.id,
            "kinds": [source.kind, CELL_KINDS[target.type]],
            "percent": target.type == "percent",
            "names": dict(sorted(source.stage_names.items())),
            # Only days depend on where midnight is.
            "zone": self._kommo.time_zone if "date" in kinds else None,
            "base_url": self._base_url if source.name == "url" else None,
            **({"table": table_id} if table_id else {}),
        }
        return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:16]
