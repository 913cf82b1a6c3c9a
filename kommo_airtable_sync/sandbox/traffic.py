"""People at work in both stand-ins: seeded, so that a demo can be repeated."""

from __future__ import annotations

import random
from typing import Any

from kommo_airtable_sync.sandbox.stand_ins import StandIns

Json = Any
COMPANIES = ("Northwind", "Müller & Söhne", "Café Lumière", "ООО Ромашка", "Acme", "Ōsaka Trading")
WARES = ("renewal", "pilot", "rollout", "upgrade", "training 🎓", "support")
TAGS = {"sales": ("hot", "VIP", "späť"), "operations": ("повтор", "newsletter", "partner")}
WATCHED = ("Amount", "Tags", "Onboarding Status")
"""What operations edit in Airtable: the fields that the example shares with it or leaves to it."""


class People:
    """Sales edits in Kommo, operations in Airtable: one edit after another.

    Args:
        stand_ins: where they work.
        seed: of the dice.
    """

    def __init__(self, stand_ins: StandIns, seed: int = 7) -> None:
        account = stand_ins.control("kommo", "GET", "account")
        self._stand_ins = stand_ins
        self._leads = [int(lead["id"]) for lead in account["leads"]]
        self._dice = random.Random(seed)  # noqa: S311 - a demo, not a secret
        self._stages = [
            (pipeline["id"], status["id"])
            for pipeline in account["pipelines"]
            for status in pipeline["_embedded"]["statuses"]
            if status["type"] == 0
        ]

    def act(self) -> None:
        """One edit; one in three is made in Airtable."""
        records = self._stand_ins.records() if self._dice.random() < 1 / 3 else []
        if records:
            self._operate(self._dice.choice(records))
        else:
            self._sell()

    def _sell(self) -> None:
        """In Kommo: create a deal (one time in five) or change one that is there."""
        if not self._leads or self._dice.random() < 0.2:
            self._leads.append(self._stand_ins.add_lead(**self._new_deal()))
        else:
            self._stand_ins.edit_lead(self._dice.choice(self._leads), **self._change())

    def _operate(self, record: Json) -> None:
        """In Airtable: change one cell of a record, given as ``{id, fields}``."""
        name = self._dice.choice(WATCHED)
        tags = {self._dice.choice(TAGS["operations"]), *record["fields"].get("Tags", ())}
        cell: Json = {
            "Amount": self._amount(),
            "Tags": sorted(tags),
            "Onboarding Status": self._dice.choice(("Not started", "In progress", "Done")),
        }[name]
        self._stand_ins.edit_record(record["id"], {name: cell})

    def pause_seconds(self) -> float:
        """How long until the next edit: mostly short, at times a breath."""
        return self._dice.choice((0.05, 0.1, 0.2, 0.3, 0.6))

    def _new_deal(self) -> Json:
        pipeline_id, status_id = self._dice.choice(self._stages)
        deal: Json = {"name": self._name(), "price": self._amount()}
        deal |= {"pipeline_id": pipeline_id, "status_id": status_id}
        if self._dice.random() < 0.1:
            deal["_embedded"] = {"tags": [{"name": "internal"}]}
        return deal

    def _change(self) -> Json:
        match self._dice.choice(("stage", "price", "name", "tag", "stage")):
            case "stage":
                pipeline_id, status_id = self._dice.choice(self._stages)
                return {"pipeline_id": pipeline_id, "status_id": status_id}
            case "price":
                return {"price": self._amount()}
            case "tag":
                return {"tags_to_add": [{"name": self._dice.choice(TAGS["sales"])}]}
            case _:
                return {"name": self._name()}

    def _name(self) -> str:
        return f"{self._dice.choice(COMPANIES)} {self._dice.choice(WARES)}"

    def _amount(self) -> int:
        return self._dice.randrange(0, 50_000, 50)
