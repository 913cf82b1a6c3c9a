"""The status page on a real store: what it shows, what its buttons do, whom it lets in."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.core.quota import MonthlyQuota
from kommo_airtable_sync.core.types import IncomingEvent
from kommo_airtable_sync.receiver.overview import ROWS_MAX, Desk
from kommo_airtable_sync.receiver.status_page import FAILED_AT_ONCE, StatusPage
from kommo_airtable_sync.runtime.receiving import status_routes
from kommo_airtable_sync.settings import Settings
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.reports import Reports
from kommo_airtable_sync.store.settling import Outcome
from tests.conftest import HandClock
from tests.receiver.browser import browser
from tests.receiver.fakes import SECRET, FakeInbox, app_for, running
from tests.simulated import World, fields_with
from tests.two_way import BOTH_WAYS, edit, settle

PASSWORD = "open-sesame-123"
EVIL = "<script>alert(1)</script> & \"co\" 'x'"
HELD = {
    **BOTH_WAYS,
    "fields": fields_with(**{"Deal Name": {"owner": "both", "on_conflict": "hold"}}),
}

pytestmark = pytest.mark.parametrize("sql_engine", ["sqlite"], indirect=True)


@pytest.fixture
def world(database, clock: HandClock) -> Iterator[World]:
    made = World(database, clock, parts=HELD)
    yield made
    made.close()


@pytest.fixture
def page(world: World, clock: HandClock, tmp_path: Path) -> Iterator[str]:
    # In a file, as it is: several threads look at once.
    limits = Database(f"sqlite:///{tmp_path / 'limits.db'}", clock, durable=False)
    desk = Desk(world.database, limits, MonthlyQuota("appX", 100_000))
    status = StatusPage(desk, PASSWORD, "https://acme.kommo.com", "https://dagster.example")
    with running(app_for(FakeInbox(), more_routes=status.routes())) as url:
        yield url
    limits.close()


def get(url: str, word: str = PASSWORD) -> requests.Response:
    return requests.get(url, auth=("Zoe", word), timeout=20)


def in_conflict(world: World) -> int:
    """A lead whose name both sides have changed."""
    lead = world.add_lead(name="Agreed name")
    settle(world)
    edit(world, "kommo", lead, {"Deal Name": EVIL})
    edit(world, "airtable", lead, {"Deal Name": "Ops name"})
    settle(world)
    assert len(Reports(world.database).list_conflicts()) == 1
    return lead


def dead(world: World, *keys: str) -> None:
    inbox = Inbox(world.database)
    inbox.receive([IncomingEvent(key, "kommo", "update") for key in keys])
    while (claimed := inbox.claim(0, 50, "run-of-the-dead", 60)) is not None:
        outcomes = {key: Outcome("dead", error=f"refused: {EVIL}") for key in claimed.events}
        inbox.settle(claimed.batch_id, outcomes, 8)


def test_without_a_password_there_is_no_page_and_a_short_one_is_refused(world: World) -> None:
    with running(app_for(FakeInbox())) as url:
        assert requests.get(f"{url}/", timeout=10).status_code == 404
    bare = Settings(_env_file=None, kommo_subdomain="acme")
    assert status_routes(bare, world.database, world.limiter) == []
    short = bare.model_copy(update={"status_page_password": type(bare.kommo_token)("short")})
    with pytest.raises(ConfigurationError, match="STATUS_PAGE_PASSWORD"):
        status_routes(short, world.database, world.limiter)


def test_strangers_are_kept_out_slowly_and_hooks_do_not_wait_for_them(page: str) -> None:
    began = time.monotonic()
    assert requests.get(page, timeout=10).status_code == 401
    assert time.monotonic() - began > 0.9
    with ThreadPoolExecutor(FAILED_AT_ONCE + 10) as pool:
        answers = [pool.submit(get, page, f"guess {n}") for n in range(FAILED_AT_ONCE + 10)]
        began = time.monotonic()
        hook = requests.post(
            f"{page}/hooks/kommo/{SECRET}", data={"leads[update][0][id]": "5"}, timeout=10
        )
        assert hook.status_code == 200
        assert time.monotonic() - began < 0.9
        codes = {each.result().status_code for each in answers}
    assert codes == {401, 429}
    assert requests.post(page, data={"action": "drop"}, timeout=10).status_code == 401


def test_all_is_shown_and_nothing_of_it_is_taken_for_html(world: World, page: str) -> None:
    lead = in_conflict(world)
    dead(world, "lead:77", "contact:5")
    answer = get(page)
    assert answer.status_code == 200
    text = answer.text
    assert "1 conflict and 2 failed changes wait for you" in text
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    for shown in ("Ops name", "Agreed name", f"https://acme.kommo.com/leads/detail/{lead}",
                  "https://dagster.example/runs/", "contact:5", "<svg"):  # fmt: skip
        assert shown in text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["cache-control"] == "no-store"
    assert not re.findall(r"(?:src|href)=\"https?://(?!acme|dagster)", text)


def test_a_choice_goes_the_way_of_the_command_and_names_who_made_it(
    world: World, page: str
) -> None:
    lead = in_conflict(world)
    answer = press(page, get(page).text, "Use Airtable")
    assert "will stand" in answer.text
    settle(world)
    assert Reports(world.database).list_conflicts() == []
    assert world.lead(lead)["name"] == "Ops name"
    event = next(
        e for e in Reports(world.database).list_events("all") if e.kind == "resolve"
    )
    with world.database.read() as connection:
        said = connection.exec_driver_sql(
            f"SELECT directive FROM events WHERE id = {event.id}"
        ).scalar()
    assert "status page (Zoe)" in str(said)


def test_a_choice_between_values_that_are_no_more_is_refused(world: World, page: str) -> None:
    lead = in_conflict(world)
    old = get(page).text
    edit(world, "airtable", lead, {"Deal Name": "Newer name"})
    press(page, old, "Use Kommo")
    settle(world)
    assert world.record(lead)["Deal Name"] == "Newer name"
    event = next(
        e for e in Reports(world.database).list_events("all") if e.kind == "resolve"
    )
    assert "refused" in str(event.outcome)


def test_failed_changes_are_tried_again_or_dropped(world: World, page: str) -> None:
    dead(world, "lead:1", "lead:2")
    assert "is tried again" in press(page, get(page).text, "Retry").text
    assert Reports(world.database).inbox_counts()["dead"] == 1
    text = get(page).text
    assert "is dropped" in press(page, text, "Really drop it").text
    assert Reports(world.database).inbox_counts()["dead"] == 0
    assert "somebody was faster" in press(page, text, "Really drop it").text


@pytest.mark.parametrize("change", [
    lambda data, headers: data.update(token="0" * 64),
    lambda data, headers: data.pop("token"),
    lambda data, headers: headers.update({"Sec-Fetch-Site": "cross-site"}),
    lambda data, headers: headers.update({"Sec-Fetch-Site": "same-site"}),
])  # fmt: skip
def test_nobody_presses_a_button_from_another_page(
    world: World, page: str, change: Callable[[dict, dict], object]
) -> None:
    dead(world, "lead:1")
    data, headers = form(get(page).text, "Retry"), {}
    change(data, headers)
    answer = requests.post(page, data=data, headers=headers, auth=("x", PASSWORD), timeout=10)
    assert answer.status_code == 403
    assert Reports(world.database).inbox_counts()["dead"] == 1


def test_no_link_makes_the_page_say_what_it_did_not(page: str) -> None:
    assert "call this number" not in get(f"{page}/?said=call%20this%20number&sign=0").text


def test_long_lists_are_cut_and_say_by_what_command_the_rest_is_seen(
    world: World, page: str
) -> None:
    dead(world, *(f"lead:{n}" for n in range(1, ROWS_MAX + 38)))
    text = get(page).text
    assert text.count(">Retry</button>") == ROWS_MAX
    assert "and 37 more: <code>kommo-airtable-sync events --state dead</code>" in text
    press(page, text, "nothing of ours", {"action": "explode"}, code=200)


def test_somebody_in_a_browser_decides_a_conflict_and_drops_a_failed_change(
    world: World, page: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """In Chromium where there is one, else by the HTML; the browser's name is in the report."""
    lead = in_conflict(world)
    dead(world, "lead:77")
    with browser(tmp_path / "profile", PASSWORD) as person:
        record_property("browser", person.name)
        person.open(page)
        assert "1 conflict and 1 failed change wait for you" in person.text()
        assert EVIL in person.text()
        person.click("Use Kommo")
        assert "will stand" in person.text()
        person.click("Really drop it")
        assert "is dropped" in person.text()
        settle(world)
        person.open(page)
        assert "All is well" in person.text() or "nothing was loaded yet" in person.text()
    assert world.record(lead)["Deal Name"] == EVIL


def form(text: str, label: str) -> dict[str, str]:
    """The fields of the first form whose button is called so."""
    from tests.receiver.browser import _Page

    parsed = _Page()
    parsed.feed(text)
    return next((dict(fields) for _, fields, name in parsed.forms if name == label), {})


def press(
    page: str, text: str, label: str, fields: dict[str, str] | None = None, code: int = 200
) -> requests.Response:
    data = form(text, label) if fields is None else {**form(text, "Retry"), **fields}
    answer = requests.post(page, data=data, auth=("Zoe", PASSWORD), timeout=20)
    assert answer.status_code == code
    return answer


def test_the_pages_threads_are_few(page: str) -> None:
    with ThreadPoolExecutor(12) as pool:
        assert {each.status_code for each in pool.map(get, [page] * 24)} == {200}
    assert threading.active_count() < 40
