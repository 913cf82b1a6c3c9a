"""The live brake: how much may change in an hour before a person is asked (design 3.8).

Creations do not count: an initial load must pass. ``max_share_changed`` does not bind here but in
plans, where the whole is known (docs/decisions/0007).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kommo_airtable_sync.core.config import Safety

WINDOW_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What was changed within the window.

    Args:
        records_changed: distinct keys that were updated, on either side; those created within the
            window not counted.
        deletes: distinct keys whose record or lead was deleted.
        blanked: field id -> distinct keys where its value went from filled to blank.
    """

    records_changed: int = 0
    deletes: int = 0
    blanked: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """What a batch would write to one key, both sides together.

    Args:
        blanked: field id -> name, for fields that go from filled to blank.
        released: a person let it go (`holds release`).
    """

    key: str
    is_create: bool = False
    is_delete: bool = False
    blanked: Mapping[str, str] = field(default_factory=dict[str, str])
    released: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which keys may be written; of the others a sentence each, for people."""

    allowed: frozenset[str]
    held: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Brake:
    """Decides which planned changes may go."""

    safety: Safety

    def decide(self, usage: Usage, planned: Sequence[PlannedChange]) -> Verdict:
        """Let changes through in their order until a limit is reached.

        A creation always passes. What a person released passes too, and is counted like the rest.
        A change that is held uses nothing up, so that smaller ones behind it may still pass.

        Args:
            usage: of the window (`WINDOW_SECONDS`), without the planned keys.
            planned: one for each key that something would be written to.
        """
        records, deletes = usage.records_changed, usage.deletes
        blanked = Counter(usage.blanked)
        held: dict[str, str] = {}
        for change in planned:
            if change.is_create:
                continue
            reason = self._objection(records, deletes, blanked, change)
            if reason is not None and not change.released:
                held[change.key] = reason
                continue
            deletes += change.is_delete
            records += not change.is_delete
            blanked.update(change.blanked.keys())
        allowed = frozenset(change.key for change in planned if change.key not in held)
        return Verdict(allowed, held)

    def _objection(
        self, records: int, deletes: int, blanked: Mapping[str, int], change: PlannedChange
    ) -> str | None:
        limits = self.safety
        if change.is_delete:
            if deletes >= limits.max_deletes:
                return _sentence(f"more than {limits.max_deletes} deletions", "safety.max_deletes")
            return None
        if records >= limits.max_records_changed:
            return _sentence(
                f"more than {limits.max_records_changed} records changed",
                "safety.max_records_changed",
            )
        for field_id, name in change.blanked.items():
            if blanked.get(field_id, 0) >= limits.max_deletes:
                return _sentence(
                    f'the field "{name}" emptied on more than {limits.max_deletes} records',
                    "safety.max_deletes",
                )
        return None


def _sentence(what: str, setting: str) -> str:
    return (
        f"Held by the brake: it would be {what} within an hour ({setting}). If that is meant, let "
        "it go with kommo-airtable-sync holds release ID."
    )
