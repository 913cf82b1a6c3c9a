"""Hands on both running stand-ins: wire them to the product, and act as people do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import requests

from kommo_airtable_sync.sandbox.airtable.model import SANDBOX_TOKEN as AIRTABLE_TOKEN
from kommo_airtable_sync.sandbox.airtable.seed import BASE_ID
from kommo_airtable_sync.sandbox.kommo.settings import SANDBOX_TOKEN as KOMMO_TOKEN

Json = Any
TIMEOUT_SECONDS = 60.0
KOMMO_HOOKS = (
    "add_lead",
    "update_lead",
    "delete_lead",
    "restore_lead",
    "status_lead",
    "responsible_lead",
    "add_contact",
    "update_contact",
)


def settings_for(kommo: str, airtable: str) -> dict[str, str]:
    """The product's settings that lead to stand-ins at these addresses."""
    return {
        "KOMMO_BASE_URL": kommo,
        "KOMMO_TOKEN": KOMMO_TOKEN,
        "AIRTABLE_ENDPOINT_URL": airtable,
        "AIRTABLE_TOKEN": AIRTABLE_TOKEN,
        "AIRTABLE_BASE_ID": BASE_ID,
    }


@dataclass(frozen=True, slots=True)
class StandIns:
    """Addresses of both stand-ins, e.g. ``http://127.0.0.1:8010``."""

    kommo: str
    airtable: str

    def control(self, side: str, method: str, path: str, body: Json = None) -> Json:
        """Use the control surface of ``kommo`` or ``airtable``."""
        base = self.kommo if side == "kommo" else self.airtable
        answer = requests.request(
            method, f"{base}/_control/{path}", json=body, timeout=TIMEOUT_SECONDS
        )
        answer.raise_for_status()
        return answer.json()

    def connect(self, receiver: str, secret: str, *, watch: Sequence[str]) -> None:
        """Let both sides tell the product of every change, its own writes included.

        Args:
            receiver: its address.
            secret: of both kinds of hooks.
            watch: Airtable fields whose changes make the automation of the Deals table run; none
                of them, no automation, as where Kommo owns all.
        """
        requests.post(
            f"{self.kommo}/api/v4/webhooks",
            json={"destination": f"{receiver}/hooks/kommo/{secret}", "settings": KOMMO_HOOKS},
            headers={"Authorization": f"Bearer {KOMMO_TOKEN}"},
            timeout=TIMEOUT_SECONDS,
        ).raise_for_status()
        if not watch:
            return
        automation = {"url": f"{receiver}/hooks/airtable", "secret": secret, "watch": list(watch)}
        self.control("airtable", "POST", "automations", automation)

    def add_lead(self, **attributes: Json) -> int:
        """Somebody creates a deal in Kommo, in API v4's write shape; its id."""
        return int(self.control("kommo", "POST", "leads", attributes)["lead"]["id"])

    def edit_lead(self, lead_id: int, **changes: Json) -> None:
        """Somebody changes a deal in Kommo."""
        self.control("kommo", "PATCH", f"leads/{lead_id}", changes)

    def lead(self, lead_id: int) -> Json:
        """A lead as API v4 shows it."""
        return self.control("kommo", "GET", f"leads/{lead_id}")["lead"]

    def edit_record(self, record_id: str, fields: Json) -> None:
        """Somebody changes cells, by field name, in Airtable."""
        self.control("airtable", "PATCH", f"records/{record_id}", {"fields": fields})

    def records(self, table: str = "Deals") -> list[Json]:
        """All records of a table: ``{id, fields}``, fields by name."""
        return self.control("airtable", "GET", f"records?table={table}")["records"]

    def waiting(self) -> int:
        """Webhooks and automations' POSTs that are not delivered yet."""
        return sum(
            self.control(side, "GET", "deliveries?log=0")["waiting"]
            for side in ("kommo", "airtable")
        )
