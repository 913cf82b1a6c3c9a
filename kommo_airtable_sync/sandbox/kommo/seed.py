"""An account to play with, and realistic deals; the same seed gives the same deals."""

from __future__ import annotations

import random
from typing import Any
from zoneinfo import ZoneInfo

from kommo_airtable_sync.sandbox.kommo.fields import midnight
from kommo_airtable_sync.sandbox.kommo.state import LOST, WON, State

Json = dict[str, Any]
ADMIN_ID = 11087001
SALES_ID, ENTERPRISE_ID = 8571001, 8571002
PIPELINES = {
    SALES_ID: ("Sales", ("New", "Qualified", "Proposal", "Negotiation", "Contract Sent")),
    ENTERPRISE_ID: ("Enterprise", ("Discovery", "Pilot", "In Progress", "Procurement")),
}
LOSS_REASONS = {19001: "Too expensive", 19002: "No budget", 19003: "Chose a competitor"}
USERS = ("Ada Admin", "Zoë Müller", "Иван Петров", "Gone Gary")  # an admin first, one gone last
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
    ("Onboarding status", "select", ("Not started", "In progress", "Done")),
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
    """Two pipelines, four users, loss reasons and custom fields."""
    for pipeline_id, (name, stages) in PIPELINES.items():
        numbered = {pipeline_id * 10 + n: stage for n, stage in enumerate(stages, 1)}
        state.add_pipeline(pipeline_id, name, numbered)
    for n, name in enumerate(USERS):
        state.add_user(ADMIN_ID + n, name, admin=n == 0, active=n < len(USERS) - 1)
    stamps = {"sort": 100_000, "created_at": 1_700_000_000, "updated_at": 1_700_000_000}
    for reason_id, name in LOSS_REASONS.items():
        state.rows["leads/loss_reasons"][reason_id] = {"id": reason_id, "name": name} | stamps
    for n, (name, kind, choices) in enumerate(LEAD_FIELDS):
        enums = tuple(((1100001 + n) * 10 + i, value, None) for i, value in enumerate(choices))
        currency = "EUR" if kind == "monetary" else None
        state.add_field(
            "leads", 1100001 + n, name, kind, sort=500 + n, enums=enums, currency=currency
        )
    for kind, first in (("contacts", 1200001), ("companies", 1300001)):
        for field_id, (code, (name, labels)) in enumerate(CONTACT_LABELS.items(), first):
            enums = tuple((field_id * 10 + i, label, label) for i, label in enumerate(labels))
            state.add_field(kind, field_id, name, "multitext", code=code, enums=enums)


def seed_leads(state: State, count: int, seed: int, now: float) -> list[int]:
    """Add realistic deals of the past year without log entries or hooks; their ids."""
    dice = random.Random(f"{seed}/{len(state.rows['leads'])}")  # noqa: S311 - reproducible
    tags = [state.tag_id("leads", name) for name in _TAGS]
    made = [_deal(state, dice, tags, int(now)) for _ in range(count)]
    state.rows["leads"].update({each["id"]: each for each in made})
    state.touch()
    return [each["id"] for each in made]


def _deal(state: State, dice: random.Random, tags: list[int], now: int) -> Json:
    zone = ZoneInfo(state.account.timezone)
    pipeline = state.rows["leads/pipelines"][dice.choice((SALES_ID, SALES_ID, ENTERPRISE_ID))]
    status: int = dice.choice(pipeline["_embedded"]["statuses"][1:])["id"]
    user = dice.choice([k for k, u in state.rows["users"].items() if u["rights"]["is_active"]])
    created = now - dice.randrange(3600, 365 * 86400)
    updated = dice.randrange(created, now)
    lead_id = state.next_id("leads")
    return {
        "kind": "leads",
        "id": lead_id,
        "is_deleted": False,
        "name": f"{dice.choice(_NAMES)} {dice.choice(_WHAT)} {lead_id}",
        "price": dice.choice((0, dice.randrange(1, 500), dice.randrange(500, 250_000))),
        "pipeline_id": pipeline["id"],
        "status_id": status,
        "loss_reason_id": dice.choice(list(LOSS_REASONS)) if status == LOST else None,
        "closed_at": updated if status in (WON, LOST) else None,
        "created_at": created,
        "updated_at": updated,
        **dict.fromkeys(("responsible_user_id", "created_by", "updated_by"), user),
        "tags": dice.sample(tags, dice.choice((0, 0, 1, 2))),
        "fields": {
            field["id"]: _values(field, dice, now, zone)
            for field in state.fields("leads")
            if dice.random() < 0.6
        },
    }


def _values(field: Json, dice: random.Random, now: int, zone: ZoneInfo) -> list[Json]:
    number = dice.randrange(1, 100_000)
    if field["enums"]:
        size = dice.randint(1, 3) if field["type"] == "multiselect" else 1
        chosen = dice.sample(field["enums"], size)
        return [{"value": e["value"], "enum_id": e["id"], "enum_code": None} for e in chosen]
    made: Json = {
        "text": f"{dice.choice(('DE', 'FR', 'ÅL', 'РУ'))}-{number}",
        "numeric": str(number),
        "monetary": f"{number}.{number % 100:02d}",
        "date": midnight(now - dice.randrange(300 * 86400), zone),
        "date_time": now - dice.randrange(300 * 86400),
        "checkbox": dice.random() < 0.5,
        "url": f"https://example.com/{number}",
        "textarea": f"Erste Zeile {number}\nвторая строка ✅",
    }
    return [{"value": made[field["type"]]}]
