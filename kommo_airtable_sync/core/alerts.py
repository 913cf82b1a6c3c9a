"""What people are alerted to: named conditions, and what became of them. Pure.

Messages leave for other systems: they hold counts, sides and reasons, never a value of a lead, an
API's own words or an address.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from kommo_airtable_sync.core.quota import STOPPED_PERCENT, QuotaReport

# A shorter pause is everyday business: a 429, one failed call.
PAUSE_SECONDS_MIN = 60.0
OVERDUE_SECONDS_MAX = 300.0
# The sensor nudges every 10 to 15 s; a run that is slow to begin leaves one or two unanswered.
NUDGE_WINDOW_SECONDS = 90.0
NUDGES_MIN = 4
RUNS_TOLD_MAX = 3
RUN = "run "
CONSENT = "kommo consent"
FORECAST = "airtable quota forecast"
# A forecast sways from day to night: what was told ends only when it is well below the quota.
FORECAST_OVER_SHARE = 0.9

_CLI = "kommo-airtable-sync"
_HOLDS = f"Look with `{_CLI} holds`, then `{_CLI} holds release ID` or `{_CLI} holds drop ID`."
_FIELDS = f"`{_CLI} conflicts` lists them, `{_CLI} conflicts resolve` decides."
WAITING = {
    "dead": "Events refused for good, or tried too often. See why with "
    f"`{_CLI} events --state dead`, mend it, then `{_CLI} events retry --dead`.",
    "quarantined": "Authenticated bodies that nobody could read. See them with "
    f"`{_CLI} events --state quarantined`, then `{_CLI} events drop ID`.",
    "braked": f"Changes beyond `safety` in sync.yaml wait. {_HOLDS}",
    "vanished": "Kommo shows these leads no more, and nobody said that they were deleted: has the "
    f"token lost rights? Nothing was changed in Airtable. {_HOLDS}",
    "held": f"Leads whose record's key somebody has changed. {_HOLDS}",
    "conflict": f"Fields that were edited on both sides. {_FIELDS}",
    "loop": f"Fields whose value something takes back, again and again. {_FIELDS}",
}
_NO_ANSWER = {"unreachable", "timeout", "server_error"}
_PAUSED = {
    "no answer": "It cannot be reached, or fails; nothing is to be done here.",
    "rate_limited": "Other programs use up its rate limit: find them.",
    "unauthorized": "It refuses the token: set another one, then restart `up`.",
    "blocked": "Its firewall blocks us: ask its support.",
    "quota": "The plan's calls of this month are used up: wait, or take a larger plan.",
    "configuration": "A setting, permission or sync.yaml is wrong: mend it, then restart `up`.",
}


def paused_sentence(reason: str) -> str:
    """What a pause means and what to do, by its reason."""
    return _PAUSED.get("no answer" if reason in _NO_ANSWER else reason, "")


@dataclass(frozen=True, slots=True)
class View:
    """What is looked at.

    Args:
        waiting: reason (of ``WAITING``) -> how many events or fields.
        pauses: side -> (reason, seconds from its first failure to the end of the pause).
        overdue_seconds: for how long a live key has been due and not been settled.
        nudges: lane -> unanswered ones of the last ``NUDGE_WINDOW_SECONDS``.
        failed_runs: of late, run id -> job.
        quota: Airtable's month, if it was looked at.
        consent_refused: Kommo renews OAuth's access no more.
    """

    waiting: Mapping[str, int] = field(default_factory=dict[str, int])
    pauses: Mapping[str, tuple[str, float]] = field(default_factory=dict[str, tuple[str, float]])
    overdue_seconds: float = 0.0
    nudges: Mapping[str, int] = field(default_factory=dict[str, int])
    failed_runs: Mapping[str, str] = field(default_factory=dict[str, str])
    quota: QuotaReport | None = None
    consent_refused: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """Conditions that have come to be, or ended; an empty message is no news."""

    names: tuple[str, ...]
    stands: bool
    message: str


def conditions(view: View, told: Collection[str] = ()) -> dict[str, str]:
    """What wants a person: name, the same while it lasts -> what it is and what to do.

    Args:
        view: of the store, now.
        told: names of what people know already.
    """
    found = {name: f"{n}. {WAITING[name]}" for name, n in view.waiting.items() if n}
    if view.consent_refused:
        found[CONSENT] = (
            "Kommo renews our access no more: was it revoked, or an answer lost? Give consent "
            f"again with `{_CLI} authorize CODE`, before the access in hand ends (`{_CLI} doctor`)."
        )
    for side, (reason, seconds) in view.pauses.items():
        # Once consent is refused, what follows from it is no news.
        told_above = view.consent_refused and (side, reason) == ("kommo", "unauthorized")
        if seconds > PAUSE_SECONDS_MIN and not told_above:
            trouble = "no answer" if reason in _NO_ANSWER else reason
            found[f"{side} paused, {trouble}"] = (
                f"{paused_sentence(reason)} Changes wait, none is lost; details: `{_CLI} status`."
            )
    # What waits for a paused side has its own alert.
    if view.overdue_seconds > OVERDUE_SECONDS_MAX and not view.pauses:
        minutes = view.overdue_seconds / 60
        found["backlog"] = (
            f"A change is due for {minutes:.0f} min. Do all parts run? `{_CLI} status`"
        )
    for lane, unanswered in view.nudges.items():
        if unanswered >= NUDGES_MIN:
            found[f"no {lane} worker"] = f"Work is due and no run begins. Restart `{_CLI} up`."
    for run_id, job in view.failed_runs.items():
        why = "Why: Dagster UI, Runs. The next run does what it left undone."
        found[RUN + run_id] = f"A run of {job} failed. {why}"
    if view.quota is not None:
        found |= _of_quota(view.quota, known=FORECAST in told)
    return found


def _of_quota(quota: QuotaReport, *, known: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    if quota.limit is None:
        return found
    if quota.forecast > quota.limit * (FORECAST_OVER_SHARE if known else 1.0):
        found[FORECAST] = (
            f"This month may come to {quota.forecast} calls of {quota.limit}; {quota.used} are "
            "made. Bulk work will be slowed, live events go on. Take a larger plan, or see what "
            f"calls so often: `{_CLI} status`."
        )
    if quota.bulk == "stopped":
        found["bulk stopped"] = (
            f"{STOPPED_PERCENT} % of this month's {quota.limit} calls to Airtable are made. "
            "Reconciliation and backfills wait for the next month, the rest is kept for live "
            "events. After a change of plan set AIRTABLE_MONTHLY_CALLS."
        )
    return found


def changes(before: Collection[str], now: Mapping[str, str]) -> list[Change]:
    """What has ended, then what is new; what lasts is no news, whatever its count.

    Of runs that failed together a few are told one by one, the rest in one message. They end by
    being forgotten, which is no news either.
    """
    gone = [name for name in before if name not in now]
    new = [name for name in now if name not in before]
    rest = tuple(name for name in new if name.startswith(RUN))[RUNS_TOLD_MAX:]
    found = [
        Change((name,), False, "" if name.startswith(RUN) else f"{name}: this is over.")
        for name in gone
    ]
    found += [Change((name,), True, f"{name}: {now[name]}") for name in new if name not in rest]
    if rest:
        found.append(Change(rest, True, f"{len(rest)} more runs failed meanwhile."))
    return found
