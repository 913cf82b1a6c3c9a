"""What the webhook sensor decides at each look. Pure (design 3.5, nudge protocol)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# A run that was asked for and has not appeared after this long is asked for again.
NUDGE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class LaneView:
    """What the store says of one lane.

    Args:
        is_due: something could be claimed now.
        runner_states: states of its runners with a fresh heartbeat.
        nudge_age_seconds: age of the newest unanswered nudge, None without one.
    """

    is_due: bool
    runner_states: tuple[str, ...]
    nudge_age_seconds: float | None


def wants_run(view: LaneView) -> bool:
    """Whether a new run is to be asked for.

    One that runs or stands by takes what is due; one that retires is waited for, so that two never
    overlap; one that was asked for a moment ago is on its way.
    """
    if not view.is_due or view.runner_states:
        return False
    return view.nudge_age_seconds is None or view.nudge_age_seconds >= NUDGE_SECONDS


def describe(views: Iterable[tuple[str, LaneView]]) -> str:
    """One line for the sensor's skip reason."""
    parts: list[str] = []
    for name, view in views:
        due = "due" if view.is_due else "nothing due"
        runner = ", ".join(view.runner_states) or "no runner"
        parts.append(f"{name}: {due}, {runner}")
    return "; ".join(parts)
