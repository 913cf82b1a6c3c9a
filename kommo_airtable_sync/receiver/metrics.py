"""/metrics: Prometheus text from the counters that all processes share in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from kommo_airtable_sync.core.quota import BulkSpeed, MonthlyQuota
from kommo_airtable_sync.store import counters, limiter
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.reports import Reports
from kommo_airtable_sync.store.runners import Runners

PREFIX = "kommo_airtable_sync_"


def metrics_text(database: Database, limits: Database, quota: MonthlyQuota) -> bytes:
    """The whole page."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Store(database, limits, quota))
    return generate_latest(registry)


class _Store(Collector):
    """Reads the store once for each scrape."""

    def __init__(self, database: Database, limits: Database, quota: MonthlyQuota) -> None:
        self._database = database
        self._limits = limits
        self._quota = quota

    def collect(self) -> Iterable[Metric]:
        totals = counters.read_all(self._database)
        yield _counter(
            "events_received", "Events by source and state.", ("source", "state"), totals
        )
        yield _counter("events_settled", "Events by outcome.", ("outcome",), totals)
        yield _counter("echoes", "Events that our own writes caused.", ("side",), totals)
        yield _counter(
            "overwritten", "Edits lost between our read and our write.", ("side",), totals
        )
        yield _counter("loop_breaks", "Fields held by the loop breaker.", ("side",), totals)
        yield _latency(totals)
        yield from self._inbox()
        yield from self._calls()
        yield from self._month()

    def _inbox(self) -> Iterator[Metric]:
        reports = Reports(self._database)
        depth = GaugeMetricFamily(
            PREFIX + "inbox_events", "Unsettled and failed events.", labels=["state"]
        )
        for state, count in reports.inbox_counts().items():
            depth.add_metric([state], float(str(count)))
        yield depth
        age = GaugeMetricFamily(
            PREFIX + "inbox_oldest_pending_seconds", "Age of the oldest event waiting."
        )
        age.add_metric([], reports.oldest_pending_seconds() or 0.0)
        yield age
        waiting = GaugeMetricFamily(PREFIX + "holds", "Events that a person must let go.")
        waiting.add_metric([], float(reports.holds()))
        yield waiting
        conflicts = GaugeMetricFamily(
            PREFIX + "conflicts_held", "Fields whose two values wait for a person."
        )
        conflicts.add_metric([], float(reports.conflicts_held()))
        yield conflicts
        paused = GaugeMetricFamily(
            PREFIX + "side_paused", "1 while nobody calls this API.", labels=["side"]
        )
        pauses = Runners(self._database).pauses()
        for side in ("kommo", "airtable"):
            paused.add_metric([side], 1.0 if side in pauses else 0.0)
        yield paused

    def _calls(self) -> Iterator[Metric]:
        calls = CounterMetricFamily(PREFIX + "api_calls", "Calls by API.", labels=["side"])
        throttled = CounterMetricFamily(
            PREFIX + "api_throttled", "Answers 429 by API.", labels=["side"]
        )
        for side, (made, refused) in sorted(limiter.usage(self._limits).items()):
            calls.add_metric([side], made)
            throttled.add_metric([side], refused)
        yield calls
        yield throttled

    def _month(self) -> Iterator[Metric]:
        month = limiter.month_so_far(self._limits, self._quota)
        used = GaugeMetricFamily(PREFIX + "airtable_quota_used", "Calls of this month.")
        used.add_metric([], month.used)
        yield used
        expected = GaugeMetricFamily(PREFIX + "airtable_quota_forecast", "At the month's end.")
        expected.add_metric([], month.forecast)
        yield expected
        # Without a limit there is none to be shown: a 0 would look like one.
        limit = GaugeMetricFamily(PREFIX + "airtable_quota_limit", "AIRTABLE_MONTHLY_CALLS.")
        if month.limit is not None:
            limit.add_metric([], month.limit)
        yield limit
        speed = GaugeMetricFamily(
            PREFIX + "bulk_speed", "1 for how fast the quota lets bulk go.", labels=["speed"]
        )
        for name in get_args(BulkSpeed):
            speed.add_metric([name], float(name == month.bulk))
        yield speed


def _counter(
    name: str, text: str, labels: tuple[str, ...], totals: dict[tuple[str, str], float]
) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=list(labels))
    for (counter, label), value in sorted(totals.items()):
        if counter == name:
            family.add_metric(label.split(",", len(labels) - 1), value)
    return family


def _latency(totals: dict[tuple[str, str], float]) -> Metric:
    family = HistogramMetricFamily(
        PREFIX + "event_latency_seconds", "From received to settled, live events."
    )
    edges = [*(str(edge) for edge in counters.LATENCY_BUCKETS), "+Inf"]
    counts = accumulate(totals.get(("latency_bucket", edge), 0.0) for edge in edges)
    family.add_metric(
        [], list(zip(edges, counts, strict=True)), totals.get(("latency_sum", ""), 0.0)
    )
    return family
