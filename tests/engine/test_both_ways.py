"""People on both sides: what each edits reaches the other, by the rules, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests

from kommo_airtable_sync.engine.context import LEASE_SECONDS
from tests.engine.people import record_id, resolve
from tests.simulated import World
from tests.trap import Crash, Meanwhile, Trap
from tests.two_way import BOTH_WAYS, custom, edit, in_kommo, settle, tagged, write_late

Make = Callable[..., World]


@pytest.fixture
def world(new_world: Make) -> World:
    return new_world(**BOTH_WAYS)


@pytest.fixture
def lead(world: World) -> int:
    """One deal, on both sides, long enough ago."""
    lead_id = world.add_lead(name="Deal", price=10)
    settle(world)
    return lead_id


def test_an_edit_in_airtable_is_in_kommo_and_the_echo_writes_nothing(world: World, lead: int):
    world.edit_record(record_id(world, lead), Amount=25.0, Seats=7)
    settle(world)
    assert world.lead(lead)["price"] == 25
    assert in_kommo(world, lead, "Seats") == 7
    assert world.calls("kommo", method="PATCH") == 1
    world.assert_in_step([lead])


def test_edits_of_different_fields_in_the_same_second_both_survive_on_both_sides(
    world: World, lead: int
):
    world.edit_lead(lead, name="Renamed in Kommo")
    world.edit_record(record_id(world, lead), Amount=99.0)
    settle(world)
    assert (world.lead(lead)["name"], world.lead(lead)["price"]) == ("Renamed in Kommo", 99)
    shown = world.record(lead)
    assert (shown["Deal Name"], shown["Amount"]) == ("Renamed in Kommo", 99)
    world.assert_in_step([lead])


@pytest.mark.parametrize(
    ("name", "kommo", "airtable", "winner"),
    [("Amount", {"price": 11}, 22.0, 11), ("Deal Name", {"name": "K"}, "A", "A")],
)
def test_of_two_edits_of_one_field_the_rule_chooses_and_the_loser_is_in_the_journal(
    world: World, lead: int, name: str, kommo: dict[str, Any], airtable: Any, winner: Any
):
    world.edit_lead(lead, **kommo)
    world.edit_record(record_id(world, lead), **{name.replace(" ", "_"): airtable})
    settle(world)
    assert world.record(lead)[name] == winner
    assert in_kommo(world, lead, name) == winner
    loser = next(iter(kommo.values())) if winner == airtable else airtable
    rows = [row for row in world.journal_rows("done") if row.field_name == name]
    assert str(loser).split(".")[0] in str(rows[-1].before)
    assert rows[-1].rule.startswith("conflict_")


def test_two_people_each_add_a_tag_and_both_stay(world: World, lead: int):
    world.edit_lead(lead, **tagged("hot"))
    settle(world)
    world.edit_lead(lead, **tagged("hot", "partner"))
    world.edit_record(record_id(world, lead), Tags=["hot", "newsletter"])
    settle(world)
    everyone = {"hot", "partner", "newsletter"}
    assert set(world.record(lead)["Tags"]) == everyone
    assert in_kommo(world, lead, "Tags") == everyone
    world.assert_in_step([lead])


def test_tags_added_on_both_sides_of_a_record_whose_creation_nobody_confirmed_all_stay(
    world: World,
):
    lead = world.add_lead(name="Deal")
    world.fail("airtable", "drop_after", method="PATCH", times=1)
    world.deliver_hooks()
    world.work()
    world.edit_lead(lead, **tagged("hot"))
    world.edit_record(record_id(world, lead), Tags=["newsletter"])
    settle(world)
    assert in_kommo(world, lead, "Tags") == {"hot", "newsletter"}
    world.assert_in_step([lead])


def test_a_tag_added_between_our_read_and_our_write_stays_and_is_shown(world: World, lead: int):
    world.edit_record(record_id(world, lead), Tags=["newsletter"])
    world.deliver_hooks()
    meanwhile = Meanwhile(
        "kommo.update_leads", lambda: world.edit_lead(lead, tags_to_add=[{"name": "hot"}])
    )
    world.work(meanwhile.set(world.engine))
    settle(world)
    assert in_kommo(world, lead, "Tags") == {"hot", "newsletter"}
    assert set(world.record(lead)["Tags"]) == {"hot", "newsletter"}
    world.assert_in_step([lead])


def test_the_last_tag_removed_between_our_read_and_our_write_goes_from_airtable(
    world: World, lead: int
):
    world.edit_lead(lead, **tagged("hot", "partner"))
    settle(world)
    world.edit_record(record_id(world, lead), Tags=["hot"])
    world.deliver_hooks()
    meanwhile = Meanwhile("kommo.update_leads", lambda: world.edit_lead(lead, **tagged("partner")))
    world.work(meanwhile.set(world.engine))
    settle(world)
    assert in_kommo(world, lead, "Tags") is None
    world.assert_in_step([lead])


@pytest.mark.parametrize(("step", "nth"), [("journal.open", 2), ("kommo.update_leads", 1)])
def test_a_tag_removed_in_kommo_while_only_airtable_has_its_half_stays_removed(
    world: World, lead: int, step: str, nth: int
):
    world.edit_lead(lead, **tagged("VIP"))
    world.edit_record(record_id(world, lead), Tags=["hot"])
    world.deliver_hooks()
    with pytest.raises(Crash):
        world.work(Trap(step, nth=nth).set(world.engine), "first")
    assert set(world.record(lead)["Tags"]) == {"VIP", "hot"}
    world.edit_lead(lead, **tagged())
    world.inbox.release_run("first")
    settle(world)
    assert in_kommo(world, lead, "Tags") == {"hot"}
    world.assert_in_step([lead])


def test_a_second_edit_between_our_read_and_our_write_to_the_other_side_is_not_taken_for_agreed(
    world: World, lead: int
):
    # Airtable has its half first, and its answer shows the second edit already.
    world.edit_lead(lead, name="Renamed")
    world.edit_record(record_id(world, lead), Seats=33)
    world.deliver_hooks()
    meanwhile = Meanwhile(
        "airtable.upsert", lambda: world.edit_record(record_id(world, lead), Seats=30)
    )
    world.work(meanwhile.set(world.engine))
    settle(world)
    assert in_kommo(world, lead, "Seats") == 30
    world.assert_in_step([lead])


def test_a_late_answer_makes_no_conflict_of_an_edit_that_comes_before_it_was_looked_into(
    world: World, lead: int
):
    write_late(world, lead, {"name": "First"}, {"name": "Second"})
    world.edit_lead(lead, name="Third")
    settle(world)
    assert (world.lead(lead)["name"], world.record(lead)["Deal Name"]) == ("Third", "Third")
    world.assert_in_step([lead])


def test_what_a_dead_run_left_open_is_no_base_once_airtable_has_answered_its_heir(
    world: World, lead: int
):
    world.edit_lead(lead, name="First")
    die(world, "airtable.upsert", after=True)
    world.edit_lead(lead, name="Second")
    world.edit_record(record_id(world, lead), Seats=33)  # has to go to Kommo, which is not reached
    die(world, "kommo.update_leads")
    world.edit_lead(lead, name="Third")
    settle(world)
    assert world.record(lead)["Deal Name"] == "Third"
    assert in_kommo(world, lead, "Seats") == 33
    world.assert_in_step([lead])


def die(world: World, step: str, *, after: bool = False) -> None:
    """A run takes what there is and dies at a step; its lease runs out."""
    world.deliver_hooks()
    with pytest.raises(Crash):
        world.work(Trap(step, after).set(world.engine))
    world.clock.advance(LEASE_SECONDS + 1)


def test_a_held_conflict_waits_for_a_person_and_is_shown(world: World, lead: int):
    world.edit_lead(lead, **custom(Notes="from sales"))
    world.edit_record(record_id(world, lead), Notes="from operations")
    settle(world)
    assert (in_kommo(world, lead, "Notes"), world.record(lead)["Notes"]) == (
        "from sales",
        "from operations",
    )
    assert world.record(lead)["Sync Status"] == "conflict: Notes"
    (held,) = world.journal.load([f"lead:{lead}"])[f"lead:{lead}"].held.values()
    assert (held.kommo, held.airtable, held.reason) == ("from sales", "from operations", "conflict")
    # The other fields go on.
    world.edit_record(record_id(world, lead), Amount=5.0)
    settle(world)
    assert world.lead(lead)["price"] == 5
    resolve(world, lead, held, "airtable")
    settle(world)
    assert in_kommo(world, lead, "Notes") == world.record(lead)["Notes"] == "from operations"
    assert world.record(lead)["Sync Status"] == "ok"
    assert not world.journal.load([f"lead:{lead}"])[f"lead:{lead}"].held
    world.assert_in_step([lead])


def test_a_choice_is_refused_if_somebody_has_edited_since(world: World, lead: int):
    world.edit_lead(lead, **custom(Notes="from sales"))
    world.edit_record(record_id(world, lead), Notes="from operations")
    settle(world)
    (held,) = world.journal.load([f"lead:{lead}"])[f"lead:{lead}"].held.values()
    world.edit_record(record_id(world, lead), Notes="from operations, later")
    resolve(world, lead, held, "kommo")
    settle(world)
    assert world.record(lead)["Notes"] == "from operations, later"
    assert in_kommo(world, lead, "Notes") == "from sales"
    (directive,) = [event for event in world.events() if event.source == "resolve"]
    assert str(directive.outcome).startswith("refused")


def test_newest_takes_the_later_of_two_edits(world: World, lead: int):
    world.edit_lead(lead, **custom(Region="EU"))
    world.clock.advance(10)
    world.edit_record(record_id(world, lead), Region="UK")
    settle(world)
    assert in_kommo(world, lead, "Region") == world.record(lead)["Region"] == "UK"
    world.edit_record(record_id(world, lead), Region="US")
    world.clock.advance(10)
    world.edit_lead(lead, **custom(Region="EU"))
    settle(world)
    assert in_kommo(world, lead, "Region") == world.record(lead)["Region"] == "EU"


def test_an_unknown_stage_is_refused_by_name_and_the_other_fields_are_written(
    world: World, lead: int
):
    world.add_option("Stage", "Nirvana")
    world.edit_record(record_id(world, lead), Stage="Nirvana", Amount=77.0)
    settle(world)
    assert world.lead(lead)["price"] == 77
    (error,) = set(world.errors())
    assert "Nirvana" in error
    assert "Qualified" in error
    assert world.record(lead)["Sync Status"] == "refused: Stage"


def test_a_stage_chosen_in_airtable_becomes_pipeline_and_status(world: World, lead: int):
    world.edit_record(record_id(world, lead), Stage="Won")
    settle(world)
    assert world.lead(lead)["status_id"] == 142
    assert world.record(lead)["Stage"] == "Won"
    world.assert_in_step([lead])


def test_a_value_that_kommo_refuses_is_told_and_the_neighbours_are_written(world: World, lead: int):
    others = world.add_leads([{"name": f"Deal {n}", "price": 1} for n in range(3)])
    settle(world)
    by_lead = world.by_lead()
    for other in others:
        world.edit_record(by_lead[other]["id"], Amount=50.0)
    world.edit_record(by_lead[lead]["id"], Deal_Name="")
    settle(world)
    assert [world.lead(other)["price"] for other in others] == [50, 50, 50]
    assert any("Deal Name" in error for error in world.errors())


def test_a_record_made_by_hand_without_a_key_is_no_lead(world: World, lead: int):
    world.add_record(Deal_Name="Typed by hand")
    world.deliver_hooks()
    world.work()
    assert [event.outcome for event in world.events("done")][-1] == "unlinked"
    assert world.calls("kommo", method="POST", route="leads") == 0


def test_a_record_with_the_key_of_a_known_lead_that_lost_its_key_is_held(world: World, lead: int):
    world.edit_record(record_id(world, lead), Kommo_Deal_ID=999_999)
    world.edit_lead(lead, price=12)
    world.deliver_hooks()
    world.work(patience=30)
    assert any("no longer has its key" in str(event.error) for event in world.events("held"))


def test_a_lead_met_for_the_first_time_takes_nothing_from_a_blank(world: World):
    lead = world.add_lead(name="New", price=0)
    world.add_record(Kommo_Deal_ID=lead, Seats=4, Notes="typed before")
    settle(world)
    assert in_kommo(world, lead, "Seats") == 4
    assert in_kommo(world, lead, "Notes") == "typed before"
    assert world.record(lead)["Deal Name"] == "New"
    assert len(world.records()) == 1


def test_a_record_deleted_by_a_person_comes_back_with_its_own_values(world: World, lead: int):
    world.edit_record(record_id(world, lead), Seats=9)
    settle(world)
    world.delete_record(record_id(world, lead))
    world.edit_lead(lead, price=13)
    settle(world)
    assert (world.record(lead)["Amount"], world.record(lead)["Seats"]) == (13, 9)
    assert in_kommo(world, lead, "Seats") == 9


def test_a_write_whose_answer_is_lost_is_not_taken_for_a_persons_edit(world: World, lead: int):
    world.edit_record(record_id(world, lead), Amount=40.0)
    world.fail("kommo", "drop_after", method="PATCH", route="/api/v4/leads*", times=1)
    world.deliver_hooks()
    world.work()
    world.edit_record(record_id(world, lead), Amount=41.0)
    settle(world)
    assert world.lead(lead)["price"] == 41
    assert world.record(lead)["Amount"] == 41
    world.assert_in_step([lead])


@pytest.mark.parametrize("side", ["kommo", "airtable"])
def test_an_update_that_lands_after_its_time_out_does_not_undo_a_newer_edit(
    world: World, lead: int, side: str
):
    other = {"kommo": "airtable", "airtable": "kommo"}[side]
    world.fail(side, "delay", seconds=19, times=1, method="PATCH")
    edit(world, other, lead, {"Amount": 25})
    world.deliver_hooks()
    world.work()  # given up after 15 s, and still under way
    edit(world, other, lead, {"Amount": 30})
    settle(world)
    assert world.lead(lead)["price"] == world.record(lead)["Amount"] == 30
    world.assert_in_step([lead])


def test_a_listing_that_loses_its_place_is_read_again_a_moment_later(world: World, lead: int):
    leads = [lead, *world.add_leads([{"name": "B"}, {"name": "C"}])]
    settle(world)
    world.airtable.settings.page_records = 1
    world.edit_leads(leads, price=7)
    world.deliver_hooks()
    begin = world.airtable_wire.begin

    def forgetful(request: requests.PreparedRequest) -> Any:
        world.airtable.offsets.clear()
        return begin(request)

    world.airtable_wire.begin = forgetful
    reports = world.work()
    assert [each.outage is not None for each in reports] == [True]
    world.airtable_wire.begin = begin
    settle(world)
    world.assert_in_step(leads)
