"""What a change in Kommo comes to in Airtable, and what it costs. On both SQL engines."""

from __future__ import annotations

import pytest

from kommo_airtable_sync.core.types import key_id, lead_key
from kommo_airtable_sync.sandbox.kommo.seed import lead_field_id
from kommo_airtable_sync.store.reports import Reports
from tests.simulated import World

TAGS = {"tags": [{"name": "hot"}, {"name": "VIP"}]}


def test_a_new_lead_becomes_a_record_with_every_mapped_value(world: World):
    lead_id = world.add_lead(name="Rollout", price=1200, _embedded=TAGS)
    reports = world.sync()
    shown = world.record(lead_id)
    assert (shown["Deal Name"], shown["Amount"]) == ("Rollout", 1200)
    assert sorted(shown["Tags"]) == ["VIP", "hot"]
    assert [report.counts["created"] for report in reports] == [1]
    world.assert_in_step([lead_id])


def test_only_the_changed_cells_are_written(world: World):
    lead_id = world.add_lead(name="Rollout", price=1200)
    world.sync()
    before = len(world.cells_written())
    world.edit_lead(lead_id, price=1300)
    reports = world.sync()
    assert world.cells_written()[before:] == [(lead_id, "Amount", 1300)]
    assert reports[0].counts["updated"] == 1
    world.assert_in_step([lead_id])


def test_a_value_taken_away_in_kommo_clears_the_cell(world: World):
    lead_id = world.add_lead(name="Rollout", _embedded=TAGS)
    world.sync()
    world.edit_lead(lead_id, _embedded={"tags": None})
    world.sync()
    assert "Tags" not in world.record(lead_id)
    world.assert_in_step([lead_id])


def test_a_lead_that_has_not_changed_is_read_and_not_written(world: World):
    lead_id = world.add_lead(name="Rollout")
    world.sync()
    reads, writes = world.calls("kommo"), world.calls("airtable")
    world.hint(lead_id)
    (report,) = world.work()
    assert report.counts["unchanged"] == 1
    assert (world.calls("kommo"), world.calls("airtable")) == (reads + 1, writes)


def test_an_event_older_than_what_was_seen_costs_no_call(world: World):
    lead_id = world.add_lead(name="Rollout")
    old = world.take_hooks()
    world.receive(old)
    world.clock.advance(2)
    world.edit_lead(lead_id, price=5)
    world.sync()
    calls = world.calls("kommo") + world.calls("airtable")
    world.receive(old)
    (report,) = world.work()
    assert report.counts["skipped_stale"] == 1
    assert world.events()[-1].outcome == "stale"
    assert world.calls("kommo") + world.calls("airtable") == calls


def test_an_event_of_the_same_second_is_not_stale(world: World):
    world.engine.directory.mapping()
    world.clock.advance(1 - world.clock.now().microsecond / 1e6)
    lead_id = world.add_lead(name="Rollout")
    world.deliver_hooks()
    world.work()
    first = world.lead(lead_id)["updated_at"]
    world.edit_lead(lead_id, price=5)
    assert world.lead(lead_id)["updated_at"] == first  # Kommo counts whole seconds
    world.sync()
    assert world.record(lead_id)["Amount"] == 5


def test_an_old_event_is_not_stale_while_it_is_open_what_was_written(world: World):
    name, amount = {"airtable": "Deal Name", "kommo": "name"}, {"airtable": "Amount"}
    world.restart(fields=[name])
    lead_id = world.add_lead(name="Rollout", price=5)
    old = world.take_hooks()
    world.clock.advance(2)
    world.edit_lead(lead_id, name="Renewal")
    world.sync()
    world.restart(fields=[name, amount | {"kommo": "price"}])
    world.engine.directory.mapping()
    world.fail("airtable", "drop_before", method="PATCH", times=1)
    world.hint(lead_id)
    world.work()
    Reports(world.database).drop_events([world.events("pending")[0].id])
    world.receive(old)
    world.work(patience=60)
    assert world.record(lead_id)["Amount"] == 5
    world.assert_in_step([lead_id])


def test_the_same_events_shuffled_and_doubled_write_nothing_more(world: World):
    lead_ids = world.add_leads([{"name": f"Deal {n}"} for n in range(8)])
    bodies = world.take_hooks()
    world.receive(bodies)
    world.work()
    for price in (10, 20):
        world.clock.advance(2)
        world.edit_leads(lead_ids, price=price)
        some = world.take_hooks()
        world.receive(some)
        world.work()
        bodies += some
    written = world.cells_written()
    twice = bodies * 2
    world.dice.shuffle(twice)
    world.receive(twice)
    world.work()
    assert world.cells_written() == written
    world.assert_in_step(lead_ids)


def test_events_of_one_lead_are_worked_on_together(world: World):
    lead_id = world.add_lead(name="Rollout")
    for price in range(1, 6):
        world.edit_lead(lead_id, price=price)
    world.deliver_hooks()
    (report,) = world.work()
    assert report.events >= 6
    assert report.counts["leads_read"] == 1
    assert world.calls("airtable", method="PATCH") == 1
    assert [event.state for event in world.events()] == ["done"] * report.events


def test_every_cell_written_is_journalled_with_its_cause(world: World):
    vip = {"field_id": lead_field_id("VIP"), "values": [{"value": True}]}  # else false for blank
    lead_id = world.add_lead(name="Rollout", _embedded=TAGS, custom_fields_values=[vip], price=7)
    world.sync()
    world.clock.advance(5)
    world.edit_lead(lead_id, name="Renewal", price=0)
    world.deliver_hooks()
    world.work(run_id="second")
    rows = world.journal_rows()
    assert [row.state for row in rows] == ["done"] * len(rows)
    written = sorted((lead, name) for lead, name, _ in world.cells_written())
    assert sorted((key_id(row.key), row.field_name) for row in rows) == written
    record_id = world.by_lead()[lead_id]["id"]
    assert {(row.record_id, row.side) for row in rows} == {(record_id, "airtable")}
    changed = {row.field_name: row for row in rows if row.run_id == "second"}
    assert (changed["Deal Name"].before, changed["Deal Name"].after) == ('"Rollout"', '"Renewal"')
    assert {row.rule for row in changed.values()} == {"kommo_changed"}
    causes = {event.id: event for event in world.events()}
    for row in rows:
        assert causes[row.event_id].key == lead_key(lead_id)
        assert causes[row.event_id].run_id == row.run_id


def test_a_record_that_a_person_made_beforehand_is_taken_over(world: World):
    lead_id = world.add_lead(name="Rollout", price=7)
    record_id = world.add_record(Kommo_Deal_ID=lead_id, Deal_Name="Old name", Notes="by hand")
    world.sync()
    assert world.by_lead()[lead_id]["id"] == record_id
    assert world.record(lead_id)["Deal Name"] == "Rollout"
    assert world.record(lead_id)["Notes"] == "by hand"  # a blank overwrites nothing


def test_the_report_counts_what_was_done(world: World):
    known = world.add_lead(name="Known")
    world.sync()
    world.clock.advance(2)
    new = world.add_lead(name="New")
    hidden = world.add_lead(name="Hidden", _embedded={"tags": [{"name": "internal"}]})
    world.edit_lead(known, price=3)
    world.deliver_hooks()
    received_at = world.clock.now()
    world.clock.advance(0.5)
    (report,) = world.work()
    took = (world.clock.now() - received_at).total_seconds()
    assert sorted(report.lead_ids) == sorted([known, new, hidden])
    counts = {name: report.counts[name] for name in ("created", "updated", "filtered", "failed")}
    assert counts == {"created": 1, "updated": 1, "filtered": 1, "failed": 0}
    assert (report.counts["api_calls_kommo"], report.counts["api_calls_airtable"]) == (1, 1)
    assert {outcome for _, _, outcome in report.links} == {"created", "updated"}
    assert len(report.latencies) == report.events
    assert max(report.latencies) == pytest.approx(took)
    assert min(report.latencies) > 0.5
