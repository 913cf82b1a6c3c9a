"""Sensors tick on though their last tick was by a clock that was fast."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    SensorInstigatorData,
)

from kommo_airtable_sync.runtime.set_backs import SetBacks
from kommo_airtable_sync.runtime.ticking import forget_future_ticks

HOURS = 3 * 3600.0


def ticked(instance: dg.DagsterInstance, name: str, at: float) -> None:
    repository = RemoteRepositoryOrigin(GrpcServerCodeLocationOrigin("host", 1), "repository")
    data = SensorInstigatorData(last_tick_timestamp=at, last_tick_start_timestamp=at, cursor=name)
    instance.add_instigator_state(
        InstigatorState(
            RemoteInstigatorOrigin(repository, name),
            InstigatorType.SENSOR,
            InstigatorStatus.RUNNING,
            data,
        )
    )


def ticks(instance: dg.DagsterInstance) -> dict[str, Any]:
    return {state.name: state.instigator_data for state in instance.all_instigator_state()}


def test_a_tick_of_the_future_is_forgotten_and_nothing_else_of_its_sensor(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        now = time.time()
        ticked(instance, "fast", now + HOURS)
        ticked(instance, "right", now - 5)
        assert forget_future_ticks(instance) == 1
        fast, right = ticks(instance)["fast"], ticks(instance)["right"]
        assert fast.last_tick_timestamp == fast.last_tick_start_timestamp
        assert fast.last_tick_timestamp == pytest.approx(now, abs=60)
        assert fast.cursor == "fast"
        assert right.last_tick_timestamp == now - 5
        assert forget_future_ticks(instance) == 0


def test_a_clock_that_was_set_back_is_noticed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    set_backs, true_time = SetBacks(), time.time
    assert not set_backs.noticed()
    for offset, noticed in ((HOURS, False), (0.0, True), (0.0, False), (-0.5, False)):
        monkeypatch.setattr(time, "time", lambda offset=offset: true_time() + offset)
        assert set_backs.noticed() == noticed
