"""The calls of Airtable's Webhooks API (reference/airtable-api 5)."""

from __future__ import annotations

import pytest

from kommo_airtable_sync.airtable.client import AirtableClient, PayloadPage
from kommo_airtable_sync.core.errors import BatchRefused, ConfigurationError, SideUnavailable
from tests.airtable.test_client import BASE, airtable, budget, client, refusal
from tests.kommo.loopback import Loopback, Reply

__all__ = ["airtable", "budget", "client"]
HOOKS = f"/v0/bases/{BASE}/webhooks"


def test_a_webhook_is_created_with_what_it_is_to_watch(
    airtable: Loopback, client: AirtableClient
) -> None:
    made = {"id": "ach1", "macSecretBase64": "c2VjcmV0", "expirationTime": "2026-03-09"}
    airtable.script.append(Reply(200, made))
    specification = {"options": {"filters": {"dataTypes": ["tableData"]}}}
    assert client.create_webhook("https://x/ping", specification) == made
    [seen] = airtable.seen
    assert (seen.method, seen.path) == ("POST", HOOKS)
    assert seen.body == {"notificationUrl": "https://x/ping", "specification": specification}


@pytest.mark.parametrize("answer", [{"id": "ach1"}, {"macSecretBase64": "c2VjcmV0"}, {}, [], None])
def test_a_webhook_without_its_secret_is_not_believed(
    airtable: Loopback, client: AirtableClient, answer: object
) -> None:
    airtable.script.append(Reply(200, answer))
    with pytest.raises(SideUnavailable, match="cannot be right"):
        client.create_webhook("https://x/ping", {})
    assert len(airtable.seen) == 1


def test_a_creation_that_got_no_answer_is_not_repeated(
    airtable: Loopback, client: AirtableClient
) -> None:
    airtable.script.append(Reply(how="drop"))
    with pytest.raises(SideUnavailable):
        client.create_webhook("https://x/ping", {})
    assert len(airtable.seen) == 1


def test_webhooks_are_listed_refreshed_woken_and_deleted(
    airtable: Loopback, client: AirtableClient
) -> None:
    airtable.script.extend(
        [
            Reply(200, {"webhooks": [{"id": "ach1"}]}),
            Reply(200, {"expirationTime": "2026-03-09T09:00:00.000Z"}),
            Reply(200),
            Reply(204),
            Reply(200, {"id": "usr1"}),
        ]
    )
    assert client.webhooks() == [{"id": "ach1"}]
    client.refresh_webhook("ach1")
    client.enable_notifications("ach1")
    client.delete_webhook("ach1")
    assert client.user_id() == "usr1"
    assert [(seen.method, seen.path) for seen in airtable.seen] == [
        ("GET", HOOKS),
        ("POST", f"{HOOKS}/ach1/refresh"),
        ("POST", f"{HOOKS}/ach1/enableNotifications"),
        ("DELETE", f"{HOOKS}/ach1"),
        ("GET", "/v0/meta/whoami"),
    ]
    assert airtable.seen[2].body == {"enable": True}


def test_payloads_are_asked_for_by_cursor(airtable: Loopback, client: AirtableClient) -> None:
    page = {"payloads": [{"timestamp": "t"}], "cursor": 8, "mightHaveMore": True}
    airtable.script.append(Reply(200, page))
    assert client.payloads("ach1", 7) == PayloadPage([{"timestamp": "t"}], 8, True)
    [seen] = airtable.seen
    assert (seen.method, seen.path, seen.raw_query) == (
        "GET", f"{HOOKS}/ach1/payloads", "cursor=7",
    )  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [
        {"cursor": 8},
        {"payloads": [], "mightHaveMore": False},
        {"payloads": [], "cursor": "8"},
        {"payloads": [], "cursor": 6},
        {"payloads": [{}] * 9, "cursor": 9},
        {"payloads": [], "cursor": 7, "mightHaveMore": True},
        [],
        None,
    ],
)
def test_payloads_whose_cursor_leads_nowhere_are_not_believed(
    airtable: Loopback, client: AirtableClient, answer: object
) -> None:
    airtable.script.append(Reply(200, answer))
    with pytest.raises(SideUnavailable, match="cannot be right"):
        client.payloads("ach1", 7)


@pytest.mark.parametrize("answer", [{}, {"id": None}, []])
def test_a_user_without_id_is_not_believed(
    airtable: Loopback, client: AirtableClient, answer: object
) -> None:
    airtable.script.append(Reply(200, answer))
    with pytest.raises(SideUnavailable):
        client.user_id()


def test_refusals_mean_what_they_mean_elsewhere(airtable: Loopback, client: AirtableClient) -> None:
    airtable.script.extend(
        [
            refusal(422, "INVALID_REQUEST_UNKNOWN"),
            refusal(404, "MODEL_ID_NOT_FOUND"),
            refusal(403, "TOO_MANY_WEBHOOKS_IN_BASE"),
        ]
    )
    with pytest.raises(BatchRefused):
        client.refresh_webhook("ach1")
    with pytest.raises(BatchRefused):
        client.payloads("ach1", 1)
    with pytest.raises(ConfigurationError, match="ten webhooks"):
        client.create_webhook("https://x", {})
