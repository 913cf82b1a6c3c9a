"""Reconciliation: it finds exactly what differs, and the one write path mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kommo_airtable_sync.core.errors import ConfigurationError, SideUnavailable
from kommo_airtable_sync.core.types import BULK
from kommo_airtable_sync.engine.reconcile import (
    Comparison,
    compare_sides,
    hand_over,
    hand_over_plan,
    read_plan,
    remember,
)
from kommo_airtable_sync.store.survey import Survey
from tests.simulated import EXAMPLE, World
from tests.two_way import custom, settle

pytestmark = pytest.mark.parametrize("sql_engine", ["sqlite"])


def _silent(_what: str, _done: int) -> None:
    """Nobody looks."""


@contextmanager
def compared(world: World, folder: Path, **options: Any) -> Iterator[Comparison]:
    survey = Survey(folder / "survey.db", world.clock)
    engine = world.new_engine(BULK)
    try:
        yield compare_sides(
            engine, survey, options.get("since"), options.get("on_progress", _silent)
        )
    finally:
        survey.close()


def kinds(world: World, folder: Path) -> dict[str, int]:
    """What differs, by kind."""
    with compared(world, folder) as comparison:
        return dict(+comparison.summary.kinds)


def reconcile(world: World, folder: Path, *, release: bool = False) -> dict[str, int]:
    """Compare, hand over, work off; what differed, by kind."""
    with compared(world, folder) as comparison:
        engine = world.new_engine(BULK)
        hand_over(engine, comparison, release=release)
        world.work(engine, patience=60)
        remember(engine, comparison, {})
        return dict(+comparison.summary.kinds)


def test_an_empty_table_is_loaded_and_then_nothing_differs(world: World, tmp_path: Path):
    leads = world.add_leads([{"name": f"Deal {n}", "price": n} for n in range(300)])
    world.take_hooks()
    assert reconcile(world, tmp_path) == {"create": 300}
    world.assert_in_step(leads)
    assert kinds(world, tmp_path) == {}


@pytest.fixture
def shared(new_world: Callable[..., World]) -> World:
    """A world of the example's sync.yaml: shared fields, a status, clients in a table of their own."""
    parts = {name: EXAMPLE[name] for name in ("fields", "airtable", "links")}
    return new_world(**parts)


def loaded(world: World, folder: Path, count: int) -> list[int]:
    """So many leads that were there before us, loaded; four of five have a contact."""
    leads = world._in_kommo("POST", "seed", {"count": count})["ids"]
    assert reconcile(world, folder) == {"create": count}
    settle(world)
    world.clock.advance(600)
    return leads


def deafen(world: World) -> None:
    """What either side had to tell is lost."""
    world.take_hooks()
    world.take_automations()
    world.clock.advance(600)


def test_drift_of_every_kind_is_found_exactly_and_mended(shared: World, tmp_path: Path):
    leads = loaded(shared, tmp_path, 60)
    records = {lead: record["id"] for lead, record in shared.by_lead().items()}
    clients = shared._in_airtable("GET", "records", table="Clients")["records"]
    expected: dict[str, set[str]] = {}

    def expect(kind: str, key: str) -> None:
        expected.setdefault(kind, set()).add(key)

    for n, lead in enumerate(leads[:24]):
        match n % 6:
            case 0:
                shared.edit_lead(lead, name=f"Renamed {n}")
                expect("update", f"lead:{lead}")
            case 1:
                shared.edit_record(records[lead], Amount=4711 + n)
                expect("update", f"lead:{lead}")
            case 2:  # somebody typed over what Kommo owns, and over our word for it
                shared.edit_record(records[lead], Deal_Name="typed over", Sync_Status="fine")
                expect("update", f"lead:{lead}")
            case 3:
                shared.delete_record(records[lead])
                expect("recreate", f"lead:{lead}")
            case 4:
                shared.delete_lead(lead)
                expect("mark", f"lead:{lead}")
            case _:  # both edited, the same way
                shared.edit_lead(lead, price=99 + n)
                shared.edit_record(records[lead], Amount=99 + n)
                expect("adopt", f"lead:{lead}")
    expect("create", f"lead:{shared.add_lead(name='Unheard of')}")
    for record in clients[:3]:
        shared._in_airtable(
            "PATCH", f"records/{record['id']}", {"fields": {"Name": "?"}}, table="Clients"
        )
        expect("update", f"contact:{record['fields']['Kommo Contact ID']}")
    shared._in_airtable("DELETE", f"records/{clients[3]['id']}", table="Clients")
    expect("recreate", f"contact:{clients[3]['fields']['Kommo Contact ID']}")
    shared.add_record(Kommo_Deal_ID=987654321, Deal_Name="whose?")
    expect("orphan", "lead:987654321")
    shared.add_record(Kommo_Deal_ID=leads[30], Deal_Name="a copy")
    expect("duplicate", f"lead:{leads[30]}")
    shared.edit_record(records[leads[31]], Kommo_Deal_ID=None)
    expect("key_changed", f"lead:{leads[31]}")
    deafen(shared)
    with compared(shared, tmp_path) as comparison:
        found: dict[str, set[str]] = {}
        for each in comparison.survey.found():
            found.setdefault(each["kind"], set()).add(each["key"])
    links = found.pop("update") - expected["update"]  # they lose the client that is made anew
    assert links <= {f"lead:{lead}" for lead in leads[24:]}
    found["update"] = expected["update"]
    assert found == expected
    before = shared.calls("airtable", method="PATCH") + shared.calls("kommo", method="PATCH")
    reconcile(shared, tmp_path)
    settle(shared)
    assert kinds(shared, tmp_path) == {"orphan": 1, "duplicate": 1, "key_changed": 1}
    assert shared.calls("airtable", method="PATCH") + shared.calls("kommo", method="PATCH") > before


def test_leads_in_step_are_compared_while_they_are_read_and_a_later_copy_is_still_found(
    shared: World, tmp_path: Path
):
    leads = loaded(shared, tmp_path, 120)
    told: dict[str, int] = {}
    with compared(shared, tmp_path, on_progress=told.__setitem__) as comparison:
        assert not +comparison.summary.kinds
    assert told["leads"] == 120
    assert "compared" not in told  # nothing was left for afterwards
    shared.add_record(Kommo_Deal_ID=leads[0], Deal_Name="a copy")  # on the second page
    deafen(shared)
    with compared(shared, tmp_path, on_progress=told.__setitem__) as comparison:
        assert [each["key"] for each in comparison.survey.found()] == [f"lead:{leads[0]}"]
        assert comparison.summary.kinds == {"duplicate": 1}
    assert told["compared"] == 1


def test_a_comparison_writes_nothing_and_moves_nothing(shared: World, tmp_path: Path):
    leads = loaded(shared, tmp_path, 20)
    shared.edit_lead(leads[0], name="Renamed")
    deafen(shared)
    calls = shared.calls("airtable", method="PATCH") + shared.calls("kommo", method="PATCH")
    journal, events = len(shared.journal_rows()), len(shared.events())
    assert kinds(shared, tmp_path) == {"update": 1}
    assert shared.calls("airtable", method="PATCH") + shared.calls("kommo", method="PATCH") == calls
    assert (len(shared.journal_rows()), len(shared.events())) == (journal, events)
    assert shared.ledger(leads[0]).fields


def test_a_list_that_breaks_off_is_read_again_and_never_taken_for_the_end(
    shared: World, tmp_path: Path
):
    loaded(shared, tmp_path, 30)
    shared.fail("kommo", "status", status=502, route="*/leads*", times=2)
    assert kinds(shared, tmp_path) == {}
    shared.fail("airtable", "status", status=503, times=50)
    with pytest.raises(SideUnavailable), compared(shared, tmp_path):
        pass


@pytest.mark.parametrize("status", [401, 402])
def test_nobody_waits_for_what_only_a_person_can_mend(
    shared: World, tmp_path: Path, status: int
) -> None:
    loaded(shared, tmp_path, 3)
    shared.fail("kommo", "status", status=status, route="*/leads*")
    before, calls = shared.clock.now(), shared.calls("kommo")
    with pytest.raises(SideUnavailable), compared(shared, tmp_path):
        pass
    assert (shared.clock.now() - before).total_seconds() < 10
    assert shared.calls("kommo") == calls + 1


def test_a_field_emptied_on_many_records_is_held_before_the_first_write_until_released(
    shared: World, tmp_path: Path
):
    leads = loaded(shared, tmp_path, 60)
    shared.edit_leads(leads, **custom(Notes="of a person"))
    settle(shared)
    shared.edit_leads(leads[:24], **custom(Notes=None))
    deafen(shared)
    calls = shared.calls("airtable", method="PATCH")
    with compared(shared, tmp_path) as comparison:
        assert comparison.summary.blanked == {"Notes": 24}
        assert 'empty the field "Notes" on 24 records' in (comparison.brake or "")
    assert shared.calls("airtable", method="PATCH") == calls
    assert reconcile(shared, tmp_path, release=True) == {"update": 24}
    assert kinds(shared, tmp_path) == {}
    assert not shared.events("held")


def test_a_mapping_mistake_shows_before_it_is_made_and_empties_nothing(
    shared: World, tmp_path: Path
):
    leads = loaded(shared, tmp_path, 60)
    shared.edit_leads(leads, **custom(Notes="of a person"))
    shared.edit_leads(leads[:30], **custom(Region="EU"))
    settle(shared)
    wrong = {"airtable": "Notes", "kommo": {"custom_field": "Region"}}
    shared.restart(
        fields=[wrong if each["airtable"] == "Notes" else each for each in EXAMPLE["fields"]]
    )
    with compared(shared, tmp_path) as comparison:
        assert not comparison.summary.blanked  # a first meeting: blanks overwrite nothing
        assert comparison.summary.fields["Notes"] >= 30
        assert "safety.max_share_changed" in (comparison.brake or "")


def test_an_account_that_answers_nothing_is_held_and_not_taken_for_empty(
    shared: World, tmp_path: Path
):
    loaded(shared, tmp_path, 60)
    shared.kommo.settings.token_sees_leads = False
    with compared(shared, tmp_path) as comparison:
        assert comparison.summary.kinds == {"vanished": 60}
        assert "60 of 60" in (comparison.brake or "")


def test_a_saved_plan_binds_what_has_changed_since_is_refused(shared: World, tmp_path: Path):
    leads = loaded(shared, tmp_path, 12)
    for n, lead in enumerate(leads[:6]):
        shared.edit_lead(lead, name=f"Renamed {n}")
    new = shared.add_lead(name="Unheard of")
    deafen(shared)
    path = tmp_path / "plan.json"
    with compared(shared, tmp_path) as comparison:
        path.write_text("".join(comparison.document()), encoding="utf-8")
    shared.edit_lead(leads[0], name="Renamed once more")
    deafen(shared)
    plan = read_plan(path, shared.config)
    assert hand_over_plan(shared.engine, plan, release=False, actor="somebody") == 7
    shared.work(shared.new_engine(BULK))
    outcomes = sorted(
        str(event.outcome).partition(":")[0] for event in shared.events() if event.source == "apply"
    )
    assert outcomes == ["applied"] * 6 + ["refused"]
    shown = {lead: record["fields"]["Deal Name"] for lead, record in shared.by_lead().items()}
    assert shown[leads[0]] != "Renamed once more"
    assert [shown[lead] for lead in leads[1:6]] == [f"Renamed {n}" for n in range(1, 6)]
    assert shown[new] == "Unheard of"
    shared.restart(safety={"max_deletes": 1})
    with pytest.raises(ConfigurationError, match="another sync"):
        read_plan(path, shared.config)


def test_an_incremental_comparison_reads_only_what_changed(
    new_world: Callable[..., World], tmp_path: Path
):
    parts = {name: EXAMPLE[name] for name in ("fields", "links")}
    world = new_world(airtable={**EXAMPLE["airtable"], "modified_field": "Last Modified"}, **parts)
    leads = loaded(world, tmp_path, 150)
    since = world.clock.now()
    world.clock.advance(60)
    world.edit_lead(leads[3], name="Renamed")
    world.edit_record(world.by_lead()[leads[7]]["id"], Amount=4711)
    deafen(world)
    with compared(world, tmp_path, since=since) as comparison:
        assert {each["key"] for each in comparison.survey.found()} == {
            f"lead:{leads[3]}",
            f"lead:{leads[7]}",
        }
        assert sum(comparison.summary.calls.values()) <= 5
        assert comparison.summary.kinds == {"update": 2}


def test_what_the_live_sync_is_working_on_is_left_to_it(shared: World, tmp_path: Path):
    leads = loaded(shared, tmp_path, 5)
    shared.edit_lead(leads[0], name="Renamed")
    shared.deliver_hooks()
    with compared(shared, tmp_path) as comparison:
        assert comparison.summary.kinds == {}
        assert comparison.summary.in_motion == 1


def test_changes_that_no_webhook_announced_are_counted(shared: World, tmp_path: Path):
    leads = loaded(shared, tmp_path, 10)
    shared.edit_leads(leads[:4], price=77)
    settle(shared)
    shared.edit_leads(leads[4:6], price=78)
    deafen(shared)
    with compared(shared, tmp_path) as comparison:
        assert (comparison.summary.changed, comparison.summary.unannounced) == (6, 2)
