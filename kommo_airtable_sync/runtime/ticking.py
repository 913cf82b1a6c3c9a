"""Let Dagster's sensors tick on after the clock was set back.

The daemon counts from a sensor's last tick. If that lies hours ahead, since the clock was fast
then, no sensor would tick for hours. ``up`` runs this as a program: at its start, which creates
Dagster's storage besides, and for a while when the clock is set back under it.
"""

# Dagster's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import sys
import time

from dagster import DagsterInstance
from dagster._core.scheduler.instigation import InstigatorType, SensorInstigatorData

from kommo_airtable_sync.runtime.set_backs import WATCH
from kommo_airtable_sync.store.set_back import STEP_SECONDS

# A tick that began under the fast clock goes on for 20 s, and notes its time when it ends.
WATCH_SECONDS = 45.0
LOOK_SECONDS = 2.0


def forget_future_ticks(instance: DagsterInstance) -> int:
    """What ticked later than now ticked now; how many sensors that was needed for."""
    now, forgotten = time.time(), 0
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        data = state.instigator_data
        if not isinstance(data, SensorInstigatorData):
            continue
        last = max(data.last_tick_timestamp or 0.0, data.last_tick_start_timestamp or 0.0)
        if last > now + STEP_SECONDS:
            sane = data._replace(last_tick_timestamp=now, last_tick_start_timestamp=now)
            instance.update_instigator_state(state.with_data(sane))
            forgotten += 1
    return forgotten


def main() -> None:
    """Once, or for a while if so asked."""
    ends_at = time.monotonic() + (WATCH_SECONDS if WATCH in sys.argv else 0.0)
    with DagsterInstance.get() as instance:
        instance.info_str()  # asks every storage, so that each is there
        forget_future_ticks(instance)
        while time.monotonic() < ends_at:
            time.sleep(LOOK_SECONDS)
            forget_future_ticks(instance)


if __name__ == "__main__":
    main()
