"""Undo: what we wrote goes back on both sides, what people have done since does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from kommo_airtable_sync.core.explaining import JournalRow
from kommo_airtable_sync.core.types import BULK
from kommo_airtable_sync.engine import undo
from kommo_airtable_sync.engine.undo import Result
from kommo_airtable_sync.store.history import History
from kommo_airtable_sync.store.reports import Reports
from tests.engine.people import enum_field, record_id
from tests.simulated import World, fields_with
from tests.two_way import BOTH_WAYS, in_kommo, settle, tagged

Make = Callable[..., World]
RUN = "run-of-the-mistake"
sqlite_only = pytest.mark.parametrize("sql_engine", ["sqlite"])


@pytest.fixture
def world(new_world: Make) -> World:
    return new_world(**BOTH_WAYS)


def deals(world: World, count: int) -> list[int]:
    """So many, on both sides, long enough ago."""
    made = world.add_leads([{"name": f"Deal {n}", "price": 10} for n in range(count)])
    settle(world)
    world.clock.advance(7200)
    return made


def work(world: World, run_id: str = RUN) -> None:
    """One run of the live lane takes what people have done across; then all comes to rest."""
    world.clock.advance(2)
    world.deliver_hooks()
    world.work(run_id=run_id)
    settle(world)
    world.clock.advance(120)


def of_run(world: World, run_id: str = RUN) -> Sequence[JournalRow]:
    return History(world.database).of_run(run_id)


def carry_out(
    world: World, rows: Sequence[JournalRow], run_id: str = "run-of-the-undo"
) -> tuple[Result, list[tuple[str, str]]]:
    """Undo it with workers on both lanes; what came of it, and what the plan leaves: (field, why)."""
    planned = undo.plan(world.engine, rows)
    asked = undo.ask(world.engine, planned.reverts, "ann")
    world.work(world.new_engine(BULK), run_id=run_id)
    world.work(run_id=run_id)
    result = undo.see_through(world.engine, asked, lambda _: None)
    return result, [(each.field_name, each.reason) for each in planned.left]


def writes(world: World) -> tuple[int, int]:
    """Calls so far that wrote to Kommo, to Airtable."""
    return world.calls("kommo", method="PATCH"), world.calls("airtable", method="PATCH")


def assert_at_rest(world: World) -> None:
    """Whatever is told now, nothing is written any more."""
    settle(world)
    before = writes(world)
    for lead in world.by_lead():
        world.hint(lead)
    settle(world)
    assert writes(world) == before


def amounts(world: World, leads: Sequence[int]) -> list[tuple[float, float]]:
    records = world.by_lead()
    return [(world.lead(each)["price"], records[each]["fields"]["Amount"]) for each in leads]


def test_of_200_writes_the_10_that_people_edited_since_are_left_and_190_go_back(world: World):
    leads = deals(world, 200)
    world.edit_leads(leads, price=99)
    work(world)
    assert len(of_run(world)) == 200
    in_airtable, in_kommo_too, just_now = leads[:4], leads[4:7], leads[7:10]
    records = {lead: record["id"] for lead, record in world.by_lead().items()}
    for lead in in_airtable:
        world.edit_record(records[lead], Amount=77)
    world.edit_leads(in_kommo_too, price=77)
    work(world, "run-of-today")

    planned = undo.plan(world.engine, of_run(world))
    assert {int(each.key[5:]) for each in planned.left} == {*in_airtable, *in_kommo_too}
    assert all(each.reason.startswith("edited since: it was changed in") for each in planned.left)
    asked = undo.ask(world.engine, planned.reverts, "ann")
    for lead in just_now:
        world.edit_record(records[lead], Amount=77)  # and nobody has told us yet
    bulk = world.new_engine(BULK)
    ended: list[int] = []
    world.work(bulk, run_id="run-of-the-undo")
    result = undo.see_through(bulk, asked, ended.append)
    assert len(result.reverted) == ended[-1] - 3 == 190
    refused = {int(each.key[5:]): each.reason for each in result.refused}
    assert refused == dict.fromkeys(just_now, "it has changed since; decide again")

    settle(world)
    assert amounts(world, leads) == [(77, 77)] * 10 + [(10, 10)] * 190
    world.assert_in_step(leads)
    assert_at_rest(world)
    assert amounts(world, leads) == [(77, 77)] * 10 + [(10, 10)] * 190


def test_all_that_was_written_of_one_lead_goes_back_and_its_record_stays(world: World):
    lead, other = deals(world, 2)
    before = world.record(lead)
    world.edit_lead(lead, name="Wrong", **tagged("wrong"))
    work(world)
    world.edit_record(record_id(world, lead), Amount=25.0, Seats=7, Notes="wrong")
    world.edit_lead(other, price=11)
    work(world)
    result, left = carry_out(world, History(world.database).of_key(f"lead:{lead}"))
    assert {each.field_name for each in result.reverted} == {
        "Deal Name", "Tags", "Amount", "Seats", "Notes",
    }  # fmt: skip
    assert (len(result.refused), len(left)) == (0, 1)
    assert left[0][1].startswith("the record was created")
    settle(world)
    assert {**world.record(lead), "Last Modified": ""} == {**before, "Last Modified": ""}
    shown = [in_kommo(world, lead, name) for name in ("Deal Name", "Amount", "Seats", "Tags")]
    assert shown == ["Deal 0", 10, None, None]
    assert amounts(world, [other]) == [(11, 11)]
    assert_at_rest(world)


def test_what_was_written_within_a_time_goes_back_to_what_was_before(world: World):
    early, twice, late = deals(world, 3)
    world.edit_lead(early, price=20)
    work(world)
    since = world.clock.now().timestamp()
    world.edit_lead(twice, price=20)
    work(world)
    world.edit_record(record_id(world, twice), Amount=30.0)
    work(world)
    until = world.clock.now().timestamp()
    world.edit_lead(late, price=20)
    work(world)
    result, left = carry_out(world, History(world.database).between(since, until))
    assert [(int(each.key[5:]), each.value) for each in result.reverted] == [(twice, 10)]
    assert (result.refused, left) == ((), [])
    assert_at_rest(world)
    assert amounts(world, [early, twice, late]) == [(20, 20), (10, 10), (20, 20)]


def test_an_undo_can_be_undone(world: World):
    leads = deals(world, 3)
    world.edit_leads(leads, price=20)
    work(world)
    carry_out(world, of_run(world))
    settle(world)
    assert amounts(world, leads) == [(10, 10)] * 3
    rows = of_run(world, "run-of-the-undo")
    assert {(row.rule, row.side) for row in rows} == {
        ("directive", "kommo"), ("directive", "airtable"),
    }  # fmt: skip
    assert {row.event.actor for row in rows if row.event} == {"ann"}
    assert undo.plan(world.engine, of_run(world)).reverts == ()
    result, left = carry_out(world, rows, "run-of-the-second-undo")
    assert (len(result.reverted), left) == (3, [])
    assert_at_rest(world)
    assert amounts(world, leads) == [(20, 20)] * 3


@sqlite_only
def test_a_plan_alone_writes_nothing(world: World):
    leads = deals(world, 3)
    world.edit_leads(leads, price=20)
    work(world)
    before = writes(world), len(world.events()), len(world.journal_rows())
    assert len(undo.plan(world.engine, of_run(world)).reverts) == 3
    assert (writes(world), len(world.events()), len(world.journal_rows())) == before
    assert world.next_due_at() is None


@sqlite_only
def test_an_edit_that_was_taken_back_is_given_back_to_both_sides(new_world: Make):
    world = new_world(fields=fields_with())
    (lead,) = deals(world, 1)
    world.edit_record(record_id(world, lead), Notes="mine")
    work(world)
    assert "Notes" not in world.record(lead)
    result, _ = carry_out(world, of_run(world))
    assert len(result.reverted) == 1
    assert_at_rest(world)
    assert (world.record(lead)["Notes"], in_kommo(world, lead, "Notes")) == ("mine", "mine")


@sqlite_only
def test_what_kommo_sets_itself_is_left_and_follows(world: World):
    (lead,) = deals(world, 1)
    first = world.record(lead)
    email = first["Manager Email"]
    others = [user for user in world.engine.kommo.users() or [] if user["email"] != email]
    world.edit_lead(lead, responsible_user_id=others[0]["id"])
    work(world)
    assert world.record(lead)["Manager Email"] != email
    result, left = carry_out(world, of_run(world))
    assert [each.field_name for each in result.reverted] == ["Manager"]
    assert left == [("Manager Email", "Kommo does not let anybody write this field")]
    assert_at_rest(world)
    shown = world.record(lead)
    assert (shown["Manager"], shown["Manager Email"]) == (first["Manager"], email)


@sqlite_only
@pytest.mark.parametrize("side", ["kommo", "airtable"])
def test_a_value_that_a_side_cannot_hold_any_more_is_refused_and_the_others_go_back(
    new_world: Make, side: str
):
    fields = fields_with(
        Region={"owner": "both", "create_options": False}, Amount={"owner": "both"}
    )
    world = new_world(fields=fields)
    lead = world.add_lead(name="Deal", price=10, custom_fields_values=[_region(world, "EU")])
    settle(world)
    world.clock.advance(7200)
    world.edit_lead(lead, price=20, custom_fields_values=[_region(world, "UK")])
    work(world)
    planned = undo.plan(world.engine, of_run(world))
    assert (len(planned.reverts), planned.left) == (2, ())
    if side == "kommo":
        _remove_choice(world, "EU")
    else:
        world.alter_field("Region", type="singleSelect", options={"choices": [{"name": "UK"}]})
    world.engine.directory.refresh()  # somebody has met the change before
    asked = undo.ask(world.engine, planned.reverts, "ann")
    world.work(run_id="run-of-the-undo")
    result = undo.see_through(world.engine, asked, lambda _: None)
    assert [each.field_name for each in result.reverted] == ["Amount"]
    (refused,) = result.refused
    assert refused.field_name == "Region"
    assert "EU" in refused.reason
    assert_at_rest(world)
    assert world.errors() == []
    assert (world.record(lead)["Region"], in_kommo(world, lead, "Region")) == ("UK", "UK")
    assert amounts(world, [lead]) == [(10, 10)]


def _region(world: World, choice: str) -> dict[str, object]:
    return enum_field(world, "Region", choice)


def _remove_choice(world: World, choice: str) -> None:
    """An administrator of Kommo deletes a choice of the field Region."""
    fields = world.kommo.state.rows["leads/custom_fields"].values()
    region = next(each for each in fields if each["name"] == "Region")
    region["enums"] = [each for each in region["enums"] if each["value"] != choice]


@sqlite_only
def test_an_undo_passes_the_brake_and_what_comes_with_it_does_not(new_world: Make):
    limits = {"max_records_changed": 2, "max_deletes": 1}
    world = new_world(**BOTH_WAYS, safety=limits)
    leads = deals(world, 6)
    world.edit_leads(leads, price=20)
    work(world)
    Reports(world.database).release_holds([e.id for e in Reports(world.database).list_holds()])
    world.work(run_id=RUN)
    settle(world)
    planned = undo.plan(world.engine, of_run(world))
    assert len(planned.reverts) == 6
    asked = undo.ask(world.engine, planned.reverts, "ann")
    # Somebody renames two deals at the same moment, which nobody has allowed.
    world.edit_leads(leads[4:], name="Renamed")
    world.work(run_id="run-of-the-undo")
    result = undo.see_through(world.engine, asked, lambda _: None)
    assert {int(each.key[5:]) for each in result.reverted} == set(leads[:4])
    assert all("safety.max_records_changed" in each.reason for each in result.refused)
    assert amounts(world, leads) == [(10, 10)] * 4 + [(20, 20)] * 2
    assert {event.outcome for event in world.events("held")} == {"braked"}
    # Released by a person after all, it goes its way.
    Reports(world.database).release_holds([e.id for e in Reports(world.database).list_holds()])
    settle(world)
    assert amounts(world, leads) == [(10, 10)] * 6


@sqlite_only
def test_a_lead_that_has_vanished_is_not_taken_for_deleted(new_world: Make):
    world = new_world(**BOTH_WAYS, kommo={"when_deleted": "delete"})
    (lead,) = deals(world, 1)
    world.edit_lead(lead, price=20)
    work(world)
    world.kommo.settings.token_sees_leads = False
    result, _ = carry_out(world, of_run(world))
    assert "Kommo does not show lead" in result.refused[0].reason
    assert world.record(lead)["Amount"] == 20


@sqlite_only
def test_a_half_that_was_written_before_an_outage_is_brought_to_its_end(world: World):
    leads = deals(world, 2)
    world.edit_leads(leads, price=20)
    work(world)
    planned = undo.plan(world.engine, of_run(world))
    asked = undo.ask(world.engine, planned.reverts, "ann")
    world.fail("kommo", "drop_before", method="PATCH", times=1)
    world.work(run_id="run-of-the-undo")
    assert amounts(world, leads) == [(20, 10)] * 2
    ended: list[int] = []
    waiting = undo.see_through(world.engine, asked, ended.append)
    assert ended[-1] == 0
    assert {each.reason for each in waiting.refused} == {undo.UNSETTLED}
    world.work(run_id="run-of-the-undo", patience=60)
    result = undo.see_through(world.engine, asked, ended.append)
    assert (len(result.reverted), result.refused) == (2, ())
    assert_at_rest(world)
    assert amounts(world, leads) == [(10, 10)] * 2


@sqlite_only
def test_a_deletion_is_listed_with_what_to_do_instead(new_world: Make):
    world = new_world(**BOTH_WAYS, kommo={"when_deleted": "delete"})
    (lead,) = deals(world, 1)
    world.edit_lead(lead, price=20)
    world.clock.advance(2)
    world.deliver_hooks()
    world.work(run_id=RUN)
    world.delete_lead(lead)
    work(world)
    planned = undo.plan(world.engine, of_run(world))
    assert planned.reverts == ()
    reasons = {each.field_name: each.reason for each in planned.left}
    assert "Restore it from the trash" in reasons[""]
    assert reasons["Amount"] == "the sync does not keep this field in step any more"


@sqlite_only
def test_what_kommo_refuses_when_it_is_sent_goes_back_in_airtable_as_well(world: World):
    lead = world.add_lead(name="Deal", price=10, custom_fields_values=[_region(world, "EU")])
    settle(world)
    world.clock.advance(7200)
    world.edit_lead(lead, price=20, custom_fields_values=[_region(world, "UK")])
    work(world)
    planned = undo.plan(world.engine, of_run(world))
    asked = undo.ask(world.engine, planned.reverts, "ann")
    _remove_choice(world, "EU")  # and our copy of the schema is older
    world.work(run_id="run-of-the-undo")
    settle(world)
    result = undo.see_through(world.engine, asked, lambda _: None)
    assert [each.field_name for each in result.reverted] == ["Amount"]
    assert result.refused[0].reason.startswith("Kommo refused it: custom_fields_values.0")
    assert world.errors() == []
    assert (world.record(lead)["Region"], in_kommo(world, lead, "Region")) == ("UK", "UK")
    assert amounts(world, [lead]) == [(10, 10)]
    assert_at_rest(world)
