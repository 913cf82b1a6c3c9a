"""Everything the stand-in remembers."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from kommo_airtable_sync.core.ports import Clock
from kommo_airtable_sync.sandbox.airtable.data import Data
from kommo_airtable_sync.sandbox.airtable.schema import Base, Ids
from kommo_airtable_sync.sandbox.airtable.seed import sandbox_base
from kommo_airtable_sync.sandbox.airtable.settings import Limits, Settings
from kommo_airtable_sync.sandbox.faults import Faults
from kommo_airtable_sync.sandbox.http_log import RequestLog
from kommo_airtable_sync.sandbox.outgoing import Sender

if TYPE_CHECKING:
    from kommo_airtable_sync.sandbox.airtable.notifying import Automation, Delivery  # noqa: F401 - quoted
    from kommo_airtable_sync.sandbox.airtable.webhooks import Webhook

SYNC_USER = {"id": "usrSandbox0000000", "email": "sync@example.com", "name": "Sync"}
PERSON = {"id": "usrPerson00000000", "email": "person@example.com", "name": "A Person"}
SCOPES = frozenset((
    "data.records:read", "data.records:write", "schema.bases:read", "schema.bases:write",
    "webhook:manage", "user.email:read"
))  # fmt: skip


class Token(BaseModel):
    """A personal access token: its user's id, its scopes, ids of its bases (None = all)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    user: str = PERSON["id"]
    scopes: frozenset[str] = SCOPES
    bases: frozenset[str] | None = None

    def sees(self, base_id: str) -> bool:
        """Whether the base is on the access list."""
        return self.bases is None or base_id in self.bases


class State(Sender["Delivery"]):
    """The bases with all that is set and logged around them.

    Args:
        clock: all times come from it.
        seed: the same seed and calls give the same ids and faults.
        settings: to start from; ``reset`` comes back to them.
    """

    def __init__(self, clock: Clock, *, seed: int = 0, settings: Settings | None = None) -> None:
        self.clock = clock
        self._seed = seed
        self._settings = settings or Settings()
        self._seeded = False
        self._start()

    def _start(self) -> None:
        self.settings = self._settings.model_copy(deep=True)
        self.limits = Limits(self.settings)
        self.ids = Ids(self._seed)
        self.data = Data(self.ids)
        self.bases: dict[str, Base] = {}
        self.users = {each["id"]: each for each in (SYNC_USER, PERSON)}
        self.tokens: dict[str, Token] = {}  # by secret
        self.faults = Faults(self._seed)
        # (field name or id, key as text): what is refused as a bad value
        self.refused: set[tuple[str, str]] = set()
        self.requests = RequestLog()
        # offset -> ids listed, where the next page starts, epoch seconds of its last use
        self.offsets: dict[str, tuple[list[str], int, float]] = {}
        self.webhooks: dict[str, Webhook] = {}
        self.automations: dict[str, Automation] = {}
        # The change log's sequence number up to which everybody has been told.
        self.told = 0
        # by base id
        self.transactions: Counter[str] = Counter()
        self.dice = random.Random(self._seed)  # noqa: S311 - reproducible, not secret

    def now(self) -> float:
        """Epoch seconds."""
        return self.clock.now().timestamp()

    def seed_base(self) -> Base:
        """Add the base ``appSandbox0000000`` with its tables "Deals" and "Clients", empty."""
        base = sandbox_base(self.ids)
        self.bases[base.id] = base
        self._seeded = True
        return base

    def reset(self) -> None:
        """Forget everything but the clock; the sandbox base comes back empty if it was there."""
        self._start()
        if self._seeded:
            self.seed_base()
