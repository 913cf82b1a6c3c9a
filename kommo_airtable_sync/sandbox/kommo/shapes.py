"""How the stand-in spells leads, contacts, companies and the account (reference 3.2 and 5)."""

from __future__ import annotations

from typing import Any

from kommo_airtable_sync.sandbox.kommo.settings import Settings
from kommo_airtable_sync.sandbox.kommo.state import State

Json = dict[str, Any]
_PRIVATE = {"kind", "fields", "tags"}
# keys that never change here
_CONSTANTS: dict[str, Json] = {
    "leads": {"score": None, "labor_cost": None, "is_price_computed": False},
    "contacts": {"is_unsorted": False},
    "companies": {},
}
_LINKED = {
    "leads": ("companies", "contacts"),
    "contacts": ("companies", "leads"),
    "companies": ("contacts", "leads"),
}


class Shapes:
    """Read-only view of the state in Kommo's JSON; hrefs start with ``base``."""

    def __init__(self, state: State, settings: Settings, base: str) -> None:
        self._state = state
        self._settings = settings
        self._base = base

    def link(self, path: str) -> Json:
        """``{"href": ...}`` of an API path such as ``leads/1``."""
        return {"href": f"{self._base}/api/v4/{path}"}

    def linked(self, row: Json, path: str) -> Json:
        """A row with its own link."""
        return row | {"_links": {"self": self.link(path)}}

    def entity(self, row: Json, with_: set[str], query: str = "") -> Json:
        """A lead, contact or company; ``query`` is the list's query string, which links repeat."""
        kind: str = row["kind"]
        shown: Json = {key: value for key, value in row.items() if key not in _PRIVATE}
        shown |= {"group_id": 0, "closest_task_at": None} | _CONSTANTS[kind]
        embedded: Json = {"tags": [], "companies": []}
        if row["is_deleted"]:  # in the trash nearly everything is null (SDK#254)
            kept = {key: row[key] for key in ("id", "updated_by", "updated_at", "is_deleted")}
            shown = dict.fromkeys((*shown, "custom_fields_values"), None) | kept
        else:
            shown |= self._extras(row) | {"custom_fields_values": self._fields(row) or None}
            embedded = self._embedded(row, with_)
        shown |= {"account_id": self._state.account.id, "_embedded": embedded}
        return self.linked(shown, f"{kind}/{row['id']}" + (f"?{query}" if query else ""))

    def _extras(self, row: Json) -> Json:
        extras: Json = {}
        if row["kind"] == "leads":
            extras["price"] = int(row["price"])
            if self._settings.decimal_price:
                extras["price_with_minor_units"] = float(row["price"])
        return extras

    def _fields(self, row: Json) -> list[Json]:
        return [
            {
                **{f"field_{key}": field[key] for key in ("id", "name", "code", "type")},
                "values": row["fields"][field["id"]],
                "is_computed": False,
            }
            for field in self._state.fields(row["kind"])
            if field["id"] in row["fields"]
        ]

    def _embedded(self, row: Json, with_: set[str]) -> Json:
        kind: str = row["kind"]
        tags = self._state.rows[f"{kind}/tags"]
        embedded: Json = {"tags": [tags[each] for each in row["tags"]]}
        for other in _LINKED[kind]:
            if other == "companies" or other in with_:
                embedded[other] = [
                    self.linked(
                        {"id": found["id"]} | ({"is_main": is_main} if other == "contacts" else {}),
                        f"{other}/{found['id']}",
                    )
                    for found, is_main in self._state.linked(row, other)
                ]
        if kind == "leads" and "loss_reason" in with_:
            path, reason = "leads/loss_reasons", row["loss_reason_id"]
            found = [self._state.rows[path][reason]] if reason else []
            embedded["loss_reason"] = [self.linked(each, f"{path}/{reason}") for each in found]
        return embedded

    def account(self, with_: set[str], user_id: int) -> Json:
        """The account; ``datetime_settings`` only via with."""
        account = self._state.account
        shown: Json = {
            key: getattr(account, key) for key in ("id", "name", "subdomain", "currency")
        }
        shown |= {"current_user_id": user_id, "country": "DE", "customers_mode": "disabled"}
        shown |= {"is_unsorted_on": True, "is_loss_reason_enabled": True}
        if "datetime_settings" in with_:
            patterns = {"date_pattern": "d.m.Y H:i", "date_format": "d.m.Y", "time_format": "H:i:s"}
            shown["_embedded"] = {"datetime_settings": patterns | {"timezone": account.timezone}}
        return self.linked(shown, "account")
