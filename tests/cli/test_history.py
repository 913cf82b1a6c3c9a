"""``explain`` and ``undo`` as people use them: tables, JSON, exit codes, sentences."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from kommo_airtable_sync.engine.undo import LOOK_SECONDS, PATIENCE_SECONDS
from kommo_airtable_sync.store.database import Database
from tests.cli.conftest import Run, WorkersClock
from tests.conftest import HandClock
from tests.simulated import World
from tests.two_way import BOTH_WAYS, settle

RUN = "3f2a91c0-the-mistake"
pytestmark = pytest.mark.parametrize("sql_engine", ["sqlite"])


@pytest.fixture
def world(database: Database, clock: HandClock) -> Iterator[World]:
    made = World(database, clock, parts=BOTH_WAYS)
    yield made
    made.close()


@pytest.fixture
def leads(world: World) -> list[int]:
    """Three deals whose amount a run has taken from 10 to 99."""
    made = world.add_leads([{"name": f"Deal {n}", "price": 10} for n in range(3)])
    settle(world)
    world.clock.advance(7200)
    world.edit_leads(made, price=99)
    world.clock.advance(2)
    world.deliver_hooks()
    world.work(run_id=RUN)
    settle(world)
    world.clock.advance(300)
    return made


def amounts(world: World, leads: list[int]) -> list[tuple[int, float]]:
    return [(world.lead(each)["price"], world.record(each)["Amount"]) for each in leads]


def test_explain_tells_values_causes_events_and_journal(run: Run, world: World, leads: list[int]):
    lead = leads[0]
    world.hint(lead)
    code, out, _ = run("explain", str(lead), "--field", "amount")
    assert code == 0
    assert f"https://sandbox.kommo.com/leads/detail/{lead}" in out
    assert "it was changed in Kommo" in out
    assert f"http://127.0.0.1:3000/runs/{RUN}" in out
    assert "10 -> 99" in out
    assert "pending" in out
    assert "Deal Name" not in out

    code, out, _ = run("explain", str(lead), "--json")
    told: dict[str, Any] = json.loads(out)
    assert code == 0
    amount = next(each for each in told["fields"] if each["field_name"] == "Amount")
    assert amount["kommo"]["value"] == amount["airtable"]["value"] == {"number": "99"}
    assert (amount["kommo"]["cause"], amount["kommo"]["edited_since"]) == (None, False)
    cause = amount["airtable"]["cause"]
    assert (cause["before"], cause["after"]) == ({"number": "10"}, {"number": "99"})
    assert (cause["run_id"], cause["run_url"]) == (RUN, f"http://127.0.0.1:3000/runs/{RUN}")
    assert (cause["event"]["source"], cause["why"]) == ("kommo", "it was changed in Kommo")
    assert (told["state"], told["unreadable"], told["events"][0]["state"]) == (
        "synced",
        {},
        "pending",
    )
    assert len(told["journal"]) == len(
        [row for row in world.journal_rows() if row.key == f"lead:{lead}"]
    )


def test_explain_says_what_it_cannot_read_and_names_the_fields(
    run: Run, world: World, leads: list[int]
):
    world.fail("airtable", "status", status=503, method="GET")
    code, out, _ = run("explain", str(leads[0]))
    assert code == 0
    assert "Airtable is not shown: airtable is unavailable" in out
    assert "(not read)" in out
    code, _, err = run("explain", str(leads[0]), "--field", "Amuont")
    assert code == 1
    assert 'there is no field "Amuont"; fields: Deal Name' in err


def test_a_dry_run_prints_the_plan_and_writes_nothing(run: Run, world: World, leads: list[int]):
    before = len(world.events()), len(world.journal_rows())
    code, out, _ = run("undo", "--run", RUN[:8], "--dry-run")
    assert code == 0
    assert "Would revert: 3" in out
    assert "Left as it is: none" in out
    assert "99" in out
    code, out, _ = run("undo", "--run", RUN, "--dry-run", "--json")
    plan = json.loads(out)
    assert [each["value"] for each in plan["would_revert"]] == [{"number": "10"}] * 3
    assert plan["left"] == []
    assert (len(world.events()), len(world.journal_rows())) == before
    assert amounts(world, leads) == [(99, 99)] * 3


def test_a_run_is_undone_and_what_is_left_makes_exit_3(run: Run, world: World, leads: list[int]):
    world.edit_lead(leads[0], price=77)
    settle(world)
    code, out, _ = run("undo", "--run", RUN[:8])
    assert code == 3
    assert "Reverted: 2" in out
    assert "edited since: it was changed in Kommo" in out
    assert amounts(world, leads) == [(77, 77), (10, 10), (10, 10)]
    code, out, _ = run("explain", str(leads[1]), "--field", "Amount")
    assert "a person took earlier changes back (ann)" in out
    code, out, _ = run("undo", "--run", "5d8e77aa", "--json")
    assert code == 0
    assert len(json.loads(out)["reverted"]) == 2
    assert amounts(world, leads) == [(77, 77), (99, 99), (99, 99)]


def test_a_lead_and_a_time_are_undone(run: Run, world: World, leads: list[int]):
    at = f"{world.clock.now() - timedelta(seconds=600):%Y-%m-%dT%H:%M:%S}"
    until = f"{world.clock.now():%Y-%m-%dT%H:%M:%S}"
    code, out, _ = run("undo", "--lead", str(leads[0]))
    assert code == 3
    assert "the record was created: undo does not delete" in out
    assert amounts(world, leads) == [(10, 10), (99, 99), (99, 99)]
    code, out, _ = run("undo", "--since", f"{at}Z", "--until", f"{until}+00:00")
    assert code == 3
    assert "Reverted: 2" in out
    assert amounts(world, leads) == [(10, 10)] * 3


def test_without_workers_it_waits_a_minute_and_says_so(
    run: Run, world: World, workers: WorkersClock, leads: list[int]
):
    workers.up = False
    code, out, err = run("undo", "--run", RUN)
    assert code == 3
    assert PATIENCE_SECONDS < workers.slept < PATIENCE_SECONDS + 2 * LOOK_SECONDS + 1
    assert "it still waits for its turn" in out
    assert "is kommo-airtable-sync up running?" in err
    world.work()
    assert amounts(world, leads) == [(10, 10)] * 3


def test_nothing_to_undo_is_no_failure(run: Run, leads: list[int]):
    code, out, _ = run("undo", "--since", "2020-01-01", "--until", "2020-01-02")
    assert (code, out) == (0, "Reverted: none\nLeft as it is: none\n")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--run", "ffffffff"), 1, "the journal holds nothing that a run ffffffff wrote"),
        (("--run", "3f2a"), 2, "at least 8 characters"),
        (("--lead", "4711"), 1, "nothing that was written of lead 4711"),
        ((), 2, "one of --run, --lead"),
        (("--lead", "1", "--run", RUN), 2, "one of --run, --lead"),
        (("--since", "2026-03-02"), 2, "go together"),
        (("--since", "2026-03-02", "--until", "2026-03-01"), 2, "must be before"),
        (("--since", "yesterday", "--until", "2026-03-01"), 2, "is not a time"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(
    run: Run, leads: list[int], arguments: tuple[str, ...], code: int, says: str
):
    got, _, err = run("undo", *arguments)
    assert got == code
    assert says in " ".join(err.replace("│", " ").split())


def test_an_id_that_two_runs_share_is_refused(run: Run, world: World, leads: list[int]):
    world.edit_lead(leads[0], price=5)
    world.clock.advance(2)
    world.deliver_hooks()
    world.work(run_id=f"{RUN}-2")
    code, _, err = run("undo", "--run", RUN[:8])
    assert code == 1
    assert f"{RUN}, {RUN}-2" in err
    assert run("undo", "--run", RUN, "--dry-run")[0] == 0
