"""The sensor that tells people: one message for each change of what wants a person."""

# Dagster's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import json
import logging
import time
from collections.abc import Callable, Mapping
from datetime import timedelta

import dagster as dg
import requests
from pydantic import SecretStr

from kommo_airtable_sync.assembly import LANES
from kommo_airtable_sync.core.alerts import NUDGE_WINDOW_SECONDS, View, changes, conditions
from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.core.quota import QuotaReport
from kommo_airtable_sync.opening import SystemClock, open_database, open_limiter
from kommo_airtable_sync.settings import Settings, load_settings
from kommo_airtable_sync.store.consents import Consents
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.documents import Documents
from kommo_airtable_sync.store.limiter import month_so_far
from kommo_airtable_sync.store.reports import Reports
from kommo_airtable_sync.store.runners import Runners

log = logging.getLogger(__name__)

# The daemon ticks one sensor at a time: while this one posts, nobody looks for due leads.
POST_SECONDS = 2.0
RUNS_AGE = timedelta(hours=1)
RUNS_MAX = 50


@dg.sensor(
    name="failure_alerts",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells ALERT_WEBHOOK_URL what has come to want a person, and when it is over.",
)
def failure_alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """One look; what could not be posted is posted at a later one."""
    settings = load_settings()
    try:
        database, limiter = open_database(settings), open_limiter(settings)
    except ConfigurationError as error:
        return dg.SkipReason(str(error))
    url = settings.alert_webhook_url
    is_set = bool(url.get_secret_value())
    # What was only logged is news to a webhook that is set later.
    document = "alerts posted" if is_set else "alerts logged"

    def send(message: str) -> str:
        return post(url, message) if is_set else ""

    try:
        quota = month_so_far(limiter, settings.monthly_quota)
        view = look(database, failed_runs(context), quota, consent_refused(settings, database))
        return dg.SkipReason(tell(database, view, document, send))
    finally:
        database.close()
        limiter.close()


def failed_runs(context: dg.SensorEvaluationContext) -> dict[str, str]:
    """This project's runs that failed within the last hour, first one first: id -> job."""
    since = SystemClock().now() - RUNS_AGE
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since)
    records = context.instance.get_run_records(failed, RUNS_MAX, order_by="update_timestamp")
    ours = set(context.repository_def.job_names) if context.repository_def else set[str]()
    return {
        record.dagster_run.run_id: record.dagster_run.job_name
        for record in reversed(records)
        # A tag that is set later updates a run, too.
        if (record.end_time or 0.0) > since.timestamp() and record.dagster_run.job_name in ours
    }


def consent_refused(settings: Settings, database: Database) -> bool:
    """Whether Kommo renews OAuth's access no more."""
    if not settings.uses_oauth:
        return False
    consent = Consents(database, settings.kommo_url).load()
    return consent is not None and consent.refused_at is not None


def look(
    database: Database,
    runs: Mapping[str, str],
    quota: QuotaReport | None = None,
    consent_refused: bool = False,
) -> View:
    """What the store says now."""
    reports, runners = Reports(database), Runners(database)
    window = NUDGE_WINDOW_SECONDS
    return View(
        waiting=reports.waiting_for_people(),
        pauses={side: (pause.reason, pause.seconds) for side, pause in runners.pauses().items()},
        overdue_seconds=reports.overdue_seconds(),
        nudges={name: runners.unanswered_nudges(lane, window) for name, lane in LANES.items()},
        failed_runs=runs,
        quota=quota,
        consent_refused=consent_refused,
    )


def tell(database: Database, view: View, document: str, send: Callable[[str], str]) -> str:
    """Send a message for each change since the last one that was sent; what stands, in a line.

    Args:
        database: the store.
        view: of it, now.
        document: keeps the names of what people were told, each stored only once it was sent.
        send: takes a message; returns why it could not be sent, or ``""``.
    """
    documents = Documents(database)
    told: list[str] = json.loads(documents.get(document) or "[]")
    now = conditions(view, told)
    said = [f"stands: {', '.join(now) or 'nothing'}"]
    ends_at = time.monotonic() + POST_SECONDS
    for change in changes(told, now):
        trouble = send(f"kommo-airtable-sync: {change.message}") if change.message else ""
        said.append(f"not posted: {trouble}" if trouble else change.message)
        log.warning("alert: %s", said[-1])
        if trouble:
            break  # tried again at the next tick
        told = [name for name in told if name not in change.names]
        told += change.names if change.stands else ()
        documents.put(document, json.dumps(told))
        if time.monotonic() > ends_at:
            break
    return "; ".join(filter(None, said))


def post(url: SecretStr, message: str) -> str:
    """Post a Slack-compatible message; why that failed, never with the URL, or ``""``."""
    try:
        with requests.post(
            url.get_secret_value(),
            json={"text": message},
            timeout=POST_SECONDS,
            allow_redirects=False,
            stream=True,  # nobody reads the answer's body
        ) as answer:
            return "" if 200 <= answer.status_code < 300 else f"HTTP {answer.status_code}"
    except requests.RequestException as error:
        return type(error).__name__  # its text has the URL, which is a secret
