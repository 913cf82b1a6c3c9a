"""People at work in the stand-in's Kommo: seeded, so that a demo can be repeated."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from kommo_airtable_sync.sandbox.observe import StandIns

Json = Any
COMPANIES = ("Northwind", "Müller & Söhne", "Café Lumière", "ООО Ромашка", "Acme", "Ōsaka Trading")
WARES = ("renewal", "pilot", "rollout", "upgrade", "training 🎓", "support")


class Salespeople:
    """Makes one edit after another.

    Args:
        stand_ins: where they work.
        pipelines: API v4 pipelines, with their stages.
        seed: of the dice.
    """

    def __init__(self, stand_ins: StandIns, pipelines: Sequence[Json], seed: int = 7) -> None:
        self._stand_ins = stand_ins
        self._dice = random.Random(seed)  # noqa: S311 - a demo, not a secret
        self._stages = [
            (pipeline["id"], status["id"])
            for pipeline in pipelines
            for status in pipeline["_embedded"]["statuses"]
            if status["type"] == 0
        ]

    def act(self, lead_ids: list[int]) -> None:
        """Create a deal (one time in five) or change one that is there."""
        if not lead_ids or self._dice.random() < 0.2:
            made = self._stand_ins.control("kommo", "POST", "leads", self._new_deal())
            lead_ids.append(int(made["lead"]["id"]))
            return
        lead_id = self._dice.choice(lead_ids)
        self._stand_ins.control("kommo", "PATCH", f"leads/{lead_id}", self._change())

    def _new_deal(self) -> Json:
        name = f"{self._dice.choice(COMPANIES)} {self._dice.choice(WARES)}"
        pipeline_id, status_id = self._dice.choice(self._stages)
        deal: Json = {
            "name": name,
            "price": self._dice.randrange(0, 50_000, 50),
            "pipeline_id": pipeline_id,
            "status_id": status_id,
        }
        if self._dice.random() < 0.1:
            deal["_embedded"] = {"tags": [{"name": "internal"}]}
        return deal

    def _change(self) -> Json:
        what = self._dice.choice(("stage", "price", "name", "stage"))
        if what == "stage":
            pipeline_id, status_id = self._dice.choice(self._stages)
            return {"pipeline_id": pipeline_id, "status_id": status_id}
        if what == "price":
            return {"price": self._dice.randrange(0, 50_000, 50)}
        return {"name": f"{self._dice.choice(COMPANIES)} {self._dice.choice(WARES)}"}

    def pause_seconds(self) -> float:
        """How long until the next edit: mostly short, at times a breath."""
        return self._dice.choice((0.05, 0.1, 0.2, 0.3, 0.6))
