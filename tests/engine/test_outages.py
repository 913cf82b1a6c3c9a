"""When a side is down it is paused, nobody is blamed, nothing is lost and nothing doubled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kommo_airtable_sync.core.types import LIVE, lead_key
from kommo_airtable_sync.engine.claim import claim_batch
from kommo_airtable_sync.engine.context import CALL_SECONDS_MAX, RECORDS_PER_WRITE
from kommo_airtable_sync.engine.follow import work_batch
from tests.simulated import World

NewWorld = Callable[..., World]
sqlite_only = pytest.mark.parametrize("sql_engine", ["sqlite"])

LEADS = {"route": "/api/v4/leads", "method": "GET"}
WRITES = {"route": "/v0/app*", "method": "PATCH"}
OUTAGES: list[tuple[str, str, dict[str, Any]]] = [
    ("kommo", "server_error", {"kind": "status", "status": 500, **LEADS}),
    ("kommo", "server_error", {"kind": "status", "status": 503, "variant": "html", **LEADS}),
    ("kommo", "rate_limited", {"kind": "status", "status": 429, **LEADS}),
    ("kommo", "unauthorized", {"kind": "status", "status": 401, **LEADS}),
    ("kommo", "blocked", {"kind": "status", "status": 403, "variant": "html", **LEADS}),
    ("kommo", "unreachable", {"kind": "drop_before", **LEADS}),
    ("kommo", "unreachable", {"kind": "drop_after", **LEADS}),
    ("kommo", "timeout", {"kind": "delay", "seconds": 60, **LEADS}),
    ("kommo", "configuration", {"kind": "status", "status": 422, **LEADS}),
    ("airtable", "server_error", {"kind": "status", "status": 500, **WRITES}),
    ("airtable", "server_error", {"kind": "status", "status": 502, "applied": True, **WRITES}),
    ("airtable", "server_error", {"kind": "status", "status": 503, "variant": "html", **WRITES}),
    ("airtable", "rate_limited", {"kind": "status", "status": 429, **WRITES}),
    ("airtable", "quota", {"kind": "status", "status": 429, "variant": "quota", **WRITES}),
    ("airtable", "unauthorized", {"kind": "status", "status": 401, **WRITES}),
    ("airtable", "blocked", {"kind": "status", "status": 403, "variant": "html", **WRITES}),
    ("airtable", "configuration", {"kind": "status", "status": 403, **WRITES}),
    ("airtable", "unreachable", {"kind": "drop_before", **WRITES}),
    ("airtable", "unreachable", {"kind": "drop_after", **WRITES}),
    ("airtable", "timeout", {"kind": "delay", "seconds": 60, **WRITES}),
]


@sqlite_only
@pytest.mark.parametrize(("side", "reason", "fault"), OUTAGES)
def test_an_outage_pauses_the_side_and_costs_nothing(
    world: World, side: str, reason: str, fault: dict[str, Any]
):
    known = world.add_lead(name="Known", price=1)
    world.sync()
    world.clock.advance(2)
    new = world.add_lead(name="New", price=1)
    world.edit_lead(known, price=2)
    world.fail(side, **fault)
    world.deliver_hooks()
    (report,) = world.work()
    assert report.outage is not None
    assert side in report.outage
    pause = world.engine.runners.pauses()[side]
    assert (pause.reason, pause.failures) == (reason, 1)
    assert pause.seconds_left > 0
    calls = world.calls("kommo") + world.calls("airtable")
    assert claim_batch(world.engine, "other") is None
    assert world.engine.inbox.due_lanes() == frozenset()
    assert world.calls("kommo") + world.calls("airtable") == calls
    # It lasts, and people go on working.
    world.edit_lead(known, price=3)
    world.deliver_hooks()
    world.work(patience=600)
    assert not world.events("dead")
    assert {event.attempts for event in world.events("pending")} == {0}
    world.mend()
    world.edit_lead(new, price=4)
    world.deliver_hooks()
    world.work(patience=20_000)
    assert world.engine.runners.pauses() == {}
    assert (world.record(known)["Amount"], world.record(new)["Amount"]) == (3, 4)
    world.assert_in_step([known, new])


def test_after_an_outage_the_newest_state_is_written_once(world: World):
    lead_ids = world.add_leads([{"name": f"Deal {n}"} for n in range(30)])
    world.engine.directory.mapping()
    world.airtable_wire.unreachable = True
    world.deliver_hooks()
    world.work(patience=100)
    world.mend()
    world.edit_leads(lead_ids, price=9)
    world.deliver_hooks()
    world.work(patience=100)
    world.assert_in_step(lead_ids)
    assert {value for _, name, value in world.cells_written() if name == "Amount"} == {9}


@sqlite_only
def test_pauses_grow_and_start_short_again_after_a_success(world: World):
    lead_id = world.add_lead(name="Deal")
    world.engine.directory.mapping()
    world.deliver_hooks()

    def pauses(count: int) -> list[int]:
        world.airtable_wire.unreachable = True
        lasted: list[int] = []
        for _ in range(count):
            world.work()
            lasted.append(round(world.engine.runners.pauses()["airtable"].seconds_left))
            world.clock.advance(lasted[-1] + 0.01)
        return lasted

    assert pauses(6) == [1, 2, 4, 8, 15, 15]
    world.mend()
    world.work()
    assert world.engine.runners.pauses() == {}
    world.edit_lead(lead_id, price=2)
    world.deliver_hooks()
    assert pauses(1) == [1]


@sqlite_only
def test_the_first_batch_after_a_pause_is_one_request(world: World):
    world.add_leads([{"name": f"Deal {n}"} for n in range(30)])
    world.engine.directory.mapping()
    world.deliver_hooks()
    world.kommo_wire.unreachable = True
    world.work()
    world.mend()
    world.clock.advance(1.1)
    probe = claim_batch(world.engine, "run")
    assert probe is not None
    assert len(probe.claim.keys) == RECORDS_PER_WRITE
    work_batch(world.engine, probe)
    following = claim_batch(world.engine, "run")
    assert following is not None
    assert len(following.claim.keys) == 20


@sqlite_only
def test_a_pause_is_lifted_by_any_answer_of_its_side(world: World):
    known = world.add_lead(name="Known")
    world.sync()
    world.clock.advance(2)
    world.edit_lead(known, price=2)
    world.fail("airtable", "drop_after", times=1, **WRITES)
    world.deliver_hooks()
    world.work()
    world.airtable.refused.add(("Amount", str(known)))  # it answers, if only to refuse
    world.work(patience=60)
    assert world.engine.runners.pauses() == {}
    world.kommo_wire.unreachable = True
    world.hint(404)
    world.work()
    world.mend()
    world.clock.advance(1.1)
    batch = claim_batch(world.engine, "run")
    assert batch is not None
    work_batch(world.engine, batch)  # 204: nothing found, which is an answer, too
    assert world.engine.runners.pauses() == {}


@sqlite_only
def test_a_429_of_foreign_making_is_answered_by_silence(world: World):
    lead_id = world.add_lead(name="Deal")
    world.engine.directory.mapping()
    world.deliver_hooks()
    world.clock.advance(5)
    for _ in range(6):  # somebody else's integration takes the base beyond its limit
        world.airtable.handle("GET", "/v0/appSandbox0000000/Deals", "", {}, b"")
    assert world.throttled() == 1
    started_at = world.clock.now()
    world.work(patience=100)
    assert world.throttled() == 2  # ours was the next call; it was the last before the lock ended
    assert (world.clock.now() - started_at).total_seconds() >= 29
    world.assert_in_step([lead_id])


@sqlite_only
def test_after_the_wait_for_a_429_nothing_is_sent_as_it_was_read_before(world: World):
    leads = world.add_leads([{"name": f"Deal {n}"} for n in range(RECORDS_PER_WRITE + 5)])
    world.deliver_hooks()
    world.fail("airtable", "status", status=429, times=1, **WRITES)
    batch = claim_batch(world.engine, "run")
    assert batch is not None
    report = work_batch(world.engine, batch)
    assert "429" in str(report.outage) or "rate" in str(report.outage)
    # The second request would have gone off with what was read 30 s ago.
    assert world.calls("airtable", method="PATCH") == 1
    world.work(patience=120)
    world.assert_in_step(leads)


def test_a_create_whose_answer_was_lost_is_looked_for_before_it_is_repeated(world: World):
    lead_id = world.add_lead(name="Deal", price=1)
    world.engine.directory.mapping()
    world.fail("airtable", "drop_after", times=1, **WRITES)
    world.deliver_hooks()
    sent_at = world.clock.now()
    world.work()
    assert {row.operation for row in world.journal_rows("open")} == {"create"}
    calls = world.calls("airtable")
    world.work(patience=CALL_SECONDS_MAX - 1)
    assert world.calls("airtable") == calls  # nobody asks before the sender has surely given up
    world.edit_lead(lead_id, price=2, name="Renamed")
    world.deliver_hooks()
    world.work(patience=60)
    assert (world.clock.now() - sent_at).total_seconds() >= CALL_SECONDS_MAX
    assert world.calls("airtable", method="GET", route="/v0/{base}") == 1
    assert len(world.records()) == 1
    assert {row.state for row in world.journal_rows() if row.operation == "create"} == {
        "superseded"
    }
    updates = [row for row in world.journal_rows("done") if row.operation == "update"]
    assert {(row.field_name, row.before, row.after) for row in updates} == {
        ("Amount", '{"number":"1"}', '{"number":"2"}'),
        ("Deal Name", '"Deal"', '"Renamed"'),
    }
    world.assert_in_step([lead_id])


@sqlite_only
def test_a_create_that_lands_after_its_time_out_makes_no_duplicate(world: World):
    lead_id = world.add_lead(name="Deal")
    world.engine.directory.mapping()
    world.airtable.settings.serialised_upserts = False  # matched when it arrived: it will create
    world.fail("airtable", "delay", seconds=17, times=1, **WRITES)
    world.deliver_hooks()
    world.work(patience=60)
    assert len(world.records()) == 1
    world.assert_in_step([lead_id])


@sqlite_only
def test_a_person_may_have_copied_the_record_of_a_lost_create(world: World):
    lead_id = world.add_lead(name="Deal")
    world.engine.directory.mapping()
    world.fail("airtable", "drop_after", times=1, **WRITES)
    world.deliver_hooks()
    world.work()
    world.add_record(Kommo_Deal_ID=lead_id, Deal_Name="Copy")
    world.work(patience=60)
    (reason,) = world.errors()
    assert reason.startswith(f"Airtable has more than one record with the key {lead_id};")
    assert len(world.records()) == 2


@sqlite_only
def test_a_lost_create_that_needs_no_more_is_known_from_then_on(world: World):
    lead_id = world.add_lead(name="Deal", price=5, _embedded={"tags": [{"name": "hot"}]})
    world.engine.directory.mapping()
    world.fail("airtable", "drop_after", times=1, **WRITES)
    world.deliver_hooks()
    world.work(patience=60)
    world.assert_in_step([lead_id])  # record id and every agreed value, though nothing was written
    writes = world.calls("airtable", method="PATCH")
    world.hint(lead_id)
    world.work()
    assert world.calls("airtable", method="PATCH") == writes
    world.edit_lead(lead_id, _embedded={"tags": None})
    world.sync()
    assert "Tags" not in world.record(lead_id)


@sqlite_only
def test_a_lost_create_in_a_batch_with_a_failing_neighbour_is_known_too(world: World):
    first = world.add_lead(name="First")
    world.engine.directory.mapping()
    world.fail("airtable", "drop_after", times=1, **WRITES)
    world.deliver_hooks()
    world.work()
    world.clock.advance(CALL_SECONDS_MAX)
    second = world.add_lead(name="Second")
    world.deliver_hooks()
    world.fail("airtable", "drop_before", times=1, **WRITES)
    batch = claim_batch(world.engine, "run")
    assert batch is not None
    assert len(batch.claim.keys) == 2
    report = work_batch(world.engine, batch)
    assert report.outage is not None
    assert world.ledger(first) is not None
    assert {row.key for row in world.journal_rows("open")} == {lead_key(second)}
    world.work(patience=100)
    world.assert_in_step([first, second])


@sqlite_only
@pytest.mark.parametrize("applied", [True, False])
def test_a_change_taken_back_after_a_lost_answer_is_written_again(world: World, applied: bool):
    lead_id = world.add_lead(name="Deal", price=1)
    world.sync()
    world.clock.advance(2)
    world.edit_lead(lead_id, price=2)
    world.fail("airtable", "drop_after" if applied else "drop_before", times=1, **WRITES)
    world.deliver_hooks()
    world.work()
    assert world.record(lead_id)["Amount"] == (2 if applied else 1)
    world.edit_lead(lead_id, price=1)
    world.deliver_hooks()
    world.work(patience=60)
    world.assert_in_step([lead_id])
    assert world.record(lead_id)["Amount"] == 1


@sqlite_only
def test_a_request_that_surely_never_left_leaves_no_doubt(world: World):
    lead_id = world.add_lead(name="Deal")
    world.engine.directory.mapping()
    world.airtable_wire.unreachable = True
    world.deliver_hooks()
    world.work()
    assert not world.journal_rows("open")
    world.mend()
    started_at = world.clock.now()
    world.work(patience=60)
    assert (world.clock.now() - started_at).total_seconds() < 5  # no sender to wait for
    world.assert_in_step([lead_id])


@sqlite_only
def test_kommo_down_while_a_schema_is_read_is_an_outage_as_any_other(world: World):
    lead_id = world.add_lead(name="Deal")
    world.fail("kommo", "status", status=503, route="/api/v4/account", times=2)
    world.deliver_hooks()
    world.work(patience=60)
    world.assert_in_step([lead_id])


@sqlite_only
def test_a_field_that_sync_yaml_names_is_learnt_when_somebody_adds_it(new_world: NewWorld):
    name = {"airtable": "Deal Name", "kommo": "name"}
    world = new_world(fields=[name])
    lead_id = world.add_lead(name="Deal", price=3)
    world.sync()
    world.restart(fields=[name, {"airtable": "Worth", "kommo": "price"}])
    world.hint(lead_id)
    world.work()
    assert world.engine.runners.pauses()["airtable"].reason == "configuration"
    world.alter_field("Amount", name="Worth")
    world.work(patience=600)
    assert world.record(lead_id)["Worth"] == 3


def test_no_claim_is_made_while_a_side_is_paused(world: World):
    world.engine.runners.pause("kommo", 10, 1, "timeout", "")
    world.hint(1)
    assert world.engine.inbox.due_lanes() == frozenset()
    assert claim_batch(world.engine, "run") is None
    world.clock.advance(10)
    assert world.engine.inbox.due_lanes() == {LIVE}
