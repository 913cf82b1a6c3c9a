"""Keys that a batch takes besides, hands over to another key, or leaves to a person."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from kommo_airtable_sync.core.errors import LeaseLost
from kommo_airtable_sync.core.types import BULK, LIVE, IncomingEvent, Priority
from kommo_airtable_sync.store.claiming import Claim
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.schema import batches, due, events
from kommo_airtable_sync.store.settling import Outcome
from tests.conftest import HandClock

LEASE = 60.0
DONE = Outcome("done", "updated")
HELD = Outcome("held", error="too many deletions")


@pytest.fixture
def inbox(database: Database) -> Inbox:
    return Inbox(database)


def receive(inbox: Inbox, *keys: str, priority: Priority = LIVE) -> None:
    inbox.receive([IncomingEvent(key, "kommo", "update", priority=priority) for key in keys])


def claim(inbox: Inbox, lane: Priority = LIVE, run: str = "run") -> Claim:
    claimed = inbox.claim(lane, 50, run, LEASE)
    assert claimed is not None
    return claimed


def settle(inbox: Inbox, claimed: Claim, outcome: Outcome = DONE) -> None:
    inbox.settle(claimed.batch_id, dict.fromkeys(claimed.keys, outcome), 8)


def shown(database: Database) -> list[tuple[str, str, str | None]]:
    """(key, state, outcome) of each event."""
    with database.read() as connection:
        found = connection.execute(sa.select(events).order_by(events.c.id))
        return [(row.key, row.state, row.outcome) for row in found]


def due_keys(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(sa.select(due.c.key).order_by(due.c.key)).scalars())


def open_batches(database: Database) -> list[int]:
    with database.read() as connection:
        statement = sa.select(batches.c.id).where(batches.c.settled_at.is_(None))
        return list(connection.execute(statement).scalars())


# ---------------------------------------------------------------------- extend


def test_a_batch_takes_further_keys_with_their_events(inbox: Inbox, database: Database) -> None:
    receive(inbox, "lead:1")
    taken = claim(inbox)
    receive(inbox, "contact:7", "contact:7")
    found = inbox.extend(taken.batch_id, ["contact:7", "company:9"], LEASE)
    assert {key: [event.id for event in of_key] for key, of_key in found.items()} == {
        "company:9": [],
        "contact:7": [2, 3],
    }
    assert inbox.claim(LIVE, 50, "other", LEASE) is None
    inbox.settle(taken.batch_id, dict.fromkeys([*taken.keys, *found], DONE), 8)
    assert [state for _, state, _ in shown(database)] == ["done"] * 3
    assert due_keys(database) == open_batches(database) == []


def test_a_key_that_another_batch_holds_is_not_taken(inbox: Inbox, clock: HandClock) -> None:
    receive(inbox, "lead:1")
    first = claim(inbox)
    receive(inbox, "lead:2")
    second = claim(inbox, run="other")
    assert list(inbox.extend(first.batch_id, ["contact:7"], LEASE)) == ["contact:7"]
    assert inbox.extend(second.batch_id, ["contact:7", "lead:1"], LEASE) == {}
    # Its own keys it has, again and with what came since.
    assert list(inbox.extend(first.batch_id, ["contact:7"], LEASE)) == ["contact:7"]
    clock.advance(LEASE)
    assert list(inbox.extend(second.batch_id, ["contact:7"], LEASE)) == ["contact:7"]
    with pytest.raises(LeaseLost):
        inbox.settle(first.batch_id, {"contact:7": DONE}, 8)


def test_extending_holds_the_key_for_as_long_as_a_claim(inbox: Inbox, clock: HandClock) -> None:
    receive(inbox, "lead:1")
    taken = claim(inbox)
    inbox.extend(taken.batch_id, ["contact:7"], LEASE)
    clock.advance(LEASE - 1)
    inbox.renew(taken.batch_id, LEASE)
    clock.advance(LEASE - 1)
    inbox.settle(taken.batch_id, {"contact:7": DONE, "lead:1": DONE}, 8)


def test_a_batch_that_is_over_takes_no_more(inbox: Inbox, database: Database) -> None:
    receive(inbox, "lead:1")
    taken = claim(inbox)
    inbox.release_run("run")
    with pytest.raises(LeaseLost):
        inbox.extend(taken.batch_id, ["contact:7"], LEASE)
    assert due_keys(database) == ["lead:1"]
    assert inbox.extend(taken.batch_id, [], LEASE) == {}


def test_a_released_run_leaves_no_key_behind_that_was_only_taken_besides(
    inbox: Inbox, database: Database
) -> None:
    receive(inbox, "lead:1")
    taken = claim(inbox)
    receive(inbox, "contact:8")
    inbox.extend(taken.batch_id, ["contact:7", "contact:8"], LEASE)
    assert inbox.release_run("run") == 3
    assert due_keys(database) == ["contact:8", "lead:1"]


def test_a_key_taken_besides_keeps_its_lane_and_its_newer_events(inbox: Inbox) -> None:
    receive(inbox, "lead:1", priority=BULK)
    taken = claim(inbox, BULK)
    inbox.extend(taken.batch_id, ["contact:7"], LEASE)
    assert inbox.contended(taken.batch_id) == frozenset()
    receive(inbox, "contact:7")
    assert inbox.contended(taken.batch_id) == {"contact:7"}
    inbox.settle(taken.batch_id, {"contact:7": DONE, "lead:1": DONE}, 8)
    assert claim(inbox).keys == ["contact:7"]


# ---------------------------------------------------------------------- rekey


def test_events_are_handed_over_to_the_lead_that_they_are_about(
    inbox: Inbox, database: Database
) -> None:
    receive(inbox, "record:recA", "record:recB")
    taken = claim(inbox)
    receive(inbox, "record:recA")
    inbox.rekey(taken.batch_id, {"record:recA": "lead:5"})
    assert due_keys(database) == ["lead:5", "record:recB"]
    with pytest.raises(LeaseLost):
        inbox.settle(taken.batch_id, {"record:recA": DONE}, 8)
    again = claim(inbox, run="next")
    assert [event.id for event in again.events["lead:5"]] == [1, 3]
    inbox.settle(taken.batch_id, {"record:recB": DONE}, 8)
    assert open_batches(database) == [again.batch_id]


def test_a_batch_that_has_handed_over_all_its_keys_is_over(
    inbox: Inbox, database: Database
) -> None:
    receive(inbox, "record:recA")
    taken = claim(inbox)
    inbox.rekey(taken.batch_id, {"record:recA": "lead:5"})
    assert open_batches(database) == []
    inbox.rekey(taken.batch_id, {})


def test_events_handed_over_to_a_lead_that_is_worked_on_wait_for_its_turn(
    inbox: Inbox, database: Database
) -> None:
    receive(inbox, "lead:5")
    busy = claim(inbox)
    receive(inbox, "record:recA", priority=BULK)
    taken = claim(inbox, BULK)
    inbox.rekey(taken.batch_id, {"record:recA": "lead:5"})
    assert inbox.claim(LIVE, 1, "other", LEASE) is None
    settle(inbox, busy)
    assert due_keys(database) == ["lead:5"]
    assert [event.id for event in claim(inbox).events["lead:5"]] == [2]


def test_a_lost_lease_hands_nothing_over(
    inbox: Inbox, database: Database, clock: HandClock
) -> None:
    receive(inbox, "record:recA")
    taken = claim(inbox)
    clock.advance(LEASE)
    heir = claim(inbox, run="heir")
    with pytest.raises(LeaseLost):
        inbox.rekey(taken.batch_id, {"record:recA": "lead:5"})
    assert due_keys(database) == ["record:recA"]
    settle(inbox, heir)


def test_receiving_extending_and_rekeying_at_once_lose_and_block_nothing(
    inbox: Inbox, database: Database
) -> None:
    """All keys are shared, and each transaction wants them in another order."""
    rounds, workers = 30, 3
    sent = threading.Event()
    plain = [f"lead:{n}" for n in range(5)] + [f"contact:{n}" for n in range(3)]
    records = [f"record:rec{n}" for n in range(3)]

    def send(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(rounds):
            receive(inbox, *dice.sample([*plain, *records], 8))

    def work(worker: int) -> None:
        dice = random.Random(worker)
        while True:
            last = sent.is_set()
            taken = inbox.claim(LIVE, 4, f"run-{worker}", LEASE)
            if taken is None:
                if last:
                    return
                continue
            keys = {key for key in taken.keys if not key.startswith("record:")}
            keys |= set(inbox.extend(taken.batch_id, dice.sample(plain, 4), LEASE))
            inbox.rekey(
                taken.batch_id,
                {key: dice.choice(plain) for key in taken.keys if key.startswith("record:")},
            )
            if keys:
                inbox.settle(taken.batch_id, dict.fromkeys(sorted(keys, reverse=True), DONE), 8)

    with ThreadPoolExecutor(workers + 2) as pool:
        crew = [pool.submit(work, worker) for worker in range(workers)]
        for sender in [pool.submit(send, seed) for seed in range(2)]:
            sender.result(60)
        sent.set()
        for worker in crew:
            worker.result(60)
    # What a worker handed over at last, another may have overlooked.
    while (rest := inbox.claim(LIVE, 50, "last", LEASE)) is not None:
        settle(inbox, rest)
    assert {(state, outcome) for _, state, outcome in shown(database)} == {("done", "updated")}
    assert len(shown(database)) == rounds * 2 * 8
    assert due_keys(database) == open_batches(database) == []


# ---------------------------------------------------------------------- held


def test_a_held_key_is_due_no_more_and_closes_its_batch(inbox: Inbox, database: Database) -> None:
    receive(inbox, "lead:1")
    settle(inbox, claim(inbox), HELD)
    assert shown(database) == [("lead:1", "held", None)]
    assert due_keys(database) == open_batches(database) == []


def test_a_held_key_with_newer_events_stays_due_and_leaves_the_held_ones(
    inbox: Inbox, database: Database
) -> None:
    receive(inbox, "lead:1")
    taken = claim(inbox)
    receive(inbox, "lead:1")
    settle(inbox, taken, HELD)
    again = claim(inbox)
    assert [event.id for event in again.events["lead:1"]] == [2]
    settle(inbox, again, HELD)
    assert [state for _, state, _ in shown(database)] == ["held", "held"]


def test_a_later_success_supersedes_what_was_held(inbox: Inbox, database: Database) -> None:
    receive(inbox, "lead:1")
    settle(inbox, claim(inbox), HELD)
    receive(inbox, "lead:1")
    settle(inbox, claim(inbox))
    assert [found[1:] for found in shown(database)] == [("done", "superseded"), ("done", "updated")]


@pytest.mark.parametrize("failed", [HELD, Outcome("dead", error="no such stage")])
def test_a_stale_event_makes_nothing_good(
    inbox: Inbox, database: Database, failed: Outcome
) -> None:
    """It was settled without a look at the lead."""
    receive(inbox, "lead:1")
    settle(inbox, claim(inbox), failed)
    receive(inbox, "lead:1")
    settle(inbox, claim(inbox), Outcome("done", "stale"))
    assert [state for _, state, _ in shown(database)] == [failed.state, "done"]


def test_what_a_person_decided_is_not_superseded(inbox: Inbox, database: Database) -> None:
    decided = {"field": "fldA", "use": "kommo"}
    inbox.receive([IncomingEvent("lead:1", "resolve", "resolve", directive=decided)])
    settle(inbox, claim(inbox), HELD)
    receive(inbox, "lead:1")
    settle(inbox, claim(inbox))
    assert [state for _, state, _ in shown(database)] == ["held", "done"]


# ---------------------------------------------------------------------- directives


def test_what_came_of_a_directive_is_kept_on_its_event(inbox: Inbox, database: Database) -> None:
    receive(inbox, "lead:1", "lead:1", "lead:2")
    taken = claim(inbox)
    outcomes = {"lead:1": DONE, "lead:2": Outcome("retry")}
    texts = {1: "refused: changed since", 3: "applied", 99: "applied"}
    inbox.settle(taken.batch_id, outcomes, 8, texts)
    assert shown(database) == [
        ("lead:1", "done", "refused: changed since"),
        ("lead:1", "done", "updated"),
        # It will be tried again: nothing has come of it yet.
        ("lead:2", "pending", None),
    ]
