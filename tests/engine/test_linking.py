"""A deal's contact and company have one record each, to which every deal of theirs points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kommo_airtable_sync.engine.claim import claim_batch
from kommo_airtable_sync.engine.context import CALL_SECONDS_MAX, LEASE_SECONDS
from kommo_airtable_sync.engine.follow import work_batch
from tests.engine.people import add_contact, clients, delete_contact, edit_contact, writes_to
from tests.simulated import EXAMPLE, World, fields_with
from tests.trap import Crash, Meanwhile, Trap
from tests.two_way import settle

LINKS = EXAMPLE["links"]
STATUS = {"table": "Deals", "key_field": "Kommo Deal ID", "status_field": "Sync Status"}
NAMED = {"airtable": "Notes", "kommo": "main_contact"}
Make = Callable[..., World]


@pytest.fixture
def world(new_world: Make) -> World:
    return new_world(links=LINKS, airtable=STATUS)


@pytest.fixture
def anna(world: World) -> int:
    return add_contact(world, name="Anna")


def deal_with(world: World, *contacts: int, **attributes: Any) -> int:
    linked = {"contacts": [{"id": each, "is_main": n == 0} for n, each in enumerate(contacts)]}
    return world.add_lead(_embedded=linked, **attributes)


def assert_linked(world: World, deals: list[int], contact: int) -> None:
    record = clients(world)[contact]["id"]
    shown = world.by_lead()
    assert sorted(shown) == sorted(deals)
    assert [shown[deal]["fields"]["Client"] for deal in deals] == [[record]] * len(deals)


def test_a_contact_shared_by_fifty_deals_is_written_once_and_linked_fifty_times(
    world: World, anna: int
):
    deals = [deal_with(world, anna, name=f"Deal {n}") for n in range(50)]
    world.sync()
    assert writes_to(world, "Clients") == 1
    assert writes_to(world) == 50
    assert_linked(world, deals, anna)
    assert clients(world)[anna]["fields"]["Name"] == "Anna"
    settle(world)
    assert (writes_to(world, "Clients"), writes_to(world)) == (1, 50)


STEPS = (
    "inbox.claim",
    "inbox.extend",
    "inbox.settle",
    "journal.load",
    "journal.open",
    "journal.acknowledge",
    "kommo.leads_by_id",
    "kommo.contacts_by_id",
    "airtable.upsert",
)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("oversleeps", [False, True])
def test_two_workers_make_one_record_of_a_shared_contact(
    world: World, anna: int, step: str, oversleeps: bool
):
    deals = [deal_with(world, anna, name=f"Deal {n}") for n in range(50)]
    hooks = world.take_hooks()
    world.receive(hooks[:25])
    turns: list[int] = []

    def other() -> None:
        if oversleeps:
            world.clock.advance(LEASE_SECONDS + 1)
        world.receive(hooks[25:])
        batch = claim_batch(world.new_engine(), "other")
        assert batch is not None
        work_batch(world.new_engine(), batch)
        turns.append(len(batch.claim.keys))

    batch = claim_batch(Meanwhile(step, other).set(world.new_engine()), "one")
    if batch is not None:
        work_batch(Meanwhile(step, other).set(world.new_engine()), batch)
    assert turns
    world.work(patience=2 * LEASE_SECONDS)
    settle(world)
    assert_linked(world, deals, anna)
    assert not world.events("dead", "held")
    if not oversleeps:
        assert (writes_to(world, "Clients"), writes_to(world)) == (1, 50)


def test_news_of_a_contact_refresh_its_record_and_nothing_else(world: World, anna: int):
    deal_with(world, anna, name="Deal")
    settle(world)
    deals, reads = writes_to(world), world.calls("kommo", route="leads")
    edit_contact(world, anna, name="Anna Smith")
    assert world.deliver_hooks() == 1
    world.work()
    assert clients(world)[anna]["fields"]["Name"] == "Anna Smith"
    assert (writes_to(world, "Clients"), writes_to(world)) == (2, deals)
    assert world.calls("kommo", route="leads") == reads
    # And the same news again write nothing.
    edit_contact(world, anna, name="Anna Smith")
    settle(world)
    assert writes_to(world, "Clients") == 2


def test_a_contact_that_airtable_refuses_is_told_and_its_deals_are_synced(world: World, anna: int):
    world._in_airtable("POST", "refusals", {"field": "Name", "key": str(anna)}, table="Clients")
    deal = deal_with(world, anna, name="Deal", price=7)
    other = world.add_lead(name="Other")
    world.sync()
    shown = world.record(deal)
    assert (shown["Deal Name"], shown["Amount"]) == ("Deal", 7)
    assert "Client" not in shown
    assert shown["Sync Status"] == "refused: Client"
    assert world.record(other)["Sync Status"] == "ok"
    of_deal = [event for event in world.events("dead") if event.key == f"lead:{deal}"]
    assert "Airtable refused contact" in of_deal[0].error
    # Once Airtable takes it, a retry makes all good.
    world._in_airtable("DELETE", "refusals")
    world.hint(deal)
    settle(world)
    assert world.record(deal)["Client"] == [clients(world)[anna]["id"]]
    assert world.record(deal)["Sync Status"] == "ok"
    assert not world.events("dead")


def test_a_company_is_linked_as_well(new_world: Make):
    company = {**LINKS[0], "kommo": "company", "fields": [{"airtable": "Name", "kommo": "name"}]}
    world = new_world(links=[company])
    firm = add_contact(world, "companies", name="Müller GmbH")
    deal = world.add_lead(name="Deal", _embedded={"companies": [{"id": firm}]})
    settle(world)
    assert_linked(world, [deal], firm)
    edit_contact(world, firm, "companies", name="Müller & Söhne")
    settle(world)
    assert clients(world)[firm]["fields"]["Name"] == "Müller & Söhne"


def test_a_deleted_contact_keeps_its_record_and_leaves_the_deals(world: World, anna: int):
    deal = deal_with(world, anna, name="Deal")
    settle(world)
    delete_contact(world, anna)
    settle(world)
    assert clients(world)[anna]["fields"]["Name"] == "Anna"
    world.hint(deal)
    settle(world)
    assert "Client" not in world.record(deal)
    assert not world.events("dead", "held")


def test_the_link_follows_the_main_contact_and_goes_with_it(world: World, anna: int):
    bob = add_contact(world, name="Bob")
    deal = deal_with(world, anna, bob, name="Deal")
    settle(world)
    assert_linked(world, [deal], anna)
    world.edit_lead(deal, _embedded={"contacts": [{"id": bob, "is_main": True}]})
    settle(world)
    assert_linked(world, [deal], bob)
    world.kommo.state._links.clear()
    world.edit_lead(deal, price=1)
    settle(world)
    assert "Client" not in world.record(deal)


def test_a_client_s_record_that_a_person_deletes_is_made_again_and_linked(world: World, anna: int):
    deal = deal_with(world, anna, name="Deal")
    settle(world)
    gone = clients(world)[anna]["id"]
    world._in_airtable("DELETE", f"records/{gone}", table="Clients")
    edit_contact(world, anna, name="Anna again")
    settle(world)
    world.hint(deal)
    settle(world)
    assert clients(world)[anna]["id"] != gone
    assert_linked(world, [deal], anna)


def test_a_link_that_lost_its_client_s_record_makes_it_again(new_world: Make):
    shared = fields_with(Amount={"owner": "both"})
    world = new_world(links=LINKS, fields=shared)
    anna = add_contact(world, name="Anna")
    deals = [deal_with(world, anna, name="Deal"), deal_with(world, anna, name="Other")]
    settle(world)
    gone = clients(world)[anna]["id"]
    world._in_airtable("DELETE", f"records/{gone}", table="Clients")
    world.edit_lead(deals[0], price=7)
    settle(world)
    assert clients(world)[anna]["id"] != gone
    assert_linked(world, deals, anna)
    assert not world.events("dead", "held")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("step", "nth"), [("airtable.upsert", 1), ("journal.acknowledge", 2)])
def test_a_crash_after_a_contact_was_sent_makes_no_second_record(
    world: World, anna: int, step: str, nth: int, after: bool
):
    deal = deal_with(world, anna, name="Deal")
    world.deliver_hooks()
    with pytest.raises(Crash):
        world.work(Trap(step, after, nth).set(world.new_engine()), "first")
    sent_at = world.clock.now().timestamp()
    world.inbox.release_run("first")
    world.work(world.new_engine(), "second")
    if (step, after) != ("journal.acknowledge", True):
        assert writes_to(world, "Clients") <= 1
        assert "Deal" not in str(world.records())  # The first sender may still be talking.
    world.work(world.new_engine(), "second", patience=LEASE_SECONDS)
    if (step, after) != ("journal.acknowledge", True):
        assert world.clock.now().timestamp() >= sent_at + CALL_SECONDS_MAX
    assert_linked(world, [deal], anna)
    assert not world.journal_rows("open")


def test_a_contact_s_name_in_a_deal_s_field_follows_the_contact(new_world: Make):
    world = new_world(fields=[*fields_with(), NAMED][-2:], links=None)
    anna = add_contact(world, name="Anna")
    deal = deal_with(world, anna, name="Deal")
    other = world.add_lead(name="Nobody's")
    settle(world)
    assert world.record(deal)["Notes"] == "Anna"
    assert "Notes" not in world.record(other)
    edit_contact(world, anna, name="Anna Smith")
    settle(world)
    assert world.record(deal)["Notes"] == "Anna Smith"
