"""Copies of records: what each holds of its own, and how those that hold nothing are removed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kommo_airtable_sync.core.copies import Group
from kommo_airtable_sync.core.types import BULK, IncomingEvent
from kommo_airtable_sync.engine.claim import claim_batch
from kommo_airtable_sync.engine.context import LEASE_SECONDS
from kommo_airtable_sync.engine.copies import REFUSED, ask_to_remove, find_copies
from kommo_airtable_sync.engine.merge import merge_batch
from kommo_airtable_sync.engine.read import read_batch
from kommo_airtable_sync.engine.settle import settle_batch
from kommo_airtable_sync.engine.write_airtable import write_airtable
from tests.simulated import EXAMPLE, World
from tests.trap import Crash, Trap
from tests.two_way import settle

ON_SQLITE = pytest.mark.parametrize("sql_engine", ["sqlite"])


def copy_of(world: World, record: dict[str, Any], table: str = "Deals", **changes: Any) -> str:
    """Somebody duplicates a record, and perhaps edits the copy; its id."""
    world.clock.advance(1)
    fields = {name: cell for name, cell in record["fields"].items() if name != "Last Modified"}
    body = {"fields": {**fields, **changes}}
    return world._in_airtable("POST", "records", body, table=table)["id"]


def found(world: World) -> list[Group]:
    return find_copies(world.new_engine(BULK), lambda _what, _done: None)


def remove(world: World) -> None:
    """A person has removed what may be removed of all that is there now."""
    ask_to_remove(world.engine, found(world), "somebody")
    world.work(world.new_engine(BULK), patience=60)


def repairs(world: World) -> list[str | None]:
    return [event.outcome for event in world.events() if event.source == "repair"]


def ids(world: World) -> set[str]:
    return {record["id"] for record in world.records()}


def synced(world: World, **attributes: Any) -> tuple[int, dict[str, Any]]:
    """A lead and its record."""
    lead = world.add_lead(name="Deal", price=5, **attributes)
    world.sync()
    return lead, world.by_lead()[lead]


def test_copies_with_nothing_of_their_own_are_removed_and_the_others_left(world: World):
    lead, record = synced(world)
    same = copy_of(world, record)
    unmapped = copy_of(world, record, **{"Onboarding Status": "Done"})
    edited = copy_of(world, record, Amount=6, Notes="mine", **{"Sync Status": "anything"})
    blank = copy_of(world, record, Amount=None)
    (group,) = found(world)
    assert (group.key, group.kept) == (f"lead:{lead}", record["id"])
    assert {each.record_id: each.own for each in group.copies} == {
        same: (),
        unmapped: ("Onboarding Status",),
        edited: ("Amount", "Notes", "Sync Status"),  # of no status field here: content
        blank: (),
    }
    remove(world)
    assert ids(world) == {record["id"], unmapped, edited}
    assert repairs(world) == ["deleted", "deleted"]
    deleted = [row for row in world.journal_rows("done") if row.operation == "delete"]
    assert {(row.key, row.record_id) for row in deleted} == {
        (f"record:{r}", r) for r in (same, blank)
    }
    before = json.loads(json.loads(deleted[0].before))
    name = world.engine.directory.mapping().table.find_field("Deal Name")
    assert name is not None
    assert before[name.id] == "Deal"
    assert not world.journal_rows("open")
    assert world.journal.changed_since(0).deletes == 2
    world.edit_lead(lead, price=7)
    world.sync()
    shown = {record["id"]: record["fields"].get("Amount") for record in world.records()}
    assert shown == {record["id"]: 7, unmapped: 5, edited: 6}


@ON_SQLITE
def test_the_record_created_first_is_kept_where_the_ledger_has_none_and_the_lead_tried_again(
    world: World,
):
    lead = world.add_lead(name="Deal", price=5)
    first = world.add_record(Kommo_Deal_ID=lead, Deal_Name="Deal")
    world.clock.advance(1)
    world.add_record(Kommo_Deal_ID=lead, Deal_Name="Deal")
    world.sync()
    assert len(world.errors()) == 1
    assert found(world)[0].kept == first
    remove(world)
    world.work(patience=60)
    assert not world.errors()
    world.assert_in_step([lead])
    assert world.ledger(lead).record_id == first


@ON_SQLITE
def test_the_brake_passes_what_a_person_asked_for_and_counts_it(
    new_world: Callable[..., World],
):
    world = new_world(safety={"max_deletes": 2}, kommo={"when_deleted": "delete"})
    lead, record = synced(world)
    for _ in range(12):  # two requests
        copy_of(world, record)
    remove(world)
    assert ids(world) == {record["id"]}
    world.delete_lead(lead)
    world.sync()
    assert [event.outcome for event in world.events("held")] == ["braked"]


@ON_SQLITE
@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda world, kept, copy: world.edit_record(copy, Notes="mine"),
        lambda world, kept, copy: world.edit_record(copy, Notes=None),
        lambda world, kept, copy: world.edit_record(copy, Kommo_Deal_ID=None),
        lambda world, kept, copy: world.edit_record(kept, Notes=None),
        lambda world, kept, copy: world.edit_record(kept, Kommo_Deal_ID=77),
        lambda world, kept, copy: world.delete_record(kept),
    ],
    ids=[
        "copy edited",
        "copy emptied",
        "copy re-keyed",
        "kept edited",
        "kept re-keyed",
        "kept gone",
    ],
)
def test_what_is_not_as_the_person_saw_it_is_refused(
    world: World, meanwhile: Callable[[World, str, str], None]
):
    _, record = synced(world)
    world.edit_record(record["id"], Notes="both")
    copy = copy_of(world, record, Notes="both")
    ask_to_remove(world.engine, found(world), "somebody")
    meanwhile(world, record["id"], copy)
    world.work(world.new_engine(BULK))
    assert copy in ids(world)
    assert repairs(world) == [REFUSED]
    assert not world.journal_rows("open")


@ON_SQLITE
@pytest.mark.parametrize("wrong", [{"keep": "itself"}, {"copy_of": "company:9"}, {"seen": ""}])
def test_what_nobody_can_have_seen_is_refused(world: World, wrong: dict[str, str]):
    lead, record = synced(world)
    copy = copy_of(world, record)
    seen = found(world)[0].copies[0].seen
    said = {"copy_of": f"lead:{lead}", "keep": record["id"], "seen": seen, **wrong}
    said = {name: copy if value == "itself" else value for name, value in said.items()}
    world.inbox.receive([IncomingEvent(f"record:{copy}", "repair", "copy", directive=said)])
    world.work()
    assert ids(world) == {record["id"], copy}
    assert repairs(world) == [REFUSED]


@ON_SQLITE
def test_a_copy_edited_after_a_crash_before_its_deletion_stays_and_leaves_no_intent(world: World):
    _, record = synced(world)
    copy = copy_of(world, record)
    ask_to_remove(world.engine, found(world), "somebody")
    with pytest.raises(Crash):
        world.work(Trap("airtable.delete_records").set(world.new_engine(BULK)), "first")
    world.edit_record(copy, Notes="mine")
    world.work(world.new_engine(BULK), "second", patience=LEASE_SECONDS + 60)
    assert copy in ids(world)
    assert repairs(world) == [REFUSED]
    assert not world.journal_rows("open")


@ON_SQLITE
def test_a_copy_that_the_ledger_has_come_to_keep_is_refused(world: World):
    lead = world.add_lead(name="Deal", price=5)
    world.take_hooks()
    first = world.add_record(Kommo_Deal_ID=lead, Deal_Name="Deal")
    world.clock.advance(1)
    second = world.add_record(Kommo_Deal_ID=lead, Deal_Name="Deal")
    ask_to_remove(world.engine, found(world), "somebody")
    world.edit_record(first, Kommo_Deal_ID=None)
    world.hint(lead)
    world.work()
    assert world.ledger(lead).record_id == second
    world.edit_record(first, Kommo_Deal_ID=lead)
    world.work(world.new_engine(BULK))
    assert ids(world) == {first, second}
    assert repairs(world) == [REFUSED]
    # Asked for again by what was seen then, it comes to the lead, which knows better.
    said = {"copy_of": f"lead:{lead}", "keep": first, "seen": "", "actor": "somebody"}
    world.inbox.receive([IncomingEvent(f"record:{second}", "repair", "copy", directive=said)])
    world.work()
    assert world.events()[-1].key == f"lead:{lead}"
    assert repairs(world) == [REFUSED, REFUSED]
    assert ids(world) == {first, second}


@ON_SQLITE
def test_the_record_of_another_lead_is_never_a_copy_to_be_removed(world: World):
    _, other = synced(world)
    lead, record = synced(world)
    world.edit_record(other["id"], Kommo_Deal_ID=lead)
    (group,) = found(world)
    (copy,) = group.copies
    assert (group.kept, copy.record_id) == (record["id"], other["id"])
    assert copy.record_of == f"lead:{other['fields']['Kommo Deal ID']}"
    remove(world)
    assert ids(world) == {record["id"], other["id"]}


@ON_SQLITE
def test_news_of_a_copy_that_is_refused_still_reach_its_lead(world: World):
    lead, record = synced(world)
    copy = copy_of(world, record)
    ask_to_remove(world.engine, found(world), "somebody")
    new = world.add_lead(name="Deal", price=6)
    world.take_hooks()
    world.edit_record(copy, Kommo_Deal_ID=new)
    world.inbox.receive([IncomingEvent(f"record:{copy}", "airtable", "update")])
    world.work()
    assert repairs(world) == [REFUSED]
    world.assert_in_step([lead, new])
    assert world.ledger(new).record_id == copy


@ON_SQLITE
def test_what_was_read_a_while_ago_is_read_again_before_it_is_deleted(world: World):
    _, record = synced(world)
    copy = copy_of(world, record)
    ask_to_remove(world.engine, found(world), "somebody")
    engine = world.new_engine(BULK)
    batch = claim_batch(engine, "run")
    assert batch is not None
    read_batch(engine, batch)
    merge_batch(engine, batch)
    assert [plan.record_id for plan in batch.plans] == [copy]
    world.edit_record(copy, Notes="mine")
    world.clock.advance(3.5)
    write_airtable(engine, batch)
    settle_batch(engine, batch)
    assert copy in ids(world)
    assert repairs(world) == [REFUSED]


@ON_SQLITE
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    "step",
    ["journal.open", "airtable.delete_records", "journal.acknowledge", "inbox.settle"],
)
def test_after_a_crash_the_next_run_removes_it_or_finds_it_gone(
    world: World, step: str, after: bool
):
    lead, record = synced(world)
    copy_of(world, record)
    ask_to_remove(world.engine, found(world), "somebody")
    # The first acknowledgement is of what needs no write: here of nothing.
    trap = Trap(step, after, nth=2 if step == "journal.acknowledge" else 1)
    with pytest.raises(Crash):
        world.work(trap.set(world.new_engine(BULK)), "first")
    world.work(world.new_engine(BULK), "second", patience=LEASE_SECONDS + 60)
    assert ids(world) == {record["id"]}
    assert repairs(world) in (["deleted"], ["absent"])
    world.assert_in_step([lead])


@ON_SQLITE
def test_copies_of_clients_are_found_and_removed_in_their_own_table(
    new_world: Callable[..., World],
):
    world = new_world(**{name: EXAMPLE[name] for name in ("fields", "airtable", "links")})
    for lead in world._in_kommo("POST", "seed", {"count": 4})["ids"]:
        world.hint(lead)
    settle(world)
    clients = world._in_airtable("GET", "records", table="Clients")["records"]
    unlinked = {**clients[0], "fields": {**clients[0]["fields"], "Deals": None}}
    same = copy_of(world, unlinked, "Clients")
    owns = copy_of(world, unlinked, "Clients", Phone="+1")
    (group,) = found(world)
    assert group.key == f"contact:{clients[0]['fields']['Kommo Contact ID']}"
    assert {each.record_id: each.own for each in group.copies} == {same: (), owns: ("Phone",)}
    remove(world)
    left = {each["id"] for each in world._in_airtable("GET", "records", table="Clients")["records"]}
    assert left == {*(each["id"] for each in clients), owns}
