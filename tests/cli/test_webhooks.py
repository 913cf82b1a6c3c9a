"""``webhooks`` as people use it, against both stand-ins as processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kommo_airtable_sync.cli.webhooks import _for_people, _register, base_address
from kommo_airtable_sync.core.errors import ConfigurationError
from tests.engine.conftest import new_world
from tests.engine.test_pull import BASE, FIELDS
from tests.simulated import World
from tests.stack import SECRET, Stack, wait_until

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]
__all__ = ["new_world"]
KOMMO_SECRET = "kommo-s-own-secret-0123456789"


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path, fast=True, environment={"KOMMO_WEBHOOK_SECRET": KOMMO_SECRET}) as made:
        made.start_sandbox()
        yield made


def test_register_list_ping_and_remove(stack: Stack) -> None:
    registered = stack.cli("webhooks", "register", "--url", f"{stack.receiver}/")
    assert registered.returncode == 0, registered.stderr
    assert f"Kommo calls {stack.receiver}/hooks/kommo/***" in registered.stdout
    assert f"Airtable pings {stack.receiver}/hooks/airtable/ping" in registered.stdout
    # The automation is to start on what Airtable owns or shares, and on nothing else.
    assert "Onboarding Status" in registered.stdout
    assert "Amount" in registered.stdout
    assert "Region" not in registered.stdout
    assert 'input.secret("' in registered.stdout

    listed = stack.cli("webhooks", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    found = json.loads(listed.stdout)
    assert [(each["side"], each["state"]) for each in found] == [
        ("kommo", "ok"),
        ("airtable", "ok"),
    ]
    for shown in (registered, listed):
        assert KOMMO_SECRET not in shown.stdout + shown.stderr
        assert SECRET not in shown.stdout + shown.stderr

    # A ping of the stand-in gets through to the inbox, MAC and all.
    stack.spawn("receiver", "receiver")
    wait_until(lambda: stack.answers(f"{stack.receiver}/readyz"), 60, "the receiver")
    key = f"webhook:{found[1]['id']}"

    def kinds() -> set[str]:
        return {
            item.kind for item in stack.reports().list_events("all", None, 50) if item.key == key
        }

    wait_until(lambda: kinds() == {"start"}, 20, "the receiver asks for what it has missed")
    stack.control("airtable", "POST", "records?table=Deals", {"fields": {"Kommo Deal ID": 5}})
    wait_until(lambda: kinds() == {"start", "ping"}, 20, "the ping")

    removed = stack.cli("webhooks", "remove")
    assert removed.returncode == 0, removed.stderr
    assert KOMMO_SECRET not in removed.stdout
    assert stack.cli("webhooks", "list", "--json").stdout.strip() == "[]"
    assert stack.cli("webhooks", "remove").stdout.strip() == "none was registered"


def test_a_side_that_refuses_does_not_keep_the_other_from_being_registered(stack: Stack) -> None:
    fault = {"kind": "status", "status": 403, "method": "POST", "route": "*/webhooks"}
    stack.control("kommo", "POST", "faults", fault)
    registered = stack.cli("webhooks", "register", "--url", stack.receiver, "--json")
    assert registered.returncode != 0
    assert "error:" in registered.stderr
    done = json.loads(registered.stdout)
    assert done["kommo"] is None
    assert done["airtable"]["id"].startswith("ach")
    stack.control("airtable", "POST", f"webhooks/{done['airtable']['id']}/error",
                  {"code": "INVALID_HOOK"})  # fmt: skip
    listed = stack.cli("webhooks", "list")
    assert listed.returncode == 3
    assert "register again" in " ".join(listed.stdout.split())


def test_the_automation_is_ready_to_paste_and_names_only_what_airtable_may_edit(
    new_world: Callable[..., World],
) -> None:
    done, failures = _register(new_world(fields=FIELDS).engine, BASE, KOMMO_SECRET)
    assert failures == []
    assert done["automation"]["fields"] == ["Amount", "Notes"]
    shown = _for_people(done)
    assert f'fetch("{BASE}/hooks/airtable", request)' in shown
    assert shown.index("Run a script") < shown.index("input.config()")
    assert KOMMO_SECRET not in shown + json.dumps(done)


@pytest.mark.parametrize(
    "url",
    ["", "sync.example.com", "ftp://x", "https://", "https://x?a=b", "https://u:p@x", "http://[x"],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="--url") as refused:
        base_address(url)
    assert "u:p" not in str(refused.value)
    assert base_address("https://x/below/") == "https://x/below"
