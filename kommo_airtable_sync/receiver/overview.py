"""What the status page shows, read from the store; and what its buttons do there.

The receiver knows neither Dagster nor the APIs: all of this is SQL.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from kommo_airtable_sync.core import canonical
from kommo_airtable_sync.core.headline import Facts, Tone, ago, headline
from kommo_airtable_sync.core.quota import MonthlyQuota, QuotaReport
from kommo_airtable_sync.core.stats import nearest_rank
from kommo_airtable_sync.core.types import Canonical
from kommo_airtable_sync.store import limiter
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.documents import Documents
from kommo_airtable_sync.store.entries import Held, resolve_event
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.journal import Journal
from kommo_airtable_sync.store.overview import RunSeen, last_runs, settled_since
from kommo_airtable_sync.store.reports import InboxCounts, ListedEvent, Reports
from kommo_airtable_sync.store.runners import Runners

ROWS_MAX = 20
RUNS_MAX = 8
HOURS = 24
LAST_RECONCILE = "last_reconcile"
Side = Literal["kommo", "airtable"]


@dataclass(frozen=True, slots=True)
class Conflict:
    """A held field with its three values, as people read them.

    Args:
        spelled: both sides' values as JSON: what the person sees when deciding.
    """

    key: str
    lead_id: str
    field: str
    name: str
    reason: str
    kommo: str
    airtable: str
    agreed: str
    since: str
    spelled: Mapping[Side, str]


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything on the page; lists are cut at ``ROWS_MAX``, ``facts`` has their full numbers."""

    tone: Tone
    sentence: str
    facts: Facts
    counts: InboxCounts
    oldest: str
    conflicts: Sequence[Conflict]
    dead: Sequence[ListedEvent]
    holds: Sequence[ListedEvent]
    runs: Sequence[RunSeen]
    now: float
    hours: Sequence[tuple[float, float, int] | None]
    latency: tuple[float, float, int] | None
    quota: QuotaReport
    compared: str


class Desk:
    """The store as the page uses it.

    Args:
        database: the inbox's.
        limits: the rate budgets'.
        quota: Airtable's calls a month, as far as they are governed.
    """

    def __init__(self, database: Database, limits: Database, quota: MonthlyQuota) -> None:
        self._database = database
        self._limits = limits
        self._quota = quota
        self._reports = Reports(database)

    def look(self) -> Overview:
        """How things are now."""
        now, settled = settled_since(self._database, HOURS * 3600.0)
        report = Documents(self._database).get(LAST_RECONCILE)
        counts, oldest = self._reports.inbox_counts(), self._reports.oldest_pending_seconds()
        facts = Facts(
            conflicts=self._reports.conflicts_held(),
            dead=counts["dead"],
            holds=self._reports.holds(),
            quarantined=counts["quarantined"],
            pauses={side: each.reason for side, each in Runners(self._database).pauses().items()},
            oldest_seconds=oldest,
            last_change_seconds=now - settled[0][0] if settled else None,
            is_loaded=report is not None,
        )
        tone, sentence = headline(facts)
        return Overview(
            tone=tone,
            sentence=sentence,
            facts=facts,
            counts=counts,
            oldest=ago(oldest) if oldest is not None else "none",
            conflicts=self._conflicts(now),
            dead=self._reports.list_events("dead", limit=ROWS_MAX),
            holds=self._reports.list_events("held", limit=ROWS_MAX),
            runs=last_runs(self._database, RUNS_MAX),
            now=now,
            hours=by_hour(settled, now),
            latency=_quantiles([took for _, took in settled]),
            quota=limiter.month_so_far(self._limits, self._quota),
            compared=_compared(report, now),
        )

    def _conflicts(self, now: float) -> list[Conflict]:
        listed = self._reports.list_conflicts()[:ROWS_MAX]
        known = Journal(self._database).load([each.key for each in listed])
        found: list[Conflict] = []
        for each in listed:
            held, entry = each.held, known[each.key].entry
            agreed = entry.fields.get(held.field)
            found.append(
                Conflict(
                    key=each.key,
                    lead_id=each.key.partition(":")[2],
                    field=held.field,
                    name=held.field_name,
                    reason=held.reason,
                    kommo=canonical.shown(held.kommo),
                    airtable=canonical.shown(held.airtable),
                    agreed=canonical.shown(agreed.airtable) if agreed else "(never)",
                    since=ago(now - held.since),
                    spelled={"kommo": _spell(held.kommo), "airtable": _spell(held.airtable)},
                )
            )
        return found

    def act(self, asked: Mapping[str, str], actor: str) -> str:
        """Do what a button stands for, as the commands do it; what was done, in a sentence."""
        match asked.get("action"):
            case "resolve":
                return self._resolve(asked, actor)
            case "retry":
                return _told(self._reports.retry_events(_ids(asked)), "is tried again")
            case "release":
                return _told(self._reports.release_holds(_ids(asked)), "is let go")
            case "drop":
                return _told(self._reports.drop_events(_ids(asked)), "is dropped")
            case _:
                return "Nothing was done: the page is of another version, try again."

    def _resolve(self, asked: Mapping[str, str], actor: str) -> str:
        use, key = asked.get("use", ""), asked.get("key", "")
        try:
            seen = Held(
                asked["field"],
                asked.get("name", ""),
                "conflict",
                canonical.from_json(json.loads(asked["kommo"])),
                canonical.from_json(json.loads(asked["airtable"])),
            )
        except (KeyError, ValueError, TypeError):
            return "Nothing was done: the page is of another version, try again."
        listed = {(each.key, each.held.field) for each in self._reports.list_conflicts()}
        if use not in ("kommo", "airtable") or (key, seen.field) not in listed:
            return "Nothing was done: somebody has decided already."
        Inbox(self._database).receive([resolve_event(key, seen, use, actor)])
        return (
            f"{seen.field_name}: {use.capitalize()}'s value will stand, unless one of the two has "
            "changed meanwhile."
        )


def by_hour(
    settled: Sequence[tuple[float, float]], now: float
) -> list[tuple[float, float, int] | None]:
    """(p50, p95, how many) of each of the last hours, oldest first; None where nothing came."""
    hours: list[list[float]] = [[] for _ in range(HOURS)]
    for at, took in settled:
        age = int((now - at) // 3600)
        if 0 <= age < HOURS:
            hours[HOURS - 1 - age].append(took)
    return [_quantiles(took) for took in hours]


def _quantiles(took: list[float]) -> tuple[float, float, int] | None:
    ordered = sorted(took)
    if not ordered:
        return None
    return nearest_rank(ordered, 0.5), nearest_rank(ordered, 0.95), len(ordered)


def _compared(report: str | None, now: float) -> str:
    """When both sides were last compared in full or in part, as people say it; or empty."""
    at = json.loads(report).get("finished_at") if report else None
    return f"{ago(now - datetime.fromisoformat(at).timestamp())} ago" if at else ""


def _spell(value: Canonical) -> str:
    return json.dumps(canonical.to_json(value), ensure_ascii=False)


def _ids(asked: Mapping[str, str]) -> list[int]:
    text = asked.get("id", "")
    return [int(text)] if text.isdecimal() and len(text) < 19 else []


def _told(done: list[int], what: str) -> str:
    return f"Event {done[0]} {what}." if done else "Nothing was done: somebody was faster."
