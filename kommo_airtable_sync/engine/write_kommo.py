"""Write to Kommo's leads what Airtable decides: only changed fields, up to fifty leads a call."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from kommo_airtable_sync.core.canonical import to_json
from kommo_airtable_sync.core.destinations import fields_at, patched
from kommo_airtable_sync.core.errors import (
    BatchRefused,
    ConfigurationError,
    LeadFailed,
    SideUnavailable,
)
from kommo_airtable_sync.core.merge import MISSING, Absent
from kommo_airtable_sync.core.types import IncomingEvent, Json, key_id
from kommo_airtable_sync.engine.agreeing import agreed_after_kommo
from kommo_airtable_sync.engine.batch import Batch, Plan
from kommo_airtable_sync.engine.braking import ALLOWED
from kommo_airtable_sync.engine.context import CALL_SECONDS_MAX, LEADS_PER_PATCH, Engine
from kommo_airtable_sync.engine.merge import ended, updated_at
from kommo_airtable_sync.engine.outage import pausing
from kommo_airtable_sync.engine.rereading import read_again_if_old
from kommo_airtable_sync.engine.sending import keep_unchanged
from kommo_airtable_sync.engine.write_airtable import write_airtable
from kommo_airtable_sync.store.entries import Acknowledged
from kommo_airtable_sync.store.settling import Outcome


def write_kommo(engine: Engine, batch: Batch) -> None:
    """PATCH every lead that waits for it; afterwards each has an outcome, or the side is down."""
    with pausing(engine, batch):
        while batch.patches and batch.outage is None:
            if read_again_if_old(engine, batch):
                # Airtable's half first, as ever: what has changed meanwhile may concern it.
                write_airtable(engine, batch)
                keep_unchanged(engine, batch)
                continue
            some, batch.patches = (
                batch.patches[:LEADS_PER_PATCH],
                batch.patches[LEADS_PER_PATCH:],
            )
            _write(engine, batch, some)


def _write(engine: Engine, batch: Batch, plans: Sequence[Plan]) -> None:
    """One request; of a refused one the culprits lose the fields that Kommo named."""
    keys = [plan.key for plan in plans]
    engine.journal.open(
        batch.id,
        batch.run_id,
        keys,
        [intent for plan in plans for intent in plan.intents if intent.side == "kommo"],
        lease_left_seconds=CALL_SECONDS_MAX,
    )
    items = [{"id": key_id(plan.key), **plan.item} for plan in plans]
    try:
        answers = engine.kommo.update_leads(items)
    except BatchRefused as refused:
        engine.journal.refuse(batch.id, keys, "kommo")
        _refused(engine, batch, plans, refused)
        return
    except ConfigurationError:
        engine.journal.refuse(batch.id, keys, "kommo")
        raise
    except SideUnavailable as outage:
        if not outage.sent or outage.reason in ("rate_limited", "quota"):
            engine.journal.refuse(batch.id, keys, "kommo")
        raise
    _acknowledge(engine, batch, plans, answers)


def _acknowledge(
    engine: Engine, batch: Batch, plans: Sequence[Plan], answers: Sequence[Mapping[str, Json]]
) -> None:
    written_at = {str(answer.get("id")): answer.get("updated_at") for answer in answers}
    done: list[Acknowledged] = []
    for plan in plans:
        at = written_at.get(str(key_id(plan.key)))
        lead = batch.leads[plan.key]
        after = patched(lead, dict(plan.item))
        entry = replace(
            plan.entry,
            seen_updated_at=plan.entry.seen_updated_at if plan.problems else updated_at(lead),
            fields=agreed_after_kommo(plan, after),
            written_at=float(at) if isinstance(at, (int, float)) else None,
        )
        done.append(Acknowledged(entry, side="kommo", held=plan.held))
    engine.journal.acknowledge(batch.id, done)
    for plan in plans:
        batch.outcomes[plan.key] = ended(plan, "updated")
        batch.counts["updated"] += 1
        batch.counts["written_to_kommo"] += 1
        batch.links.append((plan.key, plan.record_id, "updated in Kommo"))


def _refused(engine: Engine, batch: Batch, plans: Sequence[Plan], refused: BatchRefused) -> None:
    """Kommo takes all items or none, and says which fields of which items it will not have."""
    left: list[Plan] = []
    culprits = {n: text for n, text in refused.item_errors.items() if n < len(plans)}
    if not culprits and len(plans) > 1:
        middle = len(plans) // 2
        _write(engine, batch, plans[:middle])
        _write(engine, batch, plans[middle:])
        return
    for n, plan in enumerate(plans):
        if n not in culprits and len(plans) > 1:
            left.append(plan)
            continue
        reason = culprits.get(n, f"{refused.code}: {refused.detail}")
        smaller = _without(batch, plan, refused.item_paths.get(n, ()), reason)
        if smaller is not None and smaller.item:
            left.append(smaller)
            _take_back(engine, plan, plan.item_fields - smaller.item_fields)
        else:
            _take_back(engine, plan, plan.item_fields)
            batch.outcomes[plan.key] = Outcome(
                "dead", error=f"Kommo refused lead {key_id(plan.key)}: {reason}"
            )
    if left:
        _write(engine, batch, left)


def _take_back(engine: Engine, plan: Plan, refused: Collection[str]) -> None:
    """What a person chose stands on both sides or on none: Airtable gets Kommo's value again."""
    directives: list[dict[str, Json]] = []
    for intent in plan.intents:
        shown = plan.airtable.get(intent.field, MISSING)
        ours = intent.side == "airtable" and intent.rule == "directive"
        if ours and intent.field in refused and not isinstance(shown, Absent):
            stands = to_json(plan.kommo[intent.field])
            values = {"kommo": stands, "airtable": to_json(shown), "value": stands}
            directives.append({"field": intent.field, **values, ALLOWED: True})
    engine.inbox.receive(
        [
            IncomingEvent(plan.key, "sync", "taken_back", always_read=True, directive=directive)
            for directive in directives
        ]
    )


def _without(batch: Batch, plan: Plan, paths: Sequence[str], reason: str) -> Plan | None:
    """The plan without the fields that Kommo refused; None if it named none of ours."""
    named = fields_at(plan.item, paths, plan.table.fields) & plan.item_fields
    if not named:
        return None
    values = {
        intent.field: intent.after
        for intent in plan.intents
        if intent.side == "kommo" and intent.field not in named
    }
    names = ", ".join(each.name for each in plan.table.fields if each.id in named)
    batch.refuse(plan.key, named, f"Kommo refused it: {reason}")
    try:
        item = plan.table.to_kommo(values, batch.leads[plan.key], final=True) if values else {}
    except LeadFailed:
        return None
    return replace(
        plan,
        item=item,
        item_fields=frozenset(values),
        intents=tuple(i for i in plan.intents if i.side != "kommo" or i.field in values),
        unsettled=plan.unsettled | named,
        problems=(*plan.problems, f"Kommo refused {names}: {reason}"),
    )
