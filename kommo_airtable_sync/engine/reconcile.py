"""Compare both sides, hold what would go too far, hand the rest to the inbox (design 3.9).

Whatever is found goes through the one write path, which reads each lead afresh: what has come
right meanwhile is not written, what has changed since is merged by the rules.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

from kommo_airtable_sync.core.config import SyncConfig
from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.core.reconciling import HANDED_OVER, Summary, braked
from kommo_airtable_sync.core.types import BULK, IncomingEvent, Json
from kommo_airtable_sync.engine.comparing import Comparer
from kommo_airtable_sync.engine.context import LEADS_PER_BULK_BATCH, Engine
from kommo_airtable_sync.engine.survey import Progress, read_all, read_changed
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.documents import Documents
from kommo_airtable_sync.store.standing import database_now, held
from kommo_airtable_sync.store.survey import Survey

SOURCE = "reconcile"
APPLY = "apply"
LAST = "last_reconcile"
LAST_FULL = "last_full_reconcile"
"""Of the last comparison that read everything: only that one knows of all duplicates."""
PLAN_VERSION = 1
RECEIVED_AT_ONCE = 250


@dataclass
class Comparison:
    """What a comparison found; ``survey`` has the findings and must be closed.

    Args:
        id: names this comparison in the events that it leads to.
        since: of an incremental one.
        brake: why a person must allow it first; None: it may go.
        began: database time, seconds since the epoch.
    """

    id: str
    since: datetime | None
    began: float
    survey: Survey
    summary: Summary
    brake: str | None
    config: str

    def document(self) -> Iterator[str]:
        """The plan file, piece by piece: JSON, one finding a line."""
        head = {
            "version": PLAN_VERSION,
            "id": self.id,
            "since": self.since.isoformat() if self.since else None,
            "sync_yaml": self.config,
            "brake": self.brake,
            "cost_in_api_calls": self.cost(),
            "summary": self.summary.to_json(),
        }
        yield json.dumps(head, ensure_ascii=False, indent=1)[:-2] + ',\n "findings": ['
        for n, each in enumerate(self.survey.found()):
            yield (",\n  " if n else "\n  ") + json.dumps(each, ensure_ascii=False)
        yield "\n ]\n}\n"

    def cost(self) -> dict[str, Json]:
        """API calls that it took, and that applying would take, by side."""
        return {"made": self.summary.calls, "to_apply": self.summary.cost(LEADS_PER_BULK_BATCH)}


def compare_sides(
    engine: Engine, survey: Survey, since: datetime | None, on_progress: Progress
) -> Comparison:
    """Read both sides and find whatever differs. Writes to nothing but the survey.

    Args:
        engine: of the bulk lane: live events go first.
        survey: empty.
        since: only what changed since then (aware); None: everything.
        on_progress: told of each page and portion.

    Raises:
        SideUnavailable, ConfigurationError: a side could not be read to the end.
    """
    began, calls = database_now(engine.database), engine.calls
    summary = Summary()
    previous = (last_report(engine.database) or {}).get("began_at")
    comparer = Comparer(engine, survey, summary, began, previous)
    if since is None:
        read_all(engine, survey, on_progress, comparer.look)
    else:
        read_changed(engine, survey, since, on_progress)
    comparer.compare(on_progress)
    made = (now - before for now, before in zip(engine.calls, calls, strict=True))
    summary.calls = dict(zip(("kommo", "airtable"), made, strict=True))
    return Comparison(
        id=f"{began:.3f}",
        since=since,
        began=began,
        survey=survey,
        summary=summary,
        brake=braked(summary, engine.config.safety),
        config=fingerprint(engine.config),
    )


def hand_over(engine: Engine, comparison: Comparison, *, release: bool) -> int:
    """Ask the write path for every lead that was found; returns how many.

    Args:
        engine: any lane's.
        comparison: not braked, or released.
        release: a person lets it go, so the live brake passes it, too.
    """
    directive = {"release": True, "plan": comparison.id} if release else None
    count = 0
    found = comparison.survey.found(*HANDED_OVER)
    while some := list(islice(found, RECEIVED_AT_ONCE)):
        if not release:
            # What waits for a person already would only wait twice.
            waiting = held(engine.database, [each["key"] for each in some])
            some = [each for each in some if each["key"] not in waiting]
        engine.inbox.receive(
            [
                IncomingEvent(
                    each["key"],
                    SOURCE,
                    each["kind"],
                    priority=BULK,
                    always_read=True,
                    # Nobody's word can make up for evidence.
                    directive=None if each["kind"] in ("vanished", "key_changed") else directive,
                )
                for each in some
            ]
        )
        count += len(some)
    return count


def read_plan(path: Path, config: SyncConfig) -> Json:
    """A saved plan.

    Raises:
        ConfigurationError: it is none, or was made for another sync.yaml.
    """
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        version, findings = plan["version"], plan["findings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} is not a saved plan ({type(error).__name__}).",
            "Make one with kommo-airtable-sync plan --out FILE.",
        ) from error
    if version != PLAN_VERSION or not isinstance(findings, list):
        raise ConfigurationError(
            f"{path} is a plan of another version.", "Make it anew with kommo-airtable-sync plan."
        )
    if plan.get("sync_yaml") != fingerprint(config):
        raise ConfigurationError(
            f"{path} was made for another sync.yaml.",
            "Put that sync.yaml in place first, or make the plan anew.",
        )
    return plan


def hand_over_plan(engine: Engine, plan: Json, *, release: bool, actor: str) -> int:
    """Ask the write path for each lead of a saved plan, as long as it is as the plan saw it."""
    wanted = [each for each in plan["findings"] if each["kind"] in HANDED_OVER]
    for start in range(0, len(wanted), RECEIVED_AT_ONCE):
        engine.inbox.receive(
            [_planned(each, release, actor) for each in wanted[start : start + RECEIVED_AT_ONCE]]
        )
    return len(wanted)


def _planned(finding: Mapping[str, Json], release: bool, actor: str) -> IncomingEvent:
    directive: dict[str, Json] = {"actor": actor}
    if finding["changes"] and finding["key"].startswith("lead:"):
        directive["digest"] = finding["digest"]
    if release and finding["kind"] not in ("vanished", "key_changed"):
        directive["release"] = True
    return IncomingEvent(
        finding["key"],
        APPLY,
        finding["kind"],
        priority=BULK,
        always_read=True,
        directive=directive,
    )


def remember(engine: Engine, comparison: Comparison, outcomes: Mapping[str, int]) -> Json:
    """Keep what came of it, for ``status``, the asset checks and the next comparison."""
    report = {
        "finished_at": engine.clock.now().isoformat(),
        "began_at": comparison.began,
        "since": comparison.since.isoformat() if comparison.since else None,
        "brake": comparison.brake,
        **comparison.summary.to_json(),
        "cost_in_api_calls": comparison.cost(),
        "outcomes": dict(outcomes),
    }
    documents = Documents(engine.database)
    documents.put(LAST, json.dumps(report))
    if comparison.since is None:
        documents.put(LAST_FULL, json.dumps(report))
    return report


def last_report(database: Database, name: str = LAST) -> dict[str, Json] | None:
    """What `remember` kept last."""
    text = Documents(database).get(name)
    return json.loads(text) if text else None


def fingerprint(config: SyncConfig) -> str:
    """Changes whenever anything of sync.yaml does."""
    return hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:16]
