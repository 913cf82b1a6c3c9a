"""Forty changes that people make to a schema, each named before a write fails of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from kommo_airtable_sync.cli.doctor import examine
from kommo_airtable_sync.cli.setup import propose_file
from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.core.findings import Finding, Level
from kommo_airtable_sync.engine.drift import look
from kommo_airtable_sync.sandbox.airtable.schema_edits import new_field
from kommo_airtable_sync.sandbox.kommo.seed import ENTERPRISE_ID, SALES_ID, lead_field_id
from kommo_airtable_sync.store.database import Database
from tests.conftest import HandClock
from tests.simulated import EXAMPLE, KOMMO_URL, World, fields_with

# What is compared is the same on both engines; the store of texts has its own tests.
pytestmark = pytest.mark.parametrize("sql_engine", ["sqlite"])
Json = Any
NUMBER = {"precision": 0}
ICON = {"icon": "check", "color": "greenBright"}
QUALIFIED = SALES_ID * 10 + 2
GARY = 11087004
AIRTABLE: Json = EXAMPLE["airtable"]


@pytest.fixture
def new_world(database: Database, clock: HandClock) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(**parts: Json) -> World:
        made.append(World(database, clock, parts=parts))
        return made[-1]

    yield make
    for world in made:
        world.close()


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[World], list[Finding]]:
    """What `doctor` says of the schemas; its other checks find nobody at these addresses."""
    nowhere = {
        "KOMMO_BASE_URL": "http://127.0.0.1:1",
        "AIRTABLE_ENDPOINT_URL": "http://127.0.0.1:1",
    }
    for name, value in {**nowhere, "DAGSTER_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)

    def ask(world: World) -> list[Finding]:
        monkeypatch.setattr("kommo_airtable_sync.assembly.build_engine", lambda *_: world.engine)
        return [each for each in examine() if each.check == "schema"]

    return ask


# ------------------------------------------------------------------ what people do


def table(world: World, name: str = "Deals") -> Json:
    found = next(iter(world.airtable.bases.values())).find_table(name)
    assert found is not None
    return found


def renamed_option(world: World, field_name: str, old: str, new: str) -> None:
    for choice in table(world).field_of(field_name).options["choices"]:
        choice["name"] = new if choice["name"] == old else choice["name"]


def without_option(world: World, field_name: str, gone: str) -> None:
    options = table(world).field_of(field_name).options
    options["choices"] = [each for each in options["choices"] if each["name"] != gone]


def rename_table(world: World, old: str, new: str) -> None:
    table(world, old).name = new


def drop_table(world: World, name: str) -> None:
    base = next(iter(world.airtable.bases.values()))
    del base.tables[table(world, name).id]


def rename_in_clients(world: World, name: str, new: str) -> None:
    world._in_airtable("PATCH", f"fields/{name}", {"name": new}, table="Clients")


def not_in_clients(world: World, name: str) -> None:
    world._in_airtable("DELETE", f"fields/{name}", table="Clients")


def lead_field(world: World, name: str) -> Json:
    return world.kommo.state.rows["leads/custom_fields"][lead_field_id(name)]


def delete_lead_field(world: World, name: str) -> None:
    del world.kommo.state.rows["leads/custom_fields"][lead_field_id(name)]


def alter_lead_field(world: World, field_name: str, **changes: Json) -> None:
    lead_field(world, field_name).update(changes)


def stages(world: World, pipeline_id: int = SALES_ID) -> list[Json]:
    return world.kommo.state.rows["leads/pipelines"][pipeline_id]["_embedded"]["statuses"]


def add_stage(world: World, name: str) -> None:
    stages(world).append({**stages(world)[1], "id": 85710019, "name": name})


def rename_stage(world: World, stage_id: int, name: str) -> None:
    next(each for each in stages(world) if each["id"] == stage_id)["name"] = name


def drop_stage(world: World, stage_id: int) -> None:
    stages(world)[:] = [each for each in stages(world) if each["id"] != stage_id]


def pipelines(world: World) -> Json:
    return world.kommo.state.rows["leads/pipelines"]


def users(world: World) -> Json:
    return world.kommo.state.rows["users"]


@dataclass
class Change:
    """What somebody does, what is to be said of it, and how gravely.

    Args:
        says: in the message or the remedy.
        parts: of sync.yaml, in place of the example's.
        loads: whether sync.yaml still fits the accounts; if not, nothing can be written.
    """

    name: str
    act: Callable[[World], object]
    level: Level
    says: tuple[str, ...]
    parts: dict[str, Json] = field(default_factory=dict)
    loads: bool = True


STRICT_STAGE = {"fields": fields_with(Stage={"create_options": False})}
CHANGES = [
    # -------------------------------------------------------------- fields of Airtable
    Change("field renamed", lambda w: w.alter_field("Amount", name="Deal value"), "problem",
           ("'Amount' is now called 'Deal value'", 'set fields[3].airtable: "Deal value"'),
           loads=False),
    Change("field deleted", lambda w: w.delete_field("Seats"), "problem",
           ("'Seats' of Deals was deleted", "Take fields[9] out"), loads=False),
    Change("field deleted and made anew", lambda w: (
               w.delete_field("Notes"), new_field(w.airtable.ids, table(w),
               {"name": "Remarks", "type": "multilineText"})), "problem",
           ("'Notes' of Deals was deleted", 'fields[15].airtable: "Remarks"'), loads=False),
    Change("field retyped, a misfit", lambda w: w.alter_field(
               "Kickoff", type="checkbox", options=ICON), "problem",
           ("'Kickoff' was a dateTime field, now it is checkbox", "take fields[11] out"),
           loads=False),
    Change("field retyped, it fits", lambda w: w.alter_field("Notes", type="richText"), "warning",
           ("'Notes' was a multilineText field, now it is richText", "compared anew")),
    Change("field retyped, no way back", lambda w: w.alter_field("Amount", type="singleLineText"),
           "problem", ("'Amount' was a currency field", "set fields[3].owner: kommo"), loads=False),
    Change("key field renamed", lambda w: w.alter_field("Kommo Deal ID", name="ID"), "problem",
           ("'Kommo Deal ID' is now called 'ID'", 'set airtable.key_field: "ID"'), loads=False),
    Change("key field retyped", lambda w: w.alter_field("Kommo Deal ID", type="email"), "problem",
           ("'Kommo Deal ID' was a number field", "Make it a number field again"), loads=False),
    Change("key field deleted", lambda w: w.delete_field("Kommo Deal ID"), "problem",
           ("'Kommo Deal ID' of Deals was deleted", "Restore it"), loads=False),
    Change("status field deleted", lambda w: w.delete_field("Sync Status"), "problem",
           ("'Sync Status' of Deals was deleted", "Take airtable.status_field out"), loads=False),
    Change("status field retyped", lambda w: w.alter_field(
               "Sync Status", type="number", options=NUMBER), "problem",
           ("'Sync Status' was a singleLineText field",), loads=False),
    Change("modified field deleted", lambda w: w.delete_field("Last Modified"), "problem",
           ("'Last Modified' of Deals was deleted", "Take airtable.modified_field out"),
           {"airtable": {**AIRTABLE, "modified_field": "Last Modified"}}, loads=False),
    # -------------------------------------------------------------- options of Airtable
    Change("option deleted", lambda w: without_option(w, "Onboarding Status", "Done"), "problem",
           ("Option 'Done'", "'Onboarding Status' is gone", "create_options: true")),
    Change("option deleted that comes back", lambda w: without_option(w, "Region", "UK"),
           "warning", ("Option 'UK' of Airtable field 'Region' is gone", "makes it again")),
    Change("option renamed", lambda w: renamed_option(w, "Stage", "Qualified", "Fit"), "warning",
           ("Option 'Qualified'", "may be 'Fit' now",
            'fields[1].names: {"8571001/85710012": "Fit"}')),
    Change("option added", lambda w: w.add_option("Onboarding Status", "Paused"), "warning",
           ("'Onboarding Status' has a new option 'Paused'", "needs it too")),
    # -------------------------------------------------------------- tables and links
    Change("table renamed", lambda w: rename_table(w, "Deals", "Chances"), "problem",
           ("'Deals' is now called 'Chances'", 'set airtable.table: "Chances"'), loads=False),
    Change("table deleted", lambda w: drop_table(w, "Clients"), "problem",
           ("table 'Clients' was deleted (links[0].table)",), loads=False),
    Change("link renamed", lambda w: w.alter_field("Client", name="Customer"), "problem",
           ("'Client' is now called 'Customer'", "links[0].airtable"), loads=False),
    Change("linked table renamed", lambda w: rename_table(w, "Clients", "People"), "problem",
           ("'Clients' is now called 'People'", 'set links[0].table: "People"'), loads=False),
    Change("linked field deleted", lambda w: not_in_clients(w, "Phone"), "problem",
           ("'Phone' of Clients was deleted", "Take links[0].fields[1] out"), loads=False),
    Change("linked field renamed", lambda w: rename_in_clients(w, "Email", "Mail"), "problem",
           ("'Email' is now called 'Mail'", "links[0].fields[2].airtable"), loads=False),
    Change("linked key deleted", lambda w: not_in_clients(w, "Kommo Contact ID"), "problem",
           ("'Kommo Contact ID' of Clients was deleted", "Restore it"), loads=False),
    # -------------------------------------------------------------- fields of Kommo
    Change("Kommo field renamed", lambda w: alter_lead_field(w, "Seats", name="Licences"),
           "problem", ("'Seats' is now called 'Licences'",
                       "fields[9].kommo.custom_field: 1100003"), loads=False),
    Change("Kommo field deleted", lambda w: delete_lead_field(w, "Seats"), "problem",
           ("Kommo field 'Seats' (1100003) was deleted", "Take fields[9] out"), loads=False),
    Change("Kommo field retyped", lambda w: alter_lead_field(w, "VIP", type="text"), "problem",
           ("'VIP' was of type checkbox, now it is text", "take fields[12] out"), loads=False),
    Change("Kommo field retyped to what nobody can read", lambda w: alter_lead_field(
               w, "Notes", type="chained_list"), "problem",
           ("'Notes' was of type textarea", "Make it textarea again"), loads=False),
    Change("Kommo field added", lambda w: w.kommo.state.add_field("leads", 7, "Tier", "text"),
           "warning", ("new field 'Tier' (text)", "{airtable: Tier, kommo: {custom_field: 7}}")),
    Change("choice added", lambda w: lead_field(w, "Onboarding status")["enums"].append(
               {"id": 9, "value": "Paused", "sort": 1}), "problem",
           ("'Onboarding status' 'Paused' is new", "fields[18].create_options: true")),
    Change("choice renamed", lambda w: lead_field(w, "Onboarding status")["enums"][2].update(
               value="Finished"), "problem",
           ("'Done' is now called 'Finished'", "no option of Airtable field")),
    Change("choice deleted", lambda w: lead_field(w, "Onboarding status")["enums"].pop(0),
           "warning", ("'Not started'", "is gone", "choosing it is refused")),
    Change("filter's field renamed", lambda w: alter_lead_field(w, "Region", name="Area"),
           "problem", ("by which leads are filtered", "now called 'Area'",
                       "kommo.include.custom_fields[0].field: 1100002"),
           {"kommo": {"include": {"custom_fields": [{"field": "Region", "in": ["EU"]}]}}},
           loads=False),
    # -------------------------------------------------------------- stages, pipelines, people
    Change("stage added, no option for it", lambda w: add_stage(w, "Trial"), "problem",
           ("stage 'Trial' is new", "fields[1].create_options: true"), STRICT_STAGE),
    Change("stage added, the option is made", lambda w: add_stage(w, "Trial"), "warning",
           ("stage 'Trial' is new", "gets the option")),
    Change("stage renamed", lambda w: rename_stage(w, QUALIFIED, "Good"), "problem",
           ("'Sales / Qualified' is now called 'Good'",
            'set kommo.include.stages[0]: "8571001/85710012"'),
           {"kommo": {"include": {"stages": ["Sales / Qualified"]}}}, loads=False),
    Change("stage deleted", lambda w: drop_stage(w, QUALIFIED), "problem",
           (f"no stage {QUALIFIED} any more", f"Take fields[1].names.{QUALIFIED} out"),
           {"fields": fields_with(Stage={"names": {str(QUALIFIED): "Qualified"}})}, loads=False),
    Change("pipeline deleted", lambda w: pipelines(w).pop(ENTERPRISE_ID), "problem",
           ("pipeline 'Enterprise' (8571002) was deleted", "Take kommo.include.pipelines[1] out"),
           loads=False),
    Change("pipeline renamed", lambda w: pipelines(w)[SALES_ID].update(name="Shop"), "problem",
           ("'Sales' (8571001) is now called 'Shop'", "kommo.include.pipelines[0]: 8571001"),
           loads=False),
    Change("pipeline added", lambda w: w.kommo.state.add_pipeline(99, "Partners", {991: "Met"}),
           "warning", ("pipeline 'Partners' (99) is new", "are not synced")),
    Change("user gone", lambda w: users(w).pop(11087003), "warning",
           ("user 'Иван Петров'", "gone or no longer active")),
    Change("user deactivated", lambda w: users(w)[11087002]["rights"].update(is_active=False),
           "warning", ("user 'Zoë Müller'", "gone or no longer active")),
    Change("time zone moved", lambda w: setattr(w.kommo.account, "timezone", "Asia/Tokyo"),
           "warning", ("was Europe/Berlin, now it is Asia/Tokyo", "compared anew")),
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=[each.name for each in CHANGES])
def test_each_change_is_named_before_a_write_fails_of_it(
    new_world: Callable[..., World], doctor: Callable[[World], list[Finding]], change: Change
) -> None:
    world = new_world(**change.parts)
    world.add_lead(name="Deal", pipeline_id=SALES_ID, status_id=QUALIFIED)
    world.sync()
    standing = look(world.engine)

    change.act(world)
    world.kommo.state.touch()
    written = len(world.cells_written())
    whole = look(world.engine)
    found = [each for each in whole if each not in standing]
    said = [
        each for each in found if all(w in f"{each.message} {each.remedy}" for w in change.says)
    ]
    assert [each.level for each in said] == [change.level], found
    # Nothing was tried, so nothing has failed; and what is a problem, is one.
    assert (len(world.cells_written()), world.errors()) == (written, [])
    assert world.journal_rows("open") == []
    if change.loads:
        world.engine.directory.refresh()
    else:
        with pytest.raises(ConfigurationError):
            world.engine.directory.refresh()
    assert doctor(world)[:-1] == whole  # the last one says how the list is ended


def test_what_was_said_is_said_again_until_somebody_has_seen_to_it(
    new_world: Callable[..., World],
) -> None:
    world = new_world()
    assert look(world.engine) == []
    world.alter_field("Amount", name="Deal value")
    world.kommo.state.add_field("leads", 7, "Tier", "text")
    first = look(world.engine)
    assert [each.level for each in first] == ["problem", "warning"]
    # To accept what does not fit helps nobody.
    assert look(world.engine, accept=True) == look(world.engine) == first

    renamed = [
        {**each, "airtable": "Deal value"} if each["airtable"] == "Amount" else each
        for each in EXAMPLE["fields"]
    ]
    world.restart(fields=renamed)
    assert look(world.engine) == first[1:]
    assert look(world.engine) == []


def test_a_person_may_accept_what_needs_no_change(new_world: Callable[..., World]) -> None:
    world = new_world()
    look(world.engine)
    add_stage(world, "Trial")
    assert len(look(world.engine)) == 1
    assert len(look(world.engine, accept=True)) == 1
    assert look(world.engine) == []


def test_what_changed_before_the_first_look_is_told_by_what_the_engine_read(
    new_world: Callable[..., World],
) -> None:
    world = new_world()
    world.add_lead(name="Deal")
    world.sync()
    world.alter_field("Amount", name="Deal value")
    assert "now called 'Deal value'" in look(world.engine)[0].message
    assert "now called 'Deal value'" in look(world.engine)[0].message


def test_no_rename_is_a_problem_for_what_init_has_written(
    new_world: Callable[..., World], tmp_path: Path
) -> None:
    world = new_world()
    path = tmp_path / "sync.yaml"
    propose_file(world.engine.kommo, world.engine.airtable, KOMMO_URL, path)
    world.restart(**yaml.safe_load(path.read_text(encoding="utf-8")))
    lead = world.add_lead(name="Deal", price=1)
    world.sync()
    assert look(world.engine) == []
    deals = table(world)
    for each in deals.fields.values():
        each.name += "!"
    for each in world.kommo.state.rows["leads/custom_fields"].values():
        each["name"] += "!"
    deals.name = "Chances"
    found = look(world.engine)
    assert {each.level for each in found} == {"warning"}
    assert len(found) > 30
    world.restart(**yaml.safe_load(path.read_text(encoding="utf-8")))
    world.engine.directory.refresh()
    world.edit_lead(lead, name="Renamed", price=2)
    world.sync()
    shown = world._in_airtable("GET", "records", table="Chances")["records"][0]["fields"]
    assert (shown["Deal Name!"], shown["Amount!"]) == ("Renamed", 2)


def test_options_that_the_sync_itself_makes_are_no_news(new_world: Callable[..., World]) -> None:
    world = new_world()
    assert look(world.engine) == []
    before = table(world).field_of("Stage").options["choices"][:]
    add_stage(world, "Trial")
    look(world.engine, accept=True)
    world.add_lead(name="Deal", pipeline_id=SALES_ID, status_id=stages(world)[-1]["id"])
    world.sync()
    assert len(table(world).field_of("Stage").options["choices"]) == len(before) + 1
    assert look(world.engine) == []


def test_users_that_the_token_may_not_list_are_not_called_gone(
    new_world: Callable[..., World],
) -> None:
    world = new_world()
    assert look(world.engine) == []
    world.fail("kommo", "status", status=403, variant="json", route="*/users")
    assert look(world.engine) == []


def test_options_that_were_never_there_are_told_too(new_world: Callable[..., World]) -> None:
    world = new_world(**STRICT_STAGE)
    (found,) = look(world.engine)
    assert (found.level, "'Incoming leads'" in found.message) == ("warning", True)
    assert "fields[1].create_options: true" in found.remedy
