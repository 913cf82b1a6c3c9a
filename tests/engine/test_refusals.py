"""One bad lead never holds up the others, and says what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kommo_airtable_sync.core.types import key_id
from kommo_airtable_sync.sandbox.kommo.seed import SALES_ID, lead_field_id
from kommo_airtable_sync.store.reports import Reports
from tests.simulated import World

pytestmark = pytest.mark.parametrize("sql_engine", ["sqlite"])
NewWorld = Callable[..., World]
FIELDS = [{"airtable": "Deal Name", "kommo": "name"}, {"airtable": "Amount", "kommo": "price"}]
ABSENT = 999_999


def test_one_refused_record_among_ten_is_dead_and_nine_are_written(world: World):
    lead_ids = world.add_leads([{"name": f"Deal {n}"} for n in range(10)])
    bad = lead_ids[6]
    world.airtable.refused.add(("Deal Name", str(bad)))
    world.sync()
    assert sorted(world.by_lead()) == sorted(set(lead_ids) - {bad})
    (reason,) = world.errors()
    assert reason == (
        f"Airtable refused lead {bad}: INVALID_VALUE_FOR_COLUMN: "
        'Field "Deal Name" cannot accept the provided value'
    )
    assert not world.journal_rows("open")
    done = {key_id(row.key) for row in world.journal_rows("done")}
    assert done == set(lead_ids) - {bad}
    assert bad in {key_id(row.key) for row in world.journal_rows("refused")}


def test_a_refused_lead_that_a_person_mends_is_made_good(world: World):
    lead_id = world.add_lead(name="Deal")
    world.airtable.refused.add(("Deal Name", str(lead_id)))
    world.sync()
    world.airtable.refused.clear()
    Reports(world.database).retry_events([world.events("dead")[0].id])
    world.work()
    assert world.errors() == []
    world.assert_in_step([lead_id])


def test_two_records_with_one_key_are_for_a_person_to_merge(world: World):
    lead_id = world.add_lead(name="Deal")
    for name in ("one", "two"):
        world.add_record(Kommo_Deal_ID=lead_id, Deal_Name=name)
    neighbour = world.add_lead(name="Neighbour")
    world.sync()
    assert world.errors() == [
        f"Airtable has more than one record with the key {lead_id}; "
        "merge or delete the copies (kommo-airtable-sync duplicates), then retry."
    ]
    names = sorted(record["fields"]["Deal Name"] for record in world.records())
    assert names == ["Neighbour", "one", "two"]
    assert world.ledger(neighbour) is not None


def test_a_missing_option_is_looked_for_once_and_then_named(new_world: NewWorld):
    stage = {"airtable": "Stage", "kommo": "stage", "names": {"85710012": "Brand new"}}
    world = new_world(fields=[*FIELDS, stage])
    lead_ids = [
        world.add_lead(name=f"Deal {n}", pipeline_id=SALES_ID, status_id=SALES_ID * 10 + 2)
        for n in range(3)
    ]
    fine = world.add_lead(name="Fine", pipeline_id=SALES_ID, status_id=SALES_ID * 10 + 1)
    world.deliver_hooks()
    world.engine.directory.mapping()
    schemas = world.calls("airtable", route="/tables")
    world.work()
    assert world.calls("airtable", route="/tables") == schemas + 1
    assert list(world.by_lead()) == [fine]
    reasons = world.errors()
    assert len(reasons) == len(lead_ids)
    assert reasons[0].startswith("Stage: 'Brand new' is not an option of Airtable field Stage")
    world.add_option("Stage", "Brand new")
    for lead_id in lead_ids:
        world.hint(lead_id)
    world.work()
    world.assert_in_step([*lead_ids, fine])


def test_an_option_that_may_be_created_is(world: World):
    tags = {"tags": [{"name": "unheard of"}]}
    lead_ids = [world.add_lead(name="Tagged", _embedded=tags), world.add_lead(name="Plain")]
    world.sync()
    world.assert_in_step(lead_ids)


def test_a_stage_added_in_kommo_later_is_learnt(world: World):
    first = world.add_lead(name="Deal")
    world.sync()
    pipeline = world.kommo.state.rows["leads/pipelines"][SALES_ID]
    added = {"id": SALES_ID * 10 + 9, "name": "Legal review", "sort": 95, "type": 0}
    pipeline["_embedded"]["statuses"].append(added)
    world.edit_lead(first, pipeline_id=SALES_ID, status_id=SALES_ID * 10 + 9)
    world.sync()
    assert world.record(first)["Stage"] == "Legal review"
    world.assert_in_step([first])


def test_a_lead_that_kommo_does_not_show_is_tried_again_and_then_dead(world: World):
    neighbour = world.add_lead(name="Deal")
    world.deliver_hooks()
    world.hint(ABSENT)
    started_at = world.clock.now()
    world.work(patience=10_000)
    (event,) = world.events("dead")
    assert event.attempts == world.config.realtime.max_attempts
    assert event.error == (
        f"Kommo shows no lead {ABSENT}: not visible to the token, or gone again. "
        "Nothing was changed in Airtable."
    )
    assert (world.clock.now() - started_at).total_seconds() > 300  # it was not hurried
    assert list(world.by_lead()) == [neighbour]


def test_an_absent_lead_with_a_delete_event_is_done(world: World):
    lead_id = world.add_lead(name="Deal")
    world.sync()
    world.delete_lead(lead_id)
    world.sync()
    assert world.events()[-1].outcome == "absent"
    assert world.errors() == []
    assert world.record(lead_id)["Deal Name"] == "Deal"


def test_a_record_that_a_person_deleted_is_made_again(world: World):
    lead_ids = world.add_leads([{"name": "Gone", "price": 5}, {"name": "Stays"}])
    world.sync()
    world.delete_record(world.by_lead()[lead_ids[0]]["id"])
    world.clock.advance(2)
    world.edit_leads(lead_ids, price=6)
    world.sync()
    assert world.record(lead_ids[0])["Deal Name"] == "Gone"
    world.assert_in_step(lead_ids)
    made_again = [row for row in world.journal_rows("done") if row.rule == "recreated"]
    assert {row.before for row in made_again} == {"null"}


def test_a_record_that_a_person_deleted_can_be_let_go(new_world: NewWorld):
    table = {"table": "Deals", "key_field": "Kommo Deal ID", "when_deleted": "ignore"}
    world = new_world(airtable=table)
    lead_id = world.add_lead(name="Gone")
    world.sync()
    world.delete_record(world.by_lead()[lead_id]["id"])
    world.edit_lead(lead_id, price=6)
    world.sync()
    assert world.records() == []
    assert world.events()[-1].outcome == "ignored"


def test_a_field_whose_type_a_person_changed_is_learnt_from_the_answer(new_world: NewWorld):
    day = {"airtable": "Contract Date", "kommo": {"custom_field": "Contract date"}}
    world = new_world(fields=[*FIELDS, day])
    first = world.add_lead(name="Before", price=1)
    world.sync()
    # Airtable takes the same value as before and answers it in another form.
    instant = {"dateFormat": {"name": "iso"}, "timeFormat": {"name": "24hour"}, "timeZone": "utc"}
    world.alter_field("Contract Date", type="dateTime", options=instant)
    signed = {
        "field_id": lead_field_id("Contract date"),
        "values": [{"value": "2026-02-01T00:00:00+01:00"}],
    }
    dated = world.add_lead(name="Signed", custom_fields_values=[signed])
    world.edit_lead(first, price=2)
    world.deliver_hooks()
    world.work(patience=10_000)
    assert world.record(first)["Amount"] == 2
    assert not world.events("dead")
    world.assert_in_step([first, dated])


def test_two_leads_that_share_a_record_stop_nobody(world: World):
    one, other = world.add_leads([{"name": "One"}, {"name": "Other"}])
    neighbour = world.add_lead(name="Neighbour")
    world.hint(one)
    world.sync()
    # A person deletes one record and gives its key to the other: now both leads claim that one.
    world.delete_record(world.by_lead()[other]["id"])
    world.edit_record(world.by_lead()[one]["id"], Kommo_Deal_ID=other)
    for price in (1, 2):
        world.clock.advance(2)
        world.edit_leads([one, other, neighbour], price=price)
        world.deliver_hooks()
        world.work(patience=10_000)
        assert world.record(neighbour)["Amount"] == price
    assert not world.events("pending", "claimed")
    assert {event.key for event in world.events("held")} == {f"lead:{one}"}
    assert "somebody changed Kommo Deal ID" in world.events("held")[0].error
