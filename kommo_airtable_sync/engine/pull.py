"""Pull what Airtable's webhooks hold, and keep them alive (reference/airtable-api 5).

A ping carries no data; payloads are pulled by a cursor, and the cursor is stored in the transaction
that stores the events they became. So nothing is lost or doubled, whoever dies in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from datetime import datetime, timedelta

from kommo_airtable_sync.core.airtable_hooks import Told, parse_payloads, ping_event
from kommo_airtable_sync.core.errors import BatchRefused, ConfigurationError
from kommo_airtable_sync.core.registration import DOCUMENT_PREFIX, AirtableWebhook
from kommo_airtable_sync.core.types import IncomingEvent
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.store.documents import Documents
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.registrations import registered

PAGES_MAX = 20
"""Pages of 50 payloads in one go; what remains asks for itself again."""
ECHO_WINDOW = timedelta(minutes=2)

RecentlyWritten = Callable[[Sequence[str], datetime], Set[str]]
"""(record ids, since) -> those of them that we have written since then."""


def _never(record_ids: Sequence[str], since: datetime) -> Set[str]:
    del record_ids, since
    return frozenset()


def ask_for_due_webhooks(documents: Documents, inbox: Inbox, now: float) -> None:
    """Enqueue the webhooks that are due, each once a day, however often this is called."""
    due = _due(documents, now)
    if due:
        inbox.receive(
            [
                ping_event(
                    hook.id,
                    "refresh",
                    # Names the refresh that is missing: the same until it was done or a day passes.
                    f"{hook.id}:refresh:{hook.refreshed_at:.0f}:{hook.refreshes_missed(now)}",
                )
                for hook in due
            ]
        )


def pull_webhook(
    engine: Engine, webhook_id: str, recently_written: RecentlyWritten = _never
) -> int:
    """Store what the webhook has to tell as events; refresh it if that is due.

    Our own writes come back as payloads, too. They are stored as ``ignored`` events of kind
    ``echo``, but only if Airtable names our user **and** ``recently_written`` says that we wrote
    the record within two minutes before the payload's time: other programs may use the same token.
    What such a program changes in a record within two minutes of our own write is thereby not
    seen until the record's next event or reconciliation; a user of its own for the sync avoids it.

    Args:
        engine: supplies the clients, the store and the mirrored table.
        webhook_id: ``ach...``.
        recently_written: (record ids, since) -> those of them that we have written since then.

    Returns:
        How many events somebody has to act on.

    Raises:
        ConfigurationError: the webhook is unknown, expired, or ended by Airtable; a person has to
            register a new one. Nothing else of Airtable is thereby in doubt, so it names no side.
        SideUnavailable: Airtable cannot be used at the moment; what was pulled is stored.
    """
    body = Documents(engine.database).get(DOCUMENT_PREFIX + webhook_id)
    if body is None:
        raise _unusable(webhook_id, "it is not one that was registered here")
    hook = AirtableWebhook.from_json(body)
    if hook.broken:
        raise _unusable(webhook_id, f"Airtable has ended it ({hook.broken})")
    table_id = engine.directory.mapping().table_id
    try:
        hook, count = _pull_pages(engine, hook, table_id, recently_written)
        if hook.refreshes_missed(engine.seconds()) and not hook.broken:
            refresh(engine, hook)
    except (BatchRefused, ConfigurationError) as error:
        detail = error.detail if isinstance(error, BatchRefused) else error.message
        raise _unusable(webhook_id, detail) from error
    if hook.broken:
        raise _unusable(webhook_id, f"Airtable has ended it ({hook.broken})")
    return count


def refresh(engine: Engine, hook: AirtableWebhook) -> None:
    """Give the webhook seven more days, and turn its pings on again if they were given up.

    Raises:
        BatchRefused, ConfigurationError: it has expired or is unknown.
    """
    engine.airtable.refresh_webhook(hook.id)
    listed = {shown["id"]: shown for shown in engine.airtable.webhooks()}
    if listed.get(hook.id, {}).get("areNotificationsEnabled") is False:
        engine.airtable.enable_notifications(hook.id)
    done = replace(hook, refreshed_at=engine.seconds(), user_id=engine.airtable.user_id())
    Documents(engine.database).put(done.document, done.to_json())


def _due(documents: Documents, now: float) -> list[AirtableWebhook]:
    return [
        hook for hook in registered(documents) if hook.refreshes_missed(now) and not hook.broken
    ]


def _pull_pages(
    engine: Engine, hook: AirtableWebhook, table_id: str, recently_written: RecentlyWritten
) -> tuple[AirtableWebhook, int]:
    count = 0
    for pages_left in reversed(range(PAGES_MAX)):
        page = engine.airtable.payloads(hook.id, hook.cursor)
        told = parse_payloads(
            page.payloads,
            webhook_id=hook.id,
            first=page.cursor - len(page.payloads),
            table_id=table_id,
            user_id=hook.user_id,
        )
        events = _mark_echoes(told, recently_written)
        count += sum(event.state == "pending" for event in events)
        goes_on = page.might_have_more and not told.broken
        ends = not goes_on or pages_left == 0 or engine.stop_requested()
        if goes_on and ends:
            events.append(ping_event(hook.id, "more"))
        moved = replace(hook, cursor=page.cursor, broken=told.broken)
        if moved != hook or events:
            engine.inbox.receive(events, remember={moved.document: moved.to_json()})
        hook = moved
        if ends:
            break
    return hook, count


def _mark_echoes(told: Told, recently_written: RecentlyWritten) -> list[IncomingEvent]:
    written: dict[datetime, set[str]] = {}
    for event in told.events:
        if event.dedupe_key in told.own and event.occurred_at is not None:
            written.setdefault(event.occurred_at, set()).add(_record_id(event))
    ours = {
        at: recently_written(sorted(record_ids), at - ECHO_WINDOW)
        for at, record_ids in written.items()
    }
    return [
        replace(event, kind="echo", state="ignored", payload=None)
        if event.dedupe_key in told.own
        and event.occurred_at is not None
        and _record_id(event) in ours[event.occurred_at]
        else event
        for event in told.events
    ]


def _record_id(event: IncomingEvent) -> str:
    return event.key.partition(":")[2]


def _unusable(webhook_id: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"The Airtable webhook {webhook_id} cannot be used: {why.rstrip('.')}.",
        "Run `kommo-airtable-sync webhooks register --url BASE`; what it did not tell of is found "
        "by `kommo-airtable-sync reconcile`.",
    )
