"""``sync.yaml`` against the two live schemas: which field is what, by id."""

from __future__ import annotations

import hashlib
import json
from collections import abc
from dataclasses import dataclass

from kommo_airtable_sync.core.codecs import (
    CELL_KINDS,
    COMPUTED,
    targets_of,
)
from kommo_airtable_sync.core.config import CustomField, FieldPart, SyncConfig
from kommo_airtable_sync.core.destinations import LOST, Fragment, is_writable, merge_fragments
from kommo_airtable_sync.core.errors import LeadFailed
from kommo_airtable_sync.core.field_mapping import FieldMapping, KeyField
from kommo_airtable_sync.core.filters import Filters, find_custom_field, resolve_filters
from kommo_airtable_sync.core.problems import Problems, not_known
from kommo_airtable_sync.core.schemas import (
    AirtableField,
    AirtableSchema,
    AirtableTable,
    KommoSchema,
)
from kommo_airtable_sync.core.sources import (
    CUSTOM_KINDS,
    READABLE,
    Source,
    attribute_source,
    custom_field_source,
)
from kommo_airtable_sync.core.types import Canonical, Json

KEY_TYPES = ("number", "singleLineText", "multilineText")
"""Types that Airtable's upsert can match on and that hold an id (reference 1.7)."""

PEOPLE = frozenset({"responsible_user", "responsible_user_email"})
"""Attributes that a collaborator field can show."""


@dataclass(frozen=True)
class Mapping:
    """The whole mapping, resolved.

    Args:
        table_id: of the mirrored table.
        modified_field_id: a lastModifiedTime field, if one is configured.
    """

    table_id: str
    table_name: str
    key: KeyField
    fields: tuple[FieldMapping, ...]
    filters: Filters
    modified_field_id: str | None = None

    def key_cell(self, lead_id: int) -> Json:
        """The key cell of a lead's record."""
        return self.key.cell(lead_id)

    def lead_id_of(self, cell: Json) -> int | None:
        """The lead id in a key cell, None if it holds none."""
        return self.key.lead_id_of(cell)

    def needs_typecast(self, values: abc.Mapping[str, Canonical]) -> bool:
        """Whether a row, by Airtable field id, needs an option that Airtable has to create."""
        return any(f.id in values and f.needs_typecast(values[f.id]) for f in self.fields)

    def to_kommo(
        self,
        values: abc.Mapping[str, Canonical],
        lead: abc.Mapping[str, Json],
        *,
        final: bool = False,
    ) -> Fragment:
        """One lead's PATCH item, without its ``id``, for new values by Airtable field id.

        Raises:
            UnknownReference: for a name that Kommo's schema lacks, unless ``final``.
            LeadFailed: if Kommo cannot hold one of them, or stage and loss reason do not agree.
        """
        item = merge_fragments(
            field.to_kommo(values[field.id], lead, final=final)
            for field in self.fields
            if field.id in values
        )
        self._check_loss_reason(item, lead)
        return item

    def _check_loss_reason(self, item: Fragment, lead: abc.Mapping[str, Json]) -> None:
        """Lost leads have a reason, if Airtable can give one; others have none (reference 3.2)."""
        mine = (f for f in self.fields if f.source.name == "loss_reason" and f.owner != "kommo")
        field, after = next(mine, None), {**lead, **item}
        if field is None or not item.keys() & {"status_id", "loss_reason_id"}:
            return
        reasons = ", ".join(reason.name for reason in field.schema.loss_reasons)
        if after.get("status_id") != LOST and item.get("loss_reason_id"):
            reason = f"{field.name}: only a lost lead has a loss reason. Choose the lost stage too."
            raise LeadFailed(reason)
        if after.get("status_id") == LOST and not after.get("loss_reason_id"):
            reason = f"{field.name}: it is empty, but a lost lead needs one. Choose of: {reasons}."
            raise LeadFailed(reason)


def resolve(
    config: SyncConfig,
    kommo: KommoSchema,
    airtable: AirtableSchema,
    *,
    base_url: str = "",
    source: str = "sync.yaml",
) -> Mapping:
    """Resolve every name of the configuration to an id, by both live schemas.

    Args:
        config: checked by `check_supported`.
        kommo: the account.
        airtable: the base.
        base_url: of the Kommo account; needed if ``url`` is mapped.
        source: the file, for messages.

    Raises:
        ConfigurationError: naming everything that does not fit, by path, and what is allowed.
    """
    problems = Problems(source)
    filters = resolve_filters(config.kommo, kommo, problems)
    table = airtable.find_table(config.airtable.table)
    if table is None:
        names = [table.name for table in airtable.tables]
        problems.add("airtable.table", not_known(config.airtable.table, names, "a table"))
        raise problems.error()
    resolver = _Resolver(table, kommo, base_url, problems)
    key = resolver.special("airtable.key_field", config.airtable.key_field, KEY_TYPES)
    modified = resolver.special(
        "airtable.modified_field", config.airtable.modified_field, ("lastModifiedTime",)
    )
    fields = [resolver.field(f"fields[{i}]", part) for i, part in enumerate(config.fields)]
    problems.raise_if_any()
    assert key is not None  # noqa: S101 (a missing key field is a problem, raised above)
    return Mapping(
        table_id=table.id,
        table_name=table.name,
        key=KeyField(key.id, key.name, key.type),
        fields=tuple(field for field in fields if field is not None),
        filters=filters,
        modified_field_id=modified.id if modified else None,
    )


def allowed_targets(source: Source, *, both_ways: bool = False) -> list[str]:
    """The Airtable types for a source: those of its kind, and what only some sources fit.

    Amounts are looked for in free text only (a lead's name is none), and only people are
    collaborators: their kind follows the target.
    """
    kind = "text" if source.kind == "person" else source.kind
    allowed = set(targets_of(kind, both_ways=both_ways))
    free = source.custom_field is not None and source.custom_field.type in {"text", "textarea"}
    if kind == "text" and not free:
        allowed -= {name for name, held in CELL_KINDS.items() if held == "number"}
    if source.name in PEOPLE:
        allowed |= set(targets_of("person", both_ways=both_ways))
    return [name for name in CELL_KINDS if name in allowed]


class _Resolver:
    """Resolves one part of the file after another and notes the problems."""

    def __init__(
        self, table: AirtableTable, kommo: KommoSchema, base_url: str, problems: Problems
    ) -> None:
        self._table = table
        self._kommo = kommo
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

    def field(self, path: str, part: FieldPart) -> FieldMapping | None:
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
            fingerprint=self._fingerprint(part, source, target),
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

    def _source(self, path: str, part: FieldPart, target: AirtableField | None) -> Source | None:
        wanted = part.kommo
        if isinstance(wanted, CustomField):
            path = f"{path}.custom_field"
            field = find_custom_field(wanted.custom_field, self._kommo, self._problems, path)
            if field is not None and field.type not in {*CUSTOM_KINDS, *READABLE}:
                message = f"{field.name!r} is of type {field.type}, which cannot be mapped"
                allowed = ", ".join([*CUSTOM_KINDS, *READABLE])
                self._problems.add(path, f"{message}; allowed: {allowed}")
                return None
            return field and custom_field_source(field, self._kommo)
        if wanted in {"company", "main_contact"}:
            self._problems.add(path, f"{wanted} is not available yet in this version")
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
        )

    def _check_stage_names(self, path: str, part: FieldPart) -> None:
        stages = self._kommo.status_names
        known = {str(key[1]) for key in stages} | {f"{key[0]}/{key[1]}" for key in stages}
        for key in part.names.keys() - known:
            listed = [f"{p}/{s} ({name})" for (p, s), name in stages.items()]
            self._problems.add(f"{path}.{key}", not_known(key, listed, "the id of a stage"))

    def _check_options(self, path: str, part: FieldPart, target: AirtableField | None) -> None:
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
        elif target.type not in allowed:
            message = (
                f"{target.name!r} is a {target.type} field, which cannot hold Kommo's "
                f"{source.name} ({source.kind})"
            )
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

    def _fingerprint(self, part: FieldPart, source: Source, target: AirtableField) -> str:
        kinds = {source.kind, CELL_KINDS[target.type]}
        meaning = {
            "source": source.name,
            "field": target.id,
            "kinds": [source.kind, CELL_KINDS[target.type]],
            "percent": target.type == "percent",
            "names": dict(sorted(part.names.items())),
            # Only days depend on where midnight is.
            "zone": self._kommo.time_zone if "date" in kinds else None,
            "base_url": self._base_url if source.name == "url" else None,
        }
        return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:16]
