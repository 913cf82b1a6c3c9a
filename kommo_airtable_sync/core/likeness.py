"""How surely an Airtable field and a part of a Kommo lead are the same thing: name, type, options.

Confidences are percents. They order proposals and decide what is proposed outright; nothing else
depends on them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher

from kommo_airtable_sync.core.config import Attribute, LinkedAttribute
from kommo_airtable_sync.core.destinations import is_writable
from kommo_airtable_sync.core.resolving import allowed_targets
from kommo_airtable_sync.core.schemas import AirtableField, KommoSchema
from kommo_airtable_sync.core.sources import (
    CUSTOM_KINDS,
    READABLE,
    Source,
    attribute_source,
    custom_field_source,
)
from kommo_airtable_sync.core.types import EntityKind
from kommo_airtable_sync.core.vocabulary import words_of

SURE = 80
MAYBE = 60
# A rival this close makes a match a matter of opinion.
MARGIN = 5
_SIMILAR_MIN = 0.7
_SIMILAR_WORTH = 85
_USUAL_WORTH = 90

# Usual names, as people spell them (Kommo sells in English, Spanish, Portuguese and Russian); the
# first one is the attribute's own.
USUAL_NAMES: dict[Attribute | LinkedAttribute, tuple[str, ...]] = {
    "name": ("name", "deal name", "lead name", "deal", "lead", "title", "opportunity", "nombre",
             "nome", "название"),
    "price": ("price", "amount", "value", "deal value", "deal amount", "sale", "sum", "valor",
              "сумма", "бюджет"),
    "stage": ("stage", "status", "deal stage", "lead stage", "lead status", "deal status", "etapa",
              "этап", "статус"),
    "pipeline": ("pipeline", "sales pipeline", "funnel", "embudo", "funil", "воронка"),
    "responsible_user": ("responsible user", "responsible", "manager", "owner", "deal owner",
                         "lead owner", "assignee", "assigned to", "sales rep", "salesperson",
                         "account manager", "responsable", "responsável", "ответственный"),
    "responsible_user_email": ("responsible user email", "manager email", "owner email",
                               "responsible email", "assignee email"),
    "tags": ("tags", "tag", "labels", "etiquetas", "теги"),
    "created_at": ("created at", "created", "created on", "creation date", "date created"),
    "updated_at": ("updated at", "updated", "updated on", "last updated"),
    "closed_at": ("closed at", "closed", "closed on", "close date", "closing date"),
    "loss_reason": ("loss reason", "lost reason", "reason lost", "reason for loss"),
    "company": ("company", "company name", "organisation", "organization", "empresa", "компания"),
    "main_contact": ("main contact", "contact", "contact name", "client", "client name",
                     "customer", "contacto", "contato", "контакт"),
    "source": ("source id",),
    "url": ("url", "kommo link", "kommo url", "link to kommo", "lead url", "deal url"),
    "score": ("score", "lead score"),
    "first_name": ("first name", "given name"),
    "last_name": ("last name", "surname", "family name"),
}  # fmt: skip
_OF_LINKED: tuple[LinkedAttribute, ...] = (
    "name", "first_name", "last_name", "responsible_user", "url"
)  # fmt: skip
_ONLY_LINKED = {"first_name", "last_name"}


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """Something of Kommo that a field can show.

    Args:
        source: what it yields.
        spelled: as ``kommo:`` in sync.yaml.
        label: as people know it.
        type: Kommo's, for custom fields.
    """

    source: Source
    spelled: str
    label: str
    type: str = ""

    @property
    def described(self) -> str:
        """``Seats (numeric)``, ``price``."""
        return f"{self.label} ({self.type})" if self.type else self.label


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """An Airtable field and what it may be; ``confidence`` 0: the types do not go together."""

    target: AirtableField
    offer: Offer
    confidence: int
    why: str


def offers(kommo: KommoSchema, base_url: str, entity: EntityKind = "leads") -> list[Offer]:
    """All that can be mapped of a lead, contact or company, but for its id, which is the key."""
    names = list(USUAL_NAMES) if entity == "leads" else list(_OF_LINKED)
    if entity != "contacts":
        names = [name for name in names if name not in _ONLY_LINKED]
    found = [
        Offer(
            attribute_source(name, kommo, stage_names={}, base_url=base_url, entity=entity),
            name,
            name,
        )
        for name in names
    ]
    return found + [
        Offer(
            custom_field_source(field, kommo),
            f"{{custom_field: {field.id}}}",
            field.name,
            field.type,
        )
        for field in kommo.fields_of(entity)
        if field.type in CUSTOM_KINDS or field.type in READABLE
    ]


def match(target: AirtableField, offer: Offer, kommo: KommoSchema) -> Match | None:
    """How alike a field and an offer are; None if their names have nothing in common."""
    likeness, why = _by_name(target.name, offer)
    if likeness < MAYBE:
        return None
    source = offer.source
    allowed = allowed_targets(source)
    if target.type not in allowed:
        if likeness < SURE:
            return None
        why = f"{why}, but a {target.type} field cannot hold it; allowed: {', '.join(allowed)}"
        return Match(target, offer, 0, why)
    doubts: list[tuple[int, str]] = []
    if is_writable(source) and not goes_back(target, source):
        doubts.append((5, "one way only"))
    if target.type == "singleCollaborator":
        doubts.append((20, "every responsible user would have to be a collaborator of the base"))
    if target.type == "multipleAttachments":
        doubts.append((20, "Airtable would fetch a copy from each address"))
    words = words_of(source, kommo)
    if words and target.choices and not set(words.values()) & set(target.choices):
        doubts.append((30, "none of its options is one of Kommo's"))
    confidence = likeness - sum(minus for minus, _ in doubts)
    return Match(target, offer, confidence, "; ".join([why, *(doubt for _, doubt in doubts)]))


def goes_back(target: AirtableField, source: Source) -> bool:
    """Whether a person may edit the value in Airtable, nothing of it being lost on the way."""
    return is_writable(source) and target.type in allowed_targets(source, both_ways=True)


def decide(matches: Iterable[Match]) -> tuple[list[Match], list[Match]]:
    """Which matches to propose outright, and which to leave to a person.

    The surest first; each field and each offer once. Where two are about as sure, none is chosen.

    Returns:
        (the sure ones, the doubtful ones), the surest first.
    """
    ranked = sorted(matches, key=lambda each: -each.confidence)
    sure: list[Match] = []
    open_: list[Match] = []
    taken: set[object] = set()

    def is_free(each: Match) -> bool:
        return each.target.id not in taken and each.offer not in taken

    for one in ranked:
        if not is_free(one):
            continue
        rivals = [
            other
            for other in ranked
            if other is not one
            and is_free(other)
            and (other.target.id == one.target.id or other.offer is one.offer)
            and other.confidence > one.confidence - MARGIN
        ]
        if one.confidence < SURE:
            open_.append(one)
            taken.add(one.target.id)
        elif rivals:
            open_ += [one, *rivals]
            taken |= {part for each in (one, *rivals) for part in (each.target.id, each.offer)}
        else:
            sure.append(one)
            taken |= {one.target.id, one.offer}
    return sure, open_


def same_name(one: str, *others: str) -> bool:
    """Whether a name is one of others, capitals, blanks and signs aside."""
    return squeezed(one) in {squeezed(other) for other in others}


def squeezed(name: str) -> str:
    """A name without capitals, blanks and signs."""
    return re.sub(r"[\W_]+", "", name.casefold())


def _by_name(name: str, offer: Offer) -> tuple[int, str]:
    if offer.source.custom_field is not None:
        known, worth = (offer.label,), 97
    else:
        known, worth = USUAL_NAMES[offer.spelled], _USUAL_WORTH  # type: ignore[index]
    if name == offer.label:
        return 100, "the same name"
    if same_name(name, known[0]):
        return 97, "the same name"
    if same_name(name, *known):
        return worth, "a usual name for it"
    alike = max(SequenceMatcher(None, squeezed(name), squeezed(one)).ratio() for one in known)
    return (round(alike * _SIMILAR_WORTH) if alike >= _SIMILAR_MIN else 0), "a similar name"
