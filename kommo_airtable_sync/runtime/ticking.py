"""Let Dagster's sensors tick on after the clock was set back.

The daemon counts from a sensor's last tick, and its loop sleeps by the wall clock. If that was
fast, no sensor would tick for hours. ``up`` runs this as a program: at its start, which creates
Dagster's storage besides, and when the clock is set back under it.
"""

# Dagster's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from dagster import DagsterInstance
from dagster._core.scheduler.instigation import InstigatorType, SensorInstigatorData

from kommo_airtable_sync.runtime.set_backs import WATCH
from kommo_airtable_sync.settings import load_settings
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


def restart_daemon(home: Path) -> None:
    """Its loops count by the wall clock, and sleep until that is where it was."""
    control = [sys.executable, "-m", "supervisor.supervisorctl", "-c"]
    config = str(home / "run" / "supervisord.conf")
    subprocess.run([*control, config, "restart", "sync:daemon"], check=False)  # noqa: S603 - ours


def main() -> None:
    """Once, or for a while if so asked."""
    if WATCH in sys.argv:
        restart_daemon(load_settings().home)
    ends_at = time.monotonic() + (WATCH_SECONDS if WATCH in sys.argv else 0.0)
    with DagsterInstance.get() as instance:
        instance.info_str()  # asks every storage, so that each is there
        forget_future_ticks(instance)
        while time.monotonic() < ends_at:
            time.sleep(LOOK_SECONDS)
            forget_future_ticks(instance)


if __name__ == "__main__":
    main()
