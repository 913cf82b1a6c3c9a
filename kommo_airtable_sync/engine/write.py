"""Write rows to Airtable in tens, each announced in the journal before it is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from kommo_airtable_sync.core.errors import (
    BatchRefused,
    ConfigurationError,
    LeadFailed,
    SideUnavailable,
)
from kommo_airtable_sync.core.types import BULK, Json, key_id
from kommo_airtable_sync.engine.batch import Batch, PlannedRow
from kommo_airtable_sync.engine.context import (
    CALL_SECONDS_MAX,
    READ_AGE_SECONDS_MAX,
    RECORDS_PER_WRITE,
    Engine,
)
from kommo_airtable_sync.engine.merge import agreed_fields, merge_batch, plan_row
from kommo_airtable_sync.engine.outage import pausing
from kommo_airtable_sync.engine.read import read_batch, several_records
from kommo_airtable_sync.store.journal import Acknowledged, LedgerEntry
from kommo_airtable_sync.store.settling import Outcome

RECORD_GONE = "ROW_DOES_NOT_EXIST"
DUPLICATE_KEY = "Cannot update more than one record"


def write_airtable(engine: Engine, batch: Batch) -> None:
    """Send every planned row; afterwards each lead of it has an outcome, or a side is down."""
    with pausing(engine, batch):
        _keep_unchanged(engine, batch)
        while batch.rows and batch.outage is None:
            # The place in the budget first: an intent must not age while it waits to be sent.
            engine.airtable_budget.wait_for_place()
            _yield_to_live(engine, batch)
            _read_again_if_old(engine, batch)
            _keep_unchanged(engine, batch)
            if batch.outage is None:
                write_rows(engine, batch, _next_rows(batch))


def _keep_unchanged(engine: Engine, batch: Batch) -> None:
    """Leads in step are done, so what was learnt of them is kept, whatever becomes of the rest."""
    unchanged = [Acknowledged(entry, written=False) for entry in batch.unchanged]
    engine.journal.acknowledge(batch.id, unchanged)
    batch.unchanged.clear()


def _next_rows(batch: Batch) -> list[PlannedRow]:
    """Up to ten rows of one kind, typecast holding for a whole request, and of ten records.

    Two leads share a record only after somebody changed a key cell; one request for both would be
    refused.
    """
    typecast = any(row.typecast for row in batch.rows)
    rows: dict[str, PlannedRow] = {}
    for row in batch.rows:
        if row.typecast == typecast and len(rows) < RECORDS_PER_WRITE:
            rows.setdefault(row.record_id or row.key, row)
    chosen = {row.key for row in rows.values()}
    batch.rows = [row for row in batch.rows if row.key not in chosen]
    return list(rows.values())


def _yield_to_live(engine: Engine, batch: Batch) -> None:
    """Bulk lets go of a lead that somebody has just touched: the live lane reads it anew."""
    if engine.lane != BULK:
        return
    contended = engine.inbox.contended(batch.id)
    for key in contended:
        batch.outcomes.setdefault(key, Outcome("released"))
    batch.rows = [row for row in batch.rows if row.key not in contended]


def _read_again_if_old(engine: Engine, batch: Batch) -> None:
    if batch.read_at is None or engine.seconds() - batch.read_at <= READ_AGE_SECONDS_MAX:
        return
    batch.rows, batch.read_at = [], None
    read_batch(engine, batch)
    merge_batch(engine, batch)


def write_rows(engine: Engine, batch: Batch, rows: Sequence[PlannedRow]) -> None:
    """One request; a refused one is halved until the culprit stands alone."""
    if not rows:
        return
    lead_ids = [row.lead_id for row in rows]
    mapping = engine.directory.mapping()
    engine.journal.open(
        batch.id,
        batch.run_id,
        [row.key for row in rows],
        [intent for row in rows for intent in row.intents],
        lease_left_seconds=CALL_SECONDS_MAX,
    )
    before = engine.airtable_budget.calls
    try:
        answer = engine.airtable.upsert(
            mapping.table_id,
            mapping.key.id,
            [(row.record_id, row.cells) for row in rows],
            typecast=rows[0].typecast,
        )
    except BatchRefused as refused:
        engine.journal.refuse(batch.id, lead_ids)
        _refused(engine, batch, rows, refused)
        return
    except ConfigurationError:
        engine.journal.refuse(batch.id, lead_ids)
        raise
    except SideUnavailable as outage:
        if not outage.sent or outage.reason in ("rate_limited", "quota"):
            engine.journal.refuse(batch.id, lead_ids)
        raise
    finally:
        batch.counts["api_calls_airtable"] += engine.airtable_budget.calls - before
    _acknowledge(engine, batch, rows, answer.records, answer.created_ids)


def _acknowledge(
    engine: Engine,
    batch: Batch,
    rows: Sequence[PlannedRow],
    records: Sequence[Mapping[str, Json]],
    created_ids: frozenset[str],
) -> None:
    mapping = engine.directory.mapping()
    done: list[Acknowledged] = []
    outcomes: list[tuple[PlannedRow, Outcome]] = []
    for row, record in zip(rows, records, strict=True):
        record_id = str(record["id"])
        try:
            fields = agreed_fields(mapping, row, record)
        except LeadFailed as failed:
            # Stored, but not answered as the field's type says: somebody has changed the type. The
            # intents stay open, and the next attempt reads what stands there.
            outcomes.append((row, Outcome("retry", error=failed.reason)))
            continue
        done.append(Acknowledged(replace(row.entry, record_id=record_id, fields=fields)))
        if mapping.lead_id_of(record["fields"].get(mapping.key.id)) != row.lead_id:
            outcomes.append((row, Outcome("dead", error=_key_changed(mapping.key.name, row))))
            continue
        outcome = "created" if record_id in created_ids else "updated"
        outcomes.append((row, Outcome("done", outcome)))
        batch.links.append((row.lead_id, record_id, outcome))
    engine.journal.acknowledge(batch.id, done)
    for row, outcome in outcomes:
        batch.outcomes[row.key] = outcome
    batch.counts.update(entry.outcome for _, entry in outcomes if entry.outcome)
    if len(done) < len(rows):
        engine.directory.refresh()


def _key_changed(key_name: str, row: PlannedRow) -> str:
    return (
        f"Record {row.record_id} of lead {row.lead_id} no longer has its key: somebody changed "
        f"{key_name}. Put {row.lead_id} back, or delete the record, then retry."
    )


def _refused(
    engine: Engine, batch: Batch, rows: Sequence[PlannedRow], refused: BatchRefused
) -> None:
    if len(rows) > 1:
        middle = len(rows) // 2
        write_rows(engine, batch, rows[:middle])
        write_rows(engine, batch, rows[middle:])
        return
    row = rows[0]
    if refused.code == RECORD_GONE and row.record_id is not None:
        _record_gone(engine, batch, row)
        return
    reason = f"Airtable refused lead {row.lead_id}: {refused.code}: {refused.detail}"
    if DUPLICATE_KEY in refused.detail:
        reason = several_records(row.lead_id)
    batch.outcomes[row.key] = Outcome("dead", error=reason)


def _record_gone(engine: Engine, batch: Batch, row: PlannedRow) -> None:
    """A person deleted the record: ``airtable.when_deleted`` says what then."""
    if engine.config.airtable.when_deleted == "ignore":
        batch.outcomes[row.key] = Outcome("done", "ignored", "the record was deleted in Airtable")
        return
    entry: LedgerEntry = replace(row.entry, record_id=None)
    try:
        planned = plan_row(
            batch,
            engine.directory.mapping(),
            row.key,
            batch.leads[key_id(row.key)],
            entry,
            None,
            final=True,
        )
    except LeadFailed as failed:
        batch.outcomes[row.key] = Outcome("dead", error=failed.reason)
        return
    if isinstance(planned, PlannedRow):  # a create always is one
        write_rows(engine, batch, [planned])
