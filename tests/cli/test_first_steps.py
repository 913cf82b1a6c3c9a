"""What somebody meets who sets this up: each mistake is one sentence that names the thing."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from kommo_airtable_sync.cli import inbox
from kommo_airtable_sync.cli.main import app
from kommo_airtable_sync.cli.output import print_table
from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.runtime.instance import prepare_home
from kommo_airtable_sync.runtime.leftovers import only_one
from kommo_airtable_sync.runtime.ports import free_port
from kommo_airtable_sync.sandbox import serving
from kommo_airtable_sync.settings import Settings
from tests.cli.conftest import command

Run = Callable[..., tuple[int, str, str]]
ACCOUNTS = {
    "KOMMO_SUBDOMAIN": "acme",
    "KOMMO_TOKEN": "a-token",
    "AIRTABLE_TOKEN": "pat.x",
    "AIRTABLE_BASE_ID": "appOfTheTest00000",
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    for name in (*ACCOUNTS, "KOMMO_BASE_URL", "SYNC_DATABASE_URL", "SYNC_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))

    def call(*arguments: str, **environment: str) -> tuple[int, str, str]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return command(monkeypatch, capsys, *arguments)

    return call


@pytest.mark.parametrize("arguments", ["init", "up", "webhooks register --url https://x.example"])
def test_all_missing_settings_are_named_at_once_the_account_too(run: Run, arguments: str) -> None:
    secret = "0123456789abcdef"
    code, _, err = run(
        *arguments.split(), KOMMO_WEBHOOK_SECRET=secret, AIRTABLE_WEBHOOK_SECRET=secret
    )
    assert code == 2
    assert all(name in err for name in ACCOUNTS), err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KOMMO_SUBDOMAIN", "acme.kommo.com"),
        ("KOMMO_SUBDOMAIN", "https://acme.kommo.com"),
        ("AIRTABLE_BASE_ID", "https://airtable.com/appOfTheTest00000/tblX"),
    ],
)
def test_an_address_where_a_part_of_it_belongs_is_named(run: Run, name: str, value: str) -> None:
    code, _, err = run("init", **{**ACCOUNTS, name: value})
    assert code == 2
    assert name in err
    assert value not in err


def test_a_home_that_cannot_be_made_is_named_by_its_setting(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    home = str(tmp_path / "file" / "home")
    code, _, err = run("status", DAGSTER_HOME=home)
    assert code == 2
    assert f"DAGSTER_HOME {home} cannot be used" in err
    code, out, _ = run("doctor")
    assert code == 3
    assert "DAGSTER_HOME" in out


def test_a_second_up_in_one_home_is_refused_and_leaves_the_first_alone(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, dagster_home=tmp_path)  # type: ignore[call-arg]
    first = only_one(settings)
    with pytest.raises(ConfigurationError, match=r"Another up runs in DAGSTER_HOME"):
        only_one(settings)
    first.close()
    only_one(settings).close()


def test_celery_has_its_folder_of_results_whatever_the_broker(tmp_path: Path) -> None:
    settings = Settings(  # type: ignore[call-arg]
        _env_file=None, dagster_home=tmp_path, celery_broker_url="amqp://guest@127.0.0.1//"
    )
    prepare_home(settings)
    assert Path(settings.result_backend.removeprefix("file://")).is_dir()


def test_the_sandbox_says_which_settings_lead_to_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "serve_both", lambda *_, **__: None)
    kommo, airtable = free_port(), free_port()
    code, out, _ = run("sandbox", "--kommo-port", str(kommo), "--airtable-port", str(airtable))
    assert code == 0
    assert f"KOMMO_BASE_URL=http://127.0.0.1:{kommo}" in out
    assert f"AIRTABLE_ENDPOINT_URL=http://127.0.0.1:{airtable}" in out
    assert "AIRTABLE_BASE_ID=app" in out


def test_a_taken_port_of_the_sandbox_is_named(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, _, err = run("sandbox", "--kommo-port", str(free_port()), "--airtable-port", port)
    assert code == 2
    assert "--airtable-port" in err


def test_a_plan_is_not_made_for_a_folder_that_is_not_there(run: Run, tmp_path: Path) -> None:
    code, _, err = run("plan", "--out", str(tmp_path / "none" / "plan.json"))
    assert code == 2
    assert "--out" in err


def test_what_nobody_foresaw_is_a_sentence_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise KeyError("settings")

    monkeypatch.setattr(inbox, "status_report", fail)
    code, _, err = run("status")
    assert code == 1
    assert "KeyError" in err
    assert "--debug" in err
    assert "Traceback" not in err
    assert "Traceback" in run("status", "--debug")[2]


def test_status_is_json_with_and_without_saying_so(run: Run) -> None:
    assert run("status", "--json")[1].startswith("{")


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_table_leaves_nothing_out_however_narrow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR", "1" if columns == 60 else "")
    titles = ("field", "side", "written", "why", "because of", "run")
    row = ("Onboarding Status", "Airtable", "2026-11-29 06:36", "it was changed in Airtable",
           "kommo update 50, 2026-11-29 06:36:53", "http://127.0.0.1:3000/runs/625f6e16")  # fmt: skip
    print_table("Who wrote it", titles, [row] * 3)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "…" not in shown
    folded = ["".join(cells).replace(" ", "") for cells in _columns(shown)]
    for title, cell in zip(titles, row, strict=True):
        assert any(
            title.replace(" ", "") in column and cell.replace(" ", "") in column
            for column in folded
        ), (title, shown)


def _columns(shown: str) -> list[list[str]]:
    lines = [re.split("[┃│]", line)[1:-1] for line in shown.splitlines() if line[:1] in "┃│"]
    return [list(column) for column in zip(*lines, strict=True)]


def _all_commands() -> list[list[str]]:
    found: list[list[str]] = []

    def walk(each: object, path: list[str]) -> None:
        found.append(path)
        for name, below in getattr(each, "commands", {}).items():
            walk(below, [*path, name])

    walk(typer.main.get_command(app), [])
    return found


@pytest.mark.parametrize("path", _all_commands(), ids=" ".join)
def test_every_command_and_group_has_help_with_an_example(run: Run, path: list[str]) -> None:
    code, out, _ = run(*path, "--help")
    assert code == 0
    assert f"Example: {' '.join(['kommo-airtable-sync', *path])}" in " ".join(out.split())
