"""Leads that are not to be synced never reach Airtable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kommo_airtable_sync.sandbox.kommo.seed import SALES_ID, lead_field_id
from tests.simulated import World

pytestmark = pytest.mark.parametrize("sql_engine", ["sqlite"])
QUALIFIED, PROPOSAL = SALES_ID * 10 + 2, SALES_ID * 10 + 3
NewWorld = Callable[..., World]


def region(value: str) -> dict[str, Any]:
    return {
        "custom_fields_values": [
            {"field_id": lead_field_id("Region"), "values": [{"value": value}]}
        ]
    }


@pytest.mark.parametrize("tag", ["internal", "test", "Internal"])
def test_leads_tagged_internal_or_test_never_reach_airtable(world: World, tag: str):
    world.add_lead(name="Ours", _embedded={"tags": [{"name": tag}]})
    (report,) = world.sync()
    assert report.counts["filtered"] == 1
    assert world.calls("airtable", method="PATCH") == 0
    (event,) = world.events()
    assert (event.state, event.outcome) == ("done", "filtered")
    assert event.error.startswith("tag ")


def test_a_tag_taken_off_lets_the_lead_in(world: World):
    lead_id = world.add_lead(name="Ours", _embedded={"tags": [{"name": "test"}]})
    world.sync()
    world.edit_lead(lead_id, _embedded={"tags": None})
    world.sync()
    world.assert_in_step([lead_id])


def test_a_synced_lead_that_is_tagged_later_keeps_its_record_as_it_was(world: World):
    lead_id = world.add_lead(name="Ours", price=1)
    world.sync()
    world.edit_lead(lead_id, price=2, _embedded={"tags": [{"name": "internal"}]})
    world.sync()
    assert world.record(lead_id)["Amount"] == 1


@pytest.mark.parametrize(("sticky", "amount"), [(True, 2), (False, 1)])
def test_a_lead_that_leaves_the_stages_stays_synced_if_they_are_sticky(
    new_world: NewWorld, sticky: bool, amount: int
):
    include = {"stages": ["Sales / Qualified"], "sticky": sticky}
    world = new_world(kommo={"include": include})
    stage = {"pipeline_id": SALES_ID, "status_id": QUALIFIED}
    synced = world.add_lead(name="In", price=1, **stage)
    other = world.add_lead(name="Never in", **(stage | {"status_id": PROPOSAL}))
    world.sync()
    assert list(world.by_lead()) == [synced]
    world.edit_leads([synced, other], price=2, status_id=PROPOSAL)
    world.sync()
    assert world.record(synced)["Amount"] == amount
    assert other not in world.by_lead()


def test_names_can_be_excluded_by_a_regular_expression(new_world: NewWorld):
    world = new_world(kommo={"exclude": {"name_matches": r"(?i)^test\b"}})
    world.add_lead(name="TEST deal")
    kept = world.add_lead(name="Testing rig")
    world.sync()
    assert list(world.by_lead()) == [kept]


def test_a_custom_field_can_decide(new_world: NewWorld):
    condition = {"field": "Region", "in": ["EU", "UK"]}
    world = new_world(kommo={"include": {"custom_fields": [condition]}})
    inside = world.add_lead(name="Inside", **region("UK"))
    world.add_lead(name="Outside", **region("US"))
    world.add_lead(name="Nowhere")
    world.sync()
    assert list(world.by_lead()) == [inside]
