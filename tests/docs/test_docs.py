"""The documents hold what the code says: commands, settings, links, targets, dependencies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pydantic import SecretStr

from kommo_airtable_sync import __version__
from kommo_airtable_sync.cli.main import app
from kommo_airtable_sync.core.alerts import (
    NUDGES_MIN,
    OVERDUE_SECONDS_MAX,
    WAITING,
    View,
    conditions,
)
from kommo_airtable_sync.core.backoff import PAUSE_SECONDS
from kommo_airtable_sync.core.config import parse_config
from kommo_airtable_sync.core.quota import QuotaReport
from kommo_airtable_sync.receiver import metrics
from kommo_airtable_sync.runtime.up import parts
from kommo_airtable_sync.settings import Settings
from tests.bench.__main__ import PARTS

ROOT = Path(__file__).parents[2]
# Set by `up` for its children, never by people.
INTERNAL = {"sync_stop_file"}
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / ".env.example"]
)
MARKDOWN = [page for page in PAGES if page.endswith(".md")]
SETTING = re.compile(r"\b(?:[A-Z]+_)+[A-Z]+\b")


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def commands_of(text: str) -> list[list[str]]:
    """The words after each `kommo-airtable-sync` that is written as code."""
    code = "\n".join(re.findall(r"`([^`\n]+)`", text) + re.findall(r"```.*?```", text, re.S))
    found = re.findall(r"kommo-airtable-sync((?: [^\s`>]+)+)", code)
    return [words.split() for words in found]


def complaint(words: list[str]) -> str | None:
    """What is wrong with a command line, by the program's own tree of commands."""
    command: Any = typer.main.get_command(app)
    for word in words:
        if word.startswith("--"):
            options = {name for parameter in command.params for name in parameter.opts}
            if word.split("=")[0] not in {*options, "--help", "--debug"}:
                return f"{command.name} has no option {word}"
        elif hasattr(command, "commands") and word in command.commands:
            command = command.commands[word]
        elif hasattr(command, "commands") and not command.invoke_without_command:
            return f"there is no command {word}"
    return None


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_is_written_down_exists(page: str) -> None:
    complaints = [(words, complaint(words)) for words in commands_of(read(page))]
    assert [pair for pair in complaints if pair[1]] == []


def test_commands_are_found_and_wrong_ones_are_noticed() -> None:
    text = "Run `kommo-airtable-sync up --port 1` or\n```sh\nkommo-airtable-sync nurse --all\n```\n"
    assert commands_of(text) == [["up", "--port", "1"], ["nurse", "--all"]]
    assert complaint(["up", "--port", "1"]) is None
    assert complaint(["nurse"]) == "there is no command nurse"
    assert complaint(["up", "--prot"]) == "up has no option --prot"
    assert complaint(["config", "scheme"]) == "there is no command scheme"


def test_the_table_of_commands_names_them_all_and_no_others() -> None:
    section = read("README.md").split("## Commands")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([a-z -]+)`", row)}
    program: Any = typer.main.get_command(app)
    there: set[str] = set()
    for name, command in program.commands.items():
        inner = getattr(command, "commands", {})
        there |= {f"{name} {inside}" for inside in inner}
        if not inner or command.invoke_without_command:
            there.add(name)
    assert named - {"kommo-airtable-sync"} == there


def example_settings() -> dict[str, tuple[bool, str]]:
    """By name: whether the line is commented out, and the value."""
    lines = re.findall(r"^(#?)([A-Z_]+)=(.*)$", read(".env.example"), re.M)
    assert len(lines) == len({name for _, name, _ in lines}), "a setting is listed twice"
    return {name: (bool(mark), value) for mark, name, value in lines}


def test_the_example_environment_lists_exactly_the_settings_there_are() -> None:
    assert {name.lower() for name in example_settings()} == set(Settings.model_fields) - INTERNAL


def test_what_is_commented_out_in_the_example_environment_is_the_default() -> None:
    for name, (commented, value) in example_settings().items():
        default = Settings.model_fields[name.lower()].default
        plain = default.get_secret_value() if isinstance(default, SecretStr) else default
        assert value == ("" if plain is None else str(plain)), name
        assert commented or not value, f"{name} is to be filled in"


def test_the_example_environment_as_it_stands_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    as_it_stands: dict[str, Any] = {"_env_file": ROOT / ".env.example"}
    nothing: dict[str, Any] = {"_env_file": None}
    assert Settings(**as_it_stands) == Settings(**nothing)


@pytest.mark.parametrize("page", MARKDOWN)
def test_every_setting_that_is_written_down_exists(page: str) -> None:
    code = " ".join(re.findall(r"`([^`\n]+)`", read(page)))
    known = {name.upper() for name in Settings.model_fields}
    assert set(SETTING.findall(code)) - known == set()


@pytest.mark.parametrize("page", MARKDOWN)
def test_links_and_pictures_lead_somewhere(page: str) -> None:
    text = read(page)
    anchors = {
        re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", text, re.M)
    }
    broken: list[str] = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        if path and not (ROOT / page).parent.joinpath(path).exists():
            broken.append(target)
        if not path and anchor not in anchors:
            broken.append(target)
    assert broken == []


def test_pictures_are_small_and_used() -> None:
    text = "".join(read(page) for page in MARKDOWN)
    for picture in (ROOT / "docs" / "pictures").iterdir():
        assert picture.name in text, f"{picture.name} is shown nowhere"
        assert picture.stat().st_size < 300_000, picture.name


@pytest.mark.parametrize("page", MARKDOWN)
def test_make_targets_and_bench_parts_that_are_written_down_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.M))
    text = read(page)
    assert set(re.findall(r"`make ([a-z]+)", text)) <= targets
    assert set(re.findall(r"^make ([a-z]+)", text, re.M)) <= targets
    for quoted, bare in re.findall(r'make bench ARGS=(?:"([^"]*)"|(\w+))', text):
        words = (quoted or bare).split(" --")[0].split()
        assert set(words) <= set(PARTS), words


def test_the_example_mapping_is_the_packaged_one_and_is_read() -> None:
    text = read("sync.example.yaml")
    parse_config(text, "sync.example.yaml")
    assert text == read("kommo_airtable_sync/sandbox/sync.example.yaml")


def dependencies() -> set[str]:
    project = read("pyproject.toml")
    lists = re.findall(r"^(?:dependencies|dev) = \[\n(.*?)^\]", project, re.M | re.S)
    assert len(lists) == 2
    return {name.lower() for part in lists for name in re.findall(r'^\s+"([\w\-]+)', part, re.M)}


def test_each_dependency_has_its_line_and_no_line_is_left_over() -> None:
    rows = re.findall(r"^\| ([a-z][\w\-, ]*) \|", read("docs/decisions/0001-dependencies.md"), re.M)
    named = {name.strip() for row in rows for name in row.split(",")} - {"package"}
    assert named == dependencies()


def test_decisions_are_numbered_without_a_gap_and_say_what_they_cost() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"# {int(page.name[:4])}. "), page.name
        for part in ("**Problem.**", "**Choice", "**Cost.**"):
            assert part in text, (page.name, part)


def test_the_operations_page_names_every_part_and_every_reason_for_a_pause(tmp_path: Path) -> None:
    text = read("docs/operations.md")
    (tmp_path / "run").mkdir()
    programs = parts(Settings(dagster_home=tmp_path), workers=1)
    assert [part.name for part in programs if f"| `{part.name}` |" not in text] == []
    assert [reason for reason in PAUSE_SECONDS if reason not in text] == []


def test_the_operations_page_names_the_metrics_there_are() -> None:
    section = read("docs/operations.md").split("## Metrics")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.M)
    named = {name.removesuffix("_total") for row in rows for name in re.findall(r"`(\w+)`", row)}
    source = Path(metrics.__file__).read_text(encoding="utf-8")
    families = set(re.findall(r'PREFIX \+ "(\w+)"', source))
    families |= set(re.findall(r'_counter\(\s*"(\w+)"', source))
    assert named == families


def test_the_operations_page_explains_every_alert_there_is_and_no_other() -> None:
    section = read("docs/operations.md").split("## Alerts")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.M)
    explained = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    there = conditions(
        View(
            waiting=dict.fromkeys(WAITING, 1),
            nudges={"LANE": NUDGES_MIN},
            failed_runs={"ID": "sync_changes"},
            overdue_seconds=OVERDUE_SECONDS_MAX + 1,
            quota=QuotaReport("2026-03", 95, 100, 101, "stopped"),
            consent_refused=True,
        )
    )
    for reason in PAUSE_SECONDS:
        there |= conditions(View(pauses={"SIDE": (reason, 7200)}))
    assert explained == set(there)


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", read("CHANGELOG.md"), re.M)
    assert versions[0] == __version__
