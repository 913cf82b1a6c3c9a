"""People edit both sides at once, with real processes on either SQL store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from kommo_airtable_sync.core.canonical import to_json
from kommo_airtable_sync.sandbox.observe import agreement, see
from kommo_airtable_sync.store.schema import journal
from tests.conftest import ENGINES, postgres_database
from tests.stack import Stack, wait_until

pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]
LOADED = 30


@pytest.fixture(scope="module", params=ENGINES)
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("both-ways")
    if request.param == "sqlite":
        yield from started(Stack(folder, fast=True))
        return
    for url in postgres_database(request.getfixturevalue("postgres_url"), "template0"):
        yield from started(Stack(folder, fast=True, environment={"SYNC_DATABASE_URL": url}))


def started(stack: Stack) -> Iterator[Stack]:
    with stack:
        stack.start(leads=LOADED)
        assert stack.cli("reconcile").returncode == 0
        yield stack


def new_deal(stack: Stack, **attributes: Any) -> int:
    """A deal that both sides have agreed on."""
    lead = stack.stand_ins.add_lead(**attributes)
    stack.wait_for_record(lead)
    wait_until(stack.quiet, 90, "it is settled")
    return lead


def edit_both(stack: Stack, lead: int, kommo: dict[str, Any], airtable: dict[str, Any]) -> None:
    """Two people press Enter at the same time: both edits stand before the product hears of any."""
    hold_hooks(stack, 3.0)  # a busy machine needs more than one for two edits
    with ThreadPoolExecutor(2) as pool:
        list(
            pool.map(
                lambda act: act(),
                (
                    lambda: stack.stand_ins.edit_lead(lead, **kommo),
                    lambda: stack.edit_record(lead, **airtable),
                ),
            )
        )
    hold_hooks(stack, 0.0)


def hold_hooks(stack: Stack, seconds: float) -> None:
    """Let what is edited from now on be told so much later."""
    late = {"hook_late": float(seconds > 0), "hook_late_seconds": seconds}
    stack.control("kommo", "PATCH", "settings", late)
    stack.control("airtable", "PATCH", "settings", {"automation_seconds": seconds})


def test_the_load_and_a_new_deal_arrive(stack: Stack) -> None:
    assert len(stack.records()) == LOADED
    lead = new_deal(stack, name="A new deal", price=5)
    assert stack.wait_for_record(lead)["Amount"] == 5
    assert stack.reports().latency()["count"] >= 1


def test_edits_of_different_fields_within_a_second_both_survive_on_both_sides(
    stack: Stack,
) -> None:
    lead = new_deal(stack, name="Before", price=1)
    edit_both(stack, lead, {"name": "Named in Kommo"}, {"Amount": 777})
    stack.wait_for_lead(lead, name="Named in Kommo", price=777)
    stack.wait_for_record(lead, Deal_Name="Named in Kommo", Amount=777)
    wait_until(stack.quiet, 90, "the echoes are over")
    stack.wait_for_lead(lead, 0, name="Named in Kommo", price=777)
    stack.wait_for_record(lead, 0, Deal_Name="Named in Kommo", Amount=777)


def test_of_two_edits_of_one_field_the_rule_chooses_and_the_journal_keeps_the_loser(
    stack: Stack,
) -> None:
    lead = new_deal(stack, name="Contested", price=1)
    edit_both(stack, lead, {"price": 500}, {"Amount": 900})
    stack.wait_for_record(lead, Amount=500)
    wait_until(stack.quiet, 90, "the echoes are over")
    stack.wait_for_lead(lead, 0, price=500)
    stack.wait_for_record(lead, 0, Amount=500)
    losers = [
        (row.side, row.rule)
        for row in journalled(stack, lead, "Amount")
        if json.loads(row.before) == to_json(Decimal(900))
    ]
    assert losers == [("airtable", "conflict_kommo")]


def test_two_people_each_add_a_tag_and_both_stay_on_both_sides(stack: Stack) -> None:
    lead = new_deal(stack, name="Tagged", tags_to_add=[{"name": "hot"}])
    edit_both(
        stack,
        lead,
        {"tags_to_add": [{"name": "partner"}]},
        {"Tags": ["hot", "newsletter"]},
    )
    everything = {"hot", "partner", "newsletter"}
    stack.wait_for_lead(lead, tags=everything)
    wait_until(lambda: set(stack.wait_for_record(lead)["Tags"]) == everything, 90, "all tags")
    wait_until(stack.quiet, 90, "the echoes are over")
    stack.wait_for_lead(lead, 0, tags=everything)


def test_what_airtable_owns_goes_back_whatever_kommo_says(stack: Stack) -> None:
    lead = new_deal(stack, name="Onboarded")
    stack.edit_record(lead, Onboarding_Status="In progress")

    def onboarding() -> str | None:
        custom = stack.stand_ins.lead(lead)["custom_fields_values"] or []
        named = {each["field_name"]: each["values"][0]["value"] for each in custom}
        return named.get("Onboarding status")

    wait_until(lambda: onboarding() == "In progress", 90, "Kommo shows the status")
    wait_until(stack.quiet, 90, "the echoes are over")
    field = onboarding_field(stack, lead)
    changed = {"field_id": field, "values": [{"value": "Done"}]}
    stack.stand_ins.edit_lead(lead, custom_fields_values=[changed])
    wait_until(lambda: onboarding() == "In progress", 90, "Kommo's edit is taken back")
    stack.wait_for_record(lead, 0, Onboarding_Status="In progress")


def onboarding_field(stack: Stack, lead: int) -> int:
    custom = stack.stand_ins.lead(lead)["custom_fields_values"]
    return next(each["field_id"] for each in custom if each["field_name"] == "Onboarding status")


def journalled(stack: Stack, lead: int, field: str) -> list[Any]:
    query = sa.select(journal).where(journal.c.key == f"lead:{lead}", journal.c.field_name == field)
    with stack.database().read() as connection:
        return list(connection.execute(query.order_by(journal.c.id)).all())


def test_a_webhook_tells_as_well_as_the_automation_does(stack: Stack) -> None:
    lead = new_deal(stack, name="Told by a webhook", price=1)
    registered = stack.cli("webhooks", "register", "--url", stack.receiver)
    assert registered.returncode == 0, registered.stderr
    stack.control("airtable", "DELETE", "automations")
    stack.edit_record(lead, Amount=55)
    stack.wait_for_lead(lead, price=55)


def test_in_the_end_both_sides_agree_and_nothing_goes_to_and_fro(stack: Stack) -> None:
    wait_until(stack.quiet, 90, "nothing is left to do")
    found = agreement(stack.stand_ins)
    assert (found.duplicates, found.differences) == (0, ())
    seen = see(stack.stand_ins)
    assert len(seen.lead_updates) == 5  # two amounts, a tag, and what Airtable owns, twice
