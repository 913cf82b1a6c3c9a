"""Leads that leave and return: excluded, deleted, vanished; records that a person deleted.

Absence is not evidence (design 3.8): a lead counts as deleted only by a delete hook or by Kommo's
trash. What merely is not shown any more is held, and a person says what it means.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from kommo_airtable_sync.core.loop_breaker import LOOP_SECONDS, SAME_WRITES_MAX
from kommo_airtable_sync.core.status import status_text
from kommo_airtable_sync.core.types import key_id
from kommo_airtable_sync.engine.batch import Batch, Plan
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.engine.outgoing import with_status
from kommo_airtable_sync.engine.subject import Subject
from kommo_airtable_sync.store.entries import Intent, LedgerEntry
from kommo_airtable_sync.store.settling import Outcome

DELETED = "delete"
Policy = Literal["keep", "mark", "delete"]


def look_in_the_trash(engine: Engine, batch: Batch) -> None:
    """Ask Kommo for the deleted ones among the leads that it did not show, if nobody told us."""
    missing = [
        key
        for key in batch.open_of("lead")
        if key not in batch.leads and not _told_deleted(batch, key) and key not in batch.trashed
    ]
    if missing:
        ids = [key_id(key) for key in missing]
        found = engine.kommo.leads_by_id(ids, with_=("only_deleted",))
        batch.trashed.update(key for key in missing if key_id(key) in found)


def lead_is_absent(engine: Engine, batch: Batch, key: str) -> None:
    """Kommo shows no such lead: deleted, if there is evidence; else held, or not here yet."""
    entry = batch.known[key].entry
    if _told_deleted(batch, key) or key in batch.trashed:
        policy = engine.config.kommo.when_deleted
        _leave(engine, batch, key, entry, policy, "deleted")
    elif entry.state == "deleted":
        batch.outcomes[key] = Outcome("done", "absent")
    elif entry.fields:
        batch.counts["vanished"] += 1
        batch.outcomes[key] = Outcome(
            "held",
            "vanished",
            f"Kommo does not show lead {key_id(key)} any more, and nobody said that it was "
            "deleted: perhaps the token lost rights. Release it if the lead is gone, drop it if "
            "not. Nothing was changed in Airtable.",
        )
    else:
        batch.outcomes[key] = Outcome(
            "retry",
            error=f"Kommo shows no lead {key_id(key)}: not visible to the token, or gone again. "
            "Nothing was changed in Airtable.",
        )


def lead_left(engine: Engine, batch: Batch, key: str, entry: LedgerEntry, reason: str) -> None:
    """A lead does not qualify; ``kommo.when_excluded`` says what becomes of its record."""
    batch.counts["filtered"] += 1
    policy = engine.config.kommo.when_excluded
    if entry.record_id is None or policy == "keep":
        batch.outcomes[key] = Outcome("done", "filtered", reason)
        return
    _leave(engine, batch, key, entry, policy, "excluded", reason)


def record_may_return(engine: Engine, batch: Batch, key: str, entry: LedgerEntry) -> bool:
    """A person deleted the record: whether it is to be made again (``airtable.when_deleted``)."""
    if engine.config.airtable.when_deleted == "recreate":
        return _may_be_made_again(engine, batch, key)
    batch.unchanged.append(Plan(key, engine.directory.mapping(), replace(entry, state="ignored")))
    batch.outcomes[key] = Outcome("done", "ignored", "the record was deleted in Airtable")
    return False


def _may_be_made_again(engine: Engine, batch: Batch, key: str) -> bool:
    """Not at once, where something deletes whatever we make: that would go on for ever."""
    since = engine.seconds() - LOOP_SECONDS
    made = {
        write.record_id
        for write in batch.known[key].recent
        if write.operation == "create" and write.created_at > since
    }
    if len(made) < SAME_WRITES_MAX:
        return True
    batch.outcomes[key] = Outcome(
        "retry",
        error=f"Within a minute the record of {key.replace(':', ' ')} was made {len(made)} times, "
        "and deleted as often. If no person does that, look for an automation in Airtable.",
    )
    return False


def _told_deleted(batch: Batch, key: str) -> bool:
    """A delete hook, or a person who released a lead that had vanished."""
    return any(
        (event.kind == DELETED and event.source == "kommo")
        # Another decision that may pass the brake says nothing of where the lead is.
        or event.directive == {"release": True}
        for event in batch.events_of(key)
    )


def _leave(
    engine: Engine,
    batch: Batch,
    key: str,
    entry: LedgerEntry,
    policy: Policy,
    state: Literal["excluded", "deleted"],
    reason: str = "",
) -> None:
    mapping = engine.directory.mapping()
    if key in batch.records_read and key not in batch.records:
        # A person has deleted the record before us.
        entry = replace(entry, record_id=None)
    record_id = entry.record_id
    if record_id is None or policy == "keep" or (policy == "mark" and mapping.status is None):
        _keep(engine, batch, key, replace(entry, state=state))
        return
    gone = Plan(key=key, table=mapping, entry=replace(entry, state=state), record_id=record_id)
    events = batch.events_of(key)
    if policy == "delete":
        intent = Intent(
            key=key,
            record_id=record_id,
            side="airtable",
            operation="delete",
            field=mapping.key.id,
            field_name=mapping.key.name,
            before=str(key_id(key)),
            after=None,
            rule=state,
            event_id=events[-1].id if events else None,
        )
        batch.plans.append(replace(gone, delete=True, intents=(intent,)))
        return
    subject = Subject(
        key=key,
        table=mapping,
        fields=(),
        lead={},
        known=batch.known[key],
        entry=entry,
        record=batch.records.get(key),
        read=key in batch.records_read,
        events=events,
        now=engine.clock.now(),
        final=True,
    )
    marked = with_status(gone, subject, status_text(state=state, excluded=reason))
    if marked.cells:
        batch.plans.append(marked)
    else:
        _keep(engine, batch, key, marked.entry)


def _keep(engine: Engine, batch: Batch, key: str, entry: LedgerEntry) -> None:
    """Nothing is written; the ledger knows where the lead is."""
    if entry.fields:
        batch.unchanged.append(Plan(key, engine.directory.mapping(), entry))
    outcome = "absent" if entry.state == "deleted" else "filtered"
    batch.outcomes[key] = Outcome("done", outcome)
