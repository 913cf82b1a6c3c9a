"""Each edit causes one write, its echoes none; values that bounce are stopped and told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kommo_airtable_sync.receiver.metrics import PREFIX, metrics_text
from kommo_airtable_sync.sandbox.rounding import Rounding
from kommo_airtable_sync.store.inbox import Inbox
from tests.engine.people import record_id, resolve
from tests.simulated import World, fields_with
from tests.two_way import in_kommo, settle

EDITS, DEALS = 500, 100
"""By people on either side, and how many deals they are edits of."""
Make = Callable[..., World]
TABLE = {"table": "Deals", "key_field": "Kommo Deal ID", "status_field": "Sync Status"}
EVERYTHING = {"max_records_changed": 100_000, "max_deletes": 20}


def counted(world: World, name: str) -> dict[str, float]:
    """A counter of /metrics by its side."""
    text = metrics_text(world.database, world.limiter, world.quota).decode()
    return {
        sample.labels["side"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"{PREFIX}{name}_total"
    }


@pytest.mark.parametrize("sql_engine", ["sqlite"])
def test_an_edit_on_either_side_causes_one_write(new_world: Make):
    world = new_world(fields=fields_with(Amount={"owner": "both"}), safety=EVERYTHING)
    deals = world.add_leads([{"name": f"Deal {n}", "price": 1} for n in range(2 * DEALS)])
    settle(world)
    world.clock.advance(200)
    written, cells = world.kommo.state.changes, len(world.cells_written())
    changes = len(written)
    by_lead = world.by_lead()
    for n in range(EDITS // 10):
        first = 20 * n % len(deals)
        world.edit_leads(deals[first : first + 10], price=2 + n)
        for deal in deals[first + 10 : first + 20]:
            world.edit_record(by_lead[deal]["id"], Amount=2.0 + n)
        world.clock.advance(1)
        world.deliver_hooks()
        world.work()
    settle(world)
    assert len(world.cells_written()) - cells == EDITS
    own = world.engine.directory.mapping().own_user_id
    assert sum(change["by"] == own for change in written[changes:]) == EDITS
    assert counted(world, "echoes")["kommo"] >= EDITS
    assert counted(world, "echoes")["airtable"] >= EDITS
    world.assert_in_step(deals)
    # Quiet: nothing calls any more, and one look at all proves it with reads alone.
    calls = world.calls("kommo") + world.calls("airtable")
    world.clock.advance(3600)
    settle(world)
    assert world.calls("kommo") + world.calls("airtable") == calls
    for deal in deals[:50]:
        world.hint(deal)
    (report,) = world.work()
    assert report.counts["unchanged"] == 50
    assert world.calls("kommo") + world.calls("airtable") == calls + 2


ROUNDED: dict[str, dict[str, Any]] = {
    "kommo": {"step": 10, "plus": 0, "robot": True},
    "airtable": {"step": 10, "plus": 3, "robot": True},
}


def bouncing(new_world: Make, where: str, rule: dict[str, Any]) -> tuple[World, int]:
    """A side (or both) whose automation puts another price in place of whatever we write."""
    world = new_world(fields=fields_with(Amount=rule, Seats={"owner": "airtable"}), airtable=TABLE)
    lead = world.add_lead(name="Deal", price=10)
    settle(world)
    world.clock.advance(200)
    if where in ("kommo", "both"):
        world.kommo.settings.price_rounding = Rounding(**ROUNDED["kommo"])
    if where in ("airtable", "both"):
        world.airtable.settings.rounding = {"Amount": Rounding(**ROUNDED["airtable"])}
    return world, lead


def writes_of(world: World, field: str) -> int:
    return sum(row.field_name == field for row in world.journal_rows("done"))


@pytest.mark.parametrize(
    ("where", "rule"),
    [
        ("both", {"owner": "both"}),
        ("both", {"owner": "both", "on_conflict": "airtable"}),
        ("airtable", {"owner": "kommo"}),
        ("kommo", {"owner": "airtable"}),
    ],
)
def test_a_value_that_bounces_is_stopped_told_and_costs_other_fields_nothing(
    new_world: Make, where: str, rule: dict[str, Any]
):
    world, lead = bouncing(new_world, where, rule)
    before = writes_of(world, "Amount")
    if rule["owner"] == "airtable":
        world.edit_record(record_id(world, lead), Amount=27.0)
    else:
        world.edit_lead(lead, price=27)
    settle(world)
    assert writes_of(world, "Amount") - before <= 3
    (held,) = world.journal.load([f"lead:{lead}"])[f"lead:{lead}"].held.values()
    assert (held.field_name, held.reason) == ("Amount", "loop")
    assert world.record(lead)["Sync Status"] == "loop: Amount"
    assert sum(counted(world, "loop_breaks").values()) == 1
    # It stays stopped, and the other fields go on.
    stopped = writes_of(world, "Amount")
    world.clock.advance(600)
    world.edit_lead(lead, name="Renamed")
    world.edit_record(record_id(world, lead), Seats=9)
    settle(world)
    assert world.record(lead)["Deal Name"] == "Renamed"
    assert in_kommo(world, lead, "Seats") == 9
    assert writes_of(world, "Amount") == stopped
    assert world.record(lead)["Sync Status"] == "loop: Amount"
    # Nothing rounds any more: a person decides, or somebody edits.
    world.kommo.settings.price_rounding, world.airtable.settings.rounding = None, {}
    resolve(world, lead, held, "kommo")
    settle(world)
    assert world.record(lead)["Amount"] == held.kommo
    assert world.record(lead)["Sync Status"] == "ok"
    world.assert_in_step([lead])


def test_a_new_value_releases_what_bounced(new_world: Make):
    world, lead = bouncing(new_world, "both", {"owner": "both"})
    world.edit_lead(lead, price=27)
    settle(world)
    assert world.record(lead)["Sync Status"] == "loop: Amount"
    world.kommo.settings.price_rounding, world.airtable.settings.rounding = None, {}
    world.clock.advance(600)
    world.edit_lead(lead, price=55)
    settle(world)
    assert world.record(lead)["Amount"] == 55
    assert world.record(lead)["Sync Status"] == "ok"
    world.assert_in_step([lead])


def test_a_side_that_keeps_a_rounded_value_is_no_loop(new_world: Make):
    world, lead = bouncing(new_world, "", {"owner": "both"})
    world.airtable.settings.rounding = {"Amount": Rounding(step=10)}
    world.edit_lead(lead, price=27)
    settle(world)
    assert (world.lead(lead)["price"], world.record(lead)["Amount"]) == (27, 30)
    assert counted(world, "loop_breaks") == {}
    assert world.record(lead)["Sync Status"] == "ok"


@pytest.mark.parametrize("gap", [0.0, 3.0])
def test_edits_told_within_the_settle_delay_are_one_read_and_one_write(new_world: Make, gap: float):
    world = new_world(fields=fields_with(Amount={"owner": "both"}))
    lead = world.add_lead(name="Deal", price=10)
    settle(world)
    world.clock.advance(200)
    world.inbox = Inbox(world.database, settle_seconds=10.0)
    record, reads = record_id(world, lead), world.calls("kommo", route="leads")
    for amount in (2.0, 25.0, 250.0):
        world.edit_record(record, Amount=amount)
        world.deliver_hooks()
        world.clock.advance(gap)
        assert world.work() == []
    (report,) = world.work(patience=20)
    assert (report.events, report.counts["updated"]) == (3, 1)
    assert world.lead(lead)["price"] == 250
    assert world.calls("kommo", method="PATCH") == 1
    assert world.calls("kommo", method="GET", route="leads") == reads + 1
