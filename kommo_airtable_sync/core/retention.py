"""How long what is over is kept, and in what portions it is forgotten. Pure; docs/night-care.md."""

from __future__ import annotations

from dataclasses import dataclass

DAY = 86_400.0
# A live commit that comes while a portion is deleted waits for it (SQLite has one writer), so that
# a portion takes half of the 50 ms that it may wait.
PORTION_SECONDS = 0.025
PORTION_ROWS_MIN = 20
PORTION_ROWS_MAX = 500
"""As many values as one statement takes (``store.leases``)."""


@dataclass(frozen=True, slots=True)
class Retention:
    """Ages in days.

    Args:
        settled_events: done, ignored and dropped ones; what wants a person is kept. Longer than
            the seven days in which Airtable may show a payload again.
        journal: what was written. The newest row of each field is kept, and every open intent.
        batches: which run had which keys.
        quota_months: months of Airtable's quota.
        runs: Dagster's, finished ones with their event logs; those of partitions are kept, since
            Dagster knows from them alone which partitions there are.
        unheard_runs: said to be running, without a sign of life.
        results: Celery's, of runs; nobody reads them again.
    """

    settled_events: float = 30.0
    journal: float = 400.0
    batches: float = 30.0
    quota_months: float = 400.0
    runs: float = 14.0
    unheard_runs: float = 1.0
    results: float = 1.0


def next_portion(rows: int, seconds: float) -> int:
    """How many rows to delete next, after ``rows`` of them took ``seconds``."""
    if seconds > PORTION_SECONDS:
        return max(PORTION_ROWS_MIN, int(rows * PORTION_SECONDS / seconds))
    return min(PORTION_ROWS_MAX, 2 * rows)
