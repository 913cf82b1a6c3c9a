"""Find copies of records, and remove those that a person chose and that hold nothing of their own.

They go by the one write path: an event of the copy's own key, with what the person saw of it. Both
records are read afresh, the deletion is announced in the journal and counted by the brake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from kommo_airtable_sync.core.copies import Group, Record, fingerprint, group_of, own_fields
from kommo_airtable_sync.core.mapping import Mapping as TableMapping
from kommo_airtable_sync.core.types import BULK, IncomingEvent, Json, key_id, key_kind, lead_key
from kommo_airtable_sync.engine.batch import Batch, Plan
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.engine.survey import LEAD, Progress
from kommo_airtable_sync.store.claiming import ClaimedEvent
from kommo_airtable_sync.store.database import json_text
from kommo_airtable_sync.store.entries import Intent, LedgerEntry
from kommo_airtable_sync.store.reports import Reports
from kommo_airtable_sync.store.settling import Outcome
from kommo_airtable_sync.store.standing import record_keepers

SOURCE = "repair"
REMOVED = frozenset({"deleted", "absent"})
"""Outcomes of copies that are not there any more."""
REFUSED = "refused: it has changed since; look again with kommo-airtable-sync duplicates"
GROUPS_PER_READ = 25
SCHEMA_SECONDS = 60.0
"""Which fields are computed must be known of those added lately, too."""


def find_copies(engine: Engine, on_progress: Progress) -> list[Group]:
    """Read the keys of all records, then whole those whose key is there more than once.

    Raises:
        SideUnavailable, ConfigurationError: a table could not be read to its end.
    """
    mapping = engine.directory.refresh(SCHEMA_SECONDS)
    return [
        group
        for kind, table in _tables(mapping).items()
        for group in _groups(engine, kind, table, on_progress)
    ]


def ask_to_remove(engine: Engine, groups: Sequence[Group], actor: str) -> int:
    """Put the copies that hold nothing of their own into the inbox; how many these are."""
    asked = [
        IncomingEvent(
            f"record:{copy.record_id}",
            SOURCE,
            "copy",
            priority=BULK,
            always_read=True,
            directive={
                "copy_of": group.key,
                "keep": group.kept,
                "seen": copy.seen,
                "actor": actor,
            },
        )
        for group in groups
        for copy in group.copies
        if copy.is_removable
    ]
    engine.inbox.receive(asked)
    return len(asked)


def asked_of(batch: Batch, key: str) -> list[ClaimedEvent]:
    """The events of a key that ask for its removal as a copy, oldest first."""
    return [event for event in batch.events_of(key) if "copy_of" in (event.directive or {})]


def plan_removals(engine: Engine, batch: Batch) -> None:
    """Plan the removal of copies; what is not as the person saw it is refused."""
    planned = {plan.key for plan in batch.plans}
    wanted: dict[str, ClaimedEvent] = {}
    for key in batch.claim.keys:
        asked = asked_of(batch, key)
        if asked and key_kind(key) != "record":
            # Meanwhile the record has become that of a lead.
            batch.directives.update({event.id: REFUSED for event in asked})
        elif asked and key not in batch.outcomes and key not in planned:
            wanted[key] = asked[-1]
    if not wanted:
        return
    tables = _tables(engine.directory.refresh(SCHEMA_SECONDS))
    for kind in sorted({key_kind(_said(event)["copy_of"]) for event in wanted.values()}):
        of_kind = {k: e for k, e in wanted.items() if key_kind(_said(e)["copy_of"]) == kind}
        if kind in tables:
            _plan_of_table(engine, batch, tables[kind], of_kind)
        else:  # sync.yaml has lost the link
            for key in of_kind:
                _refuse(batch, key)


def retry_leads(engine: Engine, batch: Batch) -> None:
    """Leads that were dead because of copies that are gone now are tried again."""
    freed = {
        str(_said(event)["copy_of"])
        for key in batch.claim.keys
        if key in batch.outcomes and batch.outcomes[key].outcome in REMOVED
        for event in asked_of(batch, key)
    }
    if freed:
        Reports(engine.database).retry_keys(sorted(freed))


def _tables(mapping: TableMapping) -> dict[str, TableMapping]:
    return {LEAD: mapping, **{link.kind: link.mapping for link in mapping.links}}


def _groups(
    engine: Engine, kind: str, table: TableMapping, on_progress: Progress
) -> Iterator[Group]:
    by_number: dict[int, list[str]] = {}
    count = 0
    for page in engine.airtable.record_pages(table.table_id, [table.key.id]):
        for record in page:
            number = table.lead_id_of(record["fields"].get(table.key.id))
            if number is not None:
                by_number.setdefault(number, []).append(record["id"])
        count += len(page)
        on_progress(f"records of {table.table_name}", count)
    several = [(number, ids) for number, ids in sorted(by_number.items()) if len(ids) > 1]
    for start in range(0, len(several), GROUPS_PER_READ):
        some = several[start : start + GROUPS_PER_READ]
        wanted = [record_id for _, ids in some for record_id in ids]
        found = engine.airtable.find_records(table.table_id, wanted, table.key.id, [])
        keepers = record_keepers(engine.database, wanted)
        for number, _ in some:
            # As they are now: a page read a while ago may show what has been mended since.
            cell = table.key.id
            alike = [r for r in found if table.lead_id_of(r["fields"].get(cell)) == number]
            if len(alike) > 1:
                yield group_of(f"{kind}:{number}", alike, keepers, table)


def _plan_of_table(
    engine: Engine, batch: Batch, table: TableMapping, wanted: Mapping[str, ClaimedEvent]
) -> None:
    copies = [_record_id(key) for key in wanted]
    ids = {*copies, *(_said(event)["keep"] for event in wanted.values())}
    found = engine.airtable.find_records(table.table_id, sorted(ids), table.key.id, [])
    records = {record["id"]: record for record in found}
    keepers = record_keepers(engine.database, copies)
    for key, event in wanted.items():
        copy = records.get(_record_id(key))
        if copy is None:
            _settle_intents(batch, Plan(key, table, LedgerEntry(key, state="deleted")))
            batch.outcomes[key] = Outcome("done", "absent")
        elif copy["id"] not in keepers and _is_as_seen(event, copy, records, table):
            batch.plans.append(_plan(key, event, copy, table))
        else:
            _settle_intents(batch, Plan(key, table, LedgerEntry(key, state="ignored")))
            _refuse(batch, key)
            _pass_on(engine, batch, key, copy)


def _is_as_seen(
    event: ClaimedEvent, copy: Record, records: Mapping[str, Record], table: TableMapping
) -> bool:
    said = _said(event)
    kept = records.get(said["keep"])
    return (
        kept is not None
        and kept["id"] != copy["id"]
        and table.lead_id_of(kept["fields"].get(table.key.id)) == key_id(said["copy_of"])
        and fingerprint(copy["fields"], table) == said["seen"]
        and not own_fields(kept["fields"], copy["fields"], table)
    )


def _plan(key: str, event: ClaimedEvent, copy: Record, table: TableMapping) -> Plan:
    intent = Intent(
        key=key,
        record_id=copy["id"],
        side="airtable",
        operation="delete",
        field=table.key.id,
        field_name=table.key.name,
        before=json_text(copy["fields"]),
        after=None,
        rule="copy",
        event_id=event.id,
    )
    entry = LedgerEntry(key, state="deleted")
    return Plan(key, table, entry, record_id=copy["id"], delete=True, intents=(intent,))


def _refuse(batch: Batch, key: str) -> None:
    batch.directives.update({event.id: REFUSED for event in asked_of(batch, key)})
    batch.outcomes[key] = Outcome("done", "refused")


def _pass_on(engine: Engine, batch: Batch, key: str, copy: Record) -> None:
    """What else was told of the copy is news of a record whose lead we did not know."""
    mapping = engine.directory.mapping()
    number = mapping.lead_id_of(copy["fields"].get(mapping.key.id))
    if number is not None and len(asked_of(batch, key)) < len(batch.events_of(key)):
        hint = IncomingEvent(lead_key(number), "sync", "update", always_read=True)
        engine.inbox.receive([hint])


def _settle_intents(batch: Batch, plan: Plan) -> None:
    """An intent that a dead run left open is settled by our looking; nothing is written."""
    if batch.known[plan.key].intents:
        batch.unchanged.append(plan)


def _record_id(key: str) -> str:
    return key.partition(":")[2]


def _said(event: ClaimedEvent) -> Mapping[str, Json]:
    return event.directive or {}
