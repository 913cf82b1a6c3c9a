"""What a reconciliation says to people: its report, and the verdicts of the asset checks. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kommo_airtable_sync.core.alerts import OVERDUE_SECONDS_MAX
from kommo_airtable_sync.core.types import Json

BAR_CHARACTERS = 24
ANNOUNCED_SHARE_MIN = 0.99
FIELDS_SHOWN_MAX = 30
# A first meeting of equal values teaches the ledger and changes nothing for anybody.
NO_DRIFT = frozenset({"adopt"})
MEANINGS = {
    "create": "leads without a record: it is made",
    "recreate": "records that are gone: made again",
    "update": "leads that differ from their record: merged",
    "mark": "leads that left or were deleted: their record says so",
    "delete": "the same, by the policy `delete`",
    "adopt": "equal, and new to the ledger",
    "link": "their contact or company had no record",
    "conflict": "a person must choose",
    "vanished": "Kommo neither shows them nor says that they were deleted: held",
    "key_changed": "somebody changed the record's key: held",
    "duplicate": "several records have the same key: a person must merge them",
    "orphan": "records whose lead does not exist: a person must look",
    "refused": "values that the other side cannot hold",
}


def night_report(
    report: Mapping[str, Json], latencies: Sequence[tuple[str, int]], seconds: float
) -> str:
    """A reconciliation in markdown.

    Args:
        report: what the engine remembers of it.
        latencies: how many live events of the last day took at most so long, by bucket.
        seconds: that it took.
    """
    since = f" of what changed since {report['since']}" if report["since"] else ""
    lines = [
        f"**{report['leads']} leads and {report['records']} records** compared{since} "
        f"in {seconds:.0f} s.",
        "",
    ]
    if report["brake"]:
        lines += [f"**{report['brake']}**", ""]
    kinds = {kind: count for kind, count in report["kinds"].items() if count}
    if kinds:
        lines += ["| found | leads | what that is |", "|---|--:|---|"]
        lines += [f"| {kind} | {n} | {MEANINGS.get(kind, '')} |" for kind, n in kinds.items()]
    else:
        lines += ["Both sides agree: nothing was found."]
    if report["outcomes"]:
        lines += ["", "| ended as | events |", "|---|--:|"]
        lines += [f"| {name} | {count} |" for name, count in sorted(report["outcomes"].items())]
    fields = sorted(report["fields"].items(), key=lambda item: (-item[1], item[0]))
    shown = [(_cell(name), count) for name, count in fields[:FIELDS_SHOWN_MAX]]
    lines += _chart("Drift by field", "field", "values", shown)
    lines += _chart("Latency of live events, last 24 h", "up to", "events", latencies)
    cost = report["cost_in_api_calls"]
    lines += ["", "#### Cost", "", "| API calls | Kommo | Airtable |", "|---|--:|--:|"]
    for name, words in (("made", "to compare"), ("to_apply", "to mend it, at most")):
        lines += [f"| {words} | {cost[name]['kommo']} | {cost[name]['airtable']} |"]
    return "\n".join(lines)


def _chart(title: str, what: str, unit: str, bars: Sequence[tuple[str, int]]) -> list[str]:
    most = max((count for _, count in bars), default=0)
    if not most:
        return []
    rows = [
        f"| {name} | {count} | {'█' * -(-count * BAR_CHARACTERS // most)} |" for name, count in bars
    ]
    return ["", f"#### {title}", "", f"| {what} | {unit} | |", "|---|--:|---|", *rows]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def numbers(report: Mapping[str, Json], seconds: float) -> dict[str, int | float]:
    """What Dagster plots of a reconciliation."""
    made = report["cost_in_api_calls"]["made"]
    outcomes = report["outcomes"]
    return {
        "leads": report["leads"],
        "records": report["records"],
        "drift": drift(report),
        **{kind: report["kinds"].get(kind, 0) for kind in MEANINGS},
        "written": sum(outcomes.get(name, 0) for name in ("created", "updated")),
        "failed": outcomes.get("dead", 0),
        "unannounced": report["unannounced"],
        "api_calls_kommo": made["kommo"],
        "api_calls_airtable": made["airtable"],
        "seconds": round(seconds, 3),
    }


def drift(report: Mapping[str, Json]) -> int:
    """How many leads, contacts or records were not as they should be."""
    return sum(count for kind, count in report["kinds"].items() if kind not in NO_DRIFT)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether something is as it should be.

    Args:
        is_error: a person is needed; else it is worth knowing.
        facts: numbers to plot.
    """

    name: str
    passed: bool
    reason: str
    is_error: bool = False
    facts: Mapping[str, int | float] = field(default_factory=dict[str, int | float])


CHECKS = {
    "no_dead_letters": ("airtable_deals", "No event was refused for good or tried too often."),
    "oldest_pending": ("airtable_deals", "No live change waits for longer than five minutes."),
    "no_duplicate_keys": ("airtable_deals", "No two records in Airtable have the same key."),
    "no_drift": ("reconciliation", "Both sides agreed at the last reconciliation."),
    "webhook_completeness": ("kommo_leads", "What changed in Kommo was told by a webhook."),
}
"""Name -> the asset that is checked, and what is checked."""


def verdicts(
    dead: int,
    overdue_seconds: float,
    last: Mapping[str, Json] | None,
    last_full: Mapping[str, Json] | None,
) -> list[Verdict]:
    """All checks, in the order of `CHECKS`.

    Args:
        dead: events that want a person.
        overdue_seconds: for how long a live key has been due.
        last: what the engine remembers of the last reconciliation.
        last_full: of the last one that read everything.
    """
    return [
        Verdict(
            "no_dead_letters",
            dead == 0,
            f"{dead} events are dead. See kommo-airtable-sync events --state dead.",
            is_error=True,
            facts={"dead": dead},
        ),
        Verdict(
            "oldest_pending",
            overdue_seconds <= OVERDUE_SECONDS_MAX,
            f"A live change has been due for {overdue_seconds:.0f} s. "
            "See kommo-airtable-sync status.",
            is_error=True,
            facts={"overdue_s": round(overdue_seconds, 1)},
        ),
        _no_duplicates(last_full),
        _no_drift(last),
        _completeness(last),
    ]


def _no_duplicates(last: Mapping[str, Json] | None) -> Verdict:
    name = "no_duplicate_keys"
    if last is None:
        return _never(name)
    count = last["kinds"].get("duplicate", 0)
    reason = f"{count} keys have several records. See kommo-airtable-sync plan; merge the copies."
    return Verdict(name, count == 0, reason, is_error=True, facts={"duplicates": count})


def _no_drift(last: Mapping[str, Json] | None) -> Verdict:
    if last is None:
        return _never("no_drift")
    count = drift(last)
    mended = not last["brake"] and not any(
        last["outcomes"].get(state) for state in ("dead", "held", "pending", "claimed", "retrying")
    )
    reason = f"{count} leads or records differed; " + (
        "what could be mended was." if mended else "not all of it could be mended."
    )
    return Verdict("no_drift", count == 0, reason, is_error=not mended, facts={"drift": count})


def _completeness(last: Mapping[str, Json] | None) -> Verdict:
    if last is None:
        return _never("webhook_completeness")
    changed, unheard = last["changed"], last["unannounced"]
    share = 1 - unheard / changed if changed else 1.0
    return Verdict(
        "webhook_completeness",
        share >= ANNOUNCED_SHARE_MIN,
        f"Of {changed} leads that changed, {unheard} came unannounced. "
        "See kommo-airtable-sync webhooks list.",
        facts={"announced_share": round(share, 4), "changed": changed, "unannounced": unheard},
    )


def _never(name: str) -> Verdict:
    return Verdict(name, False, "There was no reconciliation yet: launch the job reconcile.")
