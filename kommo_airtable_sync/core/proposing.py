"""A ``sync.yaml`` for two accounts as they are: which table, which field is what. Pure.

Only what is sure is proposed outright; the rest is left to a person, with what speaks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kommo_airtable_sync.core import making
from kommo_airtable_sync.core.codecs import CELL_KINDS
from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.core.likeness import SURE, Match, Offer, decide, match, offers, same_name
from kommo_airtable_sync.core.problems import not_known
from kommo_airtable_sync.core.resolving import KEY_TYPES, STATUS_TYPES
from kommo_airtable_sync.core.schemas import (
    AirtableField,
    AirtableSchema,
    AirtableTable,
    KommoSchema,
)
from kommo_airtable_sync.core.types import (
    ENTITIES,
    LINK_KINDS,
    EntityKind,
    Json,
    LinkName,
)

KEY_NAMES: dict[EntityKind, tuple[str, ...]] = {
    "leads": ("Kommo Deal ID", "Kommo Lead ID", "Kommo ID", "Lead ID", "Deal ID", "amoCRM ID"),
    "contacts": ("Kommo Contact ID", "Contact ID", "Kommo ID"),
    "companies": ("Kommo Company ID", "Company ID", "Kommo ID"),
}
"""Names of the key field; the first is the one that is made."""
STATUS_NAMES = ("Sync Status", "Kommo Sync Status", "Kommo Sync")
TABLE_NAMES = ("Deals", "Leads", "Kommo Deals", "Kommo Leads", "Opportunities", "Deal", "Lead")
LINK_NAMES: dict[LinkName, tuple[str, ...]] = {
    "main_contact": ("Client", "Clients", "Contact", "Contacts", "Main Contact", "Customer",
                     "Customers", "Person", "People"),
    "company": ("Company", "Companies", "Organisation", "Organisations", "Organization",
                "Organizations"),
}  # fmt: skip
# A key or the right name says more of a table than some fields that might be anybody's.
_KEY_WORTH, _NAME_WORTH = 8, 4


@dataclass(frozen=True, slots=True)
class FieldToMake:
    """A field that the base lacks, in the metadata API's form."""

    table: AirtableTable
    definition: Json


@dataclass(frozen=True, slots=True)
class TableProposal:
    """What is what in one table.

    Args:
        key: None if no field can hold Kommo's ids.
        sure: proposed outright.
        doubtful: left to a person.
        unused: Kommo's that nothing shows.
    """

    table: AirtableTable
    key: AirtableField | None
    sure: tuple[Match, ...]
    doubtful: tuple[Match, ...]
    unused: tuple[Offer, ...]


@dataclass(frozen=True, slots=True)
class LinkProposal:
    """A linked-record field for main contact or company; ``is_sure`` unless others compete."""

    field: AirtableField
    kommo: LinkName
    records: TableProposal
    is_sure: bool


@dataclass(frozen=True, slots=True)
class Proposal:
    """All that is proposed."""

    deals: TableProposal
    status: AirtableField | None
    modified: AirtableField | None
    links: tuple[LinkProposal, ...]
    missing: tuple[FieldToMake, ...]
    """What could be made in Airtable; a proposal made after that has none of it."""


def propose(
    kommo: KommoSchema, airtable: AirtableSchema, *, base_url: str, table: str | None = None
) -> Proposal:
    """Propose a mapping.

    Args:
        kommo: the account, with the custom fields of contacts and companies.
        airtable: the base.
        base_url: of the Kommo account.
        table: name or id of the one for the deals; else the one that looks like it.

    Raises:
        ConfigurationError: if the table is unknown, or several could be meant.
    """
    deals = _table(kommo, airtable, base_url, table)
    links = _links(deals.table, kommo, airtable, base_url)
    status = _named(deals.table, STATUS_NAMES, STATUS_TYPES)
    modified = [each for each in deals.table.fields if each.type == "lastModifiedTime"]
    missing = _missing(deals, kommo, "leads")
    if status is None and _is_free(deals.table, STATUS_NAMES[0]):
        missing.append(FieldToMake(deals.table, making.status_field(STATUS_NAMES[0])))
    for link in links:
        if link.is_sure:
            missing += _missing(link.records, kommo, ENTITIES[LINK_KINDS[link.kommo]])
    return Proposal(
        deals=deals,
        status=status,
        modified=modified[0] if len(modified) == 1 else None,
        links=tuple(links),
        missing=tuple(missing),
    )


def _table(
    kommo: KommoSchema, airtable: AirtableSchema, base_url: str, wanted: str | None
) -> TableProposal:
    known = offers(kommo, base_url)
    if wanted is not None:
        found = airtable.find_table(wanted)
        if found is None:
            names = [table.name for table in airtable.tables]
            raise ConfigurationError(f"--table: {not_known(wanted, names, 'a table of the base')}.")
        return _of_table(found, known, kommo, "leads")
    ranked = sorted(
        (_of_table(each, known, kommo, "leads") for each in airtable.tables),
        key=_worth,
        reverse=True,
    )
    if not ranked:
        raise ConfigurationError("The Airtable base has no table.", "Make one for the deals.")
    best = [each for each in ranked if _worth(each) == _worth(ranked[0])]
    if len(best) > 1:
        names = ", ".join(repr(each.table.name) for each in best)
        raise ConfigurationError(
            f"Several tables could be the one for the deals: {names}.", "Choose one with --table."
        )
    return best[0]


def _worth(found: TableProposal) -> int:
    named = same_name(found.table.name, *TABLE_NAMES)
    return len(found.sure) + _KEY_WORTH * (found.key is not None) + _NAME_WORTH * named


def _of_table(
    table: AirtableTable, known: Sequence[Offer], kommo: KommoSchema, entity: EntityKind
) -> TableProposal:
    key = _named(table, KEY_NAMES[entity], KEY_TYPES)
    # Computed fields take nothing; links are proposed by the table that they lead to.
    others = [
        each
        for each in table.fields
        if each is not key
        and each.type in CELL_KINDS
        and each.type != "multipleRecordLinks"
        and not same_name(each.name, *STATUS_NAMES)
    ]
    matches = [match(target, offer, kommo) for target in others for offer in known]
    sure, doubtful = decide([each for each in matches if each is not None])
    shown = {each.offer for each in sure}
    unused = tuple(offer for offer in known if offer not in shown)
    return TableProposal(table, key, tuple(sure), tuple(doubtful), unused)


def _links(
    deals: AirtableTable, kommo: KommoSchema, airtable: AirtableSchema, base_url: str
) -> list[LinkProposal]:
    found: list[LinkProposal] = []
    for name, usual in LINK_NAMES.items():
        entity = ENTITIES[LINK_KINDS[name]]
        pairs = [
            (field, table)
            for field in deals.fields
            if field.type == "multipleRecordLinks"
            and (table := airtable.find_table(field.linked_table_id or "")) is not None
            and table.id != deals.id
            and (same_name(field.name, *usual) or same_name(table.name, *usual))
        ]
        known = offers(kommo, base_url, entity)
        found += [
            LinkProposal(field, name, _of_table(table, known, kommo, entity), len(pairs) == 1)
            for field, table in pairs
        ]
    return found


def _named(
    table: AirtableTable, names: Sequence[str], types: Sequence[str]
) -> AirtableField | None:
    """The field with the first of these names that one of these types has."""
    fitting = [each for each in table.fields if each.type in types]
    return next((each for name in names for each in fitting if same_name(each.name, name)), None)


def _missing(found: TableProposal, kommo: KommoSchema, entity: EntityKind) -> list[FieldToMake]:
    """The key, and a field for each of Kommo's that nothing shows or may show."""
    made = [] if found.key else [making.key_field(KEY_NAMES[entity][0])]
    # What a person has to choose between is not made beside it.
    open_ = {each.offer for each in found.doubtful if each.confidence >= SURE}
    for offer in found.unused:
        definition = None if offer in open_ else making.field_for(offer, kommo)
        # Of contacts and companies only how to reach them.
        if definition and (entity == "leads" or definition["type"] in {"phoneNumber", "email"}):
            made.append(definition)
    # Kommo does not keep names unique, Airtable does, whatever their capitals.
    by_name = {str(each["name"]).casefold(): each for each in reversed(made)}
    return [
        FieldToMake(found.table, each)
        for each in made
        if by_name[str(each["name"]).casefold()] is each and _is_free(found.table, each["name"])
    ]


def _is_free(table: AirtableTable, name: str) -> bool:
    return all(field.name.casefold() != name.casefold() for field in table.fields)
