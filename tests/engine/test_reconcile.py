"""Reconciliation: it finds exactly what differs, and the one write path mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from kommo_airtable_sync.core.errors import SideUnavailable
from kommo_airtable_sync.core.types import BULK
from kommo_airtable_sync.engine.reconcile import Comparison, compare_sides, hand_over, remember
from kommo_airtable_sync.store.survey import Survey
from tests.simulated import EXAMPLE as EXAMPLE_FILE
from tests.simulated import World
from tests.two_way import settle

pytestmark = pytest.mark.parametrize("sql_engine", ["sqlite"])


def _silent(_what: str, _done: int) -> None:
    """Nobody looks."""


@contextmanager
def compared(world: World, folder: Path, **options: Any) -> Iterator[Comparison]:
    survey = Survey(folder / "survey.db", world.clock)
    engine = world.new_engine(BULK)
    try:
        yield compare_sides(engine, survey, options.get("since"), _silent)
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


EXAMPLE = yaml.safe_load(EXAMPLE_FILE.read_text(encoding="utf-8"))


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
