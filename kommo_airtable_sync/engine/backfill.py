"""Sync again all leads that were created on a day, by the one write path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kommo_airtable_sync.core.errors import SideUnavailable
from kommo_airtable_sync.core.types import BULK, IncomingEvent, key_id, lead_key
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.engine.outage import pause_side
from kommo_airtable_sync.engine.working_off import LOOK_SECONDS, WAITING, work_off
from kommo_airtable_sync.store.reports import Reports
from kommo_airtable_sync.store.standing import database_now

SOURCE = "backfill"
DAY = timedelta(days=1)
DEAD_NAMED_MAX = 20


@dataclass(frozen=True, slots=True)
class DayReport:
    """What became of the leads of a day.

    Args:
        leads: how many were created on the day.
        outcomes: how many ended how (``work_off``).
        dead: lead id -> why it wants a person; the first of them.
        calls: API calls made meanwhile, to Kommo and to Airtable.
        seconds: that it took.
    """

    leads: int
    outcomes: Mapping[str, int]
    dead: Mapping[int, str]
    calls: tuple[int, int]
    seconds: float

    @property
    def left(self) -> int:
        """Leads that still wait, since the work was asked to end."""
        return sum(self.outcomes.get(state, 0) for state in WAITING)


def backfill_day(
    engine: Engine,
    run_id: str,
    day: datetime,
    *,
    should_end: Callable[[], bool],
    on_progress: Callable[[int, int], None],
    on_wait: Callable[[str], None],
) -> DayReport:
    """Put the leads of a day into the inbox and work them off.

    Args:
        engine: of the bulk lane; the run must be the lane's runner.
        run_id: the Dagster run.
        day: its first instant, UTC.
        should_end: see ``work_off``.
        on_progress: see ``work_off``.
        on_wait: see ``work_off``.

    Raises:
        SideUnavailable: if Kommo cannot be read, and the work was asked to end meanwhile.
        ConfigurationError: if Kommo refuses to be read.
        BatchRefused: the same.
    """
    began, calls = engine.seconds(), engine.calls
    since, kind = database_now(engine.database), day.strftime("%Y-%m-%d")
    lead_ids = _created_on(engine, day, should_end, on_wait)
    engine.inbox.receive(
        [
            IncomingEvent(lead_key(each), SOURCE, kind, priority=BULK, always_read=True)
            for each in lead_ids
        ]
    )
    outcomes = work_off(
        engine,
        run_id,
        source=SOURCE,
        since=since,
        kind=kind,
        on_batch=lambda report: on_wait(report.outage) if report.outage else None,
        should_end=should_end,
        on_progress=on_progress,
        on_wait=on_wait,
    )
    dead = Reports(engine.database).dead_of(SOURCE, since, kind, DEAD_NAMED_MAX)
    return DayReport(
        leads=len(lead_ids),
        outcomes=outcomes,
        dead={key_id(each.key): each.error or "no reason is known" for each in dead},
        calls=(engine.calls[0] - calls[0], engine.calls[1] - calls[1]),
        seconds=engine.seconds() - began,
    )


def _created_on(
    engine: Engine, day: datetime, should_end: Callable[[], bool], on_wait: Callable[[str], None]
) -> Sequence[int]:
    """Ids of the day's leads, all or none: a page that failed is read again with all before it."""
    while True:
        try:
            pages = engine.kommo.lead_pages(created=(day, day + DAY - timedelta(seconds=1)))
            return sorted({int(lead["id"]) for page in pages for lead in page})
        except SideUnavailable as outage:
            if should_end():
                raise
            pause_side(engine, outage)
            on_wait(str(outage))
            _wait_for(engine, outage.side, should_end)


def _wait_for(engine: Engine, side: str, should_end: Callable[[], bool]) -> None:
    while not should_end():
        pause = engine.runners.pauses().get(side)
        if pause is None or pause.seconds_left <= 0:
            return
        engine.clock.sleep(min(LOOK_SECONDS, pause.seconds_left))
