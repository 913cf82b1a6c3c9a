"""Backfills as the UI launches and heals them, and the reconciliation after a gap, in real runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa

from kommo_airtable_sync.assembly import SystemClock
from kommo_airtable_sync.store.gaps import BEAT, Gaps
from kommo_airtable_sync.store.schema import documents
from tests.stack import Stack, wait_until

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]
DAYS = 30
FIRST = datetime(2024, 5, 1, tzinfo=timezone.utc)
PARTITIONS = [(FIRST + timedelta(days=n)).strftime("%Y-%m-%d") for n in range(DAYS)]
ASSET = {"path": ["lead_backfill"]}

LAUNCH = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(
    backfillParams: $params) { __typename ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message } } }"""
RUNS = """query($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs { results {
    runId status tags { key value } } } } }"""
STATUS = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
    assetPartitionStatuses { ... on TimePartitionStatuses { ranges {
    status startKey endKey } } } } } }"""
REPOSITORIES = """query { repositoriesOrError { ... on RepositoryConnection { nodes {
    name location { name } } } } }"""
START = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
    ... on LaunchRunSuccess { run { runId } } } }"""
RUN = """query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"""
AGAIN = """mutation($params: ReexecutionParams!) { launchRunReexecution(
    reexecutionParams: $params) { __typename ... on LaunchRunSuccess { run { runId } } } }"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("backfill"), fast=True) as stack:
        stack.start_sandbox()
        made = [
            {"name": f"Deal of {day}", "price": 1, "created_at": int(at.timestamp()) + 3_600}
            for n, day in enumerate(PARTITIONS)
            for at in (FIRST + timedelta(days=n),)
        ]
        stack.control("kommo", "POST", "leads", made)
        stack.connect()  # after they were made: no webhook tells of them
        stack.spawn("up", "up")
        stack.wait_ready()
        yield stack


def lead_of(stack: Stack, day: str) -> int:
    leads = stack.control("kommo", "GET", "account")["leads"]
    return next(int(lead["id"]) for lead in leads if lead["name"] == f"Deal of {day}")


def runs(stack: Stack, **tags: str) -> dict[str, dict[str, Any]]:
    """Runs with these tags, by their partition."""
    wanted = [{"key": f"dagster/{key}", "value": value} for key, value in tags.items()]
    found = stack.graphql(RUNS, filter={"tags": wanted})["runsOrError"]["results"]
    by_day = {}
    for run in found:
        run["tags"] = {tag["key"]: tag["value"] for tag in run["tags"]}
        by_day[run["tags"]["dagster/partition"]] = run
    return by_day


def days_by_status(stack: Stack) -> dict[str, set[str]]:
    """The days that the UI shows as materialized or failed."""
    node = stack.graphql(STATUS, key=ASSET)["assetNodeOrError"]
    found: dict[str, set[str]] = {}
    for each in node["assetPartitionStatuses"]["ranges"]:
        days = {day for day in PARTITIONS if each["startKey"] <= day <= each["endKey"]}
        found.setdefault(each["status"], set()).update(days)
    return found


def test_one_day_of_thirty_fails_alone_and_re_execute_heals_it(stack: Stack) -> None:
    bad_day = PARTITIONS[17]
    bad = lead_of(stack, bad_day)
    stack.control("airtable", "POST", "refusals", {"field": "Amount", "key": bad})
    launched = stack.graphql(
        LAUNCH, params={"assetSelection": [ASSET], "partitionNames": PARTITIONS}
    )["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    backfill = launched["backfillId"]
    wait_until(lambda: runs(stack, backfill=backfill), 90, "the first run", 0.5)

    # Live changes do not wait for it.
    live = stack.stand_ins.add_lead(name="Live", price=1)
    stack.wait_for_record(live, 20)
    under_way = {run["status"] for run in runs(stack, backfill=backfill).values()}

    ended = {"SUCCESS", "FAILURE", "CANCELED"}
    found = wait_until(
        lambda: (
            (by_day := runs(stack, backfill=backfill))
            and len(by_day) == DAYS
            and all(run["status"] in ended for run in by_day.values())
            and by_day
        ),
        150,
        "all runs end",
        0.5,
    )
    assert under_way - ended, "the live lead came when all was over"
    assert [day for day, run in found.items() if run["status"] == "FAILURE"] == [bad_day]
    assert {run["tags"]["dagster-celery/queue"] for run in found.values()} == {"bulk"}
    shown = days_by_status(stack)
    assert shown["FAILED"] == {bad_day}
    assert shown["MATERIALIZED"] == set(PARTITIONS) - {bad_day}
    written = {record["Kommo Deal ID"] for record in stack.records()}
    assert written == {lead_of(stack, day) for day in PARTITIONS} - {bad} | {live}

    stack.control("airtable", "DELETE", "refusals")
    failed = found[bad_day]["runId"]
    again = stack.graphql(AGAIN, params={"parentRunId": failed, "strategy": "FROM_FAILURE"})
    assert again["launchRunReexecution"]["__typename"] == "LaunchRunSuccess", again
    wait_until(
        lambda: days_by_status(stack).get("MATERIALIZED") == set(PARTITIONS), 90, "it is healed"
    )
    assert not days_by_status(stack).get("FAILED")
    stack.wait_for_record(bad, 5)
    assert len(stack.records()) == DAYS + 1


def test_after_a_gap_what_nobody_told_of_is_found_by_itself(stack: Stack) -> None:
    lead = lead_of(stack, PARTITIONS[0])
    stack.control("kommo", "PATCH", "settings", {"hook_lose": 1.0})
    stack.stand_ins.edit_lead(lead, price=4711)
    # As if the receiver had not been there for a while; its next beat finds that out.
    at = SystemClock().now().timestamp() - 600.0
    with stack.database().write() as connection:
        connection.execute(
            sa.update(documents).where(documents.c.name == BEAT).values(stored_at=at)
        )
    stack.wait_for_record(lead, 90, Amount=4711)

    def ended() -> dict[str, Any] | None:
        filter_ = {"pipelineName": "reconcile"}
        found = stack.graphql(RUNS, filter=filter_)["runsOrError"]["results"]
        return found[0] if len(found) == 1 and found[0]["status"] == "SUCCESS" else None

    run = wait_until(ended, 90, "its run ends", 0.5)
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    assert tags["dagster/run_key"].startswith("gap-")
    assert tags["dagster-celery/queue"] == "bulk"
    wait_until(lambda: Gaps(stack.database()).since() is None, 90, "the gap is forgotten", 0.5)


def start_reconcile(stack: Stack) -> str:
    """Launch the job as the UI does; the run's id."""
    (repository,) = stack.graphql(REPOSITORIES)["repositoriesOrError"]["nodes"]
    selector = {
        "repositoryName": repository["name"],
        "repositoryLocationName": repository["location"]["name"],
        "jobName": "reconcile",
    }
    params = {"selector": selector, "runConfigData": {}, "mode": "default"}
    launched = stack.graphql(START, params=params)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    return launched["run"]["runId"]


def wait_for_run(stack: Stack, run_id: str, status: str) -> None:
    def ended() -> bool:
        return stack.graphql(RUN, id=run_id)["runOrError"]["status"] == status

    wait_until(ended, 60, f"run {run_id} is {status}", 0.2)


def test_kill_9_of_the_worker_amid_a_reconciliation_costs_neither_a_write_nor_an_edit(
    stack: Stack,
) -> None:
    wait_until(stack.quiet, 90, "nothing is under way", 0.2)
    drifted = [lead_of(stack, day) for day in PARTITIONS[:12]]
    edited = drifted[0]
    stack.control("kommo", "PATCH", "settings", {"hook_lose": 1.0})
    stack.control("kommo", "POST", "leads/bulk", {"ids": drifted, "changes": {"price": 77}})
    run_id = start_reconcile(stack)
    # The comparison reads; what it found is being written when the worker dies.
    stack.control("airtable", "PATCH", "settings", {"latency_seconds": 1.5})
    wait_until(lambda: stack.reports().inbox_counts()["claimed"], 90, "a batch is under way")
    mark = next((stack.home / "run").glob("worker-bulk-*.ready"))
    os.kill(int(mark.read_text()), signal.SIGKILL)
    stack.control("kommo", "PATCH", "settings", {"hook_lose": 0.0})
    stack.control("kommo", "PATCH", f"leads/{edited}", {"price": 78})
    stack.control("airtable", "PATCH", "settings", {"latency_seconds": 0})

    wait_for_run(stack, run_id, "FAILURE")
    stack.wait_for_record(edited, Amount=78)
    for lead in drifted[1:]:
        stack.wait_for_record(lead, Amount=77)
    wait_until(stack.quiet, 90, "all is worked off", 0.2)
    wait_for_run(stack, start_reconcile(stack), "SUCCESS")
    stack.wait_for_record(edited, 5, Amount=78)
    shown = [record["Kommo Deal ID"] for record in stack.records()]
    assert len(shown) == len(set(shown))
    assert stack.cli("plan").returncode == 0
    assert not stack.reports().inbox_counts()["dead"]
