"""The accounts of `sync.example.yaml`, as both APIs would describe them."""

from __future__ import annotations

from typing import Any

from kommo_airtable_sync.core.config import parse_config
from kommo_airtable_sync.core.mapping import Mapping, resolve
from kommo_airtable_sync.core.schemas import AirtableSchema, KommoSchema

BASE_URL = "https://acme.kommo.com"
SALES, ENTERPRISE = 7001, 7002
NEW, QUALIFIED, PROPOSAL, IN_PROGRESS, WON, LOST = 501, 502, 503, 602, 142, 143

_CUSTOM: list[tuple[int, str, str, tuple[str, ...]]] = [
    (11, "Region code", "text", ()),
    (12, "Region", "select", ("EU", "UK", "US")),
    (13, "Seats", "numeric", ()),
    (14, "Contract date", "date", ()),
    (15, "Kickoff", "date_time", ()),
    (16, "VIP", "checkbox", ()),
    (17, "Products", "multiselect", ("Core", "Support", "Training")),
    (18, "Website", "url", ()),
    (19, "Notes", "textarea", ()),
    (20, "Budget", "monetary", ()),
    (21, "Source type", "radiobutton", ("Inbound", "Outbound")),
    (22, "UTM_SOURCE", "tracking_data", ()),
    (23, "Papers", "file", ()),
    (24, "Twin", "text", ()),
    (25, "Twin", "text", ()),
    (26, "Born", "birthday", ()),
    (27, "Street", "streetaddress", ()),
    (28, "Office", "smart_address", ()),
    (29, "Firm", "legal_entity", ()),
    (30, "Chain", "chained_list", ()),
    (31, "Sum", "numeric", ()),
    (32, "Onboarding status", "select", ("Not started", "In progress", "Done")),
]
CUSTOM_IDS = {name: id for id, name, *_ in _CUSTOM}


def enum_id(field_id: int, value: str) -> int:
    values = next(values for id, _, _, values in _CUSTOM if id == field_id)
    return field_id * 100 + values.index(value)


def _status(id: int, name: str, pipeline_id: int) -> dict[str, Any]:
    return {"id": id, "name": name, "pipeline_id": pipeline_id, "type": 0, "sort": 10}


PIPELINES: list[dict[str, Any]] = [
    {
        "id": SALES,
        "name": "Sales",
        "is_main": True,
        "_embedded": {
            "statuses": [
                _status(NEW, "New", SALES),
                _status(QUALIFIED, "Qualified", SALES),
                _status(PROPOSAL, "Proposal", SALES),
                _status(504, "Negotiation", SALES),
                _status(WON, "Won", SALES),
                _status(LOST, "Lost", SALES),
            ]
        },
    },
    {
        "id": ENTERPRISE,
        "name": "Enterprise",
        "is_main": False,
        "_embedded": {
            "statuses": [
                _status(601, "New", ENTERPRISE),
                _status(IN_PROGRESS, "In Progress", ENTERPRISE),
                _status(603, "Onboarding", ENTERPRISE),
                _status(WON, "Won", ENTERPRISE),
                _status(LOST, "Lost", ENTERPRISE),
            ]
        },
    },
]
USERS = [
    {"id": 91, "name": "Ana Lima", "email": "ana@acme.example", "rights": {}},
    {"id": 92, "name": "Bo Diaz", "email": None, "rights": {}},
    {"id": 93, "name": "Twin", "email": "Twin1@acme.example", "rights": {}},
    {"id": 94, "name": "Twin", "email": "twin2@acme.example", "rights": {}},
    {"id": 95, "name": "Ana Lima", "email": "old@acme.example", "rights": {"is_active": False}},
    {"id": 96, "name": "Left", "email": None, "rights": {"is_active": False}},
]
CUSTOM_FIELDS = [
    {
        "id": id,
        "name": name,
        "type": type_,
        "code": name if name.isupper() and "_" in name else None,
        "is_computed": name == "Sum",
        "currency": "EUR" if type_ == "monetary" else None,
        "enums": [{"id": enum_id(id, value), "value": value, "sort": 500} for value in values]
        or None,
    }
    for id, name, type_, values in _CUSTOM
]
_LABELS = ("WORK", "MOB", "OTHER")
CONTACT_FIELDS: list[dict[str, Any]] = [
    {
        "id": id,
        "name": name,
        "type": type_,
        "code": code,
        "enums": [{"id": id * 100 + i, "value": each} for i, each in enumerate(values)] or None,
    }
    for id, name, type_, code, values in [
        (41, "Phone", "multitext", "PHONE", _LABELS),
        (42, "Email", "multitext", "EMAIL", _LABELS),
        (43, "Role", "select", None, ("Buyer", "User")),
    ]
]
COMPANY_FIELDS = [{**CONTACT_FIELDS[0], "id": 51}]
LOSS_REASONS = [{"id": 31, "name": "Too dear", "sort": 1}]


def account(zone: str = "Europe/Moscow") -> dict[str, Any]:
    return {
        "id": 1,
        "currency": "EUR",
        "_embedded": {"datetime_settings": {"timezone": zone}},
    }


def kommo_schema(zone: str = "Europe/Moscow") -> KommoSchema:
    return KommoSchema.from_api(
        pipelines=PIPELINES,
        users=USERS,
        custom_fields=CUSTOM_FIELDS,
        loss_reasons=LOSS_REASONS,
        account=account(zone),
        contact_fields=CONTACT_FIELDS,
        company_fields=COMPANY_FIELDS,
    )


def _choices(*names: str) -> dict[str, Any]:
    return {"choices": [{"id": f"sel{n}", "name": n, "color": "blueLight2"} for n in names]}


_FIELDS: list[tuple[str, str, dict[str, Any] | None]] = [
    ("Kommo Deal ID", "number", {"precision": 0}),
    ("Deal Name", "singleLineText", None),
    ("Stage", "singleSelect", _choices("New", "Won")),
    ("Pipeline", "singleSelect", _choices("Sales", "Enterprise")),
    ("Amount", "currency", {"precision": 2, "symbol": "€"}),
    ("Manager", "singleLineText", None),
    ("Manager Email", "email", None),
    ("Tags", "multipleSelects", _choices("hot", "cold")),
    ("Region", "singleSelect", _choices("EU ", "UK")),
    ("Region Code", "singleLineText", None),
    ("Seats", "number", {"precision": 0}),
    ("Contract Date", "date", {"dateFormat": {"name": "iso"}}),
    ("Kickoff", "dateTime", {"timeZone": "utc"}),
    ("VIP", "checkbox", {"icon": "check", "color": "greenBright"}),
    ("Products", "multipleSelects", _choices("Core")),
    ("Website", "url", None),
    ("Notes", "multilineText", None),
    ("Budget", "currency", {"precision": 2, "symbol": "€"}),
    ("Source Type", "singleSelect", _choices("Inbound")),
    ("Created", "dateTime", {"timeZone": "utc"}),
    ("Closed", "dateTime", {"timeZone": "utc"}),
    ("Rich", "richText", None),
    ("Phone", "phoneNumber", None),
    ("Share", "percent", {"precision": 0}),
    ("Stars", "rating", {"max": 5, "icon": "star", "color": "yellowBright"}),
    ("Length", "duration", {"durationFormat": "h:mm"}),
    ("Sum", "formula", {"expression": "1"}),
    ("Touched", "lastModifiedTime", {}),
    ("Files", "multipleAttachments", {}),
    ("Owner", "singleCollaborator", {}),
    ("Code", "barcode", None),
    ("Client", "multipleRecordLinks", {"linkedTableId": "tblClients0000000"}),
    ("Firm", "multipleRecordLinks", {"linkedTableId": "tblFirms000000000"}),
    ("Sync Status", "singleLineText", None),
    ("Risk", "singleSelect", _choices("low", "high")),
    ("Onboarding Status", "singleSelect", _choices("Not started", "In progress", "Done")),
]
_LINKED: dict[str, list[tuple[str, str, dict[str, Any] | None]]] = {
    "Clients": [
        ("Name", "singleLineText", None),
        ("Kommo Contact ID", "number", {"precision": 0}),
        ("Phone", "phoneNumber", None),
        ("Email", "email", None),
        ("All Phones", "multilineText", None),
        ("Role", "singleSelect", _choices("Buyer")),
        ("Link", "url", None),
        ("Manager", "singleCollaborator", {}),
    ],
    "Firms": [
        ("Name", "singleLineText", None),
        ("Kommo Company ID", "singleLineText", None),
        ("Phone", "singleLineText", None),
        ("Link", "url", None),
    ],
}


def _table(id: str, name: str, fields: list[tuple[str, str, dict[str, Any] | None]], prefix: str):
    return {
        "id": id,
        "name": name,
        "primaryFieldId": f"{prefix}00",
        "fields": [
            {"id": f"{prefix}{i:02}", "name": name, "type": type_}
            | ({"options": options} if options is not None else {})
            for i, (name, type_, options) in enumerate(fields)
        ],
        "views": [],
    }


TABLES: list[dict[str, Any]] = [
    _table("tblDeals000000000", "Deals", _FIELDS, "fld"),
    _table("tblClients0000000", "Clients", _LINKED["Clients"], "fldC"),
    _table("tblFirms000000000", "Firms", _LINKED["Firms"], "fldF"),
]
FIELD_IDS = {field["name"]: field["id"] for field in TABLES[0]["fields"]}


def airtable_schema() -> AirtableSchema:
    return AirtableSchema.from_api(TABLES)


def config_text(*fields: str, kommo: str = "{}", airtable: str = "") -> str:
    """A small sync.yaml: flow-style entries of ``fields``."""
    return "\n".join(
        [
            "version: 1",
            f"kommo: {kommo}",
            f"airtable: {{table: Deals, key_field: Kommo Deal ID{airtable}}}",
            "fields:",
            *[f"  - {{{field}}}" for field in fields],
        ]
    )


def mapping_of(*fields: str, kommo: str = "{}", zone: str = "Europe/Moscow") -> Mapping:
    config = parse_config(config_text(*fields, kommo=kommo))
    return resolve(config, kommo_schema(zone), airtable_schema(), base_url=BASE_URL)


def custom(name: str, *values: dict[str, Any]) -> dict[str, Any]:
    """One entry of ``custom_fields_values``."""
    return {"field_id": CUSTOM_IDS[name], "field_name": name, "values": list(values)}


def lead(*custom_fields: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A lead as GET /leads gives it (reference 3.2)."""
    tags = changes.pop("tags", ())
    return {
        "id": 20024930,
        "name": "Lead 1",
        "price": 1500,
        "responsible_user_id": 91,
        "group_id": 0,
        "status_id": NEW,
        "pipeline_id": SALES,
        "loss_reason_id": None,
        "created_at": 1760976072,
        "updated_at": 1760976072,
        "closed_at": None,
        "is_deleted": False,
        "custom_fields_values": list(custom_fields) or None,
        "score": None,
        "_embedded": {
            "tags": [{"id": i, "name": name, "color": None} for i, name in enumerate(tags)],
            "companies": [],
        },
        **changes,
    }
