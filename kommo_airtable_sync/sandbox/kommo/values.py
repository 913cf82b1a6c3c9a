"""Custom field values: what may be written, how it is kept, and how webhooks spell it.

Sources: reference 4.2 for the API's read and write shapes, 6.2 for the webhook encodings.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, cast
from zoneinfo import ZoneInfo

from kommo_airtable_sync.sandbox.kommo.state import CustomField

TEXT_TYPES = {"text", "textarea", "streetaddress", "url", "tracking_data"}
NUMBER_TYPES = {"numeric", "monetary", "price"}
MIDNIGHT_TYPES = {"date", "birthday"}
ONE_CHOICE_TYPES = {"select", "radiobutton"}
CHOICE_TYPES = ONE_CHOICE_TYPES | {"multiselect", "category"}
LABELLED_TYPES = {"multitext", "smart_address"}
OBJECT_TYPES = {
    "legal_entity",
    "file",
    "linked_entity",
    "items",
    "payer",
    "supplier",
    "org_legal_name",
}
FIELD_TYPES = (
    TEXT_TYPES
    | NUMBER_TYPES
    | MIDNIGHT_TYPES
    | CHOICE_TYPES
    | LABELLED_TYPES
    | OBJECT_TYPES
    | {"date_time", "checkbox", "chained_list"}
)

_FAR_SECONDS = 50_000_000_000  # some 1,600 years either way: what calendars here can hold

Json = dict[str, Any]
Report = Callable[[str, str, str], None]  # (code, path under the value, wanted type)


class BadValue(ValueError):
    """One value is refused.

    Args:
        code: ``InvalidType`` or ``NotSupportedChoice``.
        key: the key at fault within the value.
        wanted: the type it should have been.
    """

    def __init__(self, code: str, key: str = "value", wanted: str = "") -> None:
        self.code = code
        self.key = key
        self.wanted = wanted
        super().__init__(code)


def written(field: CustomField, values: Any, zone: ZoneInfo, report: Report) -> list[Json] | None:
    """The values a field has after a write.

    Args:
        field: its definition.
        values: the ``values`` of the request.
        zone: the account's zone, for ``date`` and ``birthday``.
        report: told about each bad value.

    Returns:
        The new values in the read shape; empty = the field is cleared; None = it stays as it is,
        which is what an empty string does (SDK#352).
    """
    if values is None or values == [{"value": None}]:
        return []
    if not isinstance(values, list):
        report("InvalidType", "", "array")
        return None
    items = cast("list[Any]", values)
    if any(isinstance(item, dict) and cast(Json, item).get("value") == "" for item in items):
        return None
    if field.type not in CHOICE_TYPES - ONE_CHOICE_TYPES | LABELLED_TYPES | {"chained_list"}:
        items = items[:1]
    kept: list[Json] = []
    for index, item in enumerate(items):
        try:
            kept.append(_kept(field, item, zone))
        except BadValue as bad:
            report(bad.code, f"{index}.{bad.key}" if bad.key else str(index), bad.wanted)
    return kept or None


def _kept(field: CustomField, item: Any, zone: ZoneInfo) -> Json:
    if not isinstance(item, dict):
        raise BadValue("InvalidType", "", "array")
    raw = cast(Json, item)
    value = raw.get("value")
    if field.type in CHOICE_TYPES:
        return _choice(field, raw)
    if field.type in LABELLED_TYPES:
        return _labelled(field, raw)
    if field.type == "chained_list":
        keys = ("catalog_id", "catalog_element_id")
        return {key: _typed(raw.get(key), int, key, "int") for key in keys}
    if field.type in OBJECT_TYPES:
        if field.type == "legal_entity" and not (isinstance(value, dict) and "name" in value):
            raise BadValue("InvalidType", "value.name", "string")
        return {"value": _typed(value, dict, "value", "array")}
    if field.type == "checkbox":
        return {"value": _typed(value, bool, "value", "bool")}
    if field.type in NUMBER_TYPES:
        return {"value": _number(value)}
    if field.type in MIDNIGHT_TYPES:
        return {"value": midnight(_instant(value), zone)}
    if field.type == "date_time":
        return {"value": _instant(value)}
    return {"value": _typed(value, str, "value", "string")}


def _typed(value: Any, wanted: type, key: str, name: str) -> Any:
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise BadValue("InvalidType", key, name)
    return value


def _choice(field: CustomField, raw: Json) -> Json:
    for key, attribute in (("enum_id", "id"), ("enum_code", "code"), ("value", "value")):
        if raw.get(key) is None:
            continue
        for enum in field.enums:
            if getattr(enum, attribute) == raw[key]:
                return {"value": enum.value, "enum_id": enum.id, "enum_code": enum.code}
        raise BadValue("NotSupportedChoice", key)
    raise BadValue("InvalidType", "value", "string")


def _labelled(field: CustomField, raw: Json) -> Json:
    value = _typed(raw.get("value"), str, "value", "string")
    wanted = raw.get("enum_id") or raw.get("enum_code")
    for enum in field.enums:
        if wanted in (None, enum.id, enum.code):
            return {"value": value, "enum_id": enum.id, "enum_code": enum.code}
    raise BadValue("NotSupportedChoice", "enum_id" if raw.get("enum_id") else "enum_code")


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise BadValue("InvalidType", wanted="numeric")
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise BadValue("InvalidType", wanted="numeric") from None
    if not number.is_finite() or abs(number.adjusted()) > 30:
        raise BadValue("InvalidType", wanted="numeric")
    return f"{number:f}"


def _instant(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _FAR_SECONDS:
        return value
    if not isinstance(value, str):
        raise BadValue("InvalidType", wanted="int")
    try:
        instant = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        raise BadValue("InvalidType", wanted="int") from None
    if instant.tzinfo is None:  # RFC 3339 wants an offset
        raise BadValue("InvalidType", wanted="int")
    return int(instant.timestamp())


def midnight(instant: int, zone: ZoneInfo) -> int:
    """Start of that day in the account's zone (SDK#402)."""
    local = datetime.fromtimestamp(instant, zone)
    return int(local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0).timestamp())


def read_values(field: CustomField, values: list[Json], numeric_as: str) -> list[Json]:
    """The values as ``GET`` shows them; numbers as strings unless told otherwise."""
    if field.type != "numeric" or numeric_as == "string":
        return values
    return [{"value": _json_number(each["value"])} for each in values]


def _json_number(text: str) -> int | float:
    number = Decimal(text)
    return int(number) if number == number.to_integral_value() else float(number)


def hook_values(field: CustomField, values: list[Json], zone: ZoneInfo) -> Any:
    """The values as webhooks carry them: a nested structure for ``hooks.pairs`` (reference 6.2)."""
    if field.type == "date":
        return [each["value"] for each in values]
    if field.type == "radiobutton":
        return {"value": values[0]["value"], "enum": values[0]["enum_id"]}
    return [_hook_value(field, each, zone) for each in values]


def _hook_value(field: CustomField, value: Json, zone: ZoneInfo) -> Json:
    if field.type == "checkbox":
        return {"value": int(value["value"])}
    if field.type == "birthday":
        return {"value": f"{datetime.fromtimestamp(value['value'], zone):%d.%m.%Y}"}
    if "enum_id" in value:
        return {"value": value["value"], "enum": value["enum_id"]}
    return value
