"""Airtable's webhooks pulled from the stand-in: every change once, the cursor with its events."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from kommo_airtable_sync.core.errors import ConfigurationError, SideUnavailable
from kommo_airtable_sync.core.registration import AirtableWebhook
from kommo_airtable_sync.engine import pull
from kommo_airtable_sync.engine.pull import (
    ask_for_due_webhooks,
    pull_webhook,
    registered,
)
from kommo_airtable_sync.engine.registration import register_airtable
from kommo_airtable_sync.sandbox.airtable.notifying import break_webhook
from kommo_airtable_sync.store.documents import Documents
from kommo_airtable_sync.store.inbox import Inbox
from tests.simulated import World

BASE = "https://sync.example.com"
DAY = 86_400
FIELDS = [
    {"airtable": "Deal Name", "kommo": "name"},
    {"airtable": "Amount", "kommo": "price", "owner": "both"},
    {"airtable": "Notes", "kommo": {"custom_field": "Notes"}, "owner": "airtable"},
]


@pytest.fixture
def world(new_world: Callable[..., World]) -> World:
    return new_world(fields=FIELDS)


@pytest.fixture
def hook(world: World) -> AirtableWebhook:
    return register_airtable(world.engine, BASE)


def told(world: World, *states: str) -> list[tuple[str, str]]:
    """(record, kind) of what is stored about records."""
    return [
        (event.key.removeprefix("record:"), event.kind)
        for event in world.events(*(states or ("pending",)))
        if event.key.startswith("record:")
    ]


def stored(world: World, hook: AirtableWebhook) -> AirtableWebhook:
    [found] = [each for each in registered(Documents(world.database)) if each.id == hook.id]
    return found


def expired(world: World, seconds: float) -> None:
    world.clock.advance(seconds)
    world.airtable.tell()


def test_people_s_edits_creations_and_deletions_become_events(
    world: World, hook: AirtableWebhook
) -> None:
    record = world.add_record(Deal_Name="a", Amount=5)
    world.edit_record(record, Amount=7)
    edited_at = world.clock.now().timestamp()
    world.clock.advance(60)
    world.delete_record(record)
    assert pull_webhook(world.engine, hook.id) == 3
    assert told(world) == [(record, "create"), (record, "update"), (record, "delete")]
    update = world.events("pending")[1]
    assert (update.source, update.always_read) == ("airtable", True)
    assert update.occurred_at == edited_at
    assert f'"{amount(world)}":7' in update.payload


def amount(world: World) -> str:
    return next(
        field.id for field in world.engine.directory.mapping().fields if field.name == "Amount"
    )


def test_edits_that_mean_nothing_to_us_are_not_even_told(
    world: World, hook: AirtableWebhook
) -> None:
    record = world.add_record(Deal_Name="no key yet, nothing that Airtable owns")
    world.edit_record(record, Region_Code="EU")
    world.edit_record(record, Deal_Name="Kommo owns the name")
    assert pull_webhook(world.engine, hook.id) == 0
    world.edit_record(record, Kommo_Deal_ID=7)
    world.edit_record(record, Notes="ours to watch")
    assert pull_webhook(world.engine, hook.id) == 2


def test_what_was_pulled_is_not_pulled_again(world: World, hook: AirtableWebhook) -> None:
    record = world.add_record(Amount=1)
    assert pull_webhook(world.engine, hook.id) == 1
    assert pull_webhook(world.engine, hook.id) == 0
    world.edit_record(record, Amount=2)
    assert pull_webhook(world.engine, hook.id) == 1
    assert [kind for _, kind in told(world)] == ["create", "update"]


def test_an_old_cursor_doubles_nothing(world: World, hook: AirtableWebhook) -> None:
    world.add_record(Amount=1)
    pull_webhook(world.engine, hook.id)
    moved = stored(world, hook)
    Documents(world.database).put(hook.document, dataclasses.replace(moved, cursor=1).to_json())
    pull_webhook(world.engine, hook.id)
    assert len(told(world)) == 1
    assert stored(world, hook).cursor == moved.cursor


def test_cursor_and_events_are_stored_together_or_not_at_all(
    world: World, hook: AirtableWebhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add_record(Amount=1)

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kommo_airtable_sync.store.counters.add", dies)
    with pytest.raises(KeyboardInterrupt):
        pull_webhook(world.engine, hook.id)
    assert told(world) == []
    assert stored(world, hook).cursor == 1
    monkeypatch.undo()
    assert pull_webhook(world.engine, hook.id) == 1
    assert stored(world, hook).cursor == 2


def test_many_pages_are_pulled_and_a_lost_answer_costs_nothing_pulled_before(
    world: World, hook: AirtableWebhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(130):
        world.add_record(Amount=number)
        world.clock.advance(1)
    receive = world.engine.inbox.receive

    def receive_and_then_lose_airtable(*events: Any, **remember: Any) -> None:
        receive(*events, **remember)
        world.fail("airtable", "status", status=503, times=1)

    monkeypatch.setattr(world.engine.inbox, "receive", receive_and_then_lose_airtable)
    with pytest.raises(SideUnavailable):
        pull_webhook(world.engine, hook.id)
    assert len(told(world)) == 50
    monkeypatch.undo()
    assert pull_webhook(world.engine, hook.id) == 80
    assert len(set(told(world))) == len(told(world)) == 130


def test_a_pull_has_an_end_and_asks_for_the_rest(
    world: World, hook: AirtableWebhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "PAGES_MAX", 2)
    for number in range(120):
        world.add_record(Amount=number)
        world.clock.advance(1)
    assert pull_webhook(world.engine, hook.id) == 100
    claim = world.inbox.claim(0, 200, "run", 60.0)
    assert claim is not None
    assert f"webhook:{hook.id}" in claim.keys
    assert pull_webhook(world.engine, hook.id) == 20


def test_a_stop_ends_the_pull_between_two_pages(world: World, hook: AirtableWebhook) -> None:
    for number in range(60):
        world.add_record(Amount=number)
        world.clock.advance(1)
    world.engine.stop_requested = lambda: True
    assert pull_webhook(world.engine, hook.id) == 50
    assert f"webhook:{hook.id}" in [event.key for event in world.events("pending")]


def test_our_own_writes_are_echoes_if_we_wrote_them_just_then(
    world: World, hook: AirtableWebhook
) -> None:
    mapping = world.engine.directory.mapping()
    rows = [(None, {mapping.key.id: number, amount(world): number}) for number in (1, 2)]
    answer = world.engine.airtable.upsert(mapping.table_id, mapping.key.id, rows)
    written_at = world.clock.now()
    world.clock.advance(300)
    ours, foreign = (record["id"] for record in answer.records)
    by_hand = world.add_record(Amount=3)
    asked: list[tuple[Sequence[str], datetime]] = []

    def recently_written(record_ids: Sequence[str], since: datetime) -> set[str]:
        asked.append((record_ids, since))
        return {ours, by_hand}

    assert pull_webhook(world.engine, hook.id, recently_written) == 2
    assert told(world) == [(foreign, "create"), (by_hand, "create")]
    assert told(world, "ignored") == [(ours, "echo")]
    # Only what our user's API calls did is in question, by the time at which they did it.
    [(record_ids, since)] = asked
    assert sorted(record_ids) == sorted([ours, foreign])
    assert written_at - since == timedelta(minutes=2)


def test_without_knowledge_of_our_writes_nothing_is_skipped(
    world: World, hook: AirtableWebhook
) -> None:
    mapping = world.engine.directory.mapping()
    world.engine.airtable.upsert(mapping.table_id, mapping.key.id, [(None, {mapping.key.id: 1})])
    assert pull_webhook(world.engine, hook.id) == 1


@pytest.mark.parametrize("code", ["INVALID_FILTERS", "INVALID_HOOK"])
def test_a_webhook_that_airtable_ends_gives_what_it_has_and_then_says_so(
    world: World, hook: AirtableWebhook, code: str
) -> None:
    record = world.add_record(Amount=1)
    with world.airtable.lock:
        break_webhook(world.airtable, world.airtable.webhooks[hook.id], code)
    for _ in range(2):  # and goes on saying so
        with pytest.raises(ConfigurationError, match="webhooks register") as refused:
            pull_webhook(world.engine, hook.id)
        assert code in str(refused.value)
        assert refused.value.side is None
    assert told(world) == [(record, "create")]
    told_before = len(world.events())
    later = world.engine.seconds() + 9 * DAY
    ask_for_due_webhooks(Documents(world.database), Inbox(world.database), later)
    assert len(world.events()) == told_before


def test_deleting_a_watched_field_ends_the_webhook(world: World, hook: AirtableWebhook) -> None:
    world.delete_field("Notes")
    with pytest.raises(ConfigurationError, match="INVALID_FILTERS"):
        pull_webhook(world.engine, hook.id)


def test_an_expired_webhook_gives_its_payloads_and_then_says_so(
    world: World, hook: AirtableWebhook
) -> None:
    expired(world, 5 * DAY)
    record = world.add_record(Amount=1)
    expired(world, 3 * DAY)
    with pytest.raises(ConfigurationError, match="webhooks register"):
        pull_webhook(world.engine, hook.id)
    assert told(world) == [(record, "create")]


@pytest.mark.parametrize("missing", ["403", "404"])
def test_an_unknown_webhook_is_named(world: World, hook: AirtableWebhook, missing: Any) -> None:
    world.airtable.settings.missing = missing
    world.engine.airtable.delete_webhook(hook.id)
    with pytest.raises(ConfigurationError, match=hook.id) as refused:
        pull_webhook(world.engine, hook.id)
    assert "webhooks register" in str(refused.value)
    with pytest.raises(ConfigurationError, match="achOther"):
        pull_webhook(world.engine, "achOther")


def test_a_pull_refreshes_once_a_day_and_turns_pings_on_again(
    world: World, hook: AirtableWebhook
) -> None:
    pull_webhook(world.engine, hook.id)
    assert world.calls("airtable", route="/refresh") == 0
    world.airtable.webhooks[hook.id].notifies = False
    for _ in range(8):
        world.clock.advance(DAY)
        pull_webhook(world.engine, hook.id)
        pull_webhook(world.engine, hook.id)
    assert world.calls("airtable", route="/refresh") == 8
    assert world.calls("airtable", route="/enableNotifications") == 1
    assert world.airtable.webhooks[hook.id].notifies
    assert world.engine.seconds() - stored(world, hook).refreshed_at < 5


def test_a_due_webhook_is_asked_for_once_though_nothing_pings(
    world: World, hook: AirtableWebhook
) -> None:
    documents, inbox = Documents(world.database), Inbox(world.database)
    ask_for_due_webhooks(documents, inbox, world.engine.seconds() + DAY - 1)
    assert world.events() == []
    world.clock.advance(DAY)
    for _ in range(3):
        ask_for_due_webhooks(documents, inbox, world.engine.seconds())
        world.clock.advance(60)
    assert [(event.key, event.kind) for event in world.events()] == [
        (f"webhook:{hook.id}", "refresh")
    ]
    pull_webhook(world.engine, hook.id)
    ask_for_due_webhooks(documents, inbox, world.engine.seconds())
    assert len(world.events()) == 1
    # A refresh that failed is asked for again a day later; so is the next one.
    world.clock.advance(DAY)
    ask_for_due_webhooks(documents, inbox, world.engine.seconds())
    world.clock.advance(DAY)
    ask_for_due_webhooks(documents, inbox, world.engine.seconds())
    assert len(world.events()) == 3


def test_pings_of_the_stand_in_are_known_by_the_stored_secret(
    world: World, hook: AirtableWebhook
) -> None:
    world.add_record(Amount=1)
    [ping] = [each for each in world.airtable.take_due_hooks() if each.kind == "ping"]
    digest = hmac.new(stored(world, hook).mac_secret(), ping.body, hashlib.sha256).hexdigest()
    assert ping.headers["X-Airtable-Content-MAC"] == f"hmac-sha256={digest}"
    assert ping.destination == f"{BASE}/hooks/airtable/ping"
