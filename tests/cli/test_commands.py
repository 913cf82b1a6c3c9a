"""The commands: one clear sentence with a remedy, fixed exit codes, no traceback, no secret."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from kommo_airtable_sync.core.types import IncomingEvent
from kommo_airtable_sync.opening import SystemClock
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.entries import Acknowledged, Held, LedgerEntry
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.journal import Journal
from kommo_airtable_sync.store.settling import Outcome
from tests.cli.conftest import command

Run = Callable[..., tuple[int, str, str]]
EXAMPLE = Path(__file__).parent.parent.parent / "sync.example.yaml"
SECRET = "a-very-secret-value-0123456789"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    for name in ("KOMMO_TOKEN", "AIRTABLE_TOKEN", "KOMMO_WEBHOOK_SECRET", "SYNC_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AIRTABLE_WEBHOOK_SECRET", SECRET)

    def call(*arguments: str, **environment: str) -> tuple[int, str, str]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return command(monkeypatch, capsys, *arguments)

    return call


def store(tmp_path: Path) -> Database:
    (tmp_path / "home").mkdir(exist_ok=True)
    database = Database(f"sqlite:///{tmp_path / 'home' / 'sync.db'}", SystemClock())
    database.migrate()
    return database


def make_dead(database: Database, reason: str) -> None:
    inbox = Inbox(database)
    inbox.receive([IncomingEvent("lead:7", "kommo", "update")])
    claim = inbox.claim(0, 1, "run", 60.0)
    assert claim is not None
    inbox.settle(claim.batch_id, {"lead:7": Outcome("dead", error=reason)}, 8)


def test_missing_settings_are_all_named_with_the_remedy(run: Run) -> None:
    code, _, err = run("up")
    assert code == 2
    assert "KOMMO_TOKEN" in err
    assert "AIRTABLE_BASE_ID" in err
    assert ".env" in err
    assert "Traceback" not in err


def test_a_missing_sync_yaml_is_named(run: Run) -> None:
    code, _, err = run("receiver", KOMMO_WEBHOOK_SECRET=SECRET)
    assert code == 2
    assert "sync.yaml" in err
    assert SECRET not in err


def test_a_wrong_key_in_sync_yaml_is_named_by_its_path(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sync.yaml").write_text(
        EXAMPLE.read_text().replace("version: 1", "version: 1\nkomo: {}")
    )
    code, _, err = run("receiver", KOMMO_WEBHOOK_SECRET=SECRET)
    assert code == 2
    assert "komo" in err


@pytest.mark.parametrize("name", ["KOMMO_WEBHOOK_SECRET", "AIRTABLE_WEBHOOK_SECRET"])
def test_a_short_or_missing_secret_is_refused_and_not_shown(run: Run, name: str) -> None:
    for given in ("hunter2", ""):
        code, _, err = run("receiver", **{"KOMMO_WEBHOOK_SECRET": SECRET, name: given})
        assert code == 2
        assert name in err
        assert "hunter2" not in err
        assert SECRET not in err


def test_a_taken_port_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sync.yaml").write_text(EXAMPLE.read_text())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, _, err = run("receiver", "--port", port, KOMMO_WEBHOOK_SECRET=SECRET)
    assert code == 2
    assert f"RECEIVER_PORT {port}" in err


def test_a_bad_number_is_refused_without_its_value(run: Run) -> None:
    code, _, err = run("status", AIRTABLE_REQUESTS_PER_SECOND="many")
    assert code == 2
    assert "AIRTABLE_REQUESTS_PER_SECOND" in err
    assert "many" not in err


def test_a_database_that_cannot_be_used_is_one_sentence(run: Run) -> None:
    code, _, err = run("status", SYNC_DATABASE_URL="postgresql://x:secret@127.0.0.1:1/none")
    assert code == 1
    assert "SYNC_DATABASE_URL" in err
    assert "secret" not in err
    assert "Traceback" not in err


def test_debug_shows_the_traceback(run: Run) -> None:
    code, _, err = run("--debug", "up")
    assert code == 2
    assert "Traceback" in err


def test_status_of_an_empty_installation_says_what_to_do(run: Run) -> None:
    code, out, _ = run("status", AIRTABLE_MONTHLY_CALLS="100000")
    report: dict[str, Any] = json.loads(out)
    assert code == 0
    assert report["ready"] is False
    assert set(report["inbox"]) == {"pending", "claimed", "retrying", "dead", "quarantined"}
    assert set(report["latency_s"]) == {"p50", "p95", "max", "count"}
    assert report["last_reconcile"] is None
    quota = {"used": 0, "limit": 100_000, "forecast": 0, "bulk": "full speed"}
    assert report["airtable_quota"] == {"month": f"{SystemClock().now():%Y-%m}", **quota}
    assert "reconcile" in report["hints"][0]


def test_a_dead_event_makes_status_exit_3_and_can_be_retried(run: Run, tmp_path: Path) -> None:
    database = store(tmp_path)
    make_dead(database, "the reason")
    assert run("status")[0] == 3
    code, out, _ = run("events", "--state", "dead", "--json")
    assert code == 0
    assert json.loads(out)[0]["error"] == "the reason"
    assert "lead:7" in run("events", "--lead", "7")[1]
    assert run("events", "retry", "--dead")[0] == 0
    assert run("status")[0] == 0
    assert Inbox(database).due_lanes() == {0}


def test_dead_events_can_be_retried_by_what_their_error_says(run: Run, tmp_path: Path) -> None:
    make_dead(store(tmp_path), "Airtable refused it: no such option")
    code, _, err = run("events", "retry", "--reason", "stage")
    assert code == 1
    assert '"stage"' in err
    assert run("events", "retry", "--dead", "--reason", "option")[0] == 2
    assert run("events", "retry")[0] == 2
    assert run("events", "retry", "--reason", "NO SUCH OPTION")[:2] == (
        0,
        "1 events will be tried again\n",
    )


def hold(database: Database, *held: Held) -> None:
    """Lead 7 has held fields, and its event is held by the brake."""
    inbox = Inbox(database)
    inbox.receive([IncomingEvent("lead:7", "kommo", "update")])
    claim = inbox.claim(0, 1, "run", 60.0)
    assert claim is not None
    entry = LedgerEntry("lead:7")
    Journal(database).acknowledge(claim.batch_id, [Acknowledged(entry, None, held=held)])
    outcome = Outcome("done") if held else Outcome("held", error="too many deletions")
    inbox.settle(claim.batch_id, {"lead:7": outcome}, 8)


AMOUNT = Held("fldAmount", "Amount", "conflict", Decimal("10.50"), None, since=1_700_000_000.0)
TAGS = Held("fldTags", "Tags", "loop", frozenset({"b", "a"}), "x")


def test_held_fields_are_listed_and_make_status_exit_3(run: Run, tmp_path: Path) -> None:
    hold(store(tmp_path), AMOUNT, TAGS)
    code, out, _ = run("status")
    assert (code, json.loads(out)["conflicts_held"]) == (3, 2)
    code, out, _ = run("conflicts", "--json")
    assert code == 0
    assert json.loads(out)[0] == {
        "key": "lead:7",
        "field": "fldAmount",
        "field_name": "Amount",
        "reason": "conflict",
        "kommo": {"number": "10.5"},
        "airtable": None,
        "since": "2023-11-14 22:13:20+00:00",
    }
    out = run("conflicts")[1]
    assert "10.5 | (empty)" in out
    assert "a, b | x" in out


@pytest.mark.parametrize(
    ("field", "use", "says"),
    [
        ("Amount", "kommo", "10.5 of Kommo will replace (empty) of Airtable"),
        ("fldAmount", "airtable", "(empty) of Airtable will replace 10.5 of Kommo"),
        ("amount", "kommo", "10.5 of Kommo"),
    ],
)
def test_a_decision_becomes_a_directive_with_what_the_person_saw(
    run: Run, tmp_path: Path, field: str, use: str, says: str
) -> None:
    database = store(tmp_path)
    hold(database, AMOUNT)
    code, out, _ = run("conflicts", "resolve", "7", field, "--use", use)
    assert code == 0
    assert says in out
    claim = Inbox(database).claim(0, 1, "run", 60.0)
    assert claim is not None
    (event,) = claim.events["lead:7"]
    assert (event.source, event.kind, event.always_read) == ("resolve", "resolve", True)
    assert event.directive is not None
    actor = event.directive["actor"]
    assert actor
    assert event.directive == {
        "field": "fldAmount",
        "kommo": {"number": "10.5"},
        "airtable": None,
        "use": use,
        "actor": actor,
    }


@pytest.mark.parametrize(("lead", "field"), [("8", "Amount"), ("7", "Stage")])
def test_only_a_held_field_can_be_decided(run: Run, tmp_path: Path, lead: str, field: str) -> None:
    database = store(tmp_path)
    hold(database, AMOUNT)
    code, _, err = run("conflicts", "resolve", lead, field, "--use", "kommo")
    assert code == 1
    assert field in err
    assert Inbox(database).due_lanes() == frozenset()
    assert run("conflicts", "resolve", "7", "Amount", "--use", "both")[0] == 2


def test_a_nameless_user_decides_by_number(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr("getpass.getuser", nameless)
    database = store(tmp_path)
    hold(database, AMOUNT)
    assert run("conflicts", "resolve", "7", "Amount", "--use", "kommo")[0] == 0
    claim = Inbox(database).claim(0, 1, "run", 60.0)
    assert claim is not None
    directive = claim.events["lead:7"][0].directive
    assert directive is not None
    assert directive["actor"].startswith("uid ")


def test_held_events_can_be_released(run: Run, tmp_path: Path) -> None:
    database = store(tmp_path)
    hold(database)
    code, out, _ = run("status")
    assert (code, json.loads(out)["holds"]) == (3, 1)
    assert json.loads(run("holds", "--json")[1])[0]["error"] == "too many deletions"
    assert "too many deletions" in run("holds")[1]
    code, _, err = run("holds", "release", "1", "99")
    assert code == 1
    assert "not held, left alone: 99" in err
    assert run("status")[0] == 0
    assert Inbox(database).due_lanes() == {0}


def test_all_holds_can_be_dropped_and_nothing_else(run: Run, tmp_path: Path) -> None:
    database = store(tmp_path)
    hold(database)
    Inbox(database).receive([IncomingEvent("lead:8", "kommo", "update")])
    assert run("holds", "drop", "2")[0] == 1
    assert run("holds", "drop")[0] == 2
    assert run("holds", "drop", "--all")[:2] == (0, "1 held events dropped\n")
    assert run("holds")[1] == "Holds: none\n"
    assert Inbox(database).due_lanes() == {0}


def test_events_that_cannot_be_dropped_are_named(run: Run, tmp_path: Path) -> None:
    make_dead(store(tmp_path), "x")
    assert run("events", "drop", "1")[0] == 0
    code, _, err = run("events", "drop", "1", "99")
    assert code == 1
    assert "1, 99" in err


def test_an_unreadable_body_shows_its_reason(run: Run, tmp_path: Path) -> None:
    database = store(tmp_path)
    Inbox(database).receive(
        [
            IncomingEvent(
                "", "kommo", "unreadable", payload={"body": "%", "error": "no form"},
                state="quarantined",
            )
        ]
    )  # fmt: skip
    assert "no form" in run("events", "--state", "quarantined")[1]


def test_the_schema_of_sync_yaml_is_json(run: Run) -> None:
    code, out, _ = run("config", "schema")
    assert code == 0
    assert "fields" in json.loads(out)["properties"]
