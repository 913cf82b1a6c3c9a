"""The inbox, journal and ledger on PostgreSQL, the rest as it comes: a lead goes all the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stack import Stack, wait_until


@pytest.mark.process
@pytest.mark.timeout(180)
@pytest.mark.parametrize("sql_engine", ["postgresql"], indirect=True)
def test_the_product_runs_with_its_store_on_postgresql(
    tmp_path: Path, empty_database_url: str
) -> None:
    environment = {"SYNC_DATABASE_URL": empty_database_url}
    with Stack(tmp_path, fast=True, environment=environment) as stack:
        stack.start(leads=30)
        assert stack.cli("reconcile").returncode == 0
        assert len(stack.records()) == 30
        lead = stack.control("kommo", "POST", "leads", {"name": "On PostgreSQL"})["lead"]["id"]
        wait_until(
            lambda: any(record.get("Kommo Deal ID") == lead for record in stack.records()),
            60,
            "the lead is there",
        )
        wait_until(lambda: not stack.reports().inbox_counts()["claimed"], 20, "it is settled")
        assert stack.reports().latency()["count"] == 1
