"""One batch on its way: what was claimed, what was read, what is to be written, how it ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from kommo_airtable_sync.core.errors import SideUnavailable
from kommo_airtable_sync.core.types import Canonical, Json, key_id
from kommo_airtable_sync.store.inbox import Claim
from kommo_airtable_sync.store.journal import Intent, LedgerEntry
from kommo_airtable_sync.store.settling import Outcome


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """What one lead's record is to become.

    Args:
        cells: Airtable field id -> cell, changed fields only (all filled ones for a create).
        kommo_values: Airtable field id -> the Kommo value behind each mapped field, as read.
        creates: no record is known: matched by key, else created.
        typecast: a select option has to be made (``create_options``).
    """

    lead_id: int
    key: str
    record_id: str | None
    cells: Mapping[str, Json]
    kommo_values: Mapping[str, Canonical]
    intents: tuple[Intent, ...]
    entry: LedgerEntry
    creates: bool
    typecast: bool


@dataclass
class Batch:
    """The working memory of one claim. It never leaves the process: it may hold personal data."""

    claim: Claim
    run_id: str
    leads: dict[int, Mapping[str, Json]] = field(default_factory=dict[int, Mapping[str, Json]])
    records: dict[int, Mapping[str, Json]] = field(default_factory=dict[int, Mapping[str, Json]])
    entries: dict[int, LedgerEntry] = field(default_factory=dict[int, LedgerEntry])
    intents: dict[int, list[Intent]] = field(default_factory=dict[int, list[Intent]])
    rows: list[PlannedRow] = field(default_factory=list[PlannedRow])
    unchanged: list[LedgerEntry] = field(default_factory=list[LedgerEntry])
    outcomes: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    counts: Counter[str] = field(default_factory=Counter[str])
    links: list[tuple[int, str | None, str]] = field(
        default_factory=list[tuple[int, str | None, str]]
    )
    read_at: float | None = None
    outage: SideUnavailable | None = None

    @property
    def id(self) -> int:
        """The batch id, which is also its fencing token."""
        return self.claim.batch_id

    @property
    def open_keys(self) -> list[str]:
        """Claimed keys whose fate is not decided yet."""
        return [key for key in self.claim.keys if key not in self.outcomes]

    def report(self, latencies: tuple[float, ...] = (), outage: str | None = None) -> BatchReport:
        """What the batch has done so far."""
        every = [event for events in self.claim.events.values() for event in events]
        failed = sum(1 for item in self.outcomes.values() if item.state in ("dead", "retry"))
        return BatchReport(
            batch_id=self.id,
            counts={**self.counts, "failed": failed, "leads_read": len(self.leads)},
            events=len(every),
            latencies=latencies,
            lead_ids=tuple(key_id(key) for key in self.claim.keys),
            sources=tuple(sorted({event.source for event in every})),
            links=tuple(self.links),
            outage=outage,
        )


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What a batch did, for metadata and people.

    Args:
        counts: created, updated, unchanged, skipped_stale, filtered, failed, ...
        latencies: seconds from received to settled, for each live event that was done.
        lead_ids: leads of the batch.
        sources: sources of its events.
        links: (lead id, record id, outcome).
        outage: the side that could not be used, in words.
    """

    batch_id: int
    counts: Mapping[str, int]
    events: int
    latencies: tuple[float, ...]
    lead_ids: tuple[int, ...]
    sources: tuple[str, ...]
    links: tuple[tuple[int, str | None, str], ...]
    outage: str | None = None
