"""One batch on its way: what was claimed, what was read, what is to be written, how it ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from kommo_airtable_sync.core.errors import Side, SideUnavailable
from kommo_airtable_sync.core.field_mapping import FieldMapping
from kommo_airtable_sync.core.mapping import Mapping as TableMapping
from kommo_airtable_sync.core.merge import Absent
from kommo_airtable_sync.core.types import Canonical, Json, key_id, key_kind
from kommo_airtable_sync.store.claiming import Claim, ClaimedEvent
from kommo_airtable_sync.store.entries import Held, Intent, Known, LedgerEntry
from kommo_airtable_sync.store.settling import REFUSED, Outcome

APPLIED = "applied"
"""The answer to a directive that both sides now follow."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be written for one lead (or contact), on both sides.

    Args:
        key: ``lead:5``, ``contact:7``; ``record:rec1`` of a copy that is to be deleted.
        table: the mapping of the record's table.
        entry: the ledger row as it reads once what is agreed already is kept.
        fields: those that were merged: of the mapping, and given by enrichment.
        record_id: None: the record is matched by key, else created.
        cells: Airtable field id -> cell, changed fields only (all filled ones for a create).
        item: Kommo's PATCH item without its id; empty if nothing changes there.
        item_fields: Airtable field ids behind ``item``.
        kommo: by Airtable field id, the Kommo value of each mapped field, as read.
        airtable: by Airtable field id, what Airtable shows: as read, or answered to our write.
        intents: of both sides.
        held: fields that a person must decide, as they are now.
        problems: why some fields cannot go to Kommo, a sentence each.
        unsettled: fields neither agreed nor to be written (held, or refused).
        typecast: a select option has to be made (``create_options``).
        delete: the record is to be deleted.
    """

    key: str
    table: TableMapping
    entry: LedgerEntry
    fields: Sequence[FieldMapping] = ()
    record_id: str | None = None
    cells: Mapping[str, Json] = field(default_factory=dict[str, Json])
    item: Mapping[str, Json] = field(default_factory=dict[str, Json])
    item_fields: frozenset[str] = frozenset()
    kommo: Mapping[str, Canonical] = field(default_factory=dict[str, Canonical])
    airtable: Mapping[str, Canonical | Absent] = field(
        default_factory=dict[str, Canonical | Absent]
    )
    intents: tuple[Intent, ...] = ()
    held: tuple[Held, ...] = ()
    problems: tuple[str, ...] = ()
    unsettled: frozenset[str] = frozenset()
    typecast: bool = False
    delete: bool = False

    @property
    def creates(self) -> bool:
        """Whether no record is known."""
        return self.record_id is None

    @property
    def to_airtable(self) -> bool:
        """Whether Airtable has to be written to."""
        return bool(self.cells) or self.delete


@dataclass
class Batch:
    """The working memory of one claim. It never leaves the process: it may hold personal data.

    Args:
        leads: by key, as Kommo shows them; a contact or company under its own key.
        records: by key, as Airtable shows them, as far as they were read.
        plans: to be written to Airtable, then to Kommo.
        patches: to be written to Kommo.
        unchanged: what is in step, with what was learnt of it.
        tally: (counter, side) -> how often, for /metrics.
        directives: event id -> what became of a person's choice.
        given: by lead, what the user's functions were asked about, and what they gave.
        notes: edits that were overwritten unseen, for the journal.
        remarks: by lead and link field's id, why the record behind it could not be had.
        trashed: leads that Kommo shows among the deleted ones.
        schemas_read: they were read again for this batch.
    """

    claim: Claim
    run_id: str
    calls_before: tuple[int, int] = (0, 0)
    known: dict[str, Known] = field(default_factory=dict[str, Known])
    leads: dict[str, Mapping[str, Json]] = field(default_factory=dict[str, Mapping[str, Json]])
    records: dict[str, Mapping[str, Json]] = field(default_factory=dict[str, Mapping[str, Json]])
    records_read: set[str] = field(default_factory=set[str])
    plans: list[Plan] = field(default_factory=list[Plan])
    patches: list[Plan] = field(default_factory=list[Plan])
    unchanged: list[Plan] = field(default_factory=list[Plan])
    outcomes: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    directives: dict[int, str] = field(default_factory=dict[int, str])
    counts: Counter[str] = field(default_factory=Counter[str])
    tally: Counter[tuple[str, Side]] = field(default_factory=Counter[tuple[str, Side]])
    links: list[tuple[str, str | None, str]] = field(
        default_factory=list[tuple[str, str | None, str]]
    )
    remarks: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    given: dict[str, tuple[Mapping[str, Json], Mapping[str, object]]] = field(
        default_factory=dict[str, tuple[Mapping[str, Json], Mapping[str, object]]]
    )
    notes: dict[tuple[str, str], Intent] = field(default_factory=dict[tuple[str, str], Intent])
    trashed: set[str] = field(default_factory=set[str])
    read_at: float | None = None
    linked: bool = False
    schemas_read: bool = False
    outage: SideUnavailable | None = None

    @property
    def id(self) -> int:
        """The batch id, which is also its fencing token."""
        return self.claim.batch_id

    @property
    def open_keys(self) -> list[str]:
        """Claimed keys whose fate is not decided yet."""
        return [key for key in self.claim.keys if key not in self.outcomes]

    def open_of(self, *kinds: str) -> list[str]:
        """The open keys of these kinds: ``lead``, ``contact``, ``company``, ``record``..."""
        return [key for key in self.open_keys if key_kind(key) in kinds]

    def events_of(self, key: str) -> list[ClaimedEvent]:
        """What we were told of a key."""
        return list(self.claim.events.get(key, ()))

    def refuse(self, key: str, fields: Collection[str], reason: str) -> None:
        """Answer what people chose for these fields of a key: it cannot be."""
        for event in self.events_of(key):
            if (event.directive or {}).get("field") in fields:
                self.directives[event.id] = f"{REFUSED}{reason}"

    def count(self, name: str, side: Side, times: int = 1) -> None:
        """Count for people and for /metrics."""
        self.counts[name] += times
        self.tally[name, side] += times

    def forget_reading(self) -> None:
        """What was read is too old to be written: read and merge again."""
        self.read_at, self.linked = None, False
        self.plans, self.patches = [], []

    def report(
        self, calls: tuple[int, int], latencies: tuple[float, ...] = (), outage: str | None = None
    ) -> BatchReport:
        """What the batch has done so far.

        Args:
            calls: made to Kommo and to Airtable, of which the batch found ``calls_before`` done.
            latencies: seconds from received to settled, for each live event that was done.
            outage: the side that could not be used, in words.
        """
        every = [event for events in self.claim.events.values() for event in events]
        failed = sum(1 for item in self.outcomes.values() if item.state in ("dead", "retry"))
        made = {
            "api_calls_kommo": calls[0] - self.calls_before[0],
            "api_calls_airtable": calls[1] - self.calls_before[1],
        }
        leads = [key for key in self.claim.keys if key_kind(key) == "lead"]
        return BatchReport(
            batch_id=self.id,
            counts={**self.counts, **made, "failed": failed, "leads_read": len(self.leads)},
            events=len(every),
            latencies=latencies,
            lead_ids=tuple(key_id(key) for key in leads),
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
        links: (key, record id, outcome) of what was written.
        outage: the side that could not be used, in words.
    """

    batch_id: int
    counts: Mapping[str, int]
    events: int
    latencies: tuple[float, ...]
    lead_ids: tuple[int, ...]
    sources: tuple[str, ...]
    links: tuple[tuple[str, str | None, str], ...]
    outage: str | None = None
