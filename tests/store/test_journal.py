"""Intents and ledger: written before, moved after, in one transaction each."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from kommo_airtable_sync.core.brake import Usage
from kommo_airtable_sync.core.errors import LeaseLost
from kommo_airtable_sync.core.types import LIVE, IncomingEvent
from kommo_airtable_sync.store.claiming import Claim
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.entries import (
    Acknowledged,
    AgreedField,
    Held,
    Intent,
    Known,
    LedgerEntry,
)
from kommo_airtable_sync.store.history import History
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.journal import RECENT_SECONDS, Journal
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


def known(journal: Journal, lead: int) -> Known:
    return journal.load([f"lead:{lead}"])[f"lead:{lead}"]


def ledger(journal: Journal, *leads: int) -> dict[int, LedgerEntry]:
    """Only what has a row."""
    found = {lead: known(journal, lead).entry for lead in leads}
    return {lead: e for lead, e in found.items() if e != LedgerEntry(f"lead:{lead}")}


def still_open(journal: Journal, *leads: int) -> list[int]:
    return [lead for lead in leads if known(journal, lead).intents]


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
    return Intent(key=f"lead:{lead_id}", after=after, **{**values, **more})


def entry(lead_id: int, amount: str = "10.5", record_id: str | None = "rec1") -> LedgerEntry:
    agreed = AgreedField(Decimal("10"), Decimal(amount), "f1")
    return LedgerEntry(
        f"lead:{lead_id}", record_id, {"fldAmount": agreed}, seen_updated_at=1_700_000_000.0
    )


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
    assert ledger(journal, 1, 2) == {}
    now = clock.now().timestamp()
    assert known(journal, 1).intents == (
        replace(wanted, batch_id=claimed.batch_id, created_at=now),
    )
    assert known(journal, 2) == Known(LedgerEntry("lead:2"))


def test_an_acknowledgement_closes_intents_and_moves_the_ledger(
    database: Database, journal: Journal, inbox: Inbox, clock: HandClock
) -> None:
    claimed = claim(inbox, 1, 2)
    open_intents(journal, claimed, intent(1), intent(2))
    clock.advance(2)
    journal.acknowledge(claimed.batch_id, [Acknowledged(entry(1)), Acknowledged(entry(2, "7"))])
    assert ledger(journal, 1, 2, 3) == {1: entry(1), 2: entry(2, "7")}
    assert still_open(journal, 1, 2) == []
    (row,) = History(database).of_key("lead:1")
    assert (row.state, row.at) == ("done", clock.now().timestamp())
    assert (row.before, row.after, row.rule) == (None, Decimal("10.5"), "owner kommo")


def test_a_created_record_gets_its_id_into_journal_and_ledger(
    database: Database, journal: Journal, inbox: Inbox
) -> None:
    claimed = claim(inbox, 1, 2)
    create = {"record_id": None, "operation": "create"}
    open_intents(journal, claimed, intent(1, **create), intent(2, **create))
    assert journal.ledger_size() == 0
    journal.acknowledge(
        claimed.batch_id,
        [Acknowledged(entry(1, record_id="recA")), Acknowledged(entry(2, record_id="recB"))],
    )
    rows = [History(database).of_key(key)[0] for key in claimed.keys]
    assert [row.record_id for row in rows] == ["recA", "recB"]
    assert known(journal, 2).entry.record_id == "recB"
    assert journal.ledger_size() == 2


def test_only_acknowledged_leads_move(journal: Journal, inbox: Inbox, database: Database) -> None:
    claimed = claim(inbox, 1, 2)
    open_intents(journal, claimed, intent(1), intent(2))
    journal.acknowledge(claimed.batch_id, [Acknowledged(entry(1))])
    assert set(ledger(journal, 1, 2)) == {1}
    assert still_open(journal, 1, 2) == [2]
    journal.acknowledge(claimed.batch_id, [])
    assert states(database) == ["done", "open"]


def test_a_lead_that_needed_no_write_closes_nothing_as_done(
    journal: Journal, inbox: Inbox, database: Database
) -> None:
    claimed = claim(inbox, 1)
    open_intents(journal, claimed, intent(1))
    journal.acknowledge(claimed.batch_id, [Acknowledged(entry(1), side=None)])
    assert states(database) == ["open"]
    assert ledger(journal, 1) == {1: entry(1)}


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
    assert ledger(journal, 1) == {}
    assert [found.record_id for found in known(journal, 1).intents] == [None]
    journal.acknowledge(claimed.batch_id, [Acknowledged(entry(1))])
    assert ledger(journal, 1) == {1: entry(1)}
    assert still_open(journal, 1) == []


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
    assert known(journal, 1).intents[0].batch_id == dead.batch_id
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
    journal.acknowledge(heir.batch_id, [Acknowledged(entry(1, "99"), side=None)])
    inbox.settle(heir.batch_id, {key: Outcome("done") for key in heir.keys}, 8)
    assert inbox.due_lanes() == frozenset()
    journal.acknowledge(late.batch_id, [Acknowledged(entry(1)), Acknowledged(entry(2))])
    assert ledger(journal, 1, 2) == {1: entry(1, "99")}
    # Which of the two writes came last, nobody knows: both leads are written once more.
    assert still_open(journal, 1, 2) == [1, 2]
    again = inbox.claim(LIVE, 50, "again", LEASE)
    assert again is not None
    assert sorted(again.keys) == ["lead:1", "lead:2"]


def test_a_batch_may_acknowledge_a_lead_again(journal: Journal, inbox: Inbox) -> None:
    claimed = claim(inbox, 1)
    journal.acknowledge(claimed.batch_id, [Acknowledged(entry(1))])
    journal.acknowledge(claimed.batch_id, [Acknowledged(entry(1, "12"))])
    assert ledger(journal, 1) == {1: entry(1, "12")}


def test_a_refused_write_closes_its_intents_and_moves_nothing(
    journal: Journal, inbox: Inbox, database: Database
) -> None:
    claimed = claim(inbox, 1, 2)
    open_intents(journal, claimed, intent(1), intent(2))
    journal.refuse(claimed.batch_id, ["lead:1"], "airtable")
    assert states(database) == ["refused", "open"]
    assert known(journal, 1) == Known(LedgerEntry("lead:1"))


def test_history_tells_a_leads_writes_in_their_order(
    database: Database, journal: Journal, inbox: Inbox
) -> None:
    claimed = claim(inbox, 1, 2)
    open_intents(journal, claimed, intent(1, "first"), intent(2, "other"), intent(1, "second"))
    assert [row.after for row in History(database).of_key("lead:1")] == ["first", "second"]


def test_half_an_emoji_does_not_stop_the_journal(journal: Journal, inbox: Inbox) -> None:
    claimed = claim(inbox, 1)
    open_intents(journal, claimed, intent(1, "half \ud83d pair"))
    assert known(journal, 1).intents[0].after == "half \ud83d pair"


# ---------------------------------------------------------------------- both sides


KOMMO = {"side": "kommo", "record_id": None}


def test_each_sides_acknowledgement_closes_its_own_intents(
    journal: Journal, inbox: Inbox, database: Database
) -> None:
    claimed = claim(inbox, 1)
    open_intents(journal, claimed, intent(1), intent(1, **KOMMO))
    journal.acknowledge(claimed.batch_id, [Acknowledged(entry(1), "airtable", settled=frozenset())])
    assert states(database) == ["done", "open"]
    assert ledger(journal, 1) == {1: entry(1)}
    journal.acknowledge(claimed.batch_id, [Acknowledged(entry(1, "11"), "kommo")])
    assert states(database) == ["done", "done"]
    assert ledger(journal, 1) == {1: entry(1, "11")}


def test_both_sides_may_be_acknowledged_at_once(
    journal: Journal, inbox: Inbox, database: Database
) -> None:
    claimed = claim(inbox, 1)
    open_intents(journal, claimed, intent(1), intent(1, **KOMMO))
    first = Acknowledged(entry(1), "airtable", settled=frozenset())
    journal.acknowledge(claimed.batch_id, [first, Acknowledged(entry(1, "11"), "kommo")])
    assert states(database) == ["done", "done"]
    assert ledger(journal, 1) == {1: entry(1, "11")}


def test_only_a_final_acknowledgement_supersedes_what_a_dead_batch_left(
    journal: Journal, inbox: Inbox, database: Database, clock: HandClock
) -> None:
    dead = claim(inbox, 1)
    open_intents(journal, dead, intent(1), intent(1, **KOMMO))
    clock.advance(LEASE)
    heir = inbox.claim(LIVE, 50, "heir", LEASE)
    assert heir is not None
    journal.acknowledge(heir.batch_id, [Acknowledged(entry(1), "airtable", settled=frozenset())])
    assert states(database) == ["open", "open"]
    journal.acknowledge(heir.batch_id, [Acknowledged(entry(1), "kommo")])
    assert states(database) == ["superseded", "superseded"]


def test_half_of_a_write_supersedes_what_a_dead_batch_left_of_the_fields_that_it_settled(
    journal: Journal, inbox: Inbox, database: Database, clock: HandClock
) -> None:
    dead = claim(inbox, 1)
    open_intents(journal, dead, intent(1), intent(1, field="fldOther"))
    clock.advance(LEASE)
    heir = inbox.claim(LIVE, 50, "heir", LEASE)
    assert heir is not None
    half = Acknowledged(entry(1), "airtable", settled=frozenset({"fldOther"}))
    journal.acknowledge(heir.batch_id, [half])
    assert states(database) == ["open", "superseded"]


def test_a_refusal_closes_the_intents_of_that_side_only(
    journal: Journal, inbox: Inbox, database: Database
) -> None:
    claimed = claim(inbox, 1)
    open_intents(journal, claimed, intent(1), intent(1, **KOMMO))
    journal.refuse(claimed.batch_id, ["lead:1"], "kommo")
    assert states(database) == ["open", "refused"]


@pytest.mark.parametrize("side", ["airtable", "kommo"])
def test_an_overtaken_answer_reopens_the_side_that_it_answers_for(
    journal: Journal, inbox: Inbox, clock: HandClock, side: Any
) -> None:
    late = claim(inbox, 1)
    open_intents(journal, late, intent(1), intent(1, **KOMMO))
    clock.advance(LEASE)
    heir = inbox.claim(LIVE, 50, "heir", LEASE)
    assert heir is not None
    waiting = (Held("fldX", "X", "conflict", "a", "b"),)
    journal.acknowledge(heir.batch_id, [Acknowledged(entry(1, "99"), None, held=waiting)])
    inbox.settle(heir.batch_id, {"lead:1": Outcome("done")}, 8)
    journal.acknowledge(late.batch_id, [Acknowledged(entry(1), side, held=())])
    found = known(journal, 1)
    assert [open_one.side for open_one in found.intents] == [side]
    assert found.intents[0].closed_at is not None, "it is older than what the heir settled"
    assert list(found.held) == ["fldX"]
    again = inbox.claim(LIVE, 50, "again", LEASE)
    assert again is not None
    (event,) = again.events["lead:1"]
    assert (event.source, event.kind, event.always_read) == ("sync", "overtaken", True)


def test_contacts_and_companies_have_a_ledger_of_their_own(journal: Journal, inbox: Inbox) -> None:
    inbox.receive([IncomingEvent("contact:7", "kommo", "update")])
    claimed = claim(inbox, 7)
    contact = LedgerEntry("contact:7", "recC", state="ignored", written_at=5.0)
    journal.acknowledge(claimed.batch_id, [Acknowledged(entry(7)), Acknowledged(contact, None)])
    found = journal.load(["lead:7", "contact:7", "company:7"])
    assert [known.entry for known in found.values()] == [
        entry(7), contact, LedgerEntry("company:7")
    ]  # fmt: skip
    # The lead alone: contacts are no leads.
    assert journal.ledger_size() == 1


def test_what_was_sent_and_not_seen_yet_is_remembered_as_expected(
    journal: Journal, inbox: Inbox
) -> None:
    claimed = claim(inbox, 1)
    fields = {"a": AgreedField("x", "y", "f", expected=True), "b": AgreedField(None, None, "f")}
    journal.acknowledge(claimed.batch_id, [Acknowledged(LedgerEntry("lead:1", "rec1", fields))])
    assert known(journal, 1).entry.fields == fields


# ---------------------------------------------------------------------- held fields


def test_held_fields_are_replaced_as_a_whole_and_keep_their_first_time(
    journal: Journal, inbox: Inbox, clock: HandClock
) -> None:
    def hold(*held: Held) -> None:
        item = Acknowledged(entry(1), None, held=held)
        journal.acknowledge(claimed.batch_id, [item, Acknowledged(entry(2), None)])

    claimed = claim(inbox, 1, 2)
    first = Held("fldA", "A", "conflict", Decimal("10.5"), None)
    hold(first, Held("fldB", "B", "loop", "x", "y"))
    since = clock.now().timestamp()
    clock.advance(9)
    changed = replace(first, airtable=frozenset({"t"}))
    hold(changed)
    assert known(journal, 1).held == {"fldA": replace(changed, since=since)}
    journal.acknowledge(claimed.batch_id, [Acknowledged(entry(1), None)])
    assert list(known(journal, 1).held) == ["fldA"]
    hold()
    assert known(journal, 1).held == known(journal, 2).held == {}


# ---------------------------------------------------------------------- what was written of late


def test_recent_writes_are_those_of_the_last_two_minutes_that_were_confirmed(
    journal: Journal, inbox: Inbox, clock: HandClock
) -> None:
    claimed = claim(inbox, 1)
    open_intents(journal, claimed, intent(1, "first"))
    journal.acknowledge(claimed.batch_id, [Acknowledged(entry(1))])
    clock.advance(30)
    inbox.renew(claimed.batch_id, 2 * RECENT_SECONDS)
    open_intents(journal, claimed, intent(1, "refused"))
    journal.refuse(claimed.batch_id, ["lead:1"], "airtable")
    open_intents(journal, claimed, intent(1, "second", **KOMMO))
    journal.acknowledge(claimed.batch_id, [Acknowledged(entry(1), "kommo")])
    closed = clock.now().timestamp()
    found = known(journal, 1).recent
    assert [(write.after, write.side) for write in found] == [
        ("first", "airtable"), ("second", "kommo")
    ]  # fmt: skip
    assert found[1].closed_at == closed
    clock.advance(RECENT_SECONDS - 29)
    assert [write.after for write in known(journal, 1).recent] == ["second"]


def test_records_that_we_have_written_to_of_late_are_told_from_others(
    journal: Journal, inbox: Inbox, clock: HandClock
) -> None:
    claimed = claim(inbox, 1, 2, 3)
    open_intents(
        journal,
        claimed,
        intent(1, record_id=None, operation="create"),
        intent(2, **KOMMO),
        intent(3),
    )
    done = [
        Acknowledged(entry(1, record_id="recA")),
        Acknowledged(entry(2, record_id="recB"), "kommo"),
        Acknowledged(entry(3, record_id="recC"), None),
    ]
    journal.acknowledge(claimed.batch_id, done)
    now = clock.now().timestamp()
    assert journal.recently_written(["recA", "recB", "recC", "recX"], now) == {"recA"}
    assert journal.recently_written(["recA"], now + 1) == set()


# ---------------------------------------------------------------------- the brake's window


def used(journal: Journal, *besides: int) -> Usage:
    return journal.changed_since(0.0, [f"lead:{lead}" for lead in besides])


def test_usage_counts_each_changed_key_once_on_whichever_side(
    journal: Journal, inbox: Inbox, clock: HandClock
) -> None:
    claimed = claim(inbox, 1, 2, 3)
    open_intents(journal, claimed, intent(1), intent(1, "x"), intent(1, **KOMMO), intent(2))
    open_intents(journal, claimed, intent(3))
    journal.acknowledge(claimed.batch_id, [Acknowledged(entry(1))])
    journal.refuse(claimed.batch_id, ["lead:3"], "airtable")
    assert used(journal) == Usage(records_changed=2)
    assert used(journal, 2) == Usage(records_changed=1)
    assert journal.changed_since(clock.now().timestamp() + 1) == Usage()


def test_creations_do_not_count_nor_what_follows_on_them(journal: Journal, inbox: Inbox) -> None:
    claimed = claim(inbox, 1, 2)
    open_intents(journal, claimed, intent(1, operation="create"), intent(1), intent(2))
    assert used(journal) == Usage(records_changed=1)
    journal.refuse(claimed.batch_id, ["lead:2"], "airtable")
    assert used(journal) == Usage()


def test_a_creation_before_the_window_excuses_nothing(
    journal: Journal, inbox: Inbox, clock: HandClock
) -> None:
    claimed = claim(inbox, 1)
    open_intents(journal, claimed, intent(1, operation="create"))
    clock.advance(10)
    open_intents(journal, claimed, intent(1))
    assert used(journal) == Usage()
    assert journal.changed_since(clock.now().timestamp() - 5) == Usage(records_changed=1)


def test_usage_counts_deletions_and_emptied_fields_by_themselves(
    journal: Journal, inbox: Inbox
) -> None:
    claimed = claim(inbox, 1, 2, 3)
    open_intents(
        journal,
        claimed,
        intent(1, operation="delete"),
        intent(2, None, before="text"),
        intent(2, None, before="text", **KOMMO),
        intent(2, None, before=None, field="fldB"),
        intent(3, None, before=False),
        intent(3, "new", before="old", field="fldB"),
    )
    assert used(journal) == Usage(2, 1, {"fldAmount": 2})
    assert used(journal, 2) == Usage(1, 1, {"fldAmount": 1})


def test_a_note_is_written_once_for_each_event_and_is_no_write(
    journal: Journal, inbox: Inbox, database: Database
) -> None:
    claimed = claim(inbox, 1)
    told = intent(1, None, operation="note", before="theirs", event_id=7, rule="overwritten")
    assert journal.note(claimed.batch_id, "run", [told]) == [told]
    later = replace(told, event_id=8)
    assert journal.note(claimed.batch_id, "run", [told, later]) == [later]
    assert states(database) == ["done", "done"]
    assert known(journal, 1).recent == ()
    assert journal.changed_since(0.0) == Usage()
