"""A lead's main contact and company: which they are, and the link to their record."""

from __future__ import annotations

from collections.abc import Mapping

from kommo_airtable_sync.core.sources import Source, embedded
from kommo_airtable_sync.core.types import Canonical, Json, LinkName

LINKED = "_linked"
"""Key of a lead: the record ids of its ``main_contact`` and ``company``, put there by the engine
once these have records."""


def main_contact_id(lead: Mapping[str, Json]) -> int | None:
    """The id of the main contact, else of the first; None if there is none.

    Args:
        lead: read with ``contacts``, without which Kommo names none (reference 3.2).
    """
    contacts = embedded(lead, "contacts")
    main = next((each for each in contacts if each.get("is_main")), None)
    chosen = main or next(iter(contacts), None)
    return int(chosen["id"]) if chosen else None


def company_id(lead: Mapping[str, Json]) -> int | None:
    """The id of the company, of which a lead has one at most; always part of a lead (3.2)."""
    company = next(iter(embedded(lead, "companies")), None)
    return int(company["id"]) if company else None


def link_source(name: LinkName) -> Source:
    """The source for a field that links to the record of a lead's main contact or company."""

    def read(lead: Mapping[str, Json], _: bool) -> Canonical:
        record_ids: Json = lead.get(LINKED) or {}
        record_id = record_ids.get(name)
        return frozenset({str(record_id)}) if record_id else None

    return Source(f"link:{name}", "link", read, {})
