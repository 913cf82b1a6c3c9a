"""The files of deploy/: they parse, and know our commands and settings only."""

from __future__ import annotations

import configparser
import importlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from kommo_airtable_sync.settings import Settings
from tests.docs.test_docs import ROOT, complaint

DEPLOY = ROOT / "deploy"
UNITS = sorted(DEPLOY.glob("systemd/*.service"))
# What other programs of these files are told.
FOREIGN = {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD", "PUBLIC_HOST", "UI_HOST", "UI_USER",
           "UI_PASSWORD_HASH", "PATH", "PYTHONUNBUFFERED"}  # fmt: skip
Json = Any


def known(names: set[str]) -> set[str]:
    """Settings that nobody reads."""
    return {name for name in names - FOREIGN if name.lower() not in Settings.model_fields}


def documents(path: Path) -> list[Json]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def test_compose_runs_our_commands_with_our_settings_after_what_they_need() -> None:
    services = documents(DEPLOY / "compose.yaml")[0]["services"]
    ours = {name: each for name, each in services.items() if each["image"] == "kommo-airtable-sync"}
    assert {"receiver-1", "receiver-2", "worker-live-1", "worker-live-2", "control"} <= set(ours)
    for name, each in ours.items():
        assert complaint(each["command"]) is None, name
        assert known(set(each["environment"])) == set(), name
        assert set(each["depends_on"]) == {"postgres", "redis"}, name
    published = {name for name, each in services.items() if "ports" in each}
    assert published == {"control"}  # 80 and 443 of the proxy that lives in its network
    assert services["control"]["ports"] == ["80:80", "443:443"]
    assert services["proxy"]["network_mode"] == "service:control"


def test_the_image_holds_what_the_package_is_built_from() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (?!--from)(.*)$", text, re.M)
    for line in copied:
        for name in line.split()[:-1]:
            assert (ROOT / name).exists(), name
    assert known(set(re.findall(r"\b([A-Z_]{3,})=", text))) == set()


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_a_command_of_ours_with_settings_of_ours(unit: Path) -> None:
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment]
    parsed.read(unit)
    words = parsed["Service"]["ExecStart"].split()
    assert words[0].endswith("/kommo-airtable-sync")
    assert complaint(words[1:]) is None
    assert known(set(re.findall(r"([A-Z_]+)=", parsed["Service"]["Environment"]))) == set()
    checker = shutil.which("systemd-analyze")
    if checker:  # it finds more, where it is
        said = subprocess.run(
            [checker, "verify", str(unit)], capture_output=True, text=True, check=False
        )
        complaints = [line for line in said.stderr.splitlines() if unit.name in line]
        assert [line for line in complaints if "is not executable" not in line] == []


def test_the_values_of_the_chart_name_a_module_that_loads_and_let_a_run_stay() -> None:
    values = documents(DEPLOY / "kubernetes" / "values.yaml")[0]
    deployment = values["dagster-user-deployments"]["deployments"][0]
    importlib.import_module(deployment["dagsterApiGrpcArgs"][1])
    assert values["dagsterDaemon"]["sensors"] == {"useThreads": False}
    # The chart's schema knows two types, and requires the other one's class to be named.
    coordinator = values["dagsterDaemon"]["runCoordinator"]
    assert coordinator["type"] == "CustomRunCoordinator"
    custom = coordinator["config"]["customRunCoordinator"]
    assert custom.keys() == {"module", "class", "config"}
    assert hasattr(importlib.import_module(custom["module"]), custom["class"])
    assert not values["ingress"]["enabled"]
    page = (ROOT / "docs/deploy/kubernetes.md").read_text()
    assert "linger_seconds: 3600" in page
    receiver = documents(DEPLOY / "kubernetes" / "receiver.yaml")
    assert [each["kind"] for each in receiver] == ["Deployment", "Service", "Ingress"]
    container = receiver[0]["spec"]["template"]["spec"]["containers"][0]
    assert complaint(container["args"]) is None


def test_dagster_plus_is_told_a_module_that_loads() -> None:
    location = documents(ROOT / "dagster_cloud.yaml")[0]["locations"][0]
    importlib.import_module(location["code_source"]["module_name"])


@pytest.mark.parametrize("page", sorted((ROOT / "docs/deploy").glob("*.md")), ids=lambda p: p.name)
def test_every_page_says_what_was_run_and_what_was_not(page: Path) -> None:
    assert "## What was run, and what was only checked for form" in page.read_text()


@pytest.mark.parametrize("name", ["Caddyfile", "nginx.conf"])
def test_no_proxy_of_ours_logs_the_secret_or_shows_the_ui_without_a_password(name: str) -> None:
    text = (DEPLOY / name).read_text()
    logs = {"nginx.conf": ("access_log off", "error_log /dev/null"),
            "Caddyfile": ("no access log", "exclude http.log.error http.handlers.reverse_proxy")}  # fmt: skip
    password = "auth_basic " if name == "nginx.conf" else "basic_auth"
    assert all(log in text for log in logs[name])
    assert text.index(password) < text.index("3000")
