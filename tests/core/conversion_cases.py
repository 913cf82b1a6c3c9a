"""What is sent through every conversion: values as Kommo takes them, and what they shall become.

The expectations are written by hand, so that they do not agree with the code by construction.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from kommo_airtable_sync.core.codecs import CELL_KINDS
from kommo_airtable_sync.core.schemas import KommoSchema
from kommo_airtable_sync.core.sources import CUSTOM_KINDS, READABLE
from kommo_airtable_sync.core.types import Canonical
from tests.core.pairs import OPTIONS

Json = Any
REFUSED = "refused"
ZONES = ("Europe/Berlin", "America/Sao_Paulo")
TEXTS = (
    "plain", "0", "null", " blanks around ", 'a "quoted" \'one\' \\ {}', "👩‍👩‍👧 ✅ e\u0301",
    "שלום, עולם", "\u202eمرحبا 123", "two\r\nlines\tand a tab", "ж🙂" * 20_000,
)  # fmt: skip
ADDRESSES = ("https://example.com/offer.pdf", "http://example.com/a?b=1#c")
AMOUNTS = {
    "0": 0, "4": 4, "-3": -3, "15 000,50": "15000.5", "$1,500.00": 1500, "1.500,00 EUR": 1500,
    "9007199254740992": 2**53, "1,500": REFUSED, "1.500": REFUSED, "12,5,5": REFUSED,
}  # fmt: skip
NUMBERS = ("0", "-120", "-0.5", "1", "5", "12.5", "42.10", "0.0000001", str(2**53), str(-(2**53)),
           str(2**53 + 1))  # fmt: skip
# A day -> its first moment in Berlin and in São Paulo, UTC. The clocks of Berlin change on the days
# in 2026; in São Paulo 2018-11-04 began at 1 o'clock, and 2019-02-16 had 25 hours.
DAYS = {
    "2024-02-29": ("2024-02-28T23:00:00Z", "2024-02-29T03:00:00Z"),
    "2026-03-29": ("2026-03-28T23:00:00Z", "2026-03-29T03:00:00Z"),
    "2026-03-30": ("2026-03-29T22:00:00Z", "2026-03-30T03:00:00Z"),
    "2026-10-25": ("2026-10-24T22:00:00Z", "2026-10-25T03:00:00Z"),
    "2026-10-26": ("2026-10-25T23:00:00Z", "2026-10-26T03:00:00Z"),
    "2018-11-04": ("2018-11-03T23:00:00Z", "2018-11-04T03:00:00Z"),
    "2019-02-16": ("2019-02-15T23:00:00Z", "2019-02-16T02:00:00Z"),
    "2019-02-17": ("2019-02-16T23:00:00Z", "2019-02-17T03:00:00Z"),
    "1970-01-01": ("1969-12-31T23:00:00Z", "1970-01-01T03:00:00Z"),
}
# A moment -> the day that it is in Berlin and in São Paulo.
MOMENTS = {
    "2024-02-29T12:00:00Z": ("2024-02-29", "2024-02-29"),
    "2026-03-28T22:59:59Z": ("2026-03-28", "2026-03-28"),
    "2026-03-28T23:00:00Z": ("2026-03-29", "2026-03-28"),
    "2026-03-29T00:59:59Z": ("2026-03-29", "2026-03-28"),
    "2026-03-29T01:00:00Z": ("2026-03-29", "2026-03-28"),
    "2026-10-25T00:30:00Z": ("2026-10-25", "2026-10-24"),
    "2026-10-25T01:30:00Z": ("2026-10-25", "2026-10-24"),
    "2018-11-04T02:59:59Z": ("2018-11-04", "2018-11-03"),
    "2018-11-04T03:00:00Z": ("2018-11-04", "2018-11-04"),
    "2019-02-17T01:30:00Z": ("2019-02-17", "2019-02-16"),
    "2019-02-17T02:30:00Z": ("2019-02-17", "2019-02-16"),
    "2019-02-17T03:00:00Z": ("2019-02-17", "2019-02-17"),
}
OF_PARTS: dict[str, tuple[list[Json], str]] = {
    "smart_address": ([{"value": "1 High St"}, {"value": "Zürich"}], "1 High St, Zürich"),
    "multitext": ([{"value": "+49 1"}, {"value": "שלום"}], "+49 1, שלום"),
    "legal_entity": (
        [{"value": {"name": 'ООО "Ромашка"', "vat_id": "77", "address": "Москва"}}],
        'ООО "Ромашка", 77, Москва',
    ),
    "file": ([{"value": {"file_uuid": "u", "file_name": "Vertrag 🖋.pdf"}}], "Vertrag 🖋.pdf"),
}
# What people type in Airtable that Kommo never shows: it is refused, in these words.
TYPED: dict[tuple[str, str], tuple[Json, str]] = {
    ("name", "singleLineText"): (None, "a Kommo lead always has a name"),
    ("stage", "singleSelect"): ("Wonn", "allowed: Incoming leads, New"),
    ("responsible_user", "singleCollaborator"): (None, "always has a responsible user"),
    ("responsible_user", "singleLineText"): ("Nobody", "allowed: Ada Admin"),
    ("loss_reason", "singleSelect"): ("Cheap", "allowed: Too expensive"),
    ("price", "currency"): (10.455, "more than the 2 decimals"),
    ("custom select", "singleSelect"): ("Mars", "allowed: EU"),
    ("custom radiobutton", "email"): ("Mars", "allowed: EU"),
    ("custom multiselect", "multipleSelects"): (["EU", "Mars"], "allowed: EU"),
    ("custom numeric", "number"): (2**53 + 2, "map it to a text field"),
    ("custom monetary", "percent"): (2**53, "map it to a text field"),
}


def moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)


def spelled(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def seconds(text: str) -> int:
    return int(moment(text).timestamp())


def inputs(name: str, schema: KommoSchema, *, as_person: bool) -> list[tuple[Json, Canonical]]:
    """What to create leads with: (item without name, the source's value); KeyError if unknown."""
    if name.startswith("custom "):
        type_ = name.removeprefix("custom ")
        field = next(field for field in schema.fields if field.name == type_)
        enums = [(enum.id, enum.value) for enum in field.enums]
        return [
            ({"custom_fields_values": [{"field_id": field.id, "values": values}]}, value)
            for values, value in custom_inputs(type_, schema.zone, enums)
        ]
    stamps = [({"status_id": 142}, seconds(text), moment(text)) for text in MOMENTS]
    lost = {"status_id": 143}
    stages = [
        ({"pipeline_id": pipeline.id, "status_id": status.id}, pipeline.name, status.name)
        for pipeline in schema.pipelines
        for status in pipeline.statuses
    ]
    users = [({"responsible_user_id": u.id}, u) for u in schema.users if u.is_active]
    known: dict[str, list[tuple[Json, Canonical]]] = {
        "name": [({"name": text}, text) for text in TEXTS],
        "price": [({"price": each}, Decimal(str(each)))
                  for each in (0, 1, 5, -120, 10.45, 0.01, 2**53)],
        "stage": [(item, status) for item, _, status in stages],
        "pipeline": [(item, pipeline) for item, pipeline, _ in stages],
        "responsible_user": [(item, user.email if as_person else user.name) for item, user in users],
        "responsible_user_email": [(item, user.email) for item, user in users],
        "tags": [({"tags_to_add": [{"name": each} for each in tags]}, frozenset(tags) or None)
                 for tags in ([], ["b", "a"], ["👩‍👩‍👧", 'a "b"', "שלום, עולם"])],
        "loss_reason": [(lost, None)] + [
            (lost | {"loss_reason_id": reason.id}, reason.name) for reason in schema.loss_reasons
        ],
        **{key: [(item | {key: at}, value) for item, at, value in stamps]
           for key in ("created_at", "updated_at", "closed_at")},
        # Put into the lead once its contact and company were read.
        **{key: [({"_names": {key: text}}, text) for text in TEXTS]
           for key in ("main_contact", "company")},
        "id": [({}, Decimal(20_000_001))],
        "url": [({}, "/leads/detail/20000001")],
        # The stand-in, like most accounts, has none.
        "source": [({}, None)],
        "score": [({}, None)],
    }  # fmt: skip
    return known[name]


def custom_inputs(
    type_: str, zone: ZoneInfo, enums: list[tuple[int, str]]
) -> list[tuple[list[Json], Canonical]]:
    """``values`` of a custom field, and what they mean; the first is the empty field."""
    if type_ in READABLE:
        return [([], None), OF_PARTS[type_]]
    texts = (*TEXTS, *AMOUNTS, "12,5 %") if type_ in {"text", "textarea"} else TEXTS
    texts = (*texts, *ADDRESSES) if type_ == "url" else texts
    first, *_ = named = [([{"enum_id": id}], value.strip()) for id, value in enums] or [([], "")]
    by_kind: dict[str, list[tuple[list[Json], Canonical]]] = {
        "text": [([{"value": text}], text) for text in dict.fromkeys(texts)],
        "number": [([{"value": digits}], Decimal(digits)) for digits in NUMBERS],
        "flag": [([{"value": True}], True), ([{"value": False}], False)],
        "option": list(named),
        "set": [
            (first[0], frozenset({first[1]})),
            ([{"enum_id": id} for id, _ in enums], frozenset(o.strip() for o in OPTIONS)),
        ],
        # Any moment of the day will do; noon exists on each.
        "date": [
            ([{"value": f"{day}T12:00:00{noon_offset(day, zone)}"}], date.fromisoformat(day))
            for day in DAYS
        ],
        "instant": [([{"value": seconds(text)}], moment(text)) for text in MOMENTS],
    }
    return [([], None), *by_kind[CUSTOM_KINDS[type_]]]


def noon_offset(day: str, zone: ZoneInfo) -> str:
    offset = f"{datetime.fromisoformat(f'{day}T12:00:00').replace(tzinfo=zone):%z}"
    return f"{offset[:3]}:{offset[3:]}"


def wanted(value: Canonical, kind: str, type_: str, zone: str) -> Canonical:
    """What a source's value shall be in an Airtable field, `REFUSED`, or a KeyError if unknown."""
    if type_ == "checkbox":
        return bool(value)
    if value is None:
        return None
    held = CELL_KINDS[type_]
    if held == "number":
        return number(amount(str(value), type_) if kind == "text" else value, type_)
    return CONVERTED[kind, held](value, ZONES.index(zone))


CONVERTED: dict[tuple[str, str], Callable[[Any, int], Canonical]] = {
    ("text", "text"): lambda text, _: text,
    ("text", "option"): lambda text, _: text.strip(),
    ("text", "attachment"): lambda text, _: text if text.startswith("http") else REFUSED,
    ("person", "person"): lambda email, _: email.lower(),
    ("option", "text"): lambda name, _: name,
    ("option", "option"): lambda name, _: name,
    ("option", "set"): lambda name, _: frozenset({name}),
    ("number", "text"): lambda number, _: {"42.10": "42.1"}.get(f"{number:f}", f"{number:f}"),
    ("date", "date"): lambda day, _: day,
    ("date", "instant"): lambda day, where: moment(DAYS[day.isoformat()][where]),
    ("date", "text"): lambda day, _: day.isoformat(),
    ("instant", "instant"): lambda at, _: at,
    ("instant", "date"): lambda at, where: date.fromisoformat(MOMENTS[spelled(at)][where]),
    ("instant", "text"): lambda at, _: spelled(at),
    ("set", "set"): lambda names, _: names,
    ("set", "text"): lambda names, _: ", ".join(sorted(names)),
}


def amount(text: str, type_: str) -> Decimal | str:
    if text == "12,5 %":
        return Decimal("12.5") if type_ == "percent" else REFUSED
    found = AMOUNTS.get(text, REFUSED)
    return REFUSED if found == REFUSED else Decimal(found)


def number(value: Decimal | str, type_: str) -> Canonical:
    if value == REFUSED or abs(value) > 2**53:
        return REFUSED
    if type_ == "rating":
        return None if value == 0 else value if value in {1, 2, 3, 4, 5} else REFUSED
    return value


def cell_of(value: Canonical, type_: str) -> Json:
    """How Airtable's API shows a value (reference 3)."""
    if value is None or type_ == "checkbox":
        return value
    if type_ == "multipleAttachments":
        return ["att"]
    if type_ in {"barcode", "singleCollaborator"}:
        return {"text" if type_ == "barcode" else "email": value}
    if type_ == "richText":
        return f"{value}\n"
    if type_ == "percent":
        return float(value / 100)
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%S}.000Z"
    if isinstance(value, date):
        return value.isoformat()
    return sorted(value) if isinstance(value, frozenset) else value


def plainly(cell: Json, type_: str) -> Json:
    """A cell without what does not count: order, the blanks of options, more about a person."""
    if type_ == "multipleAttachments":
        return cell and [each["id"][:3] for each in cell]
    if isinstance(cell, list):
        return sorted(name.strip() for name in cell) or None
    if type_ == "singleCollaborator":
        return cell and {"email": cell["email"]}
    if type_ == "checkbox":
        return bool(cell)
    if type_ == "richText" and cell == "\n":
        return None
    return cell.strip() if cell and type_ == "singleSelect" else cell
