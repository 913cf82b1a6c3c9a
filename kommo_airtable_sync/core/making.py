"""The Airtable fields to make for what Kommo has and the base lacks (metadata API's form).

Options by reference/airtable-api 3 and 4; computed types cannot be made by API.
"""

from __future__ import annotations

from kommo_airtable_sync.core.likeness import Offer
from kommo_airtable_sync.core.schemas import KommoSchema
from kommo_airtable_sync.core.types import Json
from kommo_airtable_sync.core.vocabulary import words_of

_ISO = {"name": "iso"}
_OPTIONS: dict[str, Json] = {
    "number": {"precision": 2},
    "date": {"dateFormat": _ISO},
    "checkbox": {"icon": "check", "color": "greenBright"},
}
_ATTRIBUTES = {
    "name": ("Deal Name", "singleLineText"),
    "price": ("Amount", "number"),
    "stage": ("Stage", "singleSelect"),
    "pipeline": ("Pipeline", "singleSelect"),
    "responsible_user": ("Manager", "singleLineText"),
    "tags": ("Tags", "multipleSelects"),
    "created_at": ("Created", "dateTime"),
    "closed_at": ("Closed", "dateTime"),
    "loss_reason": ("Loss Reason", "singleSelect"),
    "url": ("Kommo Link", "url"),
}
"""Attributes worth a field of their own, and its name and type; names by which they are found."""
_CUSTOM = {
    "textarea": "multilineText",
    "streetaddress": "multilineText",
    "url": "url",
    "numeric": "number",
    "monetary": "number",
    "price": "number",
    "checkbox": "checkbox",
    "select": "singleSelect",
    "radiobutton": "singleSelect",
    "multiselect": "multipleSelects",
    "date": "date",
    "birthday": "date",
    "date_time": "dateTime",
}
_BY_CODE = {"PHONE": "phoneNumber", "EMAIL": "email"}


def field_for(offer: Offer, kommo: KommoSchema) -> Json | None:
    """What to ask Airtable for: ``{name, type, options?}``; None for what needs no field."""
    custom = offer.source.custom_field
    if custom is None:
        name, kind = _ATTRIBUTES.get(offer.spelled, ("", ""))
    else:
        of_code = _BY_CODE.get(custom.code or "") if custom.type == "multitext" else None
        name, kind = custom.name, of_code or _CUSTOM.get(custom.type, "singleLineText")
    if not name:
        return None
    options = _OPTIONS.get(kind)
    if kind == "dateTime":
        clock = {"name": "24hour"}
        options = {"dateFormat": _ISO, "timeFormat": clock, "timeZone": kommo.zone.key}
    if kind in {"singleSelect", "multipleSelects"}:
        words = words_of(offer.source, kommo) or {}
        options = {"choices": [{"name": word} for word in dict.fromkeys(words.values()) if word]}
    return {"name": name, "type": kind, **({"options": options} if options else {})}


def key_field(name: str) -> Json:
    """The field for Kommo's ids."""
    return {"name": name, "type": "number", "options": {"precision": 0}}


def status_field(name: str) -> Json:
    """The field that says how a record stands."""
    return {"name": name, "type": "singleLineText"}
