"""Which lane and queue a run belongs to. Light: webserver and daemon import it, too."""

from __future__ import annotations

import dagster as dg

LANE_TAG = "sync/lane"
QUEUE_TAG = "dagster-celery/queue"
BULK_TAGS = {LANE_TAG: "bulk", QUEUE_TAG: "bulk"}
BULK_ASSETS = frozenset({"lead_backfill", "reconciliation"})


def lane_of(run: dg.DagsterRun) -> str:
    """``live`` or ``bulk``: as the run's tag says, else by what it is to materialize.

    Materialize and the backfill page launch assets without a job of ours, and so without its tags.
    """
    wanted = {key.to_user_string() for key in run.asset_selection or ()}
    return run.tags.get(LANE_TAG) or ("bulk" if wanted & BULK_ASSETS else "live")
