"""A plan that a person saved binds: a lead that is not as the plan saw it is refused."""

from __future__ import annotations

from collections.abc import Mapping

from kommo_airtable_sync.core.reconciling import Change, refused
from kommo_airtable_sync.core.types import Json
from kommo_airtable_sync.engine.batch import Batch, Plan
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.store.settling import Outcome


def refuse_changed(engine: Engine, batch: Batch) -> None:
    """Answer the plans' directives; what only they ask for is not written if they do not fit."""
    planned = {plan.key: plan for plan in (*batch.plans, *batch.patches)}
    for key in batch.claim.keys:
        events = batch.events_of(key)
        asked = [event for event in events if "digest" in (event.directive or {})]
        for event in asked:
            answer = _answer(engine, planned.get(key), event.directive or {})
            batch.directives[event.id] = answer
        answers = [batch.directives[event.id] for event in asked]
        if answers and len(asked) == len(events) and all(a.startswith("refused") for a in answers):
            batch.plans = [plan for plan in batch.plans if plan.key != key]
            batch.patches = [plan for plan in batch.patches if plan.key != key]
            batch.outcomes[key] = Outcome("done", answers[-1])


def volatile_fields(engine: Engine) -> frozenset[str]:
    """Fields whose values a plan does not promise: see `digest_of`."""
    mapping = engine.directory.mapping()
    status = {mapping.status.id} if mapping.status else set[str]()
    return frozenset(status | {link.target.id for link in mapping.links})


def changes_of(plan: Plan) -> list[Change]:
    """What a plan would write, as people are shown it."""
    return [
        Change(i.side, i.operation, i.field, i.field_name, i.before, i.after, i.rule)
        for i in plan.intents
    ]


def _answer(engine: Engine, plan: Plan | None, directive: Mapping[str, Json]) -> str:
    changes = changes_of(plan) if plan else []
    return refused(directive, changes, volatile_fields(engine))
