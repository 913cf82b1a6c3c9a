"""The commands in this process, on a world whose workers work while a command waits."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from kommo_airtable_sync.cli.main import main
from kommo_airtable_sync.core.types import BULK
from tests.simulated import World

Run = Callable[..., tuple[int, str, str]]
"""Arguments of the command; its exit code, output and errors."""


def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    """Run a command; its exit code, output and errors."""
    monkeypatch.setattr(sys, "argv", ["kommo-airtable-sync", *arguments])
    try:
        main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


class WorkersClock:
    """While the command sleeps, the workers of both lanes work, if there are any."""

    def __init__(self, world: World) -> None:
        self.world, self.up, self.slept = world, True, 0.0

    def now(self) -> datetime:
        return self.world.clock.now() + timedelta(seconds=self.slept)

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        if self.up:
            self.world.work(run_id="5d8e77aa-the-undo")
            self.world.work(self.world.new_engine(BULK), run_id="5d8e77aa-the-undo")


@pytest.fixture
def workers(world: World) -> WorkersClock:
    return WorkersClock(world)


@pytest.fixture
def run(
    world: World,
    workers: WorkersClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    engine = dataclasses.replace(world.engine, clock=workers)
    monkeypatch.setattr("kommo_airtable_sync.assembly.build_engine", lambda *_: engine)
    monkeypatch.setattr("getpass.getuser", lambda: "ann")
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        return command(monkeypatch, capsys, *arguments)

    return call
