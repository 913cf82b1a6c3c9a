"""Leads that leave and return, and records that people delete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kommo_airtable_sync.core.loop_breaker import LOOP_SECONDS
from kommo_airtable_sync.store.reports import Reports
from tests.engine.people import record_id, restore_lead
from tests.simulated import World, fields_with
from tests.two_way import in_kommo, settle

Make = Callable[..., World]
TABLE = {"table": "Deals", "key_field": "Kommo Deal ID", "status_field": "Sync Status"}
SHARED = fields_with(Seats={"owner": "airtable"}, Amount={"owner": "both"})
INTERNAL = {"_embedded": {"tags": [{"name": "internal"}]}}
POLICIES = ("keep", "mark", "delete")


def world_of(new_world: Make, *, airtable: dict[str, Any] | None = None, **kommo: Any) -> World:
    exclude = {"tags": ["internal"]}
    table = TABLE | (airtable or {})
    return new_world(fields=SHARED, airtable=table, kommo={"exclude": exclude, **kommo})


def synced(world: World, **attributes: Any) -> int:
    """A deal on both sides, whose seats somebody in Airtable has filled in."""
    lead = world.add_lead(name="Deal", price=10, **attributes)
    settle(world)
    world.edit_record(record_id(world, lead), Seats=7)
    settle(world)
    return lead


def assert_back(world: World, lead: int) -> None:
    shown = world.record(lead)
    assert (shown["Amount"], shown["Seats"], shown["Sync Status"]) == (11, 7, "ok")
    assert in_kommo(world, lead, "Seats") == 7
    world.assert_in_step([lead])


def mark_of(world: World, lead: int, policy: str) -> str | None:
    """What the record says of the lead; None if there is no record."""
    shown = world.by_lead().get(lead)
    assert (shown is None) == (policy == "delete")
    return shown["fields"]["Sync Status"] if shown else None


@pytest.mark.parametrize("policy", POLICIES)
def test_a_lead_that_no_longer_qualifies_and_comes_back(new_world: Make, policy: str):
    world = world_of(new_world, when_excluded=policy)
    lead = synced(world)
    world.edit_lead(lead, price=11, **INTERNAL)
    settle(world)
    said = {"keep": "ok", "mark": "excluded: tag internal is excluded", "delete": None}[policy]
    assert str(mark_of(world, lead, policy)).startswith(str(said)[:9])
    if policy != "delete":
        assert world.record(lead)["Amount"] == 10
    writes = len(world.cells_written())
    world.hint(lead)
    settle(world)
    assert len(world.cells_written()) == writes
    world.edit_lead(lead, _embedded={"tags": None})
    settle(world)
    assert_back(world, lead)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_lead_that_is_deleted_and_restored(new_world: Make, policy: str):
    world = world_of(new_world, when_deleted=policy)
    lead = synced(world)
    world.edit_lead(lead, price=11)
    late = world.take_hooks()
    world.clock.advance(2)
    world.delete_lead(lead)
    settle(world)
    said = {"keep": "ok", "mark": "deleted in Kommo", "delete": None}[policy]
    assert mark_of(world, lead, policy) == said
    # A late update revives nothing, and is no failure.
    writes = len(world.cells_written())
    world.receive(late)
    world.hint(lead)
    world.work(patience=3600)
    assert mark_of(world, lead, policy) == said
    assert len(world.cells_written()) == writes
    assert not world.events("dead", "held", "pending")
    restore_lead(world, lead)
    settle(world)
    assert_back(world, lead)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_deletion_nobody_told_of_is_found_in_the_trash(new_world: Make, policy: str):
    world = world_of(new_world, when_deleted=policy)
    lead = synced(world)
    world.delete_lead(lead)
    world.take_hooks()
    world.hint(lead)
    settle(world)
    assert (mark_of(world, lead, policy) or "")[:7] == {"keep": "ok", "mark": "deleted"}.get(
        policy, ""
    )
    assert world.journal.load([f"lead:{lead}"])[f"lead:{lead}"].entry.state == "deleted"


def test_a_delete_hook_for_a_lead_that_is_there_does_nothing(new_world: Make):
    world = world_of(new_world, when_deleted="delete")
    lead = synced(world)
    world.delete_lead(lead)
    restore_lead(world, lead)
    writes = len(world.cells_written())
    world.receive([body for body in world.take_hooks() if b"delete" in body])
    world.work()
    assert world.events()[-1].kind == "delete"
    assert world.events()[-1].state == "done"
    assert len(world.cells_written()) == writes
    world.assert_in_step([lead])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("leaves", ["excluded", "deleted"])
def test_a_lead_leaves_whose_record_a_person_has_deleted(new_world: Make, policy: str, leaves: str):
    world = world_of(new_world, when_deleted=policy, when_excluded=policy)
    lead = synced(world)
    world.delete_record(record_id(world, lead))
    if leaves == "deleted":
        world.delete_lead(lead)
    else:
        world.edit_lead(lead, **INTERNAL)
    settle(world)
    assert world.records() == []
    assert not world.events("dead", "held")


@pytest.mark.parametrize("kommo_owns_all", [False, True])
@pytest.mark.parametrize("leaves", ["stays", "deleted"])
@pytest.mark.parametrize("policy", ["recreate", "ignore"])
def test_a_record_that_a_person_deleted(
    new_world: Make, policy: str, leaves: str, kommo_owns_all: bool
):
    table = TABLE | {"when_deleted": policy}
    world = new_world(
        airtable=table,
        kommo={"when_deleted": "mark"},
        **({} if kommo_owns_all else {"fields": SHARED}),
    )
    lead = world.add_lead(name="Deal", price=10)
    settle(world)
    gone = record_id(world, lead)
    world.delete_record(gone)
    world.edit_lead(lead, price=11)
    if leaves == "deleted":
        world.delete_lead(lead)
    settle(world)
    assert not world.events("dead", "held", "pending")
    if policy == "recreate" and leaves == "stays":
        assert world.record(lead)["Amount"] == 11
        world.assert_in_step([lead])
        return
    assert world.records() == []
    if leaves == "stays":
        world.edit_lead(lead, price=12)
        settle(world)
        assert world.records() == []


def test_a_record_that_is_deleted_again_and_again_is_made_whole_and_not_for_ever(new_world: Make):
    world = new_world(airtable=TABLE | {"when_deleted": "recreate"}, fields=SHARED)
    lead = world.add_lead(name="Deal", price=10)
    settle(world)
    began_at = world.clock.now()
    for price in (11, 12, 13):
        assert world.record(lead)["Deal Name"] == "Deal"
        world.delete_record(record_id(world, lead))
        world.edit_lead(lead, price=price)
        settle(world)
    assert (world.clock.now() - began_at).total_seconds() > LOOP_SECONDS
    assert max(event.attempts for event in world.events()) > 0
    assert not world.events("dead", "held", "pending")
    world.assert_in_step([lead])


# ---------------------------------------------------------------------- absence is not evidence


def blind(world: World, *, sees: bool = False) -> None:
    """Kommo's token loses its rights: every read of leads is a 204."""
    world.kommo.settings.token_sees_leads = sees


def holds(world: World) -> list[int]:
    return [item.id for item in Reports(world.database).list_holds()]


def test_a_token_that_lost_its_rights_deletes_nothing(new_world: Make):
    world = world_of(new_world, when_deleted="delete")
    leads = world.add_leads([{"name": f"Deal {n}", "price": 10} for n in range(30)])
    settle(world)
    blind(world)
    world.edit_leads(leads, price=11)
    settle(world)
    assert len(world.records()) == 30
    held = [event for event in world.events("held")]
    assert sorted(event.key for event in held) == sorted(f"lead:{lead}" for lead in leads)
    assert "does not show lead" in held[0].error
    assert not world.events("dead")
    # A person says of one that it is gone; the rest was a mistake.
    Reports(world.database).release_holds(holds(world)[:1])
    world.work()
    assert len(world.records()) == 29
    Reports(world.database).drop_events(holds(world)[:5])
    blind(world, sees=True)
    for lead in leads:
        world.hint(lead)
    settle(world)
    assert holds(world) == []
    world.assert_in_step(leads)
    assert {record["fields"]["Amount"] for record in world.records()} == {11}


def test_delete_hooks_of_leads_that_are_not_shown_stop_at_the_brake(new_world: Make):
    world = world_of(new_world, when_deleted="delete")
    leads = world.add_leads([{"name": f"Deal {n}"} for n in range(30)])
    settle(world)
    blind(world)
    for lead in leads:
        world.delete_lead(lead)
    settle(world)
    assert len(world.records()) == 10
    assert len(holds(world)) == 10
    assert "safety.max_deletes" in world.events("held")[0].error


def test_a_lead_that_was_never_synced_leaves_no_hold(new_world: Make):
    world = world_of(new_world, when_deleted="delete")
    blind(world)
    world.add_lead(name="Unseen")
    world.deliver_hooks()
    world.work()
    assert not world.events("held", "dead")
    blind(world, sees=True)
    world.work(patience=60)
    assert len(world.records()) == 1
