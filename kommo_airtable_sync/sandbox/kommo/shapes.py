"""How the stand-in spells entities and dictionaries in answers (reference 3.2, 4.1 and 5)."""

from __future__ import annotations

import hashlib
from typing import Any

from kommo_airtable_sync.sandbox.kommo.settings import Settings
from kommo_airtable_sync.sandbox.kommo.state import (
    Change,
    CustomField,
    Entity,
    Pipeline,
    State,
    User,
    Webhook,
)
from kommo_airtable_sync.sandbox.kommo.values import read_values

Json = dict[str, Any]
SINGULAR = {"leads": "lead", "contacts": "contact", "companies": "company"}


class Shapes:
    """Read-only view of the state in Kommo's JSON.

    Args:
        state: what to show.
        settings: the switches that change a spelling.
        base: start of every href, e.g. ``https://sandbox.kommo.com``.
    """

    def __init__(self, state: State, settings: Settings, base: str) -> None:
        self._state = state
        self._settings = settings
        self._base = base

    def self_link(self, path: str) -> Json:
        """``{"self": {"href": ...}}`` of an API path such as ``leads/1``."""
        return {"self": {"href": f"{self._base}/api/v4/{path}"}}

    def entity(self, entity: Entity, with_: set[str], query: str = "") -> Json:
        """A lead, contact or company; ``query`` is the list's query string, which links repeat."""
        link = self.self_link(f"{entity.kind}/{entity.id}" + (f"?{query}" if query else ""))
        if entity.is_deleted:
            return self._trashed(entity, link)
        shown: Json = {"id": entity.id, "name": entity.name}
        if entity.kind == "leads":
            shown["price"] = int(entity.price)
        if entity.kind == "contacts":
            shown |= {"first_name": entity.first_name, "last_name": entity.last_name}
        shown |= {"responsible_user_id": entity.responsible_user_id, "group_id": 0}
        if entity.kind == "leads":
            shown |= {
                "status_id": entity.status_id,
                "pipeline_id": entity.pipeline_id,
                "loss_reason_id": entity.loss_reason_id,
            }
        shown |= {key: getattr(entity, key) for key in ("created_by", "updated_by")}
        shown |= {key: getattr(entity, key) for key in ("created_at", "updated_at")}
        if entity.kind == "leads":
            shown["closed_at"] = entity.closed_at
        shown |= {"closest_task_at": None, "is_deleted": False}
        if entity.kind == "contacts":
            shown["is_unsorted"] = False
        shown["custom_fields_values"] = self._custom_fields(entity)
        if entity.kind == "leads":
            shown["score"] = None
        shown["account_id"] = self._state.account.id
        if entity.kind == "leads":
            shown |= self._lead_extras(entity, with_)
        return shown | {"_links": link, "_embedded": self._embedded(entity, with_)}

    def _lead_extras(self, lead: Entity, with_: set[str]) -> Json:
        extras: Json = {"labor_cost": None}
        if self._settings.computed_keys:
            extras["is_price_computed"] = False
        if self._settings.decimal_price == "keep":
            extras["price_with_minor_units"] = float(lead.price)
        if "source_id" in with_:
            extras["source_id"] = None
        if "is_price_modified_by_robot" in with_:
            extras["is_price_modified_by_robot"] = False
        return extras

    def _trashed(self, entity: Entity, link: Json) -> Json:
        """A lead in the trash: nearly everything is null (SDK#254)."""
        nulls = (
            "name price responsible_user_id group_id status_id pipeline_id loss_reason_id "
            "created_by updated_by created_at updated_at closed_at closest_task_at"
        )
        shown: Json = {"id": entity.id} | dict.fromkeys(nulls.split())
        shown |= {"updated_by": entity.updated_by, "updated_at": entity.updated_at}
        shown |= {"is_deleted": True, "custom_fields_values": None, "score": None}
        shown |= {"account_id": self._state.account.id, "_links": link}
        return shown | {"_embedded": {"tags": [], "companies": []}}

    def _custom_fields(self, entity: Entity) -> list[Json] | None:
        defined = self._state.fields[entity.kind]
        filled = sorted((defined[each].sort, each) for each in entity.fields if each in defined)
        return [self._custom_field(defined[each], entity) for _, each in filled] or None

    def _custom_field(self, field: CustomField, entity: Entity) -> Json:
        shown: Json = {
            "field_id": field.id,
            "field_name": field.name,
            "field_code": field.code,
            "field_type": field.type,
            "values": read_values(field, entity.fields[field.id], self._settings.numeric_as),
        }
        if self._settings.computed_keys and entity.kind == "leads":
            shown["is_computed"] = False
        return shown

    def _embedded(self, entity: Entity, with_: set[str]) -> Json:
        node = (entity.kind, entity.id)
        names = self._state.tags[entity.kind]
        embedded: Json = {
            "tags": [self.tag(entity.kind, each, names[each]) for each in entity.tags]
        }
        if entity.kind != "companies":
            embedded["companies"] = self._refs(node, "companies", main=False)
        if entity.kind != "contacts" and "contacts" in with_:
            embedded["contacts"] = self._refs(node, "contacts", main=entity.kind == "leads")
        if entity.kind != "leads" and "leads" in with_:
            embedded["leads"] = self._refs(node, "leads", main=False)
        if "catalog_elements" in with_:
            embedded["catalog_elements"] = []
        if entity.kind == "leads" and "loss_reason" in with_:
            reason = entity.loss_reason_id
            embedded["loss_reason"] = [self.loss_reason(reason)] if reason else []
        return embedded

    def _refs(self, node: tuple[str, int], kind: str, *, main: bool) -> list[Json]:
        refs: list[Json] = []
        for other_id, is_main in self._state.linked(node, kind):
            if self._state.find(kind, other_id):
                ref: Json = {"id": other_id} | ({"is_main": is_main} if main else {})
                refs.append(ref | {"_links": self.self_link(f"{kind}/{other_id}")})
        return refs

    def tag(self, kind: str, tag_id: int, name: str) -> Json:
        """A tag; only lead tags have a colour."""
        return {"id": tag_id, "name": name} | ({"color": None} if kind == "leads" else {})

    def loss_reason(self, reason_id: int) -> Json:
        """A loss reason."""
        return {
            "id": reason_id,
            "name": self._state.loss_reasons[reason_id],
            "sort": 100_000,
            "created_at": 1_700_000_000,
            "updated_at": 1_700_000_000,
            "_links": self.self_link(f"leads/loss_reasons/{reason_id}"),
        }

    def field_definition(self, kind: str, field: CustomField) -> Json:
        """A custom field's definition, with the key set of K-http's example."""
        enums = [
            {"id": each.id, "value": each.value, "sort": each.sort}
            | ({"code": each.code} if each.code else {})
            for each in field.enums
        ]
        return {
            "id": field.id,
            "name": field.name,
            "type": field.type,
            "account_id": self._state.account.id,
            "code": field.code,
            "sort": field.sort,
            "is_api_only": False,
            "enums": enums or None,
            "group_id": None,
            "required_statuses": [],
            "is_deletable": True,
            "is_predefined": False,
            "entity_type": kind,
            "tracking_callback": None,
            "remind": None,
            "triggers": [],
            "currency": field.currency,
            "hidden_statuses": [],
            "chained_lists": None,
            "_links": self.self_link(f"{kind}/custom_fields/{field.id}"),
        } | ({"is_computed": False} if kind == "leads" else {})

    def pipeline(self, pipeline: Pipeline) -> Json:
        """A pipeline with its stages."""
        path = f"leads/pipelines/{pipeline.id}"
        return {
            "id": pipeline.id,
            "name": pipeline.name,
            "sort": pipeline.sort,
            "is_main": pipeline.is_main,
            "is_unsorted_on": True,
            "is_archive": False,
            "account_id": self._state.account.id,
            "_links": self.self_link(path),
            "_embedded": {
                "statuses": [
                    {
                        "id": status.id,
                        "name": status.name,
                        "sort": status.sort,
                        "is_editable": status.type == 0 and status.id not in (142, 143),
                        "pipeline_id": pipeline.id,
                        "color": status.color,
                        "type": status.type,
                        "account_id": self._state.account.id,
                        "_links": self.self_link(f"{path}/statuses/{status.id}"),
                    }
                    for status in pipeline.statuses
                ]
            },
        }

    def user(self, user: User) -> Json:
        """A user with the rights that matter here."""
        rights: Json = {"is_admin": user.is_admin, "is_free": False, "is_active": user.is_active}
        return {
            "id": user.id,
            "name": user.name,
            "email": user.email,
            "lang": "en",
            "rights": rights | {"group_id": None, "role_id": None},
            "_links": self.self_link(f"users/{user.id}"),
            "_embedded": {"roles": [], "groups": []},
        }

    def account(self, with_: set[str], user_id: int) -> Json:
        """The account; ``datetime_settings`` only via with."""
        account = self._state.account
        shown: Json = {
            "id": account.id,
            "name": account.name,
            "subdomain": account.subdomain,
            "current_user_id": user_id,
            "country": "DE",
            "currency": account.currency,
            "customers_mode": "disabled",
            "is_unsorted_on": True,
            "is_loss_reason_enabled": True,
            "_links": self.self_link("account"),
        }
        if "datetime_settings" in with_:
            shown["_embedded"] = {
                "datetime_settings": {
                    "date_pattern": "d.m.Y H:i",
                    "short_date_pattern": "d.m.Y",
                    "short_time_pattern": "H:i",
                    "date_format": "d.m.Y",
                    "time_format": "H:i:s",
                    "timezone": account.timezone,
                    "timezone_offset": "+01:00",
                }
            }
        return shown

    def webhook(self, webhook: Webhook) -> Json:
        """A subscription, never wrapped (A-hooksapi)."""
        keys = ["id", "destination", "created_at", "updated_at"]
        shown: Json = {key: getattr(webhook, key) for key in keys}
        shown |= {"account_id": self._state.account.id, "created_by": webhook.created_by}
        shown |= {"sort": webhook.sort, "disabled": webhook.disabled}
        return shown | {"settings": list(webhook.settings)}

    def event(self, change: Change, number: int, index: int) -> Json:
        """The ``index``-th event of a change; its id of 26 characters is stable."""
        kind, before, after = change.events[index]
        digest = hashlib.sha256(f"{number}/{index}".encode()).hexdigest()
        event_id = f"01{digest[:24]}"
        path = f"{change.entity_type}/{change.entity_id}"
        return {
            "id": event_id,
            "type": kind,
            "entity_id": change.entity_id,
            "entity_type": SINGULAR[change.entity_type],
            "created_by": change.by,
            "created_at": int(change.changed_at),
            "value_after": after,
            "value_before": before,
            "account_id": self._state.account.id,
            "_links": self.self_link(f"events/{event_id}"),
            "_embedded": {"entity": {"id": change.entity_id, "_links": self.self_link(path)}},
        }
