"""Intents and ledger: written before, moved after, in one transaction each."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from kommo_airtable_sync.core.errors import LeaseLost
from kommo_airtable_sync.core.types import LIVE, IncomingEvent
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.inbox import Claim, Inbox
from kommo_airtable_sync.store.journal import (
    Acknowledged,
    AgreedField,
    Intent,
    Journal,
    LedgerEntry,
)
from kommo_airtable_sync.store.schema import journal as journal_table
from kommo_airtable_sync.store.settling import Outcome
from tests.conftest import HandClock

LEASE = 60.0
CALL = 20.0


@pytest.fixture
def inbox(database: Database) -> Inbox:
    return Inbox(database)


@pytest.fixture
def journal(database: Database) -> Journal:
    return Journal(database)


def claim(inbox: Inbox, *leads: int) -> Claim:
    inbox.receive([IncomingEvent(f"lead:{lead}", "kommo", "update") for lead in leads])
    claimed = inbox.claim(LIVE, 50, "run", LEASE)
    assert claimed is not None
    return claimed


def intent(lead_id: int, after: Any = Decimal("10.5"), **more: Any) -> Intent:
    values: dict[str, Any] = {
        "record_id": "rec1",
        "side": "airtable",
        "operation": "update",
        "field": "fldAmount",
        "field_name": "Amount",
        "before": None,
        "rule": "owner kommo",
    }
    return Intent(lead_id=lead_id, after=after, **{**values, **more})


def entry(lead_id: int, amount: str = "10.5", record_id: str | None = "rec1") -> LedgerEntry:
    agreed = AgreedField(Decimal("10"), Decimal(amount), "f1")
    return LedgerEntry(lead_id, record_id, {"fldAmount": agreed}, seen_updated_at=1_700_000_000.0)


def open_intents(journal: Journal, claimed: Claim, *intents: Intent, left: float = CALL) -> None:
    journal.open(claimed.batch_id, "run", claimed.keys, intents, lease_left_seconds=left)


def states(database: Database) -> list[str]:
    with database.read() as connection:
        found = connection.execute(sa.select(journal_table.c.state).order_by(journal_table.c.id))
        return list(found.scalars())


def test_an_intent_is_open_until_it_is_acknowledged(
    journal: Journal, inbox: Inbox, clock: HandClock
) -> None:
    claimed = claim(inbox, 1)
    wanted = intent(1, before=Decimal("9"), event_id=1)
    open_intents(journal, claimed, wanted)
    entries, intents = journal.load([1, 2])
    assert entries == {}
    now = clock.now().timestamp()
    assert intents == {1: [replace(wanted, batch_id=claimed.batch_id, created_at=now)]}


def test_an_acknowledgement_closes_intents_and_moves_the_ledger(
    journal: Journal, inbox: Inbox, clock: HandClock
) -> None:
    claimed = claim(inbox, 1, 2)
    open_intents(journal, claimed, intent(1), intent(2))
    clock.advance(2)
    journal.acknowledge(claimed.batch_id, [Acknowledged(entry(1)), Acknowledged(entry(2, "7"))])
    entries, intents = journal.load([1, 2, 3])
    assert entries == {1: entry(1), 2: entry(2, "7")}
    assert intents == {}
    (row,) = journal.history(1)
    assert (row["state"], row["closed_at"]) == ("done", clock.now().timestamp())
    assert (row["before"], row["after"], row["rule"]) == (
        "null",
        '{"number":"10.5"}',
        "owner kommo",
    )


def test_a_created_record_gets_its_id_into_journal_and_ledger(
    journal: Journal, inbox: Inbox
) -> None:
    claimed = claim(inbox, 1, 2)
    create = {"record_id": None, "operation": "create"}
    open_intents(journal, claimed, intent(1, **create), intent(2, **create))
    assert journal.ledger_size() == 0
    journal.acknowledge(
        claimed.batch_id,
        [Acknowledged(entry(1, record_id="recA")), Acknowledged(entry(2, record_id="recB"))],
    )
    assert [journal.history(lead)[0]["record_id"] for lead in (1, 2)] == ["recA", "recB"]
    assert journal.load([2])[0][2].record_id == "recB"
    assert journal.ledger_size() == 2


def test_only_acknowledged_leads_move(journal: Journal, inbox: Inbox, database: Database) -> None:
    claimed = claim(inbox, 1, 2)
    open_intents(journal, claimed, intent(1), intent(2))
    journal.acknowledge(claimed.batch_id, [Acknowledged(entry(1))])
    entries, intents = journal.load([1, 2])
    assert set(entries) == {1}
    assert set(intents) == {2}
    journal.acknowledge(claimed.batch_id, [])
    assert states(database) == ["done", "open"]


def test_a_lead_that_needed_no_write_closes_nothing_as_done(
    journal: Journal, inbox: Inbox, database: Database
) -> None:
    claimed = claim(inbox, 1)
    open_intents(journal, claimed, intent(1))
    journal.acknowledge(claimed.batch_id, [Acknowledged(entry(1), written=False)])
    assert states(database) == ["open"]
    assert journal.load([1])[0] == {1: entry(1)}


@pytest.mark.parametrize("failing", ["ledger", "journal"])
def test_journal_and_ledger_move_together_or_not_at_all(
    journal: Journal, inbox: Inbox, database: Database, failing: str
) -> None:
    claimed = claim(inbox, 1)
    open_intents(journal, claimed, intent(1, record_id=None))

    def fail(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith(("INSERT INTO ", "UPDATE ")) and failing in statement:
            raise sa.exc.OperationalError(statement, None, Exception("disk full"))

    sa.event.listen(database.engine, "after_cursor_execute", fail)
    with pytest.raises(sa.exc.OperationalError):
        journal.acknowledge(claimed.batch_id, [Acknowledged(entry(1))])
    sa.event.remove(database.engine, "after_cursor_execute", fail)
    entries, intents = journal.load([1])
    assert entries == {}
    assert [found.record_id for found in intents[1]] == [None]
    journal.acknowledge(claimed.batch_id, [Acknowledged(entry(1))])
    assert journal.load([1]) == ({1: entry(1)}, {})


def test_opening_needs_a_lease_that_outlives_the_call(
    journal: Journal, inbox: Inbox, database: Database, clock: HandClock
) -> None:
    claimed = claim(inbox, 1)
    clock.advance(LEASE - CALL)
    with pytest.raises(LeaseLost):
        open_intents(journal, claimed, intent(1))
    assert states(database) == []
    inbox.renew(claimed.batch_id, LEASE)
    open_intents(journal, claimed, intent(1))
    assert states(database) == ["open"]


def test_opening_under_a_stolen_token_is_refused(
    journal: Journal, inbox: Inbox, database: Database, clock: HandClock
) -> None:
    dead = claim(inbox, 1)
    clock.advance(LEASE)
    heir = inbox.claim(LIVE, 1, "heir", LEASE)
    assert heir is not None
    with pytest.raises(LeaseLost):
        open_intents(journal, dead, intent(1))
    assert states(database) == []
    open_intents(journal, heir, intent(1))


def test_the_time_left_is_measured_after_waiting_for_the_lock(
    journal: Journal, inbox: Inbox, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver may hold the row of ``due`` for a moment; the lease runs on meanwhile."""
    from kommo_airtable_sync.store import leases

    claimed = claim(inbox, 1)
    lock = leases.lock

    def slow(*arguments: Any) -> list[tuple[str, float | None]]:
        clock.advance(LEASE - CALL)
        return lock(*arguments)

    monkeypatch.setattr(leases, "lock", slow)
    with pytest.raises(LeaseLost):
        open_intents(journal, claimed, intent(1))


def test_intents_of_a_dead_batch_are_superseded_by_the_next_acknowledgement(
    journal: Journal, inbox: Inbox, database: Database, clock: HandClock
) -> None:
    dead = claim(inbox, 1, 2)
    open_intents(journal, dead, intent(1), intent(2))
    clock.advance(LEASE)
    heir = inbox.claim(LIVE, 50, "heir", LEASE)
    assert heir is not None
    assert journal.load([1])[1][1][0].batch_id == dead.batch_id
    open_intents(journal, heir, intent(1, Decimal("11")))
    journal.acknowledge(heir.batch_id, [Acknowledged(entry(1, "11"))])
    assert states(database) == ["superseded", "open", "done"]


def test_an_answer_after_the_lease_was_lost_moves_no_ledger_and_asks_for_another_look(
    journal: Journal, inbox: Inbox, clock: HandClock
) -> None:
    late = claim(inbox, 1, 2)
    open_intents(journal, late, intent(1), intent(2))
    clock.advance(LEASE)
    heir = inbox.claim(LIVE, 50, "heir", LEASE)
    assert heir is not None
    journal.acknowledge(heir.batch_id, [Acknowledged(entry(1, "99"), written=False)])
    inbox.settle(heir.batch_id, {key: Outcome("done") for key in heir.keys}, 8)
    assert inbox.due_lanes() == frozenset()
    journal.acknowledge(late.batch_id, [Acknowledged(entry(1)), Acknowledged(entry(2))])
    entries, intents = journal.load([1, 2])
    assert entries == {1: entry(1, "99")}
    # Which of the two writes came last, nobody knows: both leads are written once more.
    assert sorted(intents) == [1, 2]
    again = inbox.claim(LIVE, 50, "again", LEASE)
    assert again is not None
    assert sorted(again.keys) == ["lead:1", "lead:2"]


def test_a_batch_may_acknowledge_a_lead_again(journal: Journal, inbox: Inbox) -> None:
    claimed = claim(inbox, 1)
    journal.acknowledge(claimed.batch_id, [Acknowledged(entry(1))])
    journal.acknowledge(claimed.batch_id, [Acknowledged(entry(1, "12"))])
    assert journal.load([1])[0] == {1: entry(1, "12")}


def test_a_refused_write_closes_its_intents_and_moves_nothing(
    journal: Journal, inbox: Inbox, database: Database
) -> None:
    claimed = claim(inbox, 1, 2)
    open_intents(journal, claimed, intent(1), intent(2))
    journal.refuse(claimed.batch_id, [1])
    assert states(database) == ["refused", "open"]
    assert journal.load([1]) == ({}, {})


def test_history_tells_a_leads_writes_in_their_order(journal: Journal, inbox: Inbox) -> None:
    claimed = claim(inbox, 1, 2)
    open_intents(journal, claimed, intent(1, "first"), intent(2, "other"), intent(1, "second"))
    assert [row["after"] for row in journal.history(1)] == ['"first"', '"second"']


def test_half_an_emoji_does_not_stop_the_journal(journal: Journal, inbox: Inbox) -> None:
    claimed = claim(inbox, 1)
    open_intents(journal, claimed, intent(1, "half \ud83d pair"))
    assert journal.load([1])[1][1][0].after == "half \ud83d pair"
