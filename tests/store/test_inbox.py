"""The inbox's contract, the same on SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

import pytest
import sqlalchemy as sa

from kommo_airtable_sync.core.errors import LeaseLost
from kommo_airtable_sync.core.types import BULK, LIVE, IncomingEvent, Priority
from kommo_airtable_sync.store import counters
from kommo_airtable_sync.store.claiming import Claim
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.documents import Documents
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.runners import Runners
from kommo_airtable_sync.store.schema import batches, due, events, ledger
from kommo_airtable_sync.store.settling import Outcome
from tests.conftest import HandClock

LEASE = 60.0
DONE = Outcome("done", "updated")


@pytest.fixture
def inbox(database: Database) -> Inbox:
    return Inbox(database)


def lead(number: int, priority: Priority = LIVE, **more: Any) -> IncomingEvent:
    return IncomingEvent(f"lead:{number}", "kommo", "update", priority=priority, **more)


def rows(database: Database, table: sa.Table, *where: Any) -> list[dict[str, Any]]:
    key = next(iter(table.primary_key.columns))
    with database.read() as connection:
        found = connection.execute(sa.select(table).where(*where).order_by(key)).mappings()
        return [dict(row) for row in found]


def states(database: Database) -> list[str]:
    return [row["state"] for row in rows(database, events)]


def claim(inbox: Inbox, limit: int = 50, lane: Priority = LIVE, run: str = "run") -> Claim:
    claimed = inbox.claim(lane, limit, run, LEASE)
    assert claimed is not None
    return claimed


# ---------------------------------------------------------------------- receive


def test_a_received_event_is_stored_whole_and_its_key_is_due(
    database: Database, inbox: Inbox, clock: HandClock
) -> None:
    occurred = datetime(2026, 3, 2, 8, 59, tzinfo=timezone.utc)
    inbox.receive([lead(1, occurred_at=occurred, payload={"name": "Ж"}, always_read=True)])
    now = clock.now().timestamp()
    (event,) = rows(database, events)
    assert event["payload"] == '{"name":"Ж"}'
    assert (event["occurred_at"], event["received_at"]) == (occurred.timestamp(), now)
    assert (event["state"], event["always_read"], event["attempts"]) == ("pending", True, 0)
    (row,) = rows(database, due)
    assert (row["key"], row["due_at"], row["priority"]) == ("lead:1", now, LIVE)
    assert (row["token"], row["lease_until"]) == (None, None)


def test_due_rows_of_one_key_coalesce_to_the_earliest_and_most_urgent(
    database: Database, inbox: Inbox, clock: HandClock
) -> None:
    inbox.receive([lead(1, BULK)])
    first = clock.now().timestamp()
    clock.advance(5)
    inbox.receive([lead(1, LIVE), lead(1, BULK)])
    assert len(rows(database, events)) == 3
    (row,) = rows(database, due)
    assert (row["due_at"], row["priority"]) == (first, LIVE)


def test_settle_seconds_let_a_burst_gather(database: Database, clock: HandClock) -> None:
    inbox = Inbox(database, settle_seconds=2.0)
    inbox.receive([lead(1)])
    assert inbox.claim(LIVE, 1, "run", LEASE) is None
    clock.advance(2)
    assert claim(inbox).keys == ["lead:1"]


def test_ignored_and_quarantined_events_are_kept_but_make_nothing_due(
    database: Database, inbox: Inbox
) -> None:
    inbox.receive([lead(1, state="ignored"), IncomingEvent("", "kommo", "?", state="quarantined")])
    assert states(database) == ["ignored", "quarantined"]
    assert rows(database, due) == []


def test_receiving_never_touches_a_lease(
    database: Database, inbox: Inbox, clock: HandClock
) -> None:
    inbox.receive([lead(1)])
    taken = claim(inbox)
    clock.advance(1)
    inbox.receive([lead(1)])
    (row,) = rows(database, due)
    assert row["token"] == taken.batch_id
    assert row["lease_until"] == clock.now().timestamp() - 1 + LEASE
    assert inbox.claim(LIVE, 50, "other", LEASE) is None


def test_a_failure_within_receive_stores_nothing(
    database: Database, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise sa.exc.OperationalError("counters", None, Exception("disk full"))

    monkeypatch.setattr(counters, "add", fail)
    with pytest.raises(sa.exc.OperationalError):
        inbox.receive([lead(1)])
    assert rows(database, events) == rows(database, due) == []


def test_a_commit_that_fails_reaches_the_receiver(
    database: Database, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise sa.exc.OperationalError("COMMIT", None, Exception("disk I/O error"))

    monkeypatch.setattr(database.engine.dialect, "do_commit", fail)
    with pytest.raises(sa.exc.OperationalError):
        inbox.receive([lead(1)])
    assert not inbox.writable()
    monkeypatch.undo()
    assert rows(database, events) == []
    assert inbox.writable()


def test_text_that_an_engine_cannot_hold_is_stored_all_the_same(
    database: Database, inbox: Inbox
) -> None:
    inbox.receive([lead(1, payload={"name": "half \ud83d pair, NUL \0"})])
    (event,) = rows(database, events)
    assert event["payload"] == '{"name":"half \\ud83d pair, NUL \\u0000"}'
    taken = claim(inbox)
    inbox.settle(taken.batch_id, {"lead:1": Outcome("dead", error="bad \ud83d\0 text")}, 8)
    assert rows(database, events)[0]["error"] == "bad \\ud83d text"


def test_nothing_received_is_nothing_written(database: Database, inbox: Inbox) -> None:
    inbox.receive([])
    assert rows(database, events) == []


def test_a_webhook_payload_delivered_twice_is_stored_once(database: Database, inbox: Inbox) -> None:
    inbox.receive([lead(1, dedupe_key="ach1:1"), lead(1, dedupe_key="ach1:1"), lead(2)])
    taken = claim(inbox)
    inbox.settle(taken.batch_id, dict.fromkeys(taken.keys, DONE), 8)
    inbox.receive([lead(1, dedupe_key="ach1:1"), lead(3, dedupe_key="ach1:2")])
    assert [row["key"] for row in rows(database, events)] == ["lead:2", "lead:1", "lead:3"]
    assert [row["key"] for row in rows(database, due)] == ["lead:3"]
    assert counters.read_all(database) == {("events_received", "kommo,pending"): 3.0}


def test_documents_are_stored_with_the_events_or_not_at_all(
    database: Database, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = Documents(database)
    inbox.receive([lead(1)], remember={"cursor:ach1": "5"})
    assert documents.get("cursor:ach1") == "5"
    inbox.receive([], remember={"cursor:ach1": "6"})
    assert documents.get("cursor:ach1") == "6"

    def fail(*_: object) -> None:
        raise sa.exc.OperationalError("documents", None, Exception("disk full"))

    monkeypatch.setattr("kommo_airtable_sync.store.inbox.store_document", fail)
    with pytest.raises(sa.exc.OperationalError):
        inbox.receive([lead(2)], remember={"cursor:ach1": "7"})
    assert [row["key"] for row in rows(database, events)] == ["lead:1"]


def test_an_event_about_a_known_record_goes_by_its_lead(database: Database, inbox: Inbox) -> None:
    with database.write() as connection:
        connection.execute(
            sa.insert(ledger),
            [
                {"key": key, "record_id": record, "fields": "{}", "updated_at": 0.0}
                for key, record in (("lead:5", "rec5"), ("contact:7", "rec7"), ("lead:6", None))
            ],
        )
    inbox.receive([IncomingEvent(f"record:rec{n}", "airtable", "update") for n in (5, 7, 9)])
    assert [row["key"] for row in rows(database, events)] == ["lead:5", "contact:7", "record:rec9"]
    assert sorted(claim(inbox).keys) == ["contact:7", "lead:5", "record:rec9"]


def test_a_directive_is_claimed_as_it_was_given_and_does_not_wait_for_a_burst(
    database: Database,
) -> None:
    inbox = Inbox(database, settle_seconds=60)
    directive = {"field": "fldA", "use": "kommo", "kommo": {"number": "1"}}
    inbox.receive([lead(1, payload={"id": "1"}), IncomingEvent("lead:1", "airtable", "update",
        payload={"fields": {"fldA": 1}})])  # fmt: skip
    assert inbox.claim(LIVE, 1, "run", LEASE) is None
    inbox.receive([IncomingEvent("lead:1", "resolve", "resolve", directive=directive)])
    assert [(event.directive, event.payload) for event in claim(inbox).events["lead:1"]] == [
        (None, None),
        (None, {"fields": {"fldA": 1}}),
        (directive, None),
    ]


# ---------------------------------------------------------------------- claim


def test_a_claim_takes_the_oldest_due_keys_of_its_lane(inbox: Inbox, clock: HandClock) -> None:
    for number, lane in ((3, LIVE), (1, BULK), (2, LIVE), (4, LIVE)):
        inbox.receive([lead(number, lane)])
        clock.advance(1)
    assert claim(inbox, limit=2).keys == ["lead:3", "lead:2"]
    assert claim(inbox, limit=2).keys == ["lead:4"]
    assert inbox.claim(LIVE, 2, "run", LEASE) is None
    assert claim(inbox, lane=BULK).keys == ["lead:1"]


def test_a_claim_takes_every_unsettled_event_of_its_keys(database: Database, inbox: Inbox) -> None:
    inbox.receive([lead(1, always_read=True), lead(2), lead(1)])
    taken = claim(inbox, run="run-7")
    assert [event.always_read for event in taken.events["lead:1"]] == [True, False]
    assert [len(found) for found in taken.events.values()].count(2) == 1
    for row in rows(database, events):
        assert (row["state"], row["batch_id"], row["run_id"]) == (
            "claimed",
            taken.batch_id,
            "run-7",
        )


def test_what_is_due_later_is_not_claimed_yet(inbox: Inbox, clock: HandClock) -> None:
    inbox.receive([lead(1)])
    taken = claim(inbox)
    inbox.settle(taken.batch_id, {"lead:1": Outcome("retry", due_in_seconds=30)}, 8)
    clock.advance(29.9)
    assert inbox.claim(LIVE, 1, "run", LEASE) is None
    assert inbox.due_lanes() == frozenset()
    clock.advance(0.1)
    assert inbox.due_lanes() == {LIVE}
    assert claim(inbox).keys == ["lead:1"]


def test_an_expired_lease_is_taken_over_with_its_events(
    database: Database, inbox: Inbox, clock: HandClock
) -> None:
    inbox.receive([lead(1)])
    dead = claim(inbox, run="dead")
    clock.advance(LEASE)
    heir = claim(inbox, run="heir")
    assert heir.batch_id > dead.batch_id
    assert [event.id for event in heir.events["lead:1"]] == [
        event.id for event in dead.events["lead:1"]
    ]


def test_an_idle_look_writes_nothing(database: Database, inbox: Inbox) -> None:
    for _ in range(3):
        assert inbox.claim(LIVE, 50, "run", LEASE) is None
    inbox.receive([lead(1)])
    assert claim(inbox).batch_id == 1


def test_due_lanes_names_the_lanes_with_work(inbox: Inbox) -> None:
    assert inbox.due_lanes() == frozenset()
    inbox.receive([lead(1, BULK)])
    assert inbox.due_lanes() == {BULK}
    inbox.receive([lead(2, LIVE)])
    assert inbox.due_lanes() == {LIVE, BULK}
    claim(inbox, lane=BULK)
    assert inbox.due_lanes() == {LIVE}


def test_a_paused_side_stops_claims_of_both_lanes(
    database: Database, inbox: Inbox, clock: HandClock
) -> None:
    inbox.receive([lead(1), lead(2, BULK)])
    Runners(database).pause("airtable", 30, 1, "rate_limited", "")
    assert inbox.due_lanes() == frozenset()
    assert inbox.claim(LIVE, 1, "run", LEASE) is None
    assert inbox.claim(BULK, 1, "run", LEASE) is None
    clock.advance(30)
    assert inbox.due_lanes() == {LIVE, BULK}
    assert claim(inbox).keys == ["lead:1"]


def test_concurrent_claims_never_share_a_key(database: Database, inbox: Inbox) -> None:
    workers, turns, limit = 6, 5, 4
    inbox.receive([lead(number) for number in range(workers * turns * limit)])
    together = threading.Barrier(workers)

    def take(worker: int) -> list[str]:
        keys: list[str] = []
        for _ in range(turns):
            together.wait()
            keys += claim(inbox, limit=limit, run=f"run-{worker}").keys
        return keys

    with ThreadPoolExecutor(workers) as pool:
        taken = [key for share in pool.map(take, range(workers)) for key in share]
    assert sorted(taken) == sorted(f"lead:{number}" for number in range(workers * turns * limit))


def test_receiving_claiming_and_settling_at_once_lose_and_block_nothing(
    database: Database, inbox: Inbox
) -> None:
    """Receivers hit the keys that workers hold, in other orders: the mix that deadlocks."""
    rounds, receivers = 40, 2
    left = threading.Semaphore(0)

    def send(sender: int) -> None:
        for turn in range(rounds):
            numbers: Sequence[int] = range(8) if (turn + sender) % 2 else range(7, -1, -1)
            inbox.receive([lead(number) for number in numbers])
        left.release()

    def work(worker: int) -> int:
        settled = 0
        while True:
            finished = left.acquire(blocking=False)
            if finished:
                left.release()
            taken = inbox.claim(LIVE, 5, f"run-{worker}", LEASE)
            if taken is None:
                if finished and all(not sender.running() for sender in senders):
                    return settled
                continue
            inbox.renew(taken.batch_id, LEASE)
            if worker == 0 and taken.batch_id % 5 == 0:
                inbox.release_run("run-0")
                continue
            inbox.settle(taken.batch_id, {key: DONE for key in reversed(taken.keys)}, 8)
            settled += sum(len(found) for found in taken.events.values())

    with ThreadPoolExecutor(receivers + 2) as pool:
        senders = [pool.submit(send, sender) for sender in range(receivers)]
        workers = [pool.submit(work, worker) for worker in range(2)]
        assert [sender.result(60) for sender in senders] == [None, None]
        settled = sum(worker.result(60) for worker in workers)
    assert settled == rounds * receivers * 8
    assert set(states(database)) == {"done"}
    assert rows(database, due) == []


# ---------------------------------------------------------------------- lease


def test_renewing_holds_the_keys_for_longer(inbox: Inbox, clock: HandClock) -> None:
    inbox.receive([lead(1)])
    taken = claim(inbox)
    clock.advance(50)
    inbox.renew(taken.batch_id, LEASE)
    clock.advance(50)
    inbox.settle(taken.batch_id, {"lead:1": DONE}, 8)


def test_renewing_a_lost_lease_is_refused(inbox: Inbox, clock: HandClock) -> None:
    inbox.receive([lead(1)])
    taken = claim(inbox)
    clock.advance(LEASE)
    with pytest.raises(LeaseLost):
        inbox.renew(taken.batch_id, LEASE)


def test_renewing_does_not_revive_a_key_whose_lease_has_run_out(
    database: Database, inbox: Inbox, clock: HandClock
) -> None:
    inbox.receive([lead(1), lead(2)])
    taken = claim(inbox)
    with database.write() as connection:
        connection.execute(
            sa.update(due)
            .where(due.c.key == "lead:1")
            .values(lease_until=clock.now().timestamp() - 1)
        )
    inbox.renew(taken.batch_id, LEASE)
    assert claim(inbox, run="other").keys == ["lead:1"]


# ---------------------------------------------------------------------- settle


def test_settled_keys_are_due_no_more_and_the_last_one_closes_the_batch(
    database: Database, inbox: Inbox, clock: HandClock
) -> None:
    inbox.receive([lead(1), lead(2)])
    taken = claim(inbox)
    clock.advance(1)
    inbox.settle(taken.batch_id, {"lead:1": DONE}, 8)
    assert [row["key"] for row in rows(database, due)] == ["lead:2"]
    assert rows(database, batches)[0]["settled_at"] is None
    clock.advance(1)
    settled_at = inbox.settle(taken.batch_id, {"lead:2": Outcome("done", "unchanged")}, 8)
    assert settled_at == clock.now().timestamp()
    assert rows(database, due) == []
    assert rows(database, batches)[0]["settled_at"] == settled_at
    found = {row["key"]: (row["outcome"], row["settled_at"]) for row in rows(database, events)}
    assert found == {
        "lead:1": ("updated", settled_at - 1),
        "lead:2": ("unchanged", settled_at),
    }


def test_events_that_came_after_the_claim_stay_pending_and_due(
    database: Database, inbox: Inbox
) -> None:
    inbox.receive([lead(1)])
    taken = claim(inbox)
    inbox.receive([lead(1)])
    inbox.settle(taken.batch_id, {"lead:1": DONE}, 8)
    assert states(database) == ["done", "pending"]
    again = claim(inbox)
    assert [event.id for event in again.events["lead:1"]] == [2]


def test_newer_events_make_a_failed_key_due_at_once(inbox: Inbox) -> None:
    inbox.receive([lead(1)])
    taken = claim(inbox)
    inbox.receive([lead(1)])
    inbox.settle(taken.batch_id, {"lead:1": Outcome("retry", due_in_seconds=600)}, 8)
    assert [event.attempts for event in claim(inbox).events["lead:1"]] == [1, 0]


def test_a_stolen_token_settles_nothing(database: Database, inbox: Inbox, clock: HandClock) -> None:
    inbox.receive([lead(1), lead(2)])
    dead = claim(inbox)
    clock.advance(LEASE)
    heir = claim(inbox, limit=1)
    before = rows(database, events), rows(database, due)
    with pytest.raises(LeaseLost):
        inbox.settle(dead.batch_id, dict.fromkeys(dead.keys, DONE), 8)
    assert (rows(database, events), rows(database, due)) == before
    inbox.settle(heir.batch_id, dict.fromkeys(heir.keys, DONE), 8)


def test_an_expired_token_settles_nothing(
    database: Database, inbox: Inbox, clock: HandClock
) -> None:
    inbox.receive([lead(1)])
    taken = claim(inbox)
    clock.advance(LEASE)
    with pytest.raises(LeaseLost):
        inbox.settle(taken.batch_id, {"lead:1": DONE}, 8)
    assert states(database) == ["claimed"]


def test_a_key_that_was_never_claimed_cannot_be_settled(inbox: Inbox) -> None:
    inbox.receive([lead(1)])
    taken = claim(inbox)
    with pytest.raises(LeaseLost):
        inbox.settle(taken.batch_id, {"lead:1": DONE, "lead:9": DONE}, 8)


def test_an_event_is_dead_after_its_last_attempt(
    database: Database, inbox: Inbox, clock: HandClock
) -> None:
    inbox.receive([lead(1)])
    for attempt in (1, 2):
        taken = claim(inbox)
        inbox.settle(taken.batch_id, {"lead:1": Outcome("retry", error="no such stage")}, 3)
        (event,) = rows(database, events)
        assert (event["state"], event["attempts"]) == ("pending", attempt)
        assert event["settled_at"] is None
    taken = claim(inbox)
    inbox.settle(taken.batch_id, {"lead:1": Outcome("retry", error="x" * 9_000)}, 3)
    (event,) = rows(database, events)
    assert (event["state"], event["attempts"]) == ("dead", 3)
    assert event["settled_at"] == clock.now().timestamp()
    assert event["error"] == "x" * 2_000
    assert rows(database, due) == []


def test_a_permanent_failure_is_dead_at_once(database: Database, inbox: Inbox) -> None:
    inbox.receive([lead(1)])
    taken = claim(inbox)
    inbox.settle(taken.batch_id, {"lead:1": Outcome("dead", error="no such stage")}, 8)
    (event,) = rows(database, events)
    assert (event["state"], event["error"]) == ("dead", "no such stage")
    assert rows(database, due) == []


def test_a_release_is_nobodys_fault_and_counts_no_attempt(
    database: Database, inbox: Inbox, clock: HandClock
) -> None:
    inbox.receive([lead(1)])
    taken = claim(inbox)
    inbox.settle(taken.batch_id, {"lead:1": Outcome("released", due_in_seconds=4)}, 1)
    (event,) = rows(database, events)
    assert (event["state"], event["attempts"]) == ("pending", 0)
    assert inbox.claim(LIVE, 1, "run", LEASE) is None
    clock.advance(4)
    assert claim(inbox).keys == ["lead:1"]


def test_each_key_of_a_batch_ends_in_its_own_way(
    database: Database, inbox: Inbox, clock: HandClock
) -> None:
    inbox.receive([lead(number) for number in range(1, 7)])
    taken = claim(inbox)
    outcomes = {
        "lead:1": Outcome("done", "created"),
        "lead:2": Outcome("done", "updated"),
        "lead:3": Outcome("dead", error="three"),
        "lead:4": Outcome("retry", error="four", due_in_seconds=7),
        "lead:5": Outcome("retry", error="four", due_in_seconds=9),
        "lead:6": Outcome("released"),
    }
    inbox.settle(taken.batch_id, outcomes, 8)
    found = {
        row["key"]: (row["state"], row["outcome"], row["error"]) for row in rows(database, events)
    }
    assert found == {
        "lead:1": ("done", "created", None),
        "lead:2": ("done", "updated", None),
        "lead:3": ("dead", None, "three"),
        "lead:4": ("pending", None, "four"),
        "lead:5": ("pending", None, "four"),
        "lead:6": ("pending", None, None),
    }
    now = clock.now().timestamp()
    waits = {row["key"]: row["due_at"] - now for row in rows(database, due)}
    assert waits == {"lead:4": 7, "lead:5": 9, "lead:6": 0}
    assert rows(database, batches)[0]["settled_at"] == now


def test_a_later_success_makes_dead_events_of_the_key_good(
    database: Database, inbox: Inbox
) -> None:
    inbox.receive([lead(1), lead(2)])
    taken = claim(inbox)
    inbox.settle(taken.batch_id, dict.fromkeys(taken.keys, Outcome("dead", error="why")), 8)
    inbox.receive([lead(1)])
    taken = claim(inbox)
    inbox.settle(taken.batch_id, {"lead:1": DONE}, 8)
    found = [(row["state"], row["outcome"]) for row in rows(database, events)]
    assert found == [("done", "superseded"), ("dead", None), ("done", "updated")]


# ---------------------------------------------------------------------- release and reclaim


def test_releasing_a_run_frees_its_keys_and_events(
    database: Database, inbox: Inbox, clock: HandClock
) -> None:
    inbox.receive([lead(1), lead(2), lead(3)])
    killed = claim(inbox, limit=2, run="killed")
    other = claim(inbox, run="other")
    clock.advance(1)
    assert inbox.release_run("killed") == 2
    assert states(database).count("pending") == 2
    assert rows(database, batches, batches.c.id == killed.batch_id)[0]["settled_at"] is not None
    assert sorted(claim(inbox).keys) == sorted(killed.keys)
    inbox.settle(other.batch_id, dict.fromkeys(other.keys, DONE), 8)
    assert inbox.release_run("killed") == 0


def test_releasing_a_run_leaves_what_an_heir_has_taken_over(inbox: Inbox, clock: HandClock) -> None:
    inbox.receive([lead(1)])
    claim(inbox, run="dead")
    clock.advance(LEASE)
    heir = claim(inbox, run="heir")
    assert inbox.release_run("dead") == 0
    inbox.settle(heir.batch_id, {"lead:1": DONE}, 8)


def test_reclaiming_takes_only_what_is_still_unsettled_and_free(
    inbox: Inbox, clock: HandClock
) -> None:
    inbox.receive([lead(number) for number in (1, 2, 3)])
    lost = claim(inbox, run="first")
    inbox.settle(lost.batch_id, {"lead:1": DONE}, 8)
    assert inbox.reclaim(lost.batch_id, "second", LEASE) is None
    clock.advance(LEASE)
    stolen = claim(inbox, limit=1, run="thief")
    again = inbox.reclaim(lost.batch_id, "second", LEASE)
    assert again is not None
    assert sorted([*again.keys, *stolen.keys]) == ["lead:2", "lead:3"]
    assert again.lane == LIVE
    assert again.batch_id > stolen.batch_id
    with pytest.raises(LeaseLost):
        inbox.settle(lost.batch_id, dict.fromkeys(again.keys, DONE), 8)
    inbox.settle(again.batch_id, dict.fromkeys(again.keys, DONE), 8)


def test_reclaiming_after_a_release_takes_the_same_keys(inbox: Inbox) -> None:
    inbox.receive([lead(1), lead(2)])
    lost = claim(inbox, run="first")
    inbox.release_run("first")
    again = inbox.reclaim(lost.batch_id, "second", LEASE)
    assert again is not None
    assert sorted(again.keys) == sorted(lost.keys)
    assert [len(found) for found in again.events.values()] == [1, 1]


def test_reclaiming_an_unknown_batch_finds_nothing(inbox: Inbox) -> None:
    assert inbox.reclaim(99, "run", LEASE) is None


# ---------------------------------------------------------------------- ids


def test_batch_and_event_ids_never_come_back(database: Database, inbox: Inbox) -> None:
    inbox.receive([lead(1)])
    first = claim(inbox)
    inbox.settle(first.batch_id, {"lead:1": DONE}, 8)
    with database.write() as connection:
        connection.execute(sa.delete(batches))
        connection.execute(sa.delete(events))
    inbox.receive([lead(1)])
    second = claim(inbox)
    assert second.batch_id > first.batch_id
    assert second.events["lead:1"][0].id > first.events["lead:1"][0].id
