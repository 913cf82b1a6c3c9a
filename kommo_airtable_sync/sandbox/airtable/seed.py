"""The base that goes with the Kommo stand-in's account: Deals, and the Clients behind them."""

from __future__ import annotations

from typing import Any

from kommo_airtable_sync.sandbox.airtable.schema import Base, Ids, new_field, new_table

Json = Any
BASE_ID = "appSandbox0000000"
_DAY = {"dateFormat": {"name": "iso", "format": "YYYY-MM-DD"}}
_INSTANT = {**_DAY, "timeFormat": {"name": "24hour", "format": "HH:mm"}, "timeZone": "utc"}
_MONEY = {"precision": 2, "symbol": "$"}
_WHOLE = {"precision": 0}

# The names of the Kommo stand-in's account, so that a mapping needs no create_options.
STAGES = (
    "New", "Qualified", "Proposal", "Negotiation", "Won", "Lost", "In Progress", "Onboarding",
    "Contract Sent", "Discovery", "Pilot", "Procurement"
)  # fmt: skip
_PIPELINES = ("Sales", "Enterprise")
_TAGS = ("hot", "VIP", "späť", "повтор", "newsletter", "partner", "internal", "test")
_REGIONS = ("EU", "UK", "US")
_PRODUCTS = ("CRM", "Chat", "Voice", "Reports")
_SOURCES = ("Inbound", "Outbound", "Partner")
_ONBOARDING = ("Not started", "In progress", "Done")


def _select(names: tuple[str, ...]) -> Json:
    return {"choices": [{"name": each} for each in names]}


def deals_fields() -> list[Json]:
    """The fields of "Deals" in Metadata API form, the primary one first."""
    rows: list[tuple[str, str, Json]] = [
        ("Deal Name", "singleLineText", {}),
        ("Kommo Deal ID", "number", _WHOLE),
        ("Stage", "singleSelect", _select(STAGES)),
        ("Pipeline", "singleSelect", _select(_PIPELINES)),
        ("Amount", "currency", _MONEY),
        ("Manager", "singleLineText", {}),
        ("Manager Email", "email", {}),
        ("Tags", "multipleSelects", _select(_TAGS)),
        ("Region", "singleSelect", _select(_REGIONS)),
        ("Region Code", "singleLineText", {}),
        ("Seats", "number", _WHOLE),
        ("Contract Date", "date", _DAY),
        ("Kickoff", "dateTime", _INSTANT),
        ("VIP", "checkbox", {"icon": "check", "color": "greenBright"}),
        ("Products", "multipleSelects", _select(_PRODUCTS)),
        ("Website", "url", {}),
        ("Notes", "multilineText", {}),
        ("Budget", "currency", _MONEY),
        ("Source Type", "singleSelect", _select(_SOURCES)),
        ("Created", "dateTime", _INSTANT),
        ("Closed", "dateTime", _INSTANT),
        ("Onboarding Status", "singleSelect", _select(_ONBOARDING)),
        ("Sync Status", "singleLineText", {}),
    ]
    return [{"name": name, "type": kind, "options": options} for name, kind, options in rows]


def sandbox_base(ids: Ids) -> Base:
    """A fresh base "Sandbox" without records."""
    base = Base(BASE_ID, "Sandbox")
    deals = new_table(ids, base, "Deals", deals_fields())
    modified: Json = {
        "isValid": True,
        "referencedFieldIds": [],
        "result": {"type": "dateTime", "options": _INSTANT},
    }
    definition: Json = {"name": "Last Modified", "type": "lastModifiedTime", "options": modified}
    new_field(ids, base, deals, definition, any_type=True)
    clients = new_table(
        ids,
        base,
        "Clients",
        [
            {"name": "Name", "type": "singleLineText"},
            {"name": "Kommo Contact ID", "type": "number", "options": _WHOLE},
            {"name": "Phone", "type": "phoneNumber"},
            {"name": "Email", "type": "email"},
        ],
    )
    link: Json = {
        "name": "Deals",
        "type": "multipleRecordLinks",
        "options": {"linkedTableId": deals.id},
    }
    inverse_id = new_field(ids, base, clients, link).options["inverseLinkFieldId"]
    deals.fields[inverse_id].name = "Client"
    deals.rename_fields()
    deals.key_field = deals.field_of("Kommo Deal ID").id
    clients.key_field = clients.field_of("Kommo Contact ID").id
    return base
