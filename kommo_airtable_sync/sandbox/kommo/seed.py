"""An account to play with, and realistic deals; the same seed gives the same deals."""

from __future__ import annotations

import random
from typing import Any
from zoneinfo import ZoneInfo

from kommo_airtable_sync.sandbox.kommo.state import (
    LOST,
    WON,
    CustomField,
    Entity,
    Enum,
    Pipeline,
    State,
    Status,
    User,
)
from kommo_airtable_sync.sandbox.kommo.values import midnight

ADMIN_ID = 11087001
SALES_ID, ENTERPRISE_ID = 8571001, 8571002
STAGES = {
    SALES_ID: ("Sales", ("New", "Qualified", "Proposal", "Negotiation", "Contract Sent")),
    ENTERPRISE_ID: ("Enterprise", ("Discovery", "Pilot", "In Progress", "Procurement")),
}
LOSS_REASONS = {19001: "Too expensive", 19002: "No budget", 19003: "Chose a competitor"}
USERS = (
    User(ADMIN_ID, "Ada Admin", "ada@example.com", is_admin=True),
    User(11087002, "Zoë Müller", "zoe@example.com"),
    User(11087003, "Иван Петров", "ivan@example.com"),
    User(11087004, "Gone Gary", "gary@example.com", is_active=False),
)
# (name, type, choices); ids count up from 1100001, those of choices from field id * 10
LEAD_FIELDS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Region code", "text", ()),
    ("Region", "select", ("EU", "UK", "US")),
    ("Seats", "numeric", ()),
    ("Contract date", "date", ()),
    ("Kickoff", "date_time", ()),
    ("VIP", "checkbox", ()),
    ("Products", "multiselect", ("CRM", "Chat", "Voice", "Reports")),
    ("Website", "url", ()),
    ("Notes", "textarea", ()),
    ("Budget", "monetary", ()),
    ("Source type", "radiobutton", ("Inbound", "Outbound", "Partner")),
)
CONTACT_LABELS = {
    "PHONE": ("Phone", ("WORK", "WORKDD", "MOB", "FAX", "HOME", "OTHER")),
    "EMAIL": ("Email", ("WORK", "PRIV", "OTHER")),
}
_NAMES = ("Müller GmbH", "Żółw Sp. z o.o.", "ООО Ромашка", "Café Olé ☕", "Ünlü & Söhne",
          "Northwind", "Smith & Sons",
          "東京商事", "Rocket 🚀 Labs", "O'Neill \"Quotes\" Ltd")  # fmt: skip
_WHAT = ("rollout", "Erweiterung", "renewal", "Внедрение", "pilot", "upgrade 🎉", "licences")
_TAGS = ("hot", "VIP", "späť", "повтор", "newsletter", "partner")


def lead_field_id(name: str) -> int:
    """The id of a seeded lead field."""
    return 1100001 + [each[0] for each in LEAD_FIELDS].index(name)


def seed_account(state: State) -> None:
    """Zone Europe/Berlin as the account says, two pipelines, four users, reasons and fields."""
    for sort, (pipeline_id, (name, stages)) in enumerate(STAGES.items(), 1):
        state.pipelines[pipeline_id] = pipeline(pipeline_id, name, stages, sort)
    state.users.update({each.id: User(each.id, each.name, each.email, each.is_admin, each.is_active)
                        for each in USERS})  # fmt: skip
    state.loss_reasons.update(LOSS_REASONS)
    state.add_fields("leads", [_lead_field(index) for index in range(len(LEAD_FIELDS))])
    for kind, first in (("contacts", 1200001), ("companies", 1300001)):
        for index, (code, (name, labels)) in enumerate(CONTACT_LABELS.items()):
            enums = _enums(first + index, labels, coded=True)
            field = CustomField(first + index, name, "multitext", 500 + index, code, enums)
            state.add_fields(kind, [field])


def pipeline(pipeline_id: int, name: str, stages: tuple[str, ...], sort: int = 1) -> Pipeline:
    """A pipeline with Incoming leads, its stages (ids count up from its own * 10), won and lost."""
    first = pipeline_id * 10
    statuses = [Status(first, "Incoming leads", 10, type=1, color="#c1c1c1")]
    statuses += [Status(first + n, stage, 10 + 10 * n) for n, stage in enumerate(stages, 1)]
    statuses.append(Status(WON, "Closed - won", 10_000, color="#CCFF66"))
    statuses.append(Status(LOST, "Closed - lost", 11_000, color="#D5D8DB"))
    return Pipeline(pipeline_id, name, sort, sort == 1, statuses)


def _lead_field(index: int) -> CustomField:
    name, kind, choices = LEAD_FIELDS[index]
    field_id = 1100001 + index
    currency = "EUR" if kind == "monetary" else None
    enums = _enums(field_id, choices)
    return CustomField(field_id, name, kind, 500 + index, enums=enums, currency=currency)


def _enums(field_id: int, values: tuple[str, ...], *, coded: bool = False) -> list[Enum]:
    return [
        Enum(field_id * 10 + n, value, 500 + n, value if coded else None)
        for n, value in enumerate(values)
    ]


def seed_leads(state: State, count: int, seed: int, now: float) -> list[int]:
    """Add realistic deals of the past year without log entries or hooks; their ids."""
    dice = random.Random(f"{seed}/{len(state.entities['leads'])}")  # noqa: S311 - reproducible
    tags = [state.tag_id("leads", name) for name in _TAGS]
    made = [_deal(state, dice, tags, int(now)) for _ in range(count)]
    state.version += 1
    return made


def _deal(state: State, dice: random.Random, tags: list[int], now: int) -> int:
    zone = ZoneInfo(state.account.timezone)
    pipeline = state.pipelines[dice.choice((SALES_ID, SALES_ID, ENTERPRISE_ID))]
    status = dice.choice(pipeline.statuses[1:])
    user = dice.choice([each.id for each in state.users.values() if each.is_active])
    created = now - dice.randrange(3600, 365 * 86400)
    updated = dice.randrange(created, now)
    lead_id = state.next_id("leads")
    lead = Entity("leads", lead_id, f"{dice.choice(_NAMES)} {dice.choice(_WHAT)} {lead_id}",
                  user, user, user, created, updated)  # fmt: skip
    lead.price = dice.choice((0, dice.randrange(1, 500), dice.randrange(500, 250_000)))
    lead.pipeline_id, lead.status_id = pipeline.id, status.id
    if status.id in (WON, LOST):
        lead.closed_at = updated
    if status.id == LOST:
        lead.loss_reason_id = dice.choice(list(state.loss_reasons))
    lead.tags = dice.sample(tags, dice.choice((0, 0, 1, 2)))
    for field in state.fields["leads"].values():
        if dice.random() < 0.6:
            lead.fields[field.id] = _values(field, dice, now, zone)
    state.entities["leads"][lead_id] = lead
    return lead_id


def _values(
    field: CustomField, dice: random.Random, now: int, zone: ZoneInfo
) -> list[dict[str, Any]]:
    number = dice.randrange(1, 100_000)
    if field.enums:
        size = dice.randint(1, 3) if field.type == "multiselect" else 1
        chosen = dice.sample(field.enums, size)
        return [
            {"value": each.value, "enum_id": each.id, "enum_code": each.code} for each in chosen
        ]
    made: dict[str, Any] = {
        "numeric": str(number),
        "monetary": f"{number}.{number % 100:02d}",
        "date": midnight(now - dice.randrange(300 * 86400), zone),
        "date_time": now - dice.randrange(300 * 86400),
        "checkbox": dice.random() < 0.5,
        "url": f"https://example.com/{number}",
        "textarea": f"Erste Zeile {number}\nвторая строка ✅",
    }
    return [{"value": made.get(field.type, f"{dice.choice(('DE', 'FR', 'ÅL', 'РУ'))}-{number}")}]
