"""What became of every edit that a person made: it stands, or there is a good reason why not."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kommo_airtable_sync.core.canonical import same
from kommo_airtable_sync.core.overwritten import READ_SECONDS_MAX
from kommo_airtable_sync.core.types import Canonical
from kommo_airtable_sync.engine.context import CALL_SECONDS_MAX
from kommo_airtable_sync.store.entries import Intent, read_intent
from tests.simulation.stage import Broken

OVERRULING = {
    "Deal Name": {"conflict_airtable"},
    "Amount": {"conflict_kommo"},
    "Region": {"conflict_newest", "conflict_tie"},
    "Seats": {"airtable_owns", "recreated"},
    "Website": {"kommo_owns"},
}
OWNED = ("Seats", "Website")
ANYWHERE = {"first_meeting", "directive"}
"""The rules by which an edit of a field may be taken back."""
STEP_SECONDS_MAX = 8.0
"""The furthest that a clock jumps at once."""
STRETCHED = "for want of exact times"
WINDOW_SECONDS = READ_SECONDS_MAX + CALL_SECONDS_MAX
"""What was read may be written so much later; whoever edits in between is not seen."""


@dataclass(frozen=True, slots=True)
class Edit:
    """What a person has done to one field; of tags, to one tag.

    Args:
        at: epoch seconds.
        lead: its id.
        field: the Airtable field's name.
        before: what the side showed; of a tag, whether it was there.
        value: what it showed afterwards.
        tag: its name, else "".
    """

    at: float
    side: str
    lead: int
    field: str
    before: Canonical
    value: Canonical
    tag: str = ""


@dataclass
class Strains:
    """What makes the journal's times wrong, or requests late.

    Args:
        slept: for how many seconds in all a run's machine stood still.
        clock: what our clock was wrong by from when on, oldest first; right before.
    """

    slept: Counter[str] = dataclasses.field(default_factory=Counter[str])
    clock: list[tuple[float, float]] = dataclasses.field(default_factory=lambda: [(0.0, 0.0)])

    @property
    def steady(self) -> bool:
        return not self.slept and not any(wrong for _, wrong in self.clock)

    def true(self, stamp: float) -> float:
        """When our clock showed this: the first time, if it did twice."""
        ends = [at for at, _ in self.clock[1:]] + [math.inf]
        for (since, wrong), until in zip(self.clock, ends, strict=True):
            if stamp - wrong < until:
                return max(since, stamp - wrong)
        raise AssertionError(stamp)

    def slack(self, run_id: str, begins_at: float, ends_at: float) -> float:
        """By how many seconds a write's times may be off."""
        twice = any(begins_at - STEP_SECONDS_MAX <= at <= ends_at + STEP_SECONDS_MAX
                    for (at, wrong), (_, before) in zip(self.clock[1:], self.clock, strict=False)
                    if wrong != before)  # fmt: skip
        return self.slept[run_id] + STEP_SECONDS_MAX * twice


class Judge:
    """Judges a story once all has come to rest.

    Args:
        edits: of people, oldest first.
        rows: of the journal, oldest first.
        deletions: of records, by people: (when, lead).
        counts: what is forgiven is counted here.
        strains: on its times.
        alike: whether two values of a field are one, where a side rounds.
    """

    def __init__(
        self,
        edits: Iterable[Edit],
        rows: Iterable[Any],
        deletions: Iterable[tuple[float, int]],
        counts: Counter[str],
        strains: Strains,
        alike: Callable[[str, Canonical, Canonical], bool],
    ) -> None:
        self._alike = alike
        self._counts = counts
        self._stretched = False
        self._slacks: dict[int, float] = {}
        self._ends: dict[int, float] = {}
        self._created: Counter[tuple[str, str]] = Counter()
        self._edits: dict[tuple[int, str, str], list[Edit]] = defaultdict(list)
        for edit in edits:
            self._edits[edit.lead, edit.field, edit.tag].append(edit)
        self._rows: dict[tuple[str, str], list[Intent]] = defaultdict(list)
        self._done: dict[tuple[str, str, str], list[Intent]] = defaultdict(list)
        for row in rows:
            intent = read_intent(row)
            closed_at = None if intent.closed_at is None else strains.true(intent.closed_at)
            intent = replace(
                intent, created_at=strains.true(intent.created_at), closed_at=closed_at
            )
            # What was not confirmed reached its side before its time-out had passed, or never.
            done = row.state == "done" and closed_at is not None
            ends_at = closed_at if done else intent.created_at + CALL_SECONDS_MAX
            self._created[intent.key, intent.field] += done and row.operation == "create"
            if row.state != "refused":
                self._ends[id(intent)] = ends_at
                self._slacks[id(intent)] = strains.slack(row.run_id, intent.created_at, ends_at)
                self._rows[intent.key, intent.field_name].append(intent)
            if row.state == "done" and row.operation == "update":
                self._done[intent.key, intent.field_name, intent.side].append(intent)
        self._deletions = list(deletions)

    def no_edit_is_lost(self, stands: Mapping[tuple[int, str], Canonical]) -> None:
        """Of each field the last edit stands, or a rule, or the window, was against it.

        Args:
            stands: by lead and field, what both sides show.
        """
        for (lead, field, _), edits in self._edits.items():
            if (lead, field) not in stands:
                continue
            self._counts["judged"] += 1
            shown = stands[lead, field]
            last = edits[-1]
            shown = _of(last, shown)
            if self._alike(field, shown, last.value):
                continue
            excuse = self._excuse(last, edits)
            if not excuse:
                raise Broken("edits", f"lost: {last}; both show {shown!r}; edits: {edits}")
            self._counts[excuse] += 1

    def _excuse(self, last: Edit, edits: list[Edit]) -> str:
        """Why the edit does not stand; "" if for no good reason."""
        for self._stretched in (False, True):
            if excuse := self._excused(last, edits):
                self._counts[STRETCHED] += self._stretched
                return excuse
        return ""

    def _slack(self, row: Intent) -> float:
        """Nothing, unless there is no excuse by the times as they are."""
        return self._slacks[id(row)] if self._stretched else 0.0

    def _excused(self, last: Edit, edits: list[Edit]) -> str:
        rows = self._rows[f"lead:{last.lead}", last.field]
        if last.side == "airtable" and any(
            lead == last.lead and at >= last.at for at, lead in self._deletions
        ):
            return "gone with a record"
        if last.tag:
            seen = [edit for edit in edits if edit.side != last.side]
            if any(self._met_first(last, row) for row in rows):
                return "overruled"
            if seen and seen[-1].value != last.value and self._unmet(seen[-1], last, rows):
                return "tags edited against each other"
        elif any(self._overruled(last, edits, row) for row in rows):
            return "overruled"
        if self._taken_back(last, edits, rows):
            return "taken back between two looks"
        if any(self._undone(last, row) for row in rows):
            return "undone before it was known"
        if any(self._in_the_window(last, row) for row in rows):
            return "in the window"
        return ""

    def _unmet(self, other: Edit, last: Edit, rows: list[Intent]) -> bool:
        """Whether nothing was taken to the last edit's side since the other's."""
        return not any(row.closed_at and other.at <= row.closed_at < last.at for row in rows)

    def _overruled(self, edit: Edit, edits: list[Edit], row: Intent) -> bool:
        """By a rule, and where both own the field, not by what its editor had seen and changed.

        Unless somebody on the other side wanted just that.
        """
        others = [each.value for each in edits if each.side != edit.side]
        meant = not same(edit.before, row.after) or any(same(row.after, each) for each in others)
        return (
            (edit.field in OWNED or meant)
            and row.side == edit.side
            and row.created_at >= edit.at - self._slack(row)
            and same(row.before, edit.value)
            and row.rule in OVERRULING[edit.field] | ANYWHERE
        )

    def _met_first(self, edit: Edit, row: Intent) -> bool:
        """Whether the whole set was chosen or not, since record and lead had not met before."""
        return (
            row.side == edit.side
            and row.rule in ANYWHERE
            and row.created_at >= edit.at - self._slack(row)
            and _of(edit, row.before) == edit.value != _of(edit, row.after)
        )

    def _taken_back(self, last: Edit, edits: list[Edit], rows: list[Intent]) -> bool:
        """Whether its editor only came back to what was agreed, and nobody had looked meanwhile."""
        ours = [each for each in edits[:-1] if each.side == last.side]
        left = next((each for each in reversed(ours) if same(each.before, last.value)), None)
        if left is None:
            return False
        looked = any(
            row.side != last.side and left.at <= row.created_at - self._slack(row) <= last.at
            for row in rows
        )
        return not looked and any(
            row.side == last.side
            and row.rule in ("kommo_changed", "airtable_changed", "set_merged")
            and row.created_at >= last.at - self._slack(row)
            and same(_of(last, row.before), last.value)
            for row in rows
        )

    def _undone(self, edit: Edit, row: Intent) -> bool:
        """Whether it took back a write of a dead run: this looks as if it had never arrived."""
        return (
            row.side == edit.side
            and row.created_at <= edit.at + self._slack(row)
            and (row.closed_at is None or row.closed_at > edit.at - self._slack(row))
            and same(_of(edit, row.before), edit.value)
            and not same(_of(edit, row.after), edit.value)
        )

    def _in_the_window(self, edit: Edit, row: Intent) -> bool:
        """Whether this write went to where somebody had just edited, and did not know of it."""
        before = _of(edit, row.before)
        begins_at = row.created_at - WINDOW_SECONDS - self._slack(row)
        return (
            row.side == edit.side
            and not same(before, edit.value)
            and begins_at <= edit.at <= self._ends[id(row)] + self._slack(row)
        )

    def nothing_is_written_twice(self) -> None:
        """No value is confirmed twice running, unless somebody edited the field in between."""
        self._stretched = True
        for (key, field, _), rows in self._done.items():
            edits = [
                edit.at
                for (lead, name, _), some in self._edits.items()
                for edit in some
                if (f"lead:{lead}", name) == (key, field)
            ]
            for one, two in itertools.pairwise(rows):
                again = (
                    one.record_id == two.record_id  # else somebody typed another record
                    and same(one.after, two.after)
                    and same(one.before, two.before)
                )
                begins_at = one.created_at - WINDOW_SECONDS - self._slack(one)
                if again and not any(begins_at <= at <= two.created_at + self._slack(two)
                                     for at in edits):  # fmt: skip
                    raise Broken("causes", f"written twice: {one} and {two}")

    def no_record_is_made_twice(self) -> None:
        """Unless a person has deleted it in between."""
        again = {f"lead:{lead}" for _, lead in self._deletions}
        twice = [each for each, n in self._created.items() if n > 1 and each[0] not in again]
        if twice:
            raise Broken("one record", f"made twice: {twice}")

    def writes_per_edit(self) -> tuple[int, int]:
        """(confirmed updates of the fields that people edit, edits)."""
        fields = {field for _, field, _ in self._edits}
        written = sum(len(rows) for (_, name, _), rows in self._done.items() if name in fields)
        return written, sum(len(some) for some in self._edits.values())


def _of(edit: Edit, value: Canonical) -> Canonical:
    """A value of the field; of tags, whether the edited one is among them."""
    if not edit.tag:
        return value
    return isinstance(value, frozenset) and edit.tag in value
