"""The one resource: engines by lane, built when something runs and kept warm in the process."""

import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
from pydantic import PrivateAttr

from kommo_airtable_sync.assembly import LANES, build_engine
from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.defs.lanes import lane_of
from kommo_airtable_sync.defs.running import Attendance
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.engine.outage import pause_for_settings
from kommo_airtable_sync.opening import open_database
from kommo_airtable_sync.settings import load_settings
from kommo_airtable_sync.store.runners import Runners

_lock = threading.Lock()
_engines: dict[tuple[str, str], Engine] = {}


def warm_engine(lane: str) -> Engine:
    """The process's engine of a lane, built anew only when a setting or sync.yaml has changed.

    Raises:
        ConfigurationError: naming what is missing or wrong.
    """
    settings = load_settings()
    stamp = f"{settings.fingerprint()} {_modified(settings.sync_config)}"
    with _lock:
        engine = _engines.get((lane, stamp))
        if engine is None:
            for known in [key for key in _engines if key[0] == lane]:
                del _engines[known]
            engine = _engines[lane, stamp] = build_engine(settings, LANES[lane])
    return engine


def _modified(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


class SyncResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Gives runs their engine. It holds no settings: they come from the environment or .env."""

    _attendance: Attendance | None = PrivateAttr(default=None)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator["SyncResource"]:
        """Bound the run's attendance: whatever ends the run, its leads are given back."""
        run = context.run
        self._attendance = Attendance(run.run_id) if run else None
        try:
            yield self
        finally:
            if self._attendance is not None:
                self._attendance.end()

    def engine(self, context: dg.OpExecutionContext) -> Engine:
        """The engine of the run's lane (``lane_of``), once it is our turn.

        Raises:
            Failure: naming what is missing or wrong in the settings or sync.yaml.
        """
        try:
            engine = warm_engine(lane_of(context.run))
        except ConfigurationError as error:
            _hold_off(error)
            # Trying again cannot help until somebody changes something.
            raise dg.Failure(str(error), allow_retries=False) from error
        if self._attendance is not None:
            self._attendance.begin(engine)
        return engine

    def replaced(self) -> bool:
        """Whether this run must leave the lane to another one."""
        return self._attendance is not None and self._attendance.replaced


def _hold_off(error: ConfigurationError) -> None:
    """Keep the sensor from asking for runs that must fail; ``status`` says why."""
    with suppress(ConfigurationError):
        database = open_database(load_settings())
        pause_for_settings(Runners(database), error)
        database.close()


@dg.definitions
def resources() -> dg.Definitions:
    """Resources and the executor: ops of a run share one warm process."""
    return dg.Definitions(resources={"sync": SyncResource()}, executor=dg.in_process_executor)
