"""Send plans to Airtable in tens, each announced in the journal before it is sent.

A few requests are on their way at once; only the calls themselves are made in threads. All that is
decided and stored happens here, in one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from kommo_airtable_sync.airtable.client import UpsertAnswer
from kommo_airtable_sync.core.errors import (
    BatchRefused,
    ConfigurationError,
    LeadFailed,
    SideUnavailable,
    SyncError,
)
from kommo_airtable_sync.core.types import BULK, IncomingEvent, Json, key_id
from kommo_airtable_sync.engine.agreeing import agreed_after_airtable
from kommo_airtable_sync.engine.batch import Batch, Plan
from kommo_airtable_sync.engine.context import (
    CALL_SECONDS_MAX,
    RECORDS_PER_WRITE,
    WRITES_IN_FLIGHT,
    Engine,
)
from kommo_airtable_sync.engine.merge import ended
from kommo_airtable_sync.engine.read import key_changed, several_records
from kommo_airtable_sync.store.entries import Acknowledged, LedgerEntry
from kommo_airtable_sync.store.settling import Outcome

RECORD_GONE = "ROW_DOES_NOT_EXIST"
GONE = "gone"
"""Kind of the event that tells a contact that a person has deleted its record."""
DUPLICATE_KEY = "Cannot update more than one record"


@dataclass(frozen=True)
class _Sent:
    """A request on its way."""

    plans: Sequence[Plan]
    answer: Future[UpsertAnswer | None]


def keep_unchanged(engine: Engine, batch: Batch) -> None:
    """Leads in step are done, so what was learnt of them is kept, whatever becomes of the rest."""
    done = [Acknowledged(plan.entry, side=None, held=plan.held) for plan in batch.unchanged]
    engine.journal.acknowledge(batch.id, done)
    batch.unchanged.clear()


class Sender:
    """Sends a batch's plans, a few requests at once.

    Args:
        engine: of the lane.
        batch: whose ``plans`` are sent.
        before_each: called before a request is made up, while none is on its way.
        is_old: whether it has to be called first, so that no request may be on its way.
        on_gone: called with a plan whose record a person has deleted; may plan anew.
    """

    def __init__(
        self,
        engine: Engine,
        batch: Batch,
        *,
        on_gone: Callable[[Plan], None],
        before_each: Callable[[], object] = lambda: None,
        is_old: Callable[[], bool] = lambda: False,
    ) -> None:
        self._engine = engine
        self._batch = batch
        self._before_each = before_each
        self._is_old = is_old
        self._on_gone = on_gone
        # What has to go in requests of its own: halves of a refused one.
        self._apart: deque[Sequence[Plan]] = deque()
        self._sent: deque[_Sent] = deque()

    def run(self) -> None:
        """Until nothing is left to send; every answer is dealt with, whatever goes wrong."""
        failure: SyncError | None = None
        while self._sent or (failure is None and (self._apart or self._batch.plans)):
            try:
                room = len(self._sent) < WRITES_IN_FLIGHT
                if failure is None and room and (self._apart or self._batch.plans):
                    self._send_next()
                elif self._sent:
                    self._finish(self._sent.popleft())
            except SyncError as error:
                # A lost lease or a side that is down: send no more, but hear what was sent.
                failure = failure or error
        if failure is not None:
            raise failure

    def _send_next(self) -> None:
        engine, batch = self._engine, self._batch
        # The place in the budget first: an intent must not age while it waits to be sent.
        engine.airtable_budget.wait_for_place()
        if self._apart:
            plans = self._apart.popleft()
        else:
            _yield_to_live(engine, batch)
            if self._sent and self._is_old():
                # The wait was long (a 429): hear what is on its way, then read again.
                self._finish(self._sent.popleft())
                return
            if not self._sent:
                self._before_each()
            plans = _next_plans(batch)
        if plans and batch.outage is None:
            self._send(plans)

    def _send(self, plans: Sequence[Plan]) -> None:
        engine, batch = self._engine, self._batch
        engine.journal.open(
            batch.id,
            batch.run_id,
            [plan.key for plan in plans],
            [intent for plan in plans for intent in plan.intents if intent.side == "airtable"],
            lease_left_seconds=CALL_SECONDS_MAX,
        )
        table = plans[0].table
        self._sent.append(
            _Sent(plans, engine.executor.submit(_delete, engine, plans))
            if plans[0].delete
            else _Sent(
                plans,
                engine.executor.submit(
                    engine.airtable.upsert,
                    table.table_id,
                    table.key.id,
                    [(plan.record_id, plan.cells) for plan in plans],
                    typecast=plans[0].typecast,
                ),
            )
        )

    def _finish(self, sent: _Sent) -> None:
        journal, batch, keys = self._engine.journal, self._batch, [plan.key for plan in sent.plans]
        try:
            answer = sent.answer.result()
        except BatchRefused as refused:
            journal.refuse(batch.id, keys, "airtable")
            self._refused(sent.plans, refused)
        except ConfigurationError:
            journal.refuse(batch.id, keys, "airtable")
            raise
        except SideUnavailable as outage:
            if not outage.sent or outage.reason in ("rate_limited", "quota"):
                journal.refuse(batch.id, keys, "airtable")
            raise
        else:
            _acknowledge(self._engine, batch, sent.plans, answer)

    def _refused(self, plans: Sequence[Plan], refused: BatchRefused) -> None:
        if len(plans) > 1:
            middle = len(plans) // 2
            self._apart.extend((plans[:middle], plans[middle:]))
            return
        plan = plans[0]
        gone = refused.code == RECORD_GONE
        if gone and plan.delete:
            _acknowledge(self._engine, self._batch, plans, None)
            return
        if gone and self._links_to_nothing(plan, refused.detail):
            return
        if gone and plan.record_id is not None:
            self._on_gone(plan)
            return
        reason = f"Airtable refused {plan.key.replace(':', ' ')}: {refused.code}: {refused.detail}"
        if DUPLICATE_KEY in refused.detail:
            reason = several_records(key_id(plan.key))
        self._batch.outcomes[plan.key] = Outcome("dead", error=reason)

    def _links_to_nothing(self, plan: Plan, detail: str) -> bool:
        """A person has deleted a client's record: have it made again, then try once more."""
        targets = {link.target.id for link in plan.table.links}
        linked = [id_ for target in targets for id_ in plan.cells.get(target) or ()]
        dead = [id_ for id_ in linked if id_ in detail]
        if dead:
            # The inbox knows whose records they are.
            self._engine.inbox.receive(
                [
                    IncomingEvent(f"record:{id_}", "airtable", GONE, payload={"record": id_})
                    for id_ in dead
                ]
            )
            reason = f"a linked record is gone and is made again: {detail}"
            self._batch.outcomes[plan.key] = Outcome("retry", error=reason)
        return bool(dead)


def _delete(engine: Engine, plans: Sequence[Plan]) -> None:
    ids = [plan.record_id for plan in plans if plan.record_id]
    engine.airtable.delete_records(plans[0].table.table_id, ids)


def _next_plans(batch: Batch) -> list[Plan]:
    """Up to ten plans of one kind (table, typecast, deletion), and of ten records.

    Two leads share a record only after somebody changed a key cell; one request for both would be
    refused.
    """
    if not batch.plans:
        return []
    first = max(batch.plans, key=lambda plan: plan.typecast)
    kind = (first.table.table_id, first.typecast, first.delete)
    chosen: dict[str, Plan] = {}
    for plan in batch.plans:
        alike = (plan.table.table_id, plan.typecast, plan.delete) == kind
        if alike and len(chosen) < RECORDS_PER_WRITE:
            chosen.setdefault(plan.record_id or plan.key, plan)
    keys = {plan.key for plan in chosen.values()}
    batch.plans = [plan for plan in batch.plans if plan.key not in keys]
    return list(chosen.values())


def _yield_to_live(engine: Engine, batch: Batch) -> None:
    """Bulk lets go of a lead that somebody has just touched: the live lane reads it anew."""
    if engine.lane != BULK:
        return
    contended = engine.inbox.contended(batch.id)
    for key in contended:
        batch.outcomes.setdefault(key, Outcome("released"))
    batch.plans = [plan for plan in batch.plans if plan.key not in contended]


def _acknowledge(
    engine: Engine, batch: Batch, plans: Sequence[Plan], answer: UpsertAnswer | None
) -> None:
    """Close the intents, move the ledger; an answer of None is that of a deletion."""
    done: list[Acknowledged] = []
    outcomes: list[tuple[Plan, Outcome | None, str | None]] = []
    made_options = False
    for n, plan in enumerate(plans):
        if answer is None:
            entry = replace(plan.entry, record_id=None)
            done.append(Acknowledged(entry, held=plan.held))
            outcomes.append((plan, Outcome("done", "deleted"), plan.record_id))
            continue
        record = answer.records[n]
        record_id = str(record["id"])
        try:
            fields = agreed_after_airtable(plan, record)
        except LeadFailed as failed:
            # Stored, but not answered as the field's type says: somebody has changed the type. The
            # intents stay open, and the next attempt reads what stands there.
            outcomes.append((plan, Outcome("retry", error=failed.reason), None))
            continue
        made_options = made_options or plan.typecast
        entry = replace(plan.entry, record_id=record_id, fields=fields)
        done.append(Acknowledged(entry, held=plan.held, settled=_settled(plan)))
        outcome, remark = _outcome(plan, record, answer.created_ids), None
        if outcome.outcome is not None:
            remark = outcome.outcome
            batch.links.append((plan.key, record_id, str(remark)))
            if plan.item:
                batch.patches.append(_left_for_kommo(plan, entry, record))
        outcomes.append((plan, outcome if not plan.item or not remark else None, record_id))
        batch.counts.update([remark] if remark else [])
    engine.journal.acknowledge(batch.id, done)
    for plan, outcome, _ in outcomes:
        if outcome is not None:
            batch.outcomes[plan.key] = outcome
    if len(done) < len(plans) or made_options:
        # What Airtable made for us, or somebody changed, is part of the schema now.
        engine.directory.refresh_airtable()


def _settled(plan: Plan) -> frozenset[str] | None:
    """The fields that Airtable's answer settles; None, if that is the whole lead."""
    if not plan.item:
        return None
    return frozenset(each.id for each in plan.fields) - plan.item_fields - plan.unsettled


def _outcome(plan: Plan, record: Mapping[str, Json], created_ids: frozenset[str]) -> Outcome:
    if plan.table.lead_id_of(record["fields"].get(plan.table.key.id)) != key_id(plan.key):
        return Outcome("held", error=key_changed(plan.table, plan.key, str(record["id"])))
    if plan.entry.state != "synced":
        return Outcome("done", "marked")
    return ended(plan, "created" if record["id"] in created_ids else "updated")


def _left_for_kommo(plan: Plan, entry: LedgerEntry, record: Mapping[str, Json]) -> Plan:
    """A plan once Airtable has its half: Kommo's is left, against what Airtable answered.

    Of a field that only goes to Kommo, against what was read: what Airtable now shows of it may be
    a newer edit, which nobody has merged yet.
    """
    shown = {
        each.id: each.from_cell(record["fields"].get(each.id))
        for each in plan.table.fields
        if each.id in plan.item_fields and (each.id in plan.cells or plan.creates)
    }
    airtable = {**plan.airtable, **shown}
    return replace(plan, entry=entry, record_id=entry.record_id, cells={}, airtable=airtable)
