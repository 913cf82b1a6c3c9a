"""``sync.yaml`` against the two live schemas: which field is what, by id."""

from __future__ import annotations

from collections import abc
from dataclasses import dataclass
from functools import cached_property

from kommo_airtable_sync.core.config import LinkPart, SyncConfig
from kommo_airtable_sync.core.destinations import LOST, Fragment, merge_fragments
from kommo_airtable_sync.core.errors import LeadFailed
from kommo_airtable_sync.core.field_mapping import FieldMapping, KeyField
from kommo_airtable_sync.core.filters import Filters, resolve_filters
from kommo_airtable_sync.core.problems import Problems, not_known
from kommo_airtable_sync.core.resolving import KEY_TYPES, STATUS_TYPES, TableResolver
from kommo_airtable_sync.core.schemas import (
    AirtableField,
    AirtableSchema,
    AirtableTable,
    KommoSchema,
)
from kommo_airtable_sync.core.types import (
    ENTITIES,
    LINK_KINDS,
    Canonical,
    Json,
    LinkKind,
    LinkName,
)


@dataclass(frozen=True)
class Mapping:
    """The whole mapping, resolved.

    Args:
        table: the mirrored table.
        fields: those of ``fields``, then the link fields of ``links``.
        modified_field_id: a lastModifiedTime field, if one is configured.
        status: the field that says in words how a record stands, if one is configured.
        links: at most one a kind.
    """

    table: AirtableTable
    key: KeyField
    fields: tuple[FieldMapping, ...]
    filters: Filters
    modified_field_id: str | None = None
    status: AirtableField | None = None
    links: tuple[LinkMapping, ...] = ()

    @property
    def table_id(self) -> str:
        """The id of the mirrored table."""
        return self.table.id

    @property
    def table_name(self) -> str:
        """The name of the mirrored table."""
        return self.table.name

    @cached_property
    def needs_names(self) -> frozenset[LinkName]:
        """Which of main contact and company are mapped by name."""
        sources = {field.source.name for field in self.fields}
        return frozenset(name for name in LINK_KINDS if name in sources)

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


@dataclass(frozen=True)
class LinkMapping:
    """The contacts or companies behind the leads, mirrored into a table of their own.

    Args:
        kind: of its keys in inbox and ledger.
        kommo: what of the lead it is.
        target: the deals' field that links to the record; one of the deals mapping's fields.
        mapping: of the contacts or companies, all of it Kommo's; its "leads" are these.
    """

    kind: LinkKind
    kommo: LinkName
    target: AirtableField
    mapping: Mapping


def wanted_embeds(mapping: Mapping) -> tuple[str, ...]:
    """What a lead answers only when asked (reference kommo 3.2), as far as the mapping needs it."""
    linked = {link.kommo for link in mapping.links} | mapping.needs_names
    wanted = {
        "contacts": "main_contact" in linked,
        "source_id": any(field.source.name == "source" for field in mapping.fields),
    }
    return tuple(name for name, needed in wanted.items() if needed)


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
        config: of ``sync.yaml``.
        kommo: the account.
        airtable: the base.
        base_url: of the Kommo account; needed if ``url`` is mapped.
        source: the file, for messages.

    Raises:
        ConfigurationError: naming everything that does not fit, by path, and what is allowed.
    """
    problems = Problems(source)
    filters = resolve_filters(config.kommo, kommo, problems)
    table = _table(airtable, "airtable.table", config.airtable.table, problems)
    if table is None:
        raise problems.error()
    resolver = TableResolver(table, kommo, "leads", base_url, problems)
    own = config.airtable
    key = resolver.special("airtable.key_field", own.key_field, KEY_TYPES)
    status = resolver.special("airtable.status_field", own.status_field, STATUS_TYPES)
    modified = resolver.special(
        "airtable.modified_field", own.modified_field, ("lastModifiedTime",)
    )
    fields = [resolver.field(f"fields[{i}]", part) for i, part in enumerate(config.fields)]
    links = _Links(airtable, kommo, base_url, problems, resolver, {table.id: "airtable.table"})
    pairs = [links.resolve(f"links[{i}]", part) for i, part in enumerate(config.links)]
    problems.raise_if_any()
    assert key is not None  # noqa: S101 (a missing key field is a problem, raised above)
    found = [pair for pair in pairs if pair is not None]
    return Mapping(
        table=table,
        key=KeyField(key.id, key.name, key.type),
        fields=tuple(field for field in (*fields, *(field for field, _ in found)) if field),
        filters=filters,
        modified_field_id=modified.id if modified else None,
        status=status,
        links=tuple(link for _, link in found),
    )


@dataclass(frozen=True)
class _Links:
    """Resolves one entry of ``links`` after another.

    Args:
        deals: the resolver of the table that holds the links.
        taken: what a table, or a ``kommo:`` name, is already used for, by path.
    """

    airtable: AirtableSchema
    kommo: KommoSchema
    base_url: str
    problems: Problems
    deals: TableResolver
    taken: dict[str, str]

    def resolve(self, path: str, part: LinkPart) -> tuple[FieldMapping, LinkMapping] | None:
        """The deals' link field, and what it links to; None if anything does not fit."""
        table = _table(self.airtable, f"{path}.table", part.table, self.problems)
        field = self.deals.link(path, part, table)
        self._take(f"{path}.kommo", part.kommo, part.kommo)
        if table is None:
            return None
        self._take(f"{path}.table", table.id, table.name)
        kind = LINK_KINDS[part.kommo]
        resolver = TableResolver(table, self.kommo, ENTITIES[kind], self.base_url, self.problems)
        key = resolver.special(f"{path}.key_field", part.key_field, KEY_TYPES)
        fields = [resolver.field(f"{path}.fields[{i}]", each) for i, each in enumerate(part.fields)]
        if field is None or key is None:
            return None
        mapping = Mapping(
            table=table,
            key=KeyField(key.id, key.name, key.type),
            fields=tuple(each for each in fields if each is not None),
            filters=Filters(),
        )
        return field, LinkMapping(kind, part.kommo, field.target, mapping)

    def _take(self, path: str, what: str, name: str) -> None:
        first = self.taken.setdefault(what, path)
        if first != path:
            self.problems.add(path, f"{name!r} is already used by {first}")


def _table(
    airtable: AirtableSchema, path: str, wanted: str, problems: Problems
) -> AirtableTable | None:
    found = airtable.find_table(wanted)
    if found is None:
        names = [table.name for table in airtable.tables]
        problems.add(path, not_known(wanted, names, "a table"))
    return found
