"""What ``status``, ``events`` and /metrics read, and a person's retry and drop."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from kommo_airtable_sync.core.types import BULK, LIVE, IncomingEvent, Priority
from kommo_airtable_sync.store.claiming import Claim
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.entries import Acknowledged, Held, LedgerEntry
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.journal import Journal
from kommo_airtable_sync.store.reports import Reports
from kommo_airtable_sync.store.schema import due, events
from kommo_airtable_sync.store.settling import Outcome
from tests.conftest import HandClock

LEASE = 60.0
NOTHING = {"pending": 0, "claimed": 0, "retrying": 0, "dead": 0, "quarantined": 0}


@pytest.fixture
def inbox(database: Database) -> Inbox:
    return Inbox(database)


@pytest.fixture
def reports(database: Database) -> Reports:
    return Reports(database)


def receive(inbox: Inbox, *leads: int, priority: Priority = LIVE) -> None:
    inbox.receive(
        [IncomingEvent(f"lead:{lead}", "kommo", "update", priority=priority) for lead in leads]
    )


def claim(inbox: Inbox, lane: Priority = LIVE, limit: int = 50) -> Claim:
    claimed = inbox.claim(lane, limit, "run", LEASE)
    assert claimed is not None
    return claimed


def work(inbox: Inbox, outcome: Outcome, *leads: int) -> None:
    receive(inbox, *leads)
    claimed = claim(inbox)
    inbox.settle(claimed.batch_id, dict.fromkeys(claimed.keys, outcome), 8)


def due_keys(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(sa.select(due.c.key).order_by(due.c.key)).scalars())


DEAD = Outcome("dead", error="no such stage")
DONE = Outcome("done", "updated")


def test_an_empty_inbox_counts_nothing(reports: Reports) -> None:
    assert reports.inbox_counts() == NOTHING
    assert reports.oldest_pending_seconds() is None
    assert reports.latency() == {"p50": None, "p95": None, "max": None, "count": 0}
    assert reports.list_events() == []


def test_each_open_event_is_counted_once(inbox: Inbox, reports: Reports) -> None:
    work(inbox, DONE, 1, 2)
    work(inbox, DEAD, 3)
    work(inbox, Outcome("retry", due_in_seconds=60), 4)
    receive(inbox, 5)
    claim(inbox)
    receive(inbox, 6, 7, 7)
    inbox.receive([IncomingEvent("", "kommo", "?", state="quarantined")])
    inbox.receive([IncomingEvent("contact:1", "kommo", "update", state="ignored")])
    assert reports.inbox_counts() == {
        "pending": 3,
        "claimed": 1,
        "retrying": 1,
        "dead": 1,
        "quarantined": 1,
    }


def test_the_oldest_event_counts_even_while_somebody_works_on_it(
    inbox: Inbox, reports: Reports, clock: HandClock
) -> None:
    work(inbox, DEAD, 9)
    clock.advance(100)
    receive(inbox, 1)
    clock.advance(5)
    receive(inbox, 2)
    assert reports.oldest_pending_seconds() == 5
    claim(inbox, limit=1)
    clock.advance(1)
    assert reports.oldest_pending_seconds() == 6


def test_latency_is_of_the_last_live_events_that_were_done(
    inbox: Inbox, reports: Reports, clock: HandClock
) -> None:
    def trip(lead: int, seconds: float, outcome: Outcome = DONE, lane: Priority = LIVE) -> None:
        receive(inbox, lead, priority=lane)
        claimed = claim(inbox, lane)
        clock.advance(seconds)
        inbox.settle(claimed.batch_id, dict.fromkeys(claimed.keys, outcome), 8)

    trip(1, 50)
    for lead in range(2, 22):
        trip(lead, lead - 1)
    trip(50, 55, lane=BULK)
    trip(51, 55, DEAD)
    found = reports.latency(limit=20)
    assert found == {
        "p50": pytest.approx(10),
        "p95": pytest.approx(19),
        "max": pytest.approx(20),
        "count": 20,
    }
    assert reports.latency()["max"] == pytest.approx(50)


def test_a_dead_event_made_good_hours_later_is_no_latency(
    inbox: Inbox, reports: Reports, clock: HandClock
) -> None:
    work(inbox, DEAD, 1)
    clock.advance(7200)
    work(inbox, DONE, 1)
    assert reports.latency() == {"p50": 0, "p95": 0, "max": 0, "count": 1}


def test_events_are_listed_newest_first_by_state_and_lead(
    inbox: Inbox, reports: Reports, clock: HandClock
) -> None:
    work(inbox, DEAD, 1)
    work(inbox, Outcome("retry", error="later", due_in_seconds=60), 2)
    receive(inbox, 3, 1)
    assert [found.id for found in reports.list_events()] == [4, 3, 2, 1]
    assert [found.id for found in reports.list_events(limit=2)] == [4, 3]
    assert [found.id for found in reports.list_events("pending")] == [4, 3]
    assert [found.id for found in reports.list_events(lead_id=1)] == [4, 1]
    assert [found.id for found in reports.list_events("dead", 1)] == [1]
    assert reports.list_events("claimed") == []
    (retrying,) = reports.list_events("retrying")
    assert (retrying.id, retrying.state, retrying.attempts) == (2, "retrying", 1)
    assert (retrying.error, retrying.settled_at) == ("later", None)
    (dead,) = reports.list_events("dead")
    assert (dead.key, dead.received_at, dead.settled_at) == ("lead:1", clock.now(), clock.now())
    assert (dead.source, dead.kind, dead.run_id) == ("kommo", "update", "run")


def test_a_retried_event_has_all_its_attempts_again_and_is_due(
    database: Database, inbox: Inbox, reports: Reports
) -> None:
    work(inbox, Outcome("retry"), 1)
    claimed = claim(inbox)
    inbox.settle(claimed.batch_id, {"lead:1": Outcome("retry")}, 2)
    work(inbox, DEAD, 2)
    assert due_keys(database) == []
    assert reports.retry_events([1]) == [1]
    assert due_keys(database) == ["lead:1"]
    (event,) = claim(inbox).events["lead:1"]
    assert (event.id, event.attempts) == (1, 0)
    assert reports.inbox_counts() == {**NOTHING, "claimed": 1, "dead": 1}


def test_all_dead_events_are_retried_in_their_own_lanes(inbox: Inbox, reports: Reports) -> None:
    work(inbox, DEAD, 1, 2)
    receive(inbox, 3, priority=BULK)
    claimed = claim(inbox, BULK)
    inbox.settle(claimed.batch_id, {"lead:3": DEAD}, 8)
    assert reports.retry_events(dead=True) == [1, 2, 3]
    assert sorted(claim(inbox).keys) == ["lead:1", "lead:2"]
    assert claim(inbox, BULK).keys == ["lead:3"]


def test_only_dead_events_are_retried(database: Database, inbox: Inbox, reports: Reports) -> None:
    work(inbox, DONE, 1)
    inbox.receive([IncomingEvent("", "kommo", "?", state="quarantined")])
    assert reports.retry_events([1, 2, 99]) == []
    assert reports.retry_events([]) == reports.retry_events(dead=True) == []
    assert due_keys(database) == []


def test_a_retry_while_the_key_is_worked_on_waits_for_its_turn(
    inbox: Inbox, reports: Reports
) -> None:
    work(inbox, DEAD, 1)
    receive(inbox, 1)
    claimed = claim(inbox)
    assert reports.retry_events([1]) == [1]
    assert inbox.claim(LIVE, 1, "other", LEASE) is None
    inbox.settle(claimed.batch_id, {"lead:1": DONE}, 8)
    assert [event.id for event in claim(inbox).events["lead:1"]] == [1]


def test_a_dropped_event_is_never_worked_on(
    database: Database, inbox: Inbox, reports: Reports
) -> None:
    receive(inbox, 1, 1, 2)
    inbox.receive([IncomingEvent("", "kommo", "?", state="quarantined")])
    assert reports.drop_events([1]) == [1]
    assert due_keys(database) == ["lead:1", "lead:2"]
    assert reports.drop_events([2, 4, 99]) == [2, 4]
    assert due_keys(database) == ["lead:2"]
    assert claim(inbox).keys == ["lead:2"]


def test_neither_claimed_nor_settled_events_are_dropped(
    database: Database, inbox: Inbox, reports: Reports
) -> None:
    work(inbox, DONE, 1)
    receive(inbox, 2)
    claimed = claim(inbox)
    receive(inbox, 2)
    assert reports.drop_events([1, 2, 3]) == [3]
    assert due_keys(database) == ["lead:2"]
    inbox.settle(claimed.batch_id, {"lead:2": DONE}, 8)
    assert due_keys(database) == []


def test_dead_events_can_be_dropped(inbox: Inbox, reports: Reports) -> None:
    work(inbox, DEAD, 1)
    assert reports.drop_events([1]) == [1]
    assert reports.inbox_counts() == NOTHING
    assert reports.retry_events(dead=True) == []


def test_thousands_of_events_can_be_retried_and_dropped_at_once(
    database: Database, inbox: Inbox, reports: Reports
) -> None:
    """In portions: SQLite takes 32,766 parameters a statement by default, old ones 999."""
    many = 1_200
    with database.write() as connection:
        connection.execute(
            sa.insert(events),
            [
                {"key": f"lead:{n}", "source": "kommo", "kind": "update", "state": "dead",
                 "received_at": 0.0}
                for n in range(many)
            ],
        )  # fmt: skip
    retried = reports.retry_events(dead=True)
    assert len(retried) == many
    assert len(reports.drop_events(retried)) == many
    assert due_keys(database) == []


# ---------------------------------------------------------------------- held


HELD = Outcome("held", error="too many deletions")


def test_held_events_are_listed_and_counted_apart(inbox: Inbox, reports: Reports) -> None:
    work(inbox, HELD, 1, 2)
    work(inbox, DEAD, 3)
    assert reports.inbox_counts() == {**NOTHING, "dead": 1}
    assert reports.holds() == 2
    assert [(item.key, item.state, item.error) for item in reports.list_holds()] == [
        ("lead:2", "held", "too many deletions"),
        ("lead:1", "held", "too many deletions"),
    ]
    assert reports.list_holds() == reports.list_events("held")
    assert (reports.list_holds()[0].settled_at, reports.oldest_pending_seconds()) == (None, None)


def test_a_released_event_is_due_and_says_so(
    database: Database, inbox: Inbox, reports: Reports
) -> None:
    work(inbox, HELD, 1, 2)
    work(inbox, DEAD, 3)
    assert due_keys(database) == []
    assert reports.release_holds([1, 3, 99]) == [1]
    assert reports.retry_events(dead=True) == [3]
    assert due_keys(database) == ["lead:1", "lead:3"]
    claimed = claim(inbox)
    (event,) = claimed.events["lead:1"]
    assert event.directive == {"release": True}
    inbox.settle(claimed.batch_id, {"lead:1": HELD, "lead:3": DEAD}, 8)
    assert reports.release_holds([1]) == [1]
    assert claim(inbox).events["lead:1"][0].directive == {"release": True}


def test_a_released_directive_stays_what_was_decided(inbox: Inbox, reports: Reports) -> None:
    decided = {"field": "fldA", "use": "kommo"}
    inbox.receive([IncomingEvent("lead:1", "resolve", "resolve", directive=decided)])
    inbox.settle(claim(inbox).batch_id, {"lead:1": HELD}, 8)
    reports.release_holds([1])
    assert claim(inbox).events["lead:1"][0].directive == {**decided, "release": True}


def test_held_events_can_be_dropped(inbox: Inbox, reports: Reports) -> None:
    work(inbox, HELD, 1)
    assert reports.drop_events([1]) == [1]
    assert reports.holds() == 0
    assert reports.release_holds([1]) == []


def test_held_fields_are_listed_those_that_wait_longest_first(
    inbox: Inbox, reports: Reports, database: Database, clock: HandClock
) -> None:
    journal = Journal(database)
    receive(inbox, 1, 2)
    claimed = claim(inbox)
    first, second = Held("fldB", "B", "loop", "x", None), Held("fldA", "A", "conflict", "y", "z")
    for lead, held in ((2, first), (1, second)):
        entry = LedgerEntry(f"lead:{lead}")
        journal.acknowledge(claimed.batch_id, [Acknowledged(entry, None, held=(held,))])
        clock.advance(1)
    found = reports.list_conflicts()
    assert [(item.key, item.held.field, item.held.kommo) for item in found] == [
        ("lead:2", "fldB", "x"),
        ("lead:1", "fldA", "y"),
    ]
    assert reports.conflicts_held() == 2


def test_dead_events_are_retried_by_what_their_error_says_in_any_case(
    inbox: Inbox, reports: Reports
) -> None:
    work(inbox, Outcome("dead", error="Größe: KEIN Wert"), 1)
    work(inbox, DEAD, 2, 3)
    work(inbox, DONE, 4)
    assert reports.retry_events(reason="GRÖßE: kein") == [1]
    assert reports.retry_events([4], reason="Such STAGE") == [2, 3]
    assert reports.inbox_counts()["dead"] == 0
