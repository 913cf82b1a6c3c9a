"""An edit in Airtable between our read and our write is noticed afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kommo_airtable_sync.core.airtable_hooks import parse_automation, ping_event
from kommo_airtable_sync.engine.claim import claim_batch
from kommo_airtable_sync.engine.follow import work_batch
from kommo_airtable_sync.engine.registration import register_airtable
from kommo_airtable_sync.receiver.metrics import metrics_text
from tests.engine.people import record_id, resolve, text_field
from tests.simulated import World, fields_with
from tests.trap import Meanwhile
from tests.two_way import in_kommo, settle

SENT = ["Deal Name", "Amount", "Notes", "Region", "Tags", "Seats"]
Make = Callable[..., World]


def world_of(new_world: Make, field: str, **rule: Any) -> tuple[World, int]:
    """One deal on both sides; Airtable's automation tells the cells, too."""
    world = new_world(
        fields=fields_with(**{field: rule, "Seats": {"owner": "airtable"}}),
        airtable={"table": "Deals", "key_field": "Kommo Deal ID", "status_field": "Sync Status"},
    )
    world._in_airtable("DELETE", "automations")
    world._in_airtable(
        "POST", "automations", {"url": "https://x", "secret": "s", "send": SENT, "on_api": False}
    )
    lead = world.add_lead(name="Old", _embedded={"tags": [{"name": "hot"}]})
    settle(world)
    return world, lead


def edit_unseen(world: World, lead: int, **cells: Any) -> None:
    """A person edits the record after the engine has read it and before it writes."""
    record = record_id(world, lead)
    world.clock.advance(5)
    world.deliver_hooks()

    def person() -> None:
        world.edit_record(record, **cells)

    engine = Meanwhile("journal.open", person).set(world.engine)
    batch = claim_batch(engine, "run")
    assert batch is not None
    work_batch(engine, batch)
    settle(world)


def notes(world: World) -> list[tuple[str, str]]:
    return [
        (json.loads(row.before), json.loads(row.after))
        for row in world.journal_rows("done")
        if row.operation == "note"
    ]


@pytest.mark.parametrize(
    ("rule", "stands"),
    [
        ({"owner": "kommo"}, "Kommo's"),
        ({"owner": "both", "on_conflict": "kommo"}, "Kommo's"),
        ({"owner": "both", "on_conflict": "airtable"}, "Theirs"),
        ({"owner": "both", "on_conflict": "newest"}, "Theirs"),
    ],
)
def test_an_overwritten_edit_is_journalled_counted_and_follows_the_rule(
    new_world: Make, rule: dict[str, str], stands: str
):
    world, lead = world_of(new_world, "Deal_Name", **rule)
    world.edit_lead(lead, name="Kommo's")
    edit_unseen(world, lead, Deal_Name="Theirs")
    assert (world.record(lead)["Deal Name"], world.lead(lead)["name"]) == (stands, stands)
    assert notes(world) == [("Theirs", "Kommo's")]
    text = metrics_text(world.database, world.limiter, world.quota).decode()
    assert 'kommo_airtable_sync_overwritten_total{side="airtable"} 1.0' in text
    world.assert_in_step([lead])


def test_a_held_field_shows_both_values_until_a_person_decides(new_world: Make):
    world, lead = world_of(new_world, "Notes", owner="both", on_conflict="hold")
    world.edit_lead(lead, custom_fields_values=[text_field(world, "Notes", "Kommo's")])
    edit_unseen(world, lead, Notes="Theirs")
    for _ in range(2):
        assert world.record(lead)["Notes"] == "Theirs"
        assert in_kommo(world, lead, "Notes") == "Kommo's"
        (held,) = world.journal.load([f"lead:{lead}"])[f"lead:{lead}"].held.values()
        assert (held.reason, held.kommo, held.airtable) == ("conflict", "Kommo's", "Theirs")
        world.clock.advance(200)
        world.hint(lead)
        settle(world)
    resolve(world, lead, held, "airtable")
    settle(world)
    assert in_kommo(world, lead, "Notes") == "Theirs"
    world.assert_in_step([lead])


def test_a_tag_added_unseen_comes_back_beside_kommo_s(new_world: Make):
    world, lead = world_of(new_world, "Tags", owner="both")
    world.edit_lead(lead, _embedded={"tags": [{"name": "hot"}, {"name": "partner"}]})
    edit_unseen(world, lead, Tags=["hot", "newsletter"])
    everyone = {"hot", "partner", "newsletter"}
    assert set(world.record(lead)["Tags"]) == in_kommo(world, lead, "Tags") == everyone


def test_the_same_news_twice_are_one_loss(new_world: Make):
    world, lead = world_of(new_world, "Deal_Name", owner="kommo")
    world.airtable.settings.automation_duplicate = 1.0
    world.edit_lead(lead, name="Kommo's")
    edit_unseen(world, lead, Deal_Name="Theirs")
    world.hint(lead)
    settle(world)
    assert notes(world) == [("Theirs", "Kommo's")]


def test_a_webhook_s_select_is_understood(new_world: Make):
    world, lead = world_of(
        new_world, "Region", owner="both", on_conflict="airtable", create_options=True
    )
    world._in_airtable("DELETE", "automations")
    hook = register_airtable(world.engine, "https://sync.example.com")
    region = next(f for f in world.engine.kommo.custom_fields("leads") if f["name"] == "Region")
    values = {"field_id": region["id"], "values": [{"value": "EU"}]}
    world.edit_lead(lead, custom_fields_values=[values])
    edit_unseen(world, lead, Region="UK")
    world.inbox.receive([ping_event(hook.id)])
    settle(world)
    assert in_kommo(world, lead, "Region") == world.record(lead)["Region"] == "UK"
    assert notes(world) == [("UK", "EU")]


def test_an_automation_that_tells_no_cells_says_nothing(new_world: Make):
    world, lead = world_of(new_world, "Deal_Name", owner="both", on_conflict="airtable")
    world.edit_lead(lead, name="Kommo's")
    settle(world)
    told = {"recordId": record_id(world, lead), "changedAt": world.clock.now().isoformat()}
    world.inbox.receive(parse_automation(json.dumps(told).encode()))
    settle(world)
    assert notes(world) == []
