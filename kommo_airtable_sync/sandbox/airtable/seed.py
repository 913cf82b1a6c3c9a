"""The base that goes with the Kommo stand-in's account: Deals, and the Clients behind them."""

from __future__ import annotations

from typing import Any

from kommo_airtable_sync.sandbox.airtable.schema import LINK, Base, Ids
from kommo_airtable_sync.sandbox.airtable.schema_edits import new_field, new_table

Json = Any
BASE_ID = "appSandbox0000000"
_TEXT = "singleLineText"
_DAY = {"dateFormat": {"name": "iso", "format": "YYYY-MM-DD"}}
_INSTANT = {**_DAY, "timeFormat": {"name": "24hour", "format": "HH:mm"}, "timeZone": "utc"}
_MONEY = {"precision": 2, "symbol": "$"}
_WHOLE = {"precision": 0}


def _select(*names: str) -> Json:
    return {"choices": [{"name": each} for each in names]}


# Options go by the names of the Kommo stand-in's account, so that no mapping has to create any.
_DEALS: list[tuple[str, str, Json]] = [
    ("Deal Name", _TEXT, {}),
    ("Kommo Deal ID", "number", _WHOLE),
    ("Stage", "singleSelect", _select(
        "New", "Qualified", "Proposal", "Negotiation", "Won", "Lost", "In Progress",
        "Onboarding", "Contract Sent", "Discovery", "Pilot", "Procurement",
    )),
    ("Pipeline", "singleSelect", _select("Sales", "Enterprise")),
    ("Amount", "currency", _MONEY),
    ("Manager", _TEXT, {}),
    ("Manager Email", "email", {}),
    ("Tags", "multipleSelects", _select(
        "hot", "VIP", "späť", "повтор", "newsletter", "partner", "internal", "test"
    )),
    ("Region", "singleSelect", _select("EU", "UK", "US")),
    ("Region Code", _TEXT, {}),
    ("Seats", "number", _WHOLE),
    ("Contract Date", "date", _DAY),
    ("Kickoff", "dateTime", _INSTANT),
    ("VIP", "checkbox", {"icon": "check", "color": "greenBright"}),
    ("Products", "multipleSelects", _select("CRM", "Chat", "Voice", "Reports")),
    ("Website", "url", {}),
    ("Notes", "multilineText", {}),
    ("Budget", "currency", _MONEY),
    ("Source Type", "singleSelect", _select("Inbound", "Outbound", "Partner")),
    ("Created", "dateTime", _INSTANT),
    ("Closed", "dateTime", _INSTANT),
    ("Onboarding Status", "singleSelect", _select("Not started", "In progress", "Done")),
    ("Sync Status", _TEXT, {}),
]  # fmt: skip
_MODIFIED: Json = {
    "isValid": True,
    "referencedFieldIds": [],
    "result": {"type": "dateTime", "options": _INSTANT},
}
_CLIENTS: list[tuple[str, str, Json]] = [
    ("Name", _TEXT, {}),
    ("Kommo Contact ID", "number", _WHOLE),
    ("Phone", "phoneNumber", {}),
    ("Email", "email", {}),
]


def _definition(name: str, kind: str, options: Json) -> Json:
    return {"name": name, "type": kind, "options": options}


def sandbox_base(ids: Ids) -> Base:
    """A fresh base "Sandbox" without records."""
    base = Base(BASE_ID, "Sandbox")
    deals = new_table(ids, base, "Deals", [_definition(*each) for each in _DEALS])
    modified = _definition("Last Modified", "lastModifiedTime", _MODIFIED)
    new_field(ids, deals, modified, by_person=True)
    clients = new_table(ids, base, "Clients", [_definition(*each) for each in _CLIENTS])
    link = new_field(ids, clients, _definition("Deals", LINK, {"linkedTableId": deals.id}))
    deals.fields[link.options["inverseLinkFieldId"]].name = "Client"
    deals.key_field = deals.field_of("Kommo Deal ID").id
    clients.key_field = clients.field_of("Kommo Contact ID").id
    return base
