from __future__ import annotations

import json

import pytest

from kommo_airtable_sync.core.config import parse_config
from kommo_airtable_sync.core.registration import (
    SECRET_NAME,
    AirtableWebhook,
    automation_script,
    kommo_hooks,
)
from tests.simulated import config_text

HOOK = AirtableWebhook(
    id="ach1", secret="c2VjcmV0", url="https://x/hooks/airtable/ping", specification={"options": 1},
    user_id="usr1", registered_at=100.0, refreshed_at=200.0, cursor=7,
)  # fmt: skip


def test_a_webhook_is_stored_whole_and_shows_no_secret() -> None:
    assert AirtableWebhook.from_json(HOOK.to_json()) == HOOK
    assert HOOK.mac_secret() == b"secret"
    assert HOOK.secret not in repr(HOOK)


@pytest.mark.parametrize(("hours", "missed"), [(0, 0), (23.9, 0), (24, 1), (71.9, 2), (-1, -1)])
def test_refreshes_are_due_once_a_day(hours: float, missed: int) -> None:
    assert max(HOOK.refreshes_missed(200.0 + hours * 3600), -1) == missed


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([], set()),
        (["main_contact"], {"update_contact", "delete_contact", "restore_contact"}),
        (["company"], {"update_company", "delete_company", "restore_company"}),
    ],
)
def test_contacts_and_companies_are_asked_for_if_they_are_linked(
    kinds: list[str], expected: set[str]
) -> None:
    links = [
        {"airtable": "Client", "kommo": kind, "table": "Clients", "key_field": "Key"}
        for kind in kinds
    ]
    hooks = kommo_hooks(parse_config(config_text(links=links)))
    assert {"add_lead", "update_lead", "delete_lead", "restore_lead", "status_lead"} <= {*hooks}
    assert len(hooks) == len(set(hooks))
    assert {hook for hook in hooks if not hook.endswith("_lead")} >= expected
    assert all(hook.endswith(("_lead", kinds[0][-7:])) for hook in hooks if kinds)


def test_the_script_sends_ids_only_and_takes_the_bearer_from_the_automations_secrets() -> None:
    url = 'https://sync.example.com/a"b/hooks/airtable'
    script = automation_script(url)
    assert json.dumps(url) in script
    assert f"input.secret({json.dumps(SECRET_NAME)})" in script
    assert (
        "JSON.stringify({ recordId, changedAt: changedAt ?? new Date().toISOString() })" in script
    )
    assert "@" not in script
