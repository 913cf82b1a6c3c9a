"""Somebody new, with two seeded accounts and an empty database: from nothing to the first deal."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from kommo_airtable_sync.cli.doctor import examine
from tests.stack import Stack

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path, fast=True) as made:
        made.start_sandbox()
        yield made


def test_from_nothing_to_the_first_deal_in_four_commands(
    stack: Stack, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = stack.folder / "sync.yaml"
    config.unlink()
    assert not stack.home.exists()
    began, commands = time.monotonic(), 0

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        nonlocal commands
        commands += 1
        done = stack.cli(*arguments)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done

    assert "next: kommo-airtable-sync doctor" in run("init").stdout
    generated = config.read_bytes()
    found = json.loads(run("doctor", "--json").stdout)
    assert [each for each in found if each["level"] == "problem"] == []
    # What is still to be done is said, with the command that does it.
    to_do = [each["remedy"] for each in found if each["level"] == "warning"]
    for command in ("webhooks register", "sync up", "sync reconcile"):
        assert any(command in remedy for remedy in to_do), command
    run("webhooks", "register", "--url", stack.receiver)
    commands += 1
    stack.spawn("up", "up")
    stack.wait_ready()
    region = {"field_id": 1100002, "values": [{"value": "UK"}]}
    lead = stack.stand_ins.add_lead(
        name="The first deal", price=4200, custom_fields_values=[region]
    )
    shown = {"Deal_Name": "The first deal", "Amount": 4200, "Region": "UK", "Sync_Status": "ok"}
    stack.wait_for_record(lead, 120, **shown)
    took = time.monotonic() - began
    # ... and an edit in Airtable gets back, by the webhook that `webhooks register` made.
    stack.edit_record(lead, Amount=4300)
    stack.wait_for_lead(lead, 120, price=4300)

    assert config.read_bytes() == generated, "the generated file was edited"
    assert yaml.safe_load(generated)["version"] == 1
    assert commands == 4
    with capsys.disabled():
        print(f"\n[newcomer: {commands} commands, first deal synced after {took:.1f} s] ", end="")
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    running = {each.check: each.level for each in examine()}
    assert (running["parts"], running["webhooks"]) == ("ok", "ok")
