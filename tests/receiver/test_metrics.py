"""/metrics shows what the store counts."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from kommo_airtable_sync.core.quota import MonthlyQuota
from kommo_airtable_sync.core.types import IncomingEvent
from kommo_airtable_sync.receiver.metrics import PREFIX, metrics_text
from kommo_airtable_sync.store import counters
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.entries import Acknowledged, Held, LedgerEntry
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.journal import Journal
from kommo_airtable_sync.store.limiter import SqlBudget
from kommo_airtable_sync.store.settling import Outcome


def samples(database: Database, limit: int | None = None) -> dict[tuple[str, ...], float]:
    """(name, label values...) -> value."""
    page = metrics_text(database, database, MonthlyQuota("appBase", limit))
    families = text_string_to_metric_families(page.decode())
    return {
        (sample.name.removeprefix(PREFIX), *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_what_waits_for_a_person_is_shown(database: Database) -> None:
    inbox = Inbox(database)
    inbox.receive([IncomingEvent("lead:1", "kommo", "update")])
    claimed = inbox.claim(0, 1, "run", 60)
    assert claimed is not None
    held = tuple(Held(field, field, "conflict", "a", "b") for field in ("fldA", "fldB"))
    Journal(database).acknowledge(
        claimed.batch_id, [Acknowledged(LedgerEntry("lead:1"), None, held=held)]
    )
    inbox.settle(claimed.batch_id, {"lead:1": Outcome("held")}, 8)
    found = samples(database)
    assert (found["holds",], found["conflicts_held",]) == (1, 2)
    assert found["inbox_events", "pending"] == 0


def test_counters_are_shown_by_their_labels(database: Database) -> None:
    Inbox(database).receive([IncomingEvent("lead:1", "kommo", "update")])
    with database.write() as connection:
        names = ("echoes", "overwritten", "loop_breaks")
        counters.add(database, connection, [(name, "airtable", 3) for name in names])
    found = samples(database)
    assert found["events_received_total", "kommo", "pending"] == 1
    assert {found[f"{name}_total", "airtable"] for name in names} == {3.0}


def test_the_months_calls_are_shown_with_the_limit_if_there_is_one(database: Database) -> None:
    assert ("airtable_quota_limit",) not in samples(database)
    with SqlBudget(database, "airtable", 5, quota=MonthlyQuota("appBase")).slot():
        pass
    found = samples(database, limit=1)
    assert (found["airtable_quota_used",], found["airtable_quota_limit",]) == (1, 1)
    assert found["airtable_quota_forecast",] >= 1
    assert (found["bulk_speed", "stopped"], found["bulk_speed", "full speed"]) == (1, 0)
