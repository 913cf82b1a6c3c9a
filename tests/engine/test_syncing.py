"""What a change in Kommo comes to in Airtable, and what it costs. On both SQL engines."""

from __future__ import annotations

import pytest

from tests.simulated import World


def test_a_new_lead_becomes_a_record_with_every_mapped_value(world: World):
    lead_id = world.add_lead(name="Rollout", price=1200, _embedded={"tags": [{"name": "hot"}]})
    reports = world.sync()
    assert world.record(lead_id)["Deal Name"] == "Rollout"
    assert world.record(lead_id)["Tags"] == ["hot"]
    assert reports[0].counts["created"] == 1
    world.assert_in_step([lead_id])


def test_only_the_changed_cells_are_written(world: World):
    lead_id = world.add_lead(name="Rollout", price=1200)
    world.sync()
    written = len(world.cells_written())
    world.edit_lead(lead_id, price=1300)
    reports = world.sync()
    assert world.cells_written()[written:] == [(lead_id, "Amount", 1300)]
    assert reports[0].counts["updated"] == 1
    world.assert_in_step([lead_id])
