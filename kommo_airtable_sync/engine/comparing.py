"""Merge every lead of a survey as a live event would, and say what that would write."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from kommo_airtable_sync.core.canonical import same
from kommo_airtable_sync.core.errors import LeadFailed
from kommo_airtable_sync.core.links import LINKED, company_id, main_contact_id
from kommo_airtable_sync.core.mapping import LinkMapping
from kommo_airtable_sync.core.mapping import Mapping as TableMapping
from kommo_airtable_sync.core.reconciling import Finding, Kind, Summary, digest_of
from kommo_airtable_sync.core.schemas import UnknownReference
from kommo_airtable_sync.core.types import BULK, Json, key_id
from kommo_airtable_sync.engine import leaving
from kommo_airtable_sync.engine.applying import changes_of, volatile_fields
from kommo_airtable_sync.engine.batch import Batch, Plan
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.engine.links import plan_linked, tell_names
from kommo_airtable_sync.engine.merge import merge_one, updated_at
from kommo_airtable_sync.engine.survey import LEAD, Progress
from kommo_airtable_sync.store.claiming import Claim
from kommo_airtable_sync.store.entries import Known, LedgerEntry
from kommo_airtable_sync.store.settling import Outcome
from kommo_airtable_sync.store.standing import in_motion
from kommo_airtable_sync.store.survey import Survey

PORTION = 250
_NOTHING = Outcome("done")


@dataclass
class Comparer:
    """Compares a survey portion by portion; memory holds one of them.

    Args:
        began: database time at which the reading began; what moved since is left to the live sync.
        previous: when the last comparison began, seconds since the epoch; None: never.
    """

    engine: Engine
    survey: Survey
    summary: Summary
    began: float
    previous: float | None
    schemas_read: bool = False

    def compare(self, on_progress: Progress) -> None:
        """Find whatever differs; the findings are in the survey then, counted in the summary."""
        compared = 0
        for ids in self.survey.portions(LEAD, PORTION):
            self._keep(self._leads(ids))
            compared += len(ids)
            on_progress("leads compared", compared)
        for link in self.engine.directory.mapping().links:
            for ids in self.survey.portions(link.kind, PORTION):
                self._keep(self._contacts(link, ids))
        self.summary.leads, self.summary.records, self.summary.unlinked = self.survey.count(LEAD)

    def _keep(self, found: Sequence[Finding]) -> None:
        for each in found:
            self.summary.add(each)
        self.survey.add_findings([(each.kind, each.to_json()) for each in found])

    def _leads(self, ids: Sequence[int]) -> list[Finding]:
        batch, found = self._begin(LEAD, ids, self.engine.directory.mapping())
        missing = self._tell_links(batch)
        for key in batch.open_of(LEAD):
            if key not in batch.leads and batch.known[key].entry.state != "synced":
                batch.outcomes[key] = _NOTHING
            elif key not in batch.leads and not batch.known[key].entry.fields:
                found.append(_orphan(key, batch))
                batch.outcomes[key] = _NOTHING
        leaving.look_in_the_trash(self.engine, batch)
        for key in batch.open_of(LEAD):
            merge_one(self.engine, batch, key)
        self.schemas_read = batch.schemas_read
        found += self._findings(batch, batch.known, missing)
        self._count_unannounced(batch, found)
        return found

    def _contacts(self, link: LinkMapping, ids: Sequence[int]) -> list[Finding]:
        batch, found = self._begin(link.kind, ids, link.mapping)
        before = dict(batch.known)
        for key in batch.open_of(link.kind):
            if key not in batch.leads or not batch.known[key].entry.fields:
                continue  # not ours, or gone: its deals say so
            try:
                plan_linked(self.engine, batch, link, key, batch.leads[key])
            except (LeadFailed, UnknownReference) as failed:
                found.append(Finding(key, "refused", reason=str(failed)))
        return found + self._findings(batch, before, {})

    def _begin(
        self, kind: str, ids: Sequence[int], table: TableMapping
    ) -> tuple[Batch, list[Finding]]:
        """What was read of these, as a batch that nobody claimed and nothing is written for."""
        keys = [f"{kind}:{each}" for each in ids]
        moving = in_motion(self.engine.database, keys, self.began)
        self.summary.in_motion += len(moving)
        keys = [key for key in keys if key not in moving]
        batch = Batch(Claim(0, BULK, {key: () for key in keys}), run_id="")
        batch.schemas_read = self.schemas_read
        batch.known = self.engine.journal.load(keys)
        numbers = [key_id(key) for key in keys]
        shown = self.survey.entities_of(kind, numbers)
        batch.leads = {f"{kind}:{number}": entity for number, entity in shown.items()}
        copies = self.survey.records_of(kind, numbers)
        own_ids = [k.entry.record_id for k in batch.known.values() if k.entry.record_id]
        there = self.survey.records_there(own_ids)
        found: list[Finding] = []
        for key in keys:
            batch.records_read.add(key)
            found += _choose_record(batch, key, copies.get(key_id(key), []), there, table)
        return batch, found

    def _tell_links(self, batch: Batch) -> dict[str, list[str]]:
        """Give each lead the records behind it; which contacts and companies still lack one."""
        mapping = self.engine.directory.mapping()
        missing: dict[str, list[str]] = {}
        for link in mapping.links:
            number = main_contact_id if link.kind == "contact" else company_id
            others = {
                key: f"{link.kind}:{other}"
                for key, lead in batch.leads.items()
                if (other := number(lead)) is not None
            }
            batch.known.update(self.engine.journal.load(sorted(set(others.values()))))
            for key, lead in batch.leads.items():
                other = others.get(key)
                record_id = batch.known[other].entry.record_id if other else None
                if other and record_id is None:
                    missing.setdefault(key, []).append(other)
                    record_id = _kept_link(batch.known.get(key), link.target.id)
                linked = {**lead.get(LINKED, {}), link.kommo: record_id}
                batch.leads[key] = {**lead, LINKED: linked}
        if mapping.needs_names:
            tell_names(self.engine, batch)
        return missing

    def _findings(
        self,
        batch: Batch,
        before: Mapping[str, Known],
        missing: Mapping[str, Sequence[str]],
    ) -> list[Finding]:
        """What became of each key of the batch."""
        volatile = volatile_fields(self.engine)
        found: list[Finding] = []
        planned = [*batch.plans, *batch.patches]
        for plan in planned:
            changes = changes_of(plan)
            found.append(
                Finding(
                    plan.key,
                    _kind_of(plan, before[plan.key].entry),
                    [plan.record_id] if plan.record_id else [],
                    changes,
                    _and_creates(plan.problems, missing.get(plan.key, ())),
                    digest_of(changes, volatile),
                )
            )
        for plan in batch.unchanged:
            found += _of_unchanged(plan, before[plan.key], missing.get(plan.key, ()))
        done = {plan.key for plan in (*planned, *batch.unchanged)}
        for key, outcome in batch.outcomes.items():
            if outcome.state == "held":
                found.append(Finding(key, "vanished", reason=outcome.error or ""))
            elif outcome.state in ("dead", "retry") and key not in done:
                found.append(Finding(key, "refused", reason=outcome.error or ""))
        return found

    def _count_unannounced(self, batch: Batch, found: Sequence[Finding]) -> None:
        """Changes in Kommo since the last comparison, and those that no webhook told of."""
        if self.previous is None:
            return
        own = self.engine.directory.mapping().own_user_id
        drifted = {each.key for each in found if any(c.side == "airtable" for c in each.changes)}
        for key in batch.claim.events:
            at = updated_at(batch.leads[key]) if key in batch.leads else None
            if at is None or at < self.previous or batch.leads[key].get("updated_by") == own:
                continue
            self.summary.changed += 1
            seen = batch.known[key].entry.seen_updated_at
            self.summary.unannounced += key in drifted and (seen is None or seen < at)


def _choose_record(
    batch: Batch, key: str, copies: Sequence[Json], there: Collection[str], table: TableMapping
) -> list[Finding]:
    """The record of a key, as ``read`` chooses it; several, or one with another key, are told."""
    known_id = batch.known[key].entry.record_id
    own = next((each for each in copies if each["id"] == known_id), None)
    if own is None and known_id in there:
        batch.outcomes[key] = _NOTHING
        reason = f"Record {known_id} no longer has its key: somebody changed {table.key.name}."
        return [Finding(key, "key_changed", [str(known_id)], reason=reason)]
    if own is not None or len(copies) == 1:
        batch.records[key] = own or copies[0]
    if len(copies) < 2:
        return []
    if own is None:
        batch.outcomes[key] = _NOTHING
    ids = [str(each["id"]) for each in copies]
    kept = f"; the sync writes to {known_id}" if own is not None else "; the sync writes to none"
    return [Finding(key, "duplicate", ids, reason=f"{len(ids)} records have this key{kept}.")]


def _orphan(key: str, batch: Batch) -> Finding:
    record = batch.records.get(key)
    reason = f"The record's key is {key_id(key)}, and Kommo shows no such lead."
    return Finding(key, "orphan", [record["id"]] if record else [], reason=reason)


def _kept_link(known: Known | None, field_id: str) -> str | None:
    agreed = known.entry.fields.get(field_id) if known else None
    kept = agreed.kommo if agreed is not None else None
    return next(iter(kept), None) if isinstance(kept, frozenset) else None


def _kind_of(plan: Plan, before: LedgerEntry) -> Kind:
    if plan.delete:
        return "delete"
    if plan.entry.state in ("deleted", "excluded"):
        return "mark"
    if plan.creates:
        return "recreate" if before.record_id else "create"
    return "update"


def _and_creates(problems: Sequence[str], missing: Sequence[str]) -> str:
    return " ".join([*problems, *(f"{other} gets a record first." for other in missing)])


def _of_unchanged(plan: Plan, known: Known, missing: Sequence[str]) -> list[Finding]:
    """Nothing to write, but perhaps something to learn, to link or to decide."""
    records = [plan.record_id] if plan.record_id else []
    if plan.problems:
        return [Finding(plan.key, "refused", records, reason=" ".join(plan.problems))]
    new = [each for each in plan.held if each.field not in known.held]
    if new:
        names = ", ".join(each.field_name for each in new)
        return [Finding(plan.key, "conflict", records, reason=f"Both sides changed: {names}.")]
    if missing:
        return [Finding(plan.key, "link", records, reason=_and_creates((), missing))]
    if _teaches(plan.entry, known.entry):
        return [Finding(plan.key, "adopt", records)]
    return []


def _teaches(now: LedgerEntry, before: LedgerEntry) -> bool:
    """Whether the ledger would learn more than that what it expected has come."""
    if now.record_id != before.record_id or now.state != before.state:
        return True
    for name, agreed in now.fields.items():
        was = before.fields.get(name)
        if was is None or was.fingerprint != agreed.fingerprint:
            return True
        if not was.expected and not (
            same(was.kommo, agreed.kommo) and same(was.airtable, agreed.airtable)
        ):
            return True
    return False
