"""The built wheel, alone in an environment of its own, away from the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kommo_airtable_sync import __version__
from tests.stack import ROOT

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]
BUILT_FROM = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "kommo_airtable_sync")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for name in BUILT_FROM:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    command = [sys.executable, "-c", "import setuptools.build_meta as b; print(b.build_wheel('.'))"]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return source / done.stdout.strip().splitlines()[-1]


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs what the wheel has installed, in an empty folder; its dependencies are ours."""
    home = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home / "venv")], check=True)
    uv = Path(sys.executable).parent / "uv"
    python = home / "venv" / "bin" / "python"
    installed = subprocess.run(
        [uv, "pip", "install", "--no-deps", "--offline", "--python", python, wheel],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert installed.returncode == 0, installed.stderr
    # A .pth of a .pth is not read: the checkout itself stays out of sight.
    site = next((home / "venv" / "lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])
    empty = home / "elsewhere"
    empty.mkdir()
    bare = {"PATH": os.environ["PATH"], "HOME": str(home), "DAGSTER_HOME": str(home / "dagster")}

    def call(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [home / "venv" / "bin" / program, *arguments],
            cwd=empty, env=bare, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    return call


def test_the_wheel_holds_the_package_its_data_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.name.startswith(f"kommo_airtable_sync-{__version__}-")
    tops = {name.split("/")[0] for name in names}
    assert tops == {"kommo_airtable_sync", f"kommo_airtable_sync-{__version__}.dist-info"}
    for needed in ("py.typed", "receiver/templates/status.html", "store/migrations/env.py",
                   "store/migrations/versions/0001_first_tables.py"):  # fmt: skip
        assert f"kommo_airtable_sync/{needed}" in names
    source = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "kommo_airtable_sync").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert source <= set(names)


def test_the_commands_of_the_wheel_run_outside_the_checkout(run: Run) -> None:
    where = run("python", "-c", "import kommo_airtable_sync as k; print(k.__file__)").stdout
    assert "site-packages" in where
    assert str(ROOT) not in where
    assert run("kommo-airtable-sync", "--version").stdout.split() == [
        "kommo-airtable-sync",
        __version__,
    ]
    assert "reconcile" in run("kommo-airtable-sync", "--help").stdout
    schema = run("kommo-airtable-sync", "config", "schema")
    assert json.loads(schema.stdout)["properties"]
    doctor = run("kommo-airtable-sync", "doctor")
    assert doctor.returncode == 3
    assert "Not set: KOMMO_SUBDOMAIN" in doctor.stdout
    up = run("kommo-airtable-sync", "up")
    assert up.returncode == 2
    assert "KOMMO_TOKEN" in up.stderr


def test_the_definitions_of_the_wheel_load_with_an_empty_environment(run: Run) -> None:
    text = """
from kommo_airtable_sync.definitions import defs
print(*defs().get_repository_def().job_names)
"""
    done = run("python", "-W", "ignore", "-c", text)
    assert done.returncode == 0, done.stderr
    assert {"sync_changes", "reconcile", "backfill_leads", "maintenance"} <= set(
        done.stdout.split()
    )
