"""What a comparison of both sides finds, in words and numbers; and what of it may be applied.

Pure: the engine reads both accounts and merges each lead as a live event would; this says what the
result means.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, get_args

from kommo_airtable_sync.core.canonical import is_blank, to_json
from kommo_airtable_sync.core.config import Safety
from kommo_airtable_sync.core.errors import Side
from kommo_airtable_sync.core.types import Canonical, Json

Kind = Literal[
    "create",  # a lead that qualifies has no record
    "recreate",  # its record is gone
    "update",  # the two differ, or did before one of them was written to
    "mark",  # the lead left or was deleted: its record will say so
    "delete",  # the same, by the policy ``delete``
    "adopt",  # both are equal, the ledger does not know it yet
    "link",  # its contact or company has no record yet
    "conflict",  # a person must choose
    "vanished",  # neither shown by Kommo nor among the deleted
    "key_changed",  # somebody changed the key cell of its record
    "duplicate",  # several records have its key
    "orphan",  # a record whose lead does not exist
    "refused",  # a value that the other side cannot hold
]
KINDS: tuple[Kind, ...] = get_args(Kind)
HANDED_OVER = frozenset(KINDS) - {"duplicate", "orphan", "refused"}
"""Those that the one write path is asked to look at."""
FOR_PEOPLE = frozenset({"conflict", "vanished", "key_changed", "duplicate", "orphan", "refused"})
"""Those that nothing but a person can mend."""

SMALL = 20
"""So few changes are never braked by their share: of a small table everything is a large share."""


@dataclass(frozen=True, slots=True)
class Change:
    """One field that would be written on one side."""

    side: Side
    operation: str
    field: str
    name: str
    before: Canonical
    after: Canonical
    rule: str

    def to_json(self) -> Json:
        """As a plan file spells it."""
        values = {"before": to_json(self.before), "after": to_json(self.after)}
        return {**asdict(self), **values}


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one lead, contact, company or record.

    Args:
        key: ``lead:5``; ``record:rec1`` of an orphan.
        records: its record; of a duplicate all of them.
        changes: what would be written.
        reason: one sentence, where there is something to say.
        digest: of the changes (`digest_of`), for a plan that is applied later.
    """

    key: str
    kind: Kind
    records: Sequence[str] = ()
    changes: Sequence[Change] = ()
    reason: str = ""
    digest: str = ""

    def to_json(self) -> Json:
        """As a plan file spells it."""
        return {**asdict(self), "changes": [each.to_json() for each in self.changes]}


def digest_of(changes: Iterable[Change], volatile: Collection[str]) -> str:
    """What a person has seen and allowed: sides, fields and values, in any order.

    Fields in ``volatile`` do not count: the status text, and links to records still to be made.
    """
    seen = sorted(
        json.dumps([c.side, c.operation, c.field, to_json(c.before), to_json(c.after)])
        for c in changes
        if c.field not in volatile
    )
    return hashlib.sha256("\n".join(seen).encode()).hexdigest()[:16]


@dataclass
class Summary:
    """A comparison in numbers.

    Args:
        kinds: how many findings of each kind.
        fields: by field name, how many writes to either side it needs.
        blanked: by field name, on how many it would go from filled to blank.
        sides: how many leads or contacts need a write there.
        linked: findings about contacts and companies.
        in_motion: leads that the live sync was just working on; they are left to it.
        unlinked: records without key.
        changed: leads that somebody changed in Kommo since the last comparison.
        unannounced: those of them of which no webhook had told us.
        calls: API calls that the comparison made, by side.
    """

    leads: int = 0
    records: int = 0
    kinds: Counter[str] = field(default_factory=Counter[str])
    fields: Counter[str] = field(default_factory=Counter[str])
    blanked: Counter[str] = field(default_factory=Counter[str])
    sides: Counter[str] = field(default_factory=Counter[str])
    linked: int = 0
    in_motion: int = 0
    unlinked: int = 0
    changed: int = 0
    unannounced: int = 0
    calls: dict[str, int] = field(default_factory=dict[str, int])

    def add(self, finding: Finding) -> None:
        """Count a finding."""
        self.kinds[finding.kind] += 1
        self.linked += not finding.key.startswith(("lead:", "record:"))
        self.sides.update({change.side for change in finding.changes})
        if finding.kind == "create":
            return  # not a drift: nobody's value differs
        for change in finding.changes:
            self.fields[change.name] += 1
            if not is_blank(change.before) and is_blank(change.after) and finding.kind == "update":
                self.blanked[change.name] += 1

    @property
    def handed_over(self) -> int:
        """Leads (and contacts) that the write path is to look at."""
        return sum(self.kinds[kind] for kind in HANDED_OVER)

    @property
    def for_people(self) -> int:
        """Findings that wait for a person."""
        return sum(self.kinds[kind] for kind in FOR_PEOPLE)

    def cost(self, batch_size: int) -> dict[str, int]:
        """API calls that applying would take, by side: each batch reads, and writes if it must."""
        batches = -(-self.handed_over // batch_size)
        return {
            side: batches + min(batches, -(-self.sides[side] // batch_size) if self.sides else 0)
            for side in ("kommo", "airtable")
        }

    def to_json(self) -> dict[str, Json]:
        """For the plan file, ``status`` and the asset's metadata."""
        # asdict would make Counters of pairs.
        plain = {
            name: dict(getattr(self, name)) for name in ("kinds", "fields", "blanked", "sides")
        }
        return {**vars(self), **plain}


def braked(summary: Summary, safety: Safety) -> str | None:
    """Why a person must allow this plan first, or None (design 3.8). Creations do not count."""
    kinds = summary.kinds
    touched = kinds["update"] + kinds["mark"] + kinds["recreate"]
    deleted = kinds["delete"]
    shaken = touched + deleted + kinds["vanished"]
    if deleted > safety.max_deletes:
        return _sentence(f"delete {deleted} records", "max_deletes", safety.max_deletes)
    for name, count in summary.blanked.most_common(1):
        if count > safety.max_deletes:
            what = f'empty the field "{name}" on {count} records'
            return _sentence(what, "max_deletes", safety.max_deletes)
    if touched > safety.max_records_changed:
        what = f"change {touched} records"
        return _sentence(what, "max_records_changed", safety.max_records_changed)
    whole = max(summary.records, summary.leads)
    if shaken > SMALL and shaken > safety.max_share_changed * whole:
        what = f"change {shaken} of {whole} records"
        return _sentence(what, "max_share_changed", safety.max_share_changed)
    return None


def _sentence(what: str, setting: str, limit: float) -> str:
    return (
        f"Held by the brake: this would {what} (safety.{setting} is {limit:g}). Nothing was "
        "written. Look at it with kommo-airtable-sync plan; if it is meant, release it with "
        "kommo-airtable-sync reconcile --yes."
    )


def refused(
    directive: Mapping[str, Json], changes: Sequence[Change], volatile: Collection[str]
) -> str:
    """What becomes of a planned lead: "applied", "unchanged", or "refused: ..." and why."""
    if digest_of(changes, volatile) == directive.get("digest"):
        return "applied"
    if not changes:
        return "unchanged"
    return "refused: a side has changed since the plan was made; make a new plan"
