"""Work on bulk batches until everything that was put into the inbox for a purpose has ended."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from kommo_airtable_sync.engine.batch import BatchReport
from kommo_airtable_sync.engine.claim import claim_batch
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.engine.follow import work_batch
from kommo_airtable_sync.store.reports import Reports

log = logging.getLogger(__name__)

# How far it has come is counted so often, however many batches a second there are.
LOOK_SECONDS = 1.0
IDLE_SECONDS = 0.2
# Slowed by the month's quota, a batch may begin every few minutes; stopped, none for weeks.
QUOTA_PATIENCE_SECONDS = 900.0
QUOTA = "This month's quota of Airtable calls makes bulk work wait"
WAITING = ("pending", "claimed", "retrying")


def work_off(
    engine: Engine,
    run_id: str,
    *,
    source: str,
    since: float,
    kind: str | None = None,
    on_batch: Callable[[BatchReport], None],
    should_end: Callable[[], bool],
    on_progress: Callable[[int, int], None],
    on_wait: Callable[[str], None] = log.warning,
) -> Mapping[str, int]:
    """Run batches of the engine's lane until no event of this source waits or is worked on.

    Whatever else is due in the lane is worked on as well. A lead that was refused for a moment is
    waited for until it is done or dead, and a paused side until it answers again. Only if the
    month's quota lets nothing begin for long, the rest is left to later runs.

    Args:
        engine: of the bulk lane; the run must be the lane's runner.
        run_id: the Dagster run.
        source: of the events that are waited for.
        since: they were received at or after this, by the store's time (``database_now``).
        kind: only events of this kind.
        on_batch: told of every batch.
        should_end: asked about once a second; what is left then stays in the inbox.
        on_progress: told about once a second how many events have ended, of how many.
        on_wait: told once why nothing can be done at the moment.

    Returns:
        How many events have ended how: outcomes of those done, states of the others
        (``Reports.outcomes_of``).
    """
    reports = Reports(engine.database)
    said, worked_at = "", engine.seconds()
    while True:
        outcomes = reports.outcomes_of(source, since, kind)
        total = sum(outcomes.values())
        waiting = sum(outcomes.get(state, 0) for state in WAITING)
        on_progress(total - waiting, total)
        if not waiting or should_end():
            return outcomes
        if _work_for_a_while(engine, run_id, on_batch):
            said, worked_at = "", engine.seconds()
            continue
        slowed = not engine.airtable_budget.bulk_may_begin()
        if slowed and engine.seconds() - worked_at >= QUOTA_PATIENCE_SECONDS:
            return outcomes
        why = QUOTA if slowed else _why_nothing_moves(engine)
        if why != said and why:
            on_wait(why)
        said = why
        engine.clock.sleep(LOOK_SECONDS if why else IDLE_SECONDS)


def _work_for_a_while(engine: Engine, run_id: str, on_batch: Callable[[BatchReport], None]) -> bool:
    """Batches for about a second; whether there was anything to do."""
    ends_at = engine.seconds() + LOOK_SECONDS
    worked = False
    while engine.seconds() < ends_at:
        batch = claim_batch(engine, run_id)
        if batch is None:
            break
        on_batch(work_batch(engine, batch))
        worked = True
    return worked


def _why_nothing_moves(engine: Engine) -> str:
    """The sides that are paused, in words; else leads wait for their next attempt."""
    return "; ".join(
        f"{pause.side} is paused ({pause.reason}): {pause.detail}"
        for pause in engine.runners.pauses().values()
        if pause.seconds_left > 0
    )
