"""OAuth against the stand-in's token endpoint: rotations, races, lost answers, revoked consent."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.alerts import View, conditions
from kommo_airtable_sync.core.errors import ConfigurationError, SideUnavailable
from kommo_airtable_sync.core.findings import consent as finding
from kommo_airtable_sync.core.oauth import Consent, Grant, find_code, read_grant
from kommo_airtable_sync.kommo.access import ConsentRefused, Integration, KommoAccess
from kommo_airtable_sync.kommo.client import KommoClient
from kommo_airtable_sync.sandbox.kommo.model import KommoModel
from kommo_airtable_sync.sandbox.kommo.settings import Settings
from kommo_airtable_sync.sandbox.serving import create_server
from kommo_airtable_sync.store.consents import Consents
from kommo_airtable_sync.store.database import Database
from tests.conftest import HandClock
from tests.kommo.asker import LEASE_SECONDS, access, ask, ask_and_hang
from tests.kommo.loopback import CountingBudget
from tests.store.caller import WallClock

PROCESSES = 8
DAY = 86_400


class Account:
    """The stand-in on a socket, under a clock turned by hand or the wall's."""

    def __init__(self, clock: HandClock | WallClock) -> None:
        self.clock = clock
        self.model = KommoModel(clock, settings=Settings(requests_per_second=100_000))
        self.model.seed_account()
        self._server = create_server(self.model, 0)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()

    def code(self) -> str:
        return self.model.oauth.new_code(self.model.now())

    @property
    def log(self) -> list[str]:
        return self.model.oauth.log


@pytest.fixture
def account(clock: HandClock) -> Iterator[Account]:
    opened = Account(clock)
    yield opened
    opened.close()


@pytest.fixture
def real_account() -> Iterator[Account]:
    opened = Account(WallClock())
    yield opened
    opened.close()


@pytest.fixture
def mine(account: Account, database: Database) -> KommoAccess:
    return access(account.url, database, clock=account.clock)


def client(account: Account, mine: KommoAccess) -> KommoClient:
    return KommoClient(
        account.url, mine.token, CountingBudget(), clock=account.clock, renew=mine.renew
    )


def stored(account: Account, database: Database) -> Consent:
    found = Consents(database, account.url).load()
    assert found is not None
    return found


def test_a_code_gives_access_that_every_process_finds_and_that_renews_itself(
    account: Account, database: Database, clock: HandClock, mine: KommoAccess
) -> None:
    mine.authorize(f"https://sandbox.example/oauth?code={account.code()}&state=x")
    other = client(account, access(account.url, database, clock=clock))
    assert other.account()["name"] == "Sandbox"
    clock.advance(DAY * 0.6)
    other.account()
    assert account.log == ["code"]
    clock.advance(DAY * 0.1)  # less than a third of its life is left
    other.account()
    other.account()
    assert account.log == ["code", "refresh"]
    # The other process still has the old token, which works, until it looks.
    assert client(account, mine).account()["name"] == "Sandbox"
    assert account.log == ["code", "refresh"]
    for _ in range(200):  # three months and more: every rotation is stored
        clock.advance(DAY * 0.7)
        other.account()
    assert account.log == ["code", *["refresh"] * 201]


def test_access_that_ended_early_is_renewed_once_and_the_call_repeated(
    account: Account, database: Database, clock: HandClock, mine: KommoAccess
) -> None:
    mine.authorize(account.code())
    kommo = client(account, mine)
    account.model.tokens.pop(stored(account, database).grant.access_token)
    lead = account.model.writer.write("leads", [(None, {"name": "x"})], by=0, at=0)[0].row["id"]
    kommo.update_leads([{"id": lead, "name": "y"}])
    assert account.model.state.rows["leads"][lead]["name"] == "y"
    assert account.log == ["code", "refresh"]


def test_revoked_consent_is_one_alert_until_somebody_gives_it_again(
    account: Account, database: Database, clock: HandClock, mine: KommoAccess
) -> None:
    mine.authorize(account.code())
    kommo = client(account, mine)
    account.model.oauth.revoke()
    for _ in range(3):
        with pytest.raises(SideUnavailable, match=r"authorize CODE") as caught:
            kommo.account()
        assert caught.value.reason == "unauthorized"
        clock.advance(60)
    assert account.log == ["code", "refused"]  # Kommo is not asked again and again
    consent = stored(account, database)
    assert consent.refused_at is not None
    seen = View(pauses={"kommo": ("unauthorized", 600.0)}, consent_refused=True)
    told = conditions(seen)
    assert list(told) == ["kommo consent"]
    assert "authorize CODE" in told["kommo consent"]
    assert finding(consent, clock.now()).level == "problem"
    clock.advance(900)
    with pytest.raises(ConsentRefused):
        kommo.account()
    assert account.log == ["code", "refused", "refused"]
    # From another process; this one finds it.
    access(account.url, database, clock=clock).authorize(account.code())
    assert kommo.account()["name"] == "Sandbox"
    assert finding(stored(account, database), clock.now()).level == "ok"


class Killed(BaseException):
    """As kill -9: nobody cleans up."""


class Dying(Consents):
    def keep(self, grant: Grant, generation: int | None) -> bool:
        raise Killed


@pytest.mark.parametrize("grace", [True, False])
def test_whoever_dies_between_answer_and_store_locks_nobody_out(
    account: Account, database: Database, clock: HandClock, mine: KommoAccess, grace: bool
) -> None:
    """Whether Kommo lets a spent refresh token pass until its successor is used, or not."""
    account.model.settings.oauth_grace = grace
    mine.authorize(account.code())
    clock.advance(DAY * 0.7)
    dying = Dying(database, account.url, lease_seconds=LEASE_SECONDS)
    with pytest.raises(Killed):
        access(account.url, database, store=dying, clock=clock).token()
    next_one = client(account, access(account.url, database, clock=clock))
    assert next_one.account()["name"] == "Sandbox"  # on what is in hand
    assert account.log == ["code", "refresh"]
    clock.advance(61)
    assert next_one.account()["name"] == "Sandbox"
    if grace:
        assert account.log == ["code", "refresh", "refresh"]
        assert stored(account, database).refused_at is None
        assert account.model.oauth.as_json()["grants_used"] == 2  # the lost one never was
        return
    assert account.log == ["code", "refresh", "refused"]
    assert finding(stored(account, database), clock.now()).level == "problem"
    clock.advance(DAY * 0.2)  # hours in which a person can act
    assert next_one.account()["name"] == "Sandbox"
    mine.authorize(account.code())
    clock.advance(DAY)
    assert next_one.account()["name"] == "Sandbox"


def test_while_kommo_fails_work_goes_on_with_the_access_in_hand(
    account: Account, database: Database, clock: HandClock, mine: KommoAccess
) -> None:
    mine.authorize(account.code())
    clock.advance(DAY * 0.7)
    fault = {"kind": "status", "status": 503, "method": "POST", "times": 1}
    account.model.handle("POST", "/_control/faults", "", {}, json.dumps(fault).encode())
    kommo = client(account, mine)
    kommo.account()
    kommo.account()
    assert account.log == ["code"]
    clock.advance(61)
    kommo.account()
    assert account.log == ["code", "refresh"]


def test_a_refresh_token_that_a_person_sets_is_taken_once(
    account: Account, database: Database, clock: HandClock, mine: KommoAccess
) -> None:
    mine.authorize(account.code())
    first = stored(account, database).grant.refresh_token
    with database.write() as connection:
        connection.exec_driver_sql("DELETE FROM consents")
    seeded = access(account.url, database, first, clock=clock)
    seeded.token()
    assert account.log == ["code", "refresh"]
    again = access(account.url, database, first, clock=clock)  # the setting stays, it is spent
    again.token()
    assert account.log == ["code", "refresh"]
    clock.advance(DAY * 2)
    again.token()
    assert account.log == ["code", "refresh", "refresh"]
    assert stored(account, database).refused_at is None


def test_a_late_answer_does_not_replace_a_newer_grant(account: Account, database: Database) -> None:
    store = Consents(database, account.url)
    assert store.keep(Grant("a1", "r1", 0.0, 10.0), None)
    slow = store.begin()
    assert slow is not None
    assert store.begin() is None
    assert store.keep(Grant("a2", "r2", 0.0, 10.0), slow.generation)
    assert not store.keep(Grant("late", "late", 0.0, 10.0), slow.generation)
    assert stored(account, database).grant.access_token == "a2"
    store.give_up(slow.lease_id - 1, refused=True)
    assert stored(account, database).refused_at is None


def test_nobody_having_given_consent_is_told_with_the_command(mine: KommoAccess) -> None:
    with pytest.raises(ConfigurationError, match="authorize CODE"):
        mine.token()
    with pytest.raises(ConfigurationError, match="no code"):
        mine.authorize("https://sandbox.example/oauth?error=access_denied")
    with pytest.raises(ConsentRefused):
        mine.authorize("code-of-somebody-else")


def test_no_token_and_no_secret_is_in_a_repr_or_an_error(
    account: Account, database: Database, mine: KommoAccess
) -> None:
    mine.authorize(account.code())
    consent = stored(account, database)
    shown = f"{mine!r} {consent!r} {consent.grant!r} {Integration('id', 'hush', 'uri', 'psst')!r}"
    for secret in ("access-", "refresh-", "hush", "psst"):
        assert secret not in shown
    with pytest.raises(ConsentRefused) as caught:
        mine.authorize("code-secret")
    assert "code-secret" not in str(caught.value)


@pytest.mark.timeout(90)
def test_of_eight_processes_that_refresh_at_once_one_asks_and_all_go_on(
    real_account: Account, database_url: str
) -> None:
    refresh = first_refresh(real_account, database_url)
    context = multiprocessing.get_context("spawn")
    together, said = context.Barrier(PROCESSES), context.Queue()
    arguments = (real_account.url, database_url, refresh, together, said)
    workers = [context.Process(target=ask, args=arguments) for _ in range(PROCESSES)]
    for worker in workers:
        worker.start()
    tokens = {said.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join(30)
    assert len(tokens) == 1
    assert real_account.log == ["code", "refresh"]


@pytest.mark.timeout(90)
def test_one_killed_between_answer_and_store_is_followed_by_the_next(
    real_account: Account, database_url: str
) -> None:
    refresh = first_refresh(real_account, database_url)
    context = multiprocessing.get_context("spawn")
    said = context.Queue()
    arguments = (real_account.url, database_url, refresh, said)
    worker = context.Process(target=ask_and_hang, args=arguments)
    worker.start()
    assert said.get(timeout=60) == "answered"
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(30)
    database = Database(database_url, WallClock())
    kommo = client(real_account, access(real_account.url, database, refresh))
    assert kommo.account()["name"] == "Sandbox"
    database.close()
    assert real_account.log == ["code", "refresh", "refresh"]
    assert real_account.model.oauth.as_json()["grants_used"] == 1


def first_refresh(account: Account, database_url: str) -> str:
    """A refresh token as a person would set it; no process has taken it yet."""
    database = Database(database_url, WallClock())
    grant = access(account.url, database).authorize(account.code())
    with database.write() as connection:
        connection.exec_driver_sql("DELETE FROM consents")
    database.close()
    return grant.refresh_token


# ------------------------------------------------------------------ pure


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["access_token", "refresh_token", "expires_in"]), inner),
).map(lambda tree: json.dumps(tree).encode()))  # fmt: skip
def test_no_answer_breaks_the_reading_of_grants(body: bytes) -> None:
    grant = read_grant(body, 100.0)
    if grant is not None:
        assert grant.access_token
        assert grant.refresh_token
        assert grant.expires_at > 100.0


@given(st.text(max_size=60))
def test_a_code_is_found_in_whatever_is_pasted(text: str) -> None:
    assert find_code(f"  {text.strip()} ") == text.strip() or "://" in text
    find_code(f"https://x/?{text}")


def test_the_end_of_access_is_shown_in_utc() -> None:
    at = datetime(2026, 3, 2, 12, 30, tzinfo=timezone.utc)
    shown = finding(Consent(Grant("a", "r", 0.0, at.timestamp()), 1), at)
    assert "2026-03-02 12:30 UTC" in shown.message
