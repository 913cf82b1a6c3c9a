"""Contacts and companies have records of their own, which must be there before a deal's link.

Each is claimed under its own key, so that two runs never make two records of one client, and goes
the same way as a lead: read, merged against the ledger, announced, upserted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

from kommo_airtable_sync.core.errors import LeadFailed
from kommo_airtable_sync.core.filters import qualifies
from kommo_airtable_sync.core.links import LINKED, company_id, main_contact_id
from kommo_airtable_sync.core.mapping import LinkMapping
from kommo_airtable_sync.core.schemas import UnknownReference
from kommo_airtable_sync.core.sources import embedded
from kommo_airtable_sync.core.types import IncomingEvent, Json, key_id, key_kind, lead_key
from kommo_airtable_sync.engine.batch import Batch, Plan
from kommo_airtable_sync.engine.braking import brake
from kommo_airtable_sync.engine.context import LEASE_SECONDS, Engine
from kommo_airtable_sync.engine.merge import accept
from kommo_airtable_sync.engine.outage import pausing
from kommo_airtable_sync.engine.plan import plan_subject
from kommo_airtable_sync.engine.read import looks_fresh, read_records, wait_for_senders
from kommo_airtable_sync.engine.sending import GONE, Sender, keep_unchanged
from kommo_airtable_sync.engine.subject import Subject
from kommo_airtable_sync.store.settling import Outcome

WAIT_SECONDS = 0.5
"""A lead waits so long for a contact that another run is just writing."""


def link_batch(engine: Engine, batch: Batch) -> None:
    """Write the contacts and companies that are due or that leads need; then tell the leads."""
    if batch.outage is not None or batch.linked:
        return
    with pausing(engine, batch):
        mapping = engine.directory.mapping()
        batch.linked = True
        needed = {link.kind: _needed(batch, link) for link in mapping.links}
        if mapping.needs_names:
            told = [key for key in batch.open_of("contact", "company") if batch.events_of(key)]
            _ask_for_their_leads(engine, told)
        _take_unknown(engine, batch, needed)
        for link in mapping.links:
            _sync_linked(engine, batch, link)
        _settle_unlinked(batch)
        if batch.outage is None:
            _tell_leads(engine, batch, needed)


def _needed(batch: Batch, link: LinkMapping) -> dict[str, str]:
    """Lead key -> contact or company key."""
    number = main_contact_id if link.kind == "contact" else company_id
    found: dict[str, str] = {}
    for key in batch.open_of("lead"):
        other = number(batch.leads[key]) if key in batch.leads else None
        if other is not None:
            found[key] = f"{link.kind}:{other}"
    return found


def _take_unknown(engine: Engine, batch: Batch, needed: Mapping[str, Mapping[str, str]]) -> None:
    """Lease the contacts that have no record yet; what another run holds is waited for."""
    filters = engine.directory.mapping().filters
    wanted: dict[str, list[str]] = {}
    for by_lead in needed.values():
        for lead, other in by_lead.items():
            synced = bool(batch.known[lead].entry.fields)
            if qualifies(batch.leads[lead], filters, already_synced=synced).ok:
                wanted.setdefault(other, []).append(lead)
    new = [key for key in wanted if key not in batch.known]
    batch.known.update(engine.journal.load(new))
    unknown = [
        key
        for key in new
        if batch.known[key].entry.record_id is None and key not in batch.claim.events
    ]
    taken = _take(engine, batch, unknown)
    waits = {key: WAIT_SECONDS for key in set(unknown) - taken}
    for key in wanted:
        if key in batch.outcomes and batch.outcomes[key].state == "released":
            waits[key] = batch.outcomes[key].due_in_seconds
    for key, seconds in waits.items():
        for lead in wanted[key]:
            batch.outcomes[lead] = Outcome("released", due_in_seconds=seconds)


def _take(engine: Engine, batch: Batch, keys: Sequence[str]) -> Set[str]:
    """Put those that nobody else holds under the batch's lease."""
    if not keys:
        return frozenset()
    taken = engine.inbox.extend(batch.id, keys, LEASE_SECONDS)
    batch.claim = replace(batch.claim, events={**batch.claim.events, **taken})
    # What was read before the lease may be what another run has just changed.
    batch.known.update(engine.journal.load(list(taken)))
    wait_for_senders(engine, batch, taken)
    return taken.keys()


def _sync_linked(engine: Engine, batch: Batch, link: LinkMapping) -> None:
    keys = [key for key in batch.open_of(link.kind) if key in batch.known]
    if not keys:
        return
    read = engine.kommo.contacts_by_id if link.kind == "contact" else engine.kommo.companies_by_id
    found = read([key_id(key) for key in keys])
    fresh = [key for key in keys if any(map(looks_fresh, batch.events_of(key)))]
    if fresh:
        read_records(engine, batch, link.mapping, fresh)
    for key in (key for key in keys if key not in batch.outcomes):
        entity = found.get(key_id(key))
        if entity is None:
            batch.outcomes[key] = Outcome("done", "absent")
            continue
        try:
            plan_linked(engine, batch, link, key, entity, gone=_told_gone(batch, key))
        except (LeadFailed, UnknownReference) as failed:
            batch.outcomes[key] = Outcome("dead", error=str(failed))

    def on_gone(plan: Plan) -> None:
        # A person deleted the client's record: deals go on linking to it, so it is made again.
        plan_linked(engine, batch, link, plan.key, found[key_id(plan.key)], gone=True)

    before = {key: batch.known[key].entry.record_id for key in keys}
    keep_unchanged(engine, batch)
    brake(engine, batch)
    Sender(engine, batch, on_gone=on_gone).run()
    now = {key: known.entry.record_id for key, known in engine.journal.load(keys).items()}
    _ask_for_their_leads(engine, [key for key in keys if before[key] not in (None, now[key])])


def _told_gone(batch: Batch, key: str) -> bool:
    """Whether Airtable has said that the record we know is not there any more."""
    record_id = batch.known[key].entry.record_id
    return any(
        event.kind == GONE and (event.payload or {}).get("record") == record_id
        for event in batch.events_of(key)
    )


def plan_linked(
    engine: Engine,
    batch: Batch,
    link: LinkMapping,
    key: str,
    entity: Mapping[str, Json],
    *,
    gone: bool = False,
) -> None:
    """Merge one contact or company; its record is made again if it is ``gone``, or was not found.

    Raises:
        LeadFailed, UnknownReference: a value cannot be represented in Airtable.
    """
    known = batch.known[key]
    read, record = key in batch.records_read, batch.records.get(key)
    if gone or (read and record is None):
        known = replace(known, entry=replace(known.entry, record_id=None))
        batch.known[key] = known
    subject = Subject(
        key=key,
        table=link.mapping,
        fields=link.mapping.fields,
        lead=entity,
        known=known,
        entry=replace(known.entry, record_id=str(record["id"])) if record else known.entry,
        record=None if gone else record,
        read=read,
        events=batch.events_of(key),
        now=engine.clock.now(),
        final=True,
    )
    accept(batch, plan_subject(subject, batch))


def _ask_for_their_leads(engine: Engine, keys: Sequence[str]) -> None:
    """Deals show the name of these, or link to a record that is new: they are looked at again."""
    for kind in ("contact", "company"):
        ids = [key_id(key) for key in keys if key_kind(key) == kind]
        read = engine.kommo.contacts_by_id if kind == "contact" else engine.kommo.companies_by_id
        found = read(ids, with_=("leads",)) if ids else {}
        leads = {int(lead["id"]) for one in found.values() for lead in embedded(one, "leads")}
        engine.inbox.receive(
            [
                IncomingEvent(lead_key(lead_id), "kommo", kind, always_read=True)
                for lead_id in sorted(leads)
            ]
        )


def _settle_unlinked(batch: Batch) -> None:
    """Contacts that no link asks for any more, since sync.yaml changed."""
    for key in batch.open_of("contact", "company"):
        batch.outcomes[key] = Outcome("done", "ignored")


def _tell_leads(engine: Engine, batch: Batch, needed: Mapping[str, Mapping[str, str]]) -> None:
    """Give each lead the record ids, and the names, behind its contact and company."""
    fresh = engine.journal.load(
        [
            key
            for by_lead in needed.values()
            for key in by_lead.values()
            if key in batch.claim.events
        ]
    )
    batch.known.update(fresh)
    for key in batch.open_of("lead"):
        lead = batch.leads.get(key)
        if lead is None:
            continue
        linked = {
            link.kommo: _record_behind(batch, key, link, needed[link.kind].get(key))
            for link in engine.directory.mapping().links
        }
        batch.leads[key] = {**lead, LINKED: linked}
    if engine.directory.mapping().needs_names:
        tell_names(engine, batch)


def tell_known_links(engine: Engine, batch: Batch) -> None:
    """Give each lead the records and names behind it, as far as there are any; writes nothing."""
    links = engine.directory.mapping().links
    needed = {link.kind: _needed(batch, link) for link in links}
    others = {key for by_lead in needed.values() for key in by_lead.values()}
    batch.known.update(engine.journal.load(sorted(others)))
    _tell_leads(engine, batch, needed)


def _record_behind(batch: Batch, lead: str, link: LinkMapping, other: str | None) -> str | None:
    """The record id; one that could not be written leaves the link as it was, and is told."""
    if other is None or other not in batch.known:
        return None
    record_id = batch.known[other].entry.record_id
    if record_id is not None:
        return record_id
    failed = batch.outcomes.get(other)
    reason = (failed and failed.error) or "it is not in Kommo any more"
    remark = f"{link.target.name}: {other}: {reason}"
    batch.remarks.setdefault(lead, {})[link.target.id] = remark
    agreed = batch.known[lead].entry.fields.get(link.target.id)
    kept = agreed.kommo if agreed is not None else None
    return next(iter(kept), None) if isinstance(kept, frozenset) else None


def tell_names(engine: Engine, batch: Batch) -> None:
    """Give each lead the names of its contact and company, which Kommo does not embed."""
    leads = [key for key in batch.open_of("lead") if key in batch.leads]
    contacts = {key: main_contact_id(batch.leads[key]) for key in leads}
    companies = {key: company_id(batch.leads[key]) for key in leads}
    people = _names(engine.kommo.contacts_by_id(_present(contacts.values())))
    firms = _names(engine.kommo.companies_by_id(_present(companies.values())))
    for key in leads:
        names = {
            "main_contact": people.get(contacts[key] or 0),
            "company": firms.get(companies[key] or 0),
        }
        batch.leads[key] = {**batch.leads[key], "_names": names}


def _present(ids: object) -> Sequence[int]:
    return sorted({id_ for id_ in ids if id_ is not None})  # type: ignore[attr-defined]


def _names(found: Mapping[int, Mapping[str, Json]]) -> dict[int, str]:
    return {id_: str(entity.get("name") or "") for id_, entity in found.items()}
