"""What people see of a batch in the Dagster UI: numbers that plot, tables with links, run tags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from kommo_airtable_sync.core.progress import time_left
from kommo_airtable_sync.core.stats import nearest_rank
from kommo_airtable_sync.core.types import key_kind
from kommo_airtable_sync.engine.batch import BatchReport
from kommo_airtable_sync.engine.context import Engine

TAGGED_LEADS_MAX = 20
TABLE_ROWS_MAX = 50
SAY_SECONDS = 10.0
COUNTS = (
    "created",
    "updated",
    "unchanged",
    "skipped_stale",
    "echoes",
    "filtered",
    "failed",
    "conflicts",
    "api_calls_kommo",
    "api_calls_airtable",
)


class Progress:
    """Says in a run's log how far it has come, now and then, and what it waits for.

    Args:
        log: of the run.
        engine: whose clock counts.
    """

    def __init__(self, log: dg.DagsterLogManager, engine: Engine) -> None:
        self._log, self._engine = log, engine
        self._began = self._said = engine.seconds()

    def tell(self, what: str, done: int, total: int = 0) -> None:
        """So much is done (of the total, if it is known)."""
        now = self._engine.seconds()
        if now - self._said >= SAY_SECONDS:
            self._said = now
            left = time_left(done, total, now - self._began)
            self._log.info(f"{what}: {done}{f' of {total}' if total else ''}{left}")

    def warn(self, why: str | None) -> None:
        """Something is waited for."""
        if why:
            self._log.warning(f"{why}. The leads wait; nothing is lost.")


def kommo_metadata(report: BatchReport) -> Mapping[str, Any]:
    """Metadata of ``kommo_leads``: what was read."""
    return {
        "events": report.events,
        "leads_read": int(report.counts.get("leads_read", 0)),
        "api_calls_kommo": int(report.counts.get("api_calls_kommo", 0)),
    }


def airtable_metadata(engine: Engine, report: BatchReport) -> Mapping[str, Any]:
    """Metadata of ``airtable_deals``: numbers for plots, and the leads with links."""
    metadata: dict[str, Any] = {name: int(report.counts.get(name, 0)) for name in COUNTS}
    metadata["events"] = report.events
    if report.latencies:
        ordered = sorted(report.latencies)
        metadata["latency_p50_s"] = round(nearest_rank(ordered, 0.5), 3)
        metadata["latency_p95_s"] = round(nearest_rank(ordered, 0.95), 3)
    if report.outage:
        metadata["waiting_for"] = report.outage
    if report.links:
        metadata["leads"] = _table(
            engine, [link for link in report.links if key_kind(link[0]) == "lead"]
        )
    return metadata


def linked_metadata(engine: Engine, report: BatchReport) -> Mapping[str, Any]:
    """Metadata of ``airtable_linked_records``: contacts and companies, with links."""
    written = [link for link in report.links if key_kind(link[0]) != "lead"]
    metadata: dict[str, Any] = dict.fromkeys(("created", "updated"), 0)
    metadata.update(Counter(outcome for _, _, outcome in written))
    if written:
        metadata["records"] = _table(engine, written)
    return metadata


def total(reports: Sequence[BatchReport]) -> BatchReport:
    """Several batches as one report."""
    counts: Counter[str] = Counter()
    for report in reports:
        counts.update(report.counts)
    return BatchReport(
        batch_id=reports[-1].batch_id if reports else 0,
        counts=counts,
        events=sum(report.events for report in reports),
        latencies=tuple(seconds for report in reports for seconds in report.latencies),
        lead_ids=tuple(lead for report in reports for lead in report.lead_ids),
        sources=tuple(sorted({source for report in reports for source in report.sources})),
        links=tuple(link for report in reports for link in report.links),
        outage=next((report.outage for report in reports if report.outage), None),
    )


def record_batch(context: dg.OpExecutionContext, engine: Engine, report: BatchReport) -> None:
    """One materialisation a batch (of linked records only if some were written), and run tags."""
    context.log_event(
        dg.AssetMaterialization("airtable_deals", metadata=airtable_metadata(engine, report))
    )
    if any(key_kind(key) != "lead" for key, _, _ in report.links):
        metadata = linked_metadata(engine, report)
        context.log_event(dg.AssetMaterialization("airtable_linked_records", metadata=metadata))
    if report.outage:
        context.log.warning(f"{report.outage}. The leads wait; nothing is lost.")
    tag_run(context, report)


def tag_run(context: dg.OpExecutionContext, report: BatchReport) -> None:
    """Say on the run which leads it worked on, why, and how many events that were."""
    run = context.instance.get_run_by_id(context.run_id)
    tags: Mapping[str, str] = run.tags if run else {}
    known = [item for item in tags.get("sync/leads", "").split(" ") if item and item != "..."]
    leads = list(dict.fromkeys([*known, *(str(lead_id) for lead_id in report.lead_ids)]))
    more = ["..."] if len(leads) > TAGGED_LEADS_MAX else []
    sources = set(tags.get("sync/source", "").split(" ")) | set(report.sources)
    context.instance.add_run_tags(
        context.run_id,
        {
            "sync/leads": " ".join(leads[:TAGGED_LEADS_MAX] + more),
            "sync/source": " ".join(sorted(sources - {""})),
            "sync/events": str(int(tags.get("sync/events", "0")) + report.events),
        },
    )


def _table(engine: Engine, links: Sequence[tuple[str, str | None, str]]) -> dg.TableMetadataValue:
    rows = [
        dg.TableRecord(
            {
                "lead": key.replace(":", " "),
                "outcome": outcome,
                "kommo": engine.directory.kommo_url(key),
                "airtable": engine.directory.record_url(key, record_id) if record_id else "",
            }
        )
        for key, record_id, outcome in links[:TABLE_ROWS_MAX]
    ]
    return dg.MetadataValue.table(rows)
