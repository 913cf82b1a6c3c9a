"""Custom field values: what may be written, how it is kept, and how webhooks spell it.

Sources: reference 4.2 for the API's read and write shapes, 6.2 for the webhook encodings.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple, cast
from zoneinfo import ZoneInfo

from kommo_airtable_sync.sandbox.kommo.answers import TYPE_NAMES, Mistake, is_a

_FAR_SECONDS = 50_000_000_000  # some 1,600 years either way: what calendars here can hold

Json = dict[str, Any]
Reader = Callable[[Json, Json, ZoneInfo], Json]  # (definition, written value, zone) -> as read


class BadValue(ValueError):
    """One value is refused; the path of the mistake is relative to the value."""

    def __init__(self, code: str, path: str = "value", wanted: str = "") -> None:
        self.mistake = Mistake(code, path, wanted)
        super().__init__(code)


def written(field: Json, values: Any, zone: ZoneInfo) -> tuple[list[Json] | None, list[Mistake]]:
    """The values a field has after a write, and what is wrong with it.

    Args:
        field: its definition.
        values: the ``values`` of the request.
        zone: the account's zone, for ``date`` and ``birthday``.

    Returns:
        The new values in the read shape: empty = the field is cleared, None = it stays as it is,
        which is what an empty string does (SDK#352). Paths are relative to ``values``.
    """
    if values is None or values == [{"value": None}]:
        return [], []
    if not isinstance(values, list):
        return None, [Mistake("InvalidType", "", "array")]
    kind, items = KINDS[field["type"]], cast("list[Any]", values)
    if any(isinstance(item, dict) and cast(Json, item).get("value") == "" for item in items):
        return None, []
    kept, wrong = list[Json](), list[Mistake]()
    for index, item in enumerate(items if kind.many else items[:1]):
        if not isinstance(item, dict):
            wrong.append(Mistake("InvalidType", str(index), "array"))
            continue
        try:
            kept.append(kind.read(field, cast(Json, item), zone))
        except BadValue as bad:
            wrong.append(bad.mistake._replace(path=f"{index}.{bad.mistake.path}"))
    return kept or None, wrong


def _typed(item: Json, key: str, wanted: type) -> Any:
    if not is_a(item.get(key), wanted):
        raise BadValue("InvalidType", key, TYPE_NAMES[wanted])
    return item[key]


def _plain(wanted: type) -> Reader:
    return lambda _field, item, _zone: {"value": _typed(item, "value", wanted)}


def _choice(field: Json, item: Json, _: ZoneInfo) -> Json:
    for key, attribute in (("enum_id", "id"), ("enum_code", "code"), ("value", "value")):
        if item.get(key) is not None:
            return _enum(field, attribute, item[key], key)
    raise BadValue("InvalidType", "value", "string")


def _labelled(field: Json, item: Json, _: ZoneInfo) -> Json:
    value = {"value": _typed(item, "value", str)}
    for key in ("enum_id", "enum_code"):
        if item.get(key):
            return _enum(field, key.removeprefix("enum_"), item[key], key) | value
    return _enum(field, "id", field["enums"][0]["id"], "enum_id") | value


def _enum(field: Json, attribute: str, wanted: Any, key: str) -> Json:
    for enum in field["enums"] or ():
        if enum.get(attribute) == wanted:
            return {"value": enum["value"], "enum_id": enum["id"], "enum_code": enum.get("code")}
    raise BadValue("NotSupportedChoice", key)


def _element(_field: Json, item: Json, _zone: ZoneInfo) -> Json:
    return {key: _typed(item, key, int) for key in ("catalog_id", "catalog_element_id")}


def _number(_field: Json, item: Json, _zone: ZoneInfo) -> Json:
    try:
        number = Decimal(str(item.get("value")))
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or abs(number.adjusted()) > 30:
        raise BadValue("InvalidType", wanted="numeric")
    return {"value": f"{number:f}"}


def _instant(_field: Json, item: Json, _zone: ZoneInfo) -> Json:
    """Unix seconds from themselves or from RFC 3339, which wants an offset."""
    value = item.get("value")
    if is_a(value, int) and abs(cast(int, value)) < _FAR_SECONDS:
        return {"value": value}
    try:
        instant = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        raise BadValue("InvalidType", wanted="int") from None
    if instant.tzinfo is None:
        raise BadValue("InvalidType", wanted="int")
    return {"value": int(instant.timestamp())}


def _day(field: Json, item: Json, zone: ZoneInfo) -> Json:
    return {"value": midnight(_instant(field, item, zone)["value"], zone)}


def midnight(instant: int, zone: ZoneInfo) -> int:
    """Start of that day in the account's zone (SDK#402)."""
    local = datetime.fromtimestamp(instant, zone)
    return int(local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0).timestamp())


class Kind(NamedTuple):
    """A type of custom field: how one written value is read, and whether it has several."""

    read: Reader
    many: bool = False


KINDS = {
    **dict.fromkeys(
        ("text", "textarea", "streetaddress", "url", "tracking_data"), Kind(_plain(str))
    ),
    **dict.fromkeys(("numeric", "monetary", "price"), Kind(_number)),
    **dict.fromkeys(("date", "birthday"), Kind(_day)),
    "date_time": Kind(_instant),
    "checkbox": Kind(_plain(bool)),
    **dict.fromkeys(("select", "radiobutton"), Kind(_choice)),
    **dict.fromkeys(("multiselect", "category"), Kind(_choice, many=True)),
    **dict.fromkeys(("multitext", "smart_address"), Kind(_labelled, many=True)),
    **dict.fromkeys(("legal_entity", "file", "linked_entity", "items"), Kind(_plain(dict))),
    **dict.fromkeys(("payer", "supplier", "org_legal_name"), Kind(_plain(dict))),
    "chained_list": Kind(_element, many=True),
}


def hook_values(field: Json, values: list[Json], zone: ZoneInfo) -> Any:
    """The values as webhooks carry them: the structure that is form-encoded (reference 6.2)."""
    first = values[0].get("value")
    match field["type"]:
        case "date":
            return [first]
        case "birthday":
            return [{"value": f"{datetime.fromtimestamp(cast(int, first), zone):%d.%m.%Y}"}]
        case "radiobutton":
            return {"value": first, "enum": values[0]["enum_id"]}
        case _ if "enum_id" in values[0]:
            return [{"value": each["value"], "enum": each["enum_id"]} for each in values]
        case _:
            return values
