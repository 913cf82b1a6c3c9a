"""Values of the user's own functions, through the engine: their faults touch one lead only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from kommo_airtable_sync.engine.context import LEASE_SECONDS
from kommo_airtable_sync.engine.enrich import Enricher, Enrichment
from kommo_airtable_sync.engine.heart import Heart
from tests.engine.people import record_id
from tests.simulated import World, fields_with
from tests.two_way import settle

Make = Callable[..., World]
FREE = ("Region Code", "Seats")


class Patient(Enricher):
    """Waits for a function no longer than a test wants to."""

    def enrich(self, lead: Any, deadline_seconds: float = 0.2) -> dict[str, object]:
        return super().enrich(lead, deadline_seconds)


@pytest.fixture
def world(new_world: Make) -> World:
    fields = [
        each for each in fields_with(Amount={"owner": "both"}) if each["airtable"] not in FREE
    ]
    return new_world(
        fields=fields,
        airtable={"table": "Deals", "key_field": "Kommo Deal ID", "status_field": "Sync Status"},
    )


def enrich(world: World, function: Callable[[dict[str, Any]], object]) -> None:
    world.engine.enricher = Patient([Enrichment("mine:f", function)])


def code(lead: dict[str, Any]) -> dict[str, object]:
    return {"Region Code": f"code of {lead['name']}", "Seats": 7}


def test_values_land_and_follow_the_lead(world: World):
    enrich(world, code)
    lead = world.add_lead(name="Deal")
    settle(world)
    shown = world.record(lead)
    assert (shown["Region Code"], shown["Seats"]) == ("code of Deal", 7)
    world.edit_lead(lead, name="Renamed")
    settle(world)
    assert world.record(lead)["Region Code"] == "code of Renamed"
    calls = len(world.cells_written())
    world.hint(lead)
    settle(world)
    assert len(world.cells_written()) == calls
    # They are Kommo's side's: an edit in Airtable is taken back.
    world.edit_record(record_id(world, lead), Region_Code="mine", Amount=5.0)
    settle(world)
    assert world.record(lead)["Region Code"] == "code of Renamed"
    assert world.lead(lead)["price"] == 5


def raises(_: dict[str, Any]) -> object:
    raise RuntimeError("the register is closed")


def hangs(_: dict[str, Any]) -> object:
    threading.Event().wait(30)
    return {}


@pytest.mark.parametrize(
    ("fault", "state", "said"),
    [
        (raises, "pending", "RuntimeError: the register is closed"),
        (hangs, "pending", "no answer within"),
        (lambda _: {"Seats": "many"}, "dead", "Seats"),
        (lambda _: {"Seets": 7}, "dead", "did you mean"),
        (lambda _: {"Amount": 7}, "dead", "Amount"),
        (lambda _: [7], "dead", "not a dict"),
    ],
)
def test_a_fault_touches_its_lead_only_and_is_tried_again_if_that_may_help(
    world: World, fault: Callable[[dict[str, Any]], object], state: str, said: str
):
    enrich(world, lambda lead: fault(lead) if lead["name"] == "Bad" else code(lead))
    bad, *good = world.add_leads([{"name": name} for name in ("Bad", "One", "Two")])
    world.deliver_hooks()
    world.work()
    assert sorted(world.by_lead()) == good
    (event,) = [event for event in world.events() if event.key == f"lead:{bad}"]
    assert event.state == state
    assert said.casefold() in event.error.casefold()
    enrich(world, code)
    world.hint(bad)
    settle(world)
    world.work(patience=60)
    assert world.record(bad)["Region Code"] == "code of Bad"
    assert not world.events("dead", "pending")


def test_slow_functions_lose_no_lease_and_are_asked_once(world: World):
    leads = world.add_leads([{"name": f"Deal {n}", "price": 1} for n in range(50)])
    settle(world)
    heart = Heart(world.engine, "run")
    asked: list[int] = []

    def slow(lead: dict[str, Any]) -> dict[str, object]:
        asked.append(lead["id"])
        world.clock.advance(1.9)
        heart._renew()  # As its thread does meanwhile.
        return code(lead)

    enrich(world, slow)
    by_lead = world.by_lead()
    for lead in leads:
        # Both sides have to be written, so that what was read grows old twice.
        world.edit_record(by_lead[lead]["id"], Amount=2.0)
    world.deliver_hooks()
    began = world.clock.now().timestamp()
    reports = world.work()
    assert world.clock.now().timestamp() - began > LEASE_SECONDS
    assert sum(report.counts["written_to_kommo"] for report in reports) == 50
    assert sorted(asked) == leads
    assert len(reports) == 1
    assert {world.lead(lead)["price"] for lead in leads} == {2}
    settle(world)
    world.assert_in_step(leads)
