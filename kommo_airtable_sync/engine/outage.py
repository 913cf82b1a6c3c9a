"""When a side is down: pause it for everyone, give the leads back, blame none of them."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager

from kommo_airtable_sync.core.backoff import pause_seconds
from kommo_airtable_sync.core.errors import BatchRefused, ConfigurationError, Side, SideUnavailable
from kommo_airtable_sync.core.quota import RESERVED
from kommo_airtable_sync.engine.batch import Batch
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.store.runners import Runners

log = logging.getLogger(__name__)

# Stands beside the two sides when settings or sync.yaml keep any run from beginning.
SETTINGS = "settings"


def pause_for_settings(runners: Runners, error: ConfigurationError) -> None:
    """No run can begin: ask for none for a while, instead of failing one after another."""
    known = runners.pauses().get(SETTINGS)
    failures = 1 + (known.failures if known else 0)
    seconds = pause_seconds("configuration", failures, None)
    runners.pause(SETTINGS, seconds, failures, "configuration", str(error))


@contextmanager
def pausing(engine: Engine, batch: Batch) -> Generator[None]:
    """Turn an outage inside the block into a pause; the batch's open leads are released later."""
    try:
        yield
    except SideUnavailable as outage:
        _pause(engine, batch, outage)
    except ConfigurationError as error:
        # Nothing a lead could help: the whole side waits until a person has mended it.
        side: Side = error.side or "airtable"
        _pause(engine, batch, SideUnavailable(side, "configuration", str(error)))
    except BatchRefused as refused:
        # A refused write is split down to its culprit; what arrives here is a refused read.
        _pause(engine, batch, SideUnavailable(refused.side, "configuration", str(refused)))


def _pause(engine: Engine, batch: Batch, outage: SideUnavailable) -> None:
    batch.outage = outage
    # Reserved: live events go on; bulk work does not begin again before the month allows it.
    if outage.reason != RESERVED:
        pause_side(engine, outage)


def pause_side(engine: Engine, outage: SideUnavailable) -> None:
    """Nobody calls the side for a while: for longer, the more often it has failed in a row."""
    known = engine.runners.pauses().get(outage.side)
    failures = 1 + (known.failures if known else 0)
    seconds = pause_seconds(outage.reason, failures, outage.retry_after_seconds)
    engine.runners.pause(outage.side, seconds, failures, outage.reason, outage.detail)
    log.warning("%s; paused for %.0f s (failure %d in a row)", outage, seconds, failures)


def lift_pauses(engine: Engine, batch: Batch) -> None:
    """A batch went through: whatever sides it used are well again."""
    used: list[Side] = []
    if engine.kommo_budget.calls > batch.calls_before[0]:
        used.append("kommo")
    if engine.airtable_budget.calls > batch.calls_before[1]:
        used.append("airtable")
    paused = engine.runners.pauses()
    # The settings were good enough for a whole batch.
    wanted = [side for side in (*used, SETTINGS) if side in paused]
    lifted = engine.runners.resume(wanted) if wanted else []
    for side in lifted:
        log.warning("%s answers again; work goes on", side)
