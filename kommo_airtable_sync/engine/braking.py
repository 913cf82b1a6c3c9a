"""The live brake: more change in an hour than ``safety`` allows waits for a person (design 3.8)."""

from __future__ import annotations

from kommo_airtable_sync.core.brake import WINDOW_SECONDS, Brake, PlannedChange
from kommo_airtable_sync.core.canonical import is_blank
from kommo_airtable_sync.core.types import key_kind
from kommo_airtable_sync.engine.batch import Batch, Plan
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.engine.outgoing import STATUS
from kommo_airtable_sync.store.settling import Outcome
from kommo_airtable_sync.store.standing import database_now

ALLOWED = "allowed"
"""In a directive: the brake passes what it asks for, and nothing else."""


def brake(engine: Engine, batch: Batch) -> None:
    """Hold what would go beyond the limits; creations and what a person released go on."""
    plans = [*batch.plans, *batch.patches]
    if not any(not plan.creates or plan.delete for plan in plans):
        return
    since = database_now(engine.database) - WINDOW_SECONDS
    usage = engine.journal.changed_since(since, besides=[plan.key for plan in plans])
    verdict = Brake(engine.config.safety).decide(usage, [_change(batch, plan) for plan in plans])
    for key, reason in verdict.held.items():
        batch.outcomes[key] = Outcome("held", "braked", reason)
    batch.plans = [plan for plan in batch.plans if plan.key not in verdict.held]
    batch.patches = [plan for plan in batch.patches if plan.key not in verdict.held]
    batch.counts["braked"] += len(verdict.held)


def _change(batch: Batch, plan: Plan) -> PlannedChange:
    return PlannedChange(
        key=plan.key,
        is_create=plan.creates,
        is_delete=plan.delete,
        blanked={
            intent.field: intent.field_name
            for intent in plan.intents
            if is_blank(intent.after) and not is_blank(intent.before) and not plan.delete
        },
        released=_is_released(batch, plan),
    )


def _is_released(batch: Batch, plan: Plan) -> bool:
    """Whether a person let all of it go, by `holds release` or by asking for just these fields."""
    if key_kind(plan.key) == "record":
        return True  # a copy's record is deleted only because a person asked for just that
    directives = {event.id: event.directive or {} for event in batch.events_of(plan.key)}
    if any(said.get("release") is True for said in directives.values()):
        return True
    asked_for = {id_ for id_, said in directives.items() if said.get(ALLOWED) is True}
    return bool(asked_for) and all(
        intent.rule == STATUS or (intent.rule == "directive" and intent.event_id in asked_for)
        for intent in plan.intents
    )
