"""Bugs that are planted on purpose, from outside: each must be found.

A switch replaces one function of the package, by its name, by one that is wrong in the way in which
it could be wrong. Nothing of this is in the package.
"""

from __future__ import annotations

import itertools
import multiprocessing
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import sqlalchemy as sa

from kommo_airtable_sync.airtable.client import AirtableClient
from kommo_airtable_sync.core import merge
from kommo_airtable_sync.core.errors import SideUnavailable
from kommo_airtable_sync.engine import follow, links, read, sending, write_airtable, write_kommo
from kommo_airtable_sync.engine.agreeing import agreed_after_airtable
from kommo_airtable_sync.engine.batch import Batch, Plan
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.store import entries, inbox, leases, settling
from kommo_airtable_sync.store.entries import Acknowledged
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.journal import Journal
from kommo_airtable_sync.store.limiter import SqlBudget
from kommo_airtable_sync.store.schema import due, events
from kommo_airtable_sync.store.settling import Outcome
from tests.simulation.one import Told, keep_to_a_core, tell

SEEDS_MAX = 200
Swap = tuple[object, str, Any]


@dataclass(frozen=True)
class Bug:
    """One switch.

    Args:
        change: what is wrong now, in words.
        swaps: what is replaced: owner, name, by what.
    """

    change: str
    swaps: Sequence[Swap]

    @contextmanager
    def sown(self) -> Generator[None]:
        with ExitStack() as stack:
            for owner, name, wrong in self.swaps:
                stack.enter_context(patch.object(owner, name, wrong))
            yield


def _settle_first(engine: Engine, batch: Batch) -> None:
    done = {key: Outcome("done", "updated") for key in batch.open_keys}
    if done and batch.outage is None:
        engine.inbox.settle(batch.id, done, 8)
    write_airtable.write_airtable(engine, batch)


def _agree_first(self: sending.Sender, plans: Sequence[Plan]) -> None:
    done = [
        Acknowledged(
            replace(
                plan.entry,
                record_id=plan.record_id,
                fields=agreed_after_airtable(plan, {"fields": plan.cells}),
            ),
            side=None,
            settled=frozenset(),
        )
        for plan in plans
        if plan.record_id is not None
    ]
    self._engine.journal.acknowledge(self._batch.id, done)
    _SEND(self, plans)


_SEND = sending.Sender._send


def _is_stale(told: Sequence[Any], entry: Any) -> bool:
    seen = entry.seen_updated_at
    return seen is not None and all(
        not e.always_read and e.occurred_at is not None and e.occurred_at <= seen for e in told
    )


def _no_fence(database: Any, connection: Any, *_: Any) -> float:
    return database.now(connection)


_UNLEASED = leases.unleased


def _by_event(now: float) -> Any:
    news = sa.exists(
        sa.select(events.c.id).where(events.c.key == due.c.key, events.c.state == "pending")
    )
    return sa.or_(_UNLEASED(now), news)


def _settle_all(connection: Any, batch_id: int, outcomes: Any, most: int, now: float) -> None:
    connection.execute(
        sa.update(events)
        .where(events.c.key.in_(list(outcomes)), events.c.state == "pending")
        .values(state="claimed", batch_id=batch_id)
    )
    settling.settle_events(connection, batch_id, outcomes, most, now)


def _answer_of_the_patch(self: Journal, batch_id: int, done: Sequence[Acknowledged]) -> None:
    seen = [
        replace(d, entry=replace(d.entry, seen_updated_at=d.entry.written_at))
        if d.side == "kommo"
        else d
        for d in done
    ]
    _ACKNOWLEDGE(self, batch_id, seen)


_ACKNOWLEDGE = Journal.acknowledge
_LOAD = Journal.load
_FIND = AirtableClient.find_records
_RECEIVE = Inbox.receive
_BUDGET = SqlBudget.__init__
_serial = itertools.count()


def _no_intents(self: Journal, keys: Sequence[str]) -> Any:
    return {key: replace(known, intents=()) for key, known in _LOAD(self, keys).items()}


def _no_record(self: AirtableClient, *args: Any) -> Any:
    try:
        return _FIND(self, *args)
    except SideUnavailable:
        return []


def _lose_some(self: Inbox, incoming: Sequence[Any], **named: Any) -> None:
    # Answered, and the process dies before it has committed: one body in forty.
    if next(_serial) % 40 or any(event.source == "resolve" for event in incoming):
        _RECEIVE(self, incoming, **named)


def _own_budget(self: SqlBudget, database: Any, account: str, *args: Any) -> None:
    _BUDGET(self, database, f"{account} {next(_serial)}", *args)


def _whole_sets(kommo: Any, airtable: Any, base_kommo: Any, *_: Any) -> merge.Decision:
    if kommo != base_kommo:
        return merge._to_airtable(kommo, "set_merged")
    return merge._to_kommo(airtable, "set_merged")


def _as_answered(plan: Plan, entry: Any, record: Mapping[str, Any]) -> Plan:
    shown = {
        each.id: each.from_cell(record["fields"].get(each.id))
        for each in plan.table.fields
        if each.id in plan.item_fields
    }
    airtable = {**plan.airtable, **shown}
    return replace(plan, entry=entry, record_id=entry.record_id, cells={}, airtable=airtable)


def _one_value(agreed: Any) -> list[Any]:
    return _SPELL(replace(agreed, airtable=agreed.kommo))


_SPELL = entries._spell
_FIRST_MEETING = merge._first_meeting


def _kommo_wins(owner: Any, on_conflict: Any, kommo: Any, airtable: Any, times: Any) -> Any:
    if kommo is None:
        return merge._to_airtable(None, "first_meeting")
    return _FIRST_MEETING(owner, on_conflict, kommo, airtable, times)


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _steps() -> Sequence[Callable[..., None]]:
    return [_settle_first if step is follow.write_airtable else step for step in follow.STEPS]


PLANTED: dict[str, Bug] = {
    "settle before write": Bug(
        "the inbox is settled before anything is sent", [(follow, "STEPS", _steps())]
    ),
    "ledger before write": Bug(
        "the ledger moves before the request to Airtable", [(sending.Sender, "_send", _agree_first)]
    ),
    "equal treated as older": Bug(
        "an event of the second that was seen is skipped", [(read, "_is_stale", _is_stale)]
    ),
    "no fencing": Bug(
        "whoever lost its lease settles and writes", [(leases, "require_lease", _no_fence)]
    ),
    "claim by event": Bug(
        "a leased key with a new event is claimed again", [(leases, "unleased", _by_event)]
    ),
    "settles what it has not seen": Bug(
        "all pending events of a key are settled, not those of the claim",
        [(inbox, "settle_events", _settle_all)],
    ),
    "blank overwrites": Bug(
        "at a first meeting Kommo's blank is written", [(merge, "_first_meeting", _kommo_wins)]
    ),
    "PATCH answer as seen": Bug(
        "`seen_updated_at` is taken from the answer to a PATCH",
        [(Journal, "acknowledge", _answer_of_the_patch)],
    ),
    "one-valued ledger": Bug(
        "the ledger keeps Kommo's value for both sides", [(entries, "_spell", _one_value)]
    ),
    "no wait for a lost request": Bug(
        "a lead is read while a request that nobody hears any more may still change it",
        [(module, "wait_for_senders", _nothing) for module in (read, links)],
    ),
    "intents ignored": Bug(
        "what a dead run may have sent is not looked at", [(Journal, "load", _no_intents)]
    ),
    "failed read is empty": Bug(
        "records that could not be read count as deleted",
        [(AirtableClient, "find_records", _no_record)],
    ),
    "acknowledged before commit": Bug(
        "one body in forty is answered and then lost", [(Inbox, "receive", _lose_some)]
    ),
    "limiter not shared": Bug(
        "each client has a budget of its own", [(SqlBudget, "__init__", _own_budget)]
    ),
    "overtaken not asked again": Bug(
        "a write of a run that had lost its lease is forgotten",
        [(Journal, "_ask_again", _nothing)],
    ),
    "old reads are written": Bug(
        "what was read long ago is not read again before it is sent",
        [
            (module, "read_again_if_old", lambda *_: False)
            for module in (write_airtable, write_kommo)
        ],
    ),
    "sets as wholes": Bug(
        "of two edits of the tags one wins whole", [(merge, "_merge_sets", _whole_sets)]
    ),
    "answer taken for agreed": Bug(
        "what Airtable answers of a field that only goes to Kommo counts as agreed",
        [(sending, "_left_for_kommo", _as_answered)],
    ),
}


def _with(bug: Bug, seed: int, folder: Path) -> Told:
    with bug.sown():
        return tell(seed, folder)


def _find(folder: Path, name: str) -> Told | None:
    """The first story that the bug breaks. What breaks without it as well is no merit."""
    folder = Path(tempfile.mkdtemp(dir=folder))  # another bug may be played beside it
    stories = (_with(PLANTED[name], seed, folder) for seed in range(SEEDS_MAX))
    return next((t for t in stories if t.broken and not tell(t.seed, folder).broken), None)


def hunt(folder: Path, jobs: int, only: Sequence[str] = ()) -> int:
    """Play seeds with each bug (or these only) until it is found; prints the table."""
    print("| bug | what is changed | found at seed | by |\n|---|---|---|---|", flush=True)
    names = [name for name in PLANTED if not only or name in only]
    missed = 0
    with multiprocessing.Pool(jobs, keep_to_a_core) as pool:
        for name, told in zip(names, pool.imap(partial(_find, folder), names), strict=True):
            missed += told is None
            found = f"{told.seed} | {told.broken}" if told else f"not in {SEEDS_MAX} | "
            print(f"| {name} | {PLANTED[name].change} | {found} |", flush=True)
    return 1 if missed else 0
