"""The alerts sensor: real store, real instance, and a real HTTP server as the webhook."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from kommo_airtable_sync.core.types import LIVE, IncomingEvent
from kommo_airtable_sync.defs import alerts
from kommo_airtable_sync.defs.alerts import failure_alerts, look, tell
from kommo_airtable_sync.engine.claim import claim_batch
from kommo_airtable_sync.engine.follow import work_batch
from kommo_airtable_sync.opening import SystemClock
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.reports import Reports
from kommo_airtable_sync.store.runners import Runners
from kommo_airtable_sync.store.settling import Outcome
from tests.conftest import HandClock
from tests.defs.loaded import repository
from tests.kommo.loopback import Loopback, Reply, refused_url
from tests.simulated import KOMMO_OWNED, World

SECRET = "/services/T000/a-secret-path"


@pytest.fixture
def store(
    tmp_path: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database]:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    shutil.copy(sqlite_template, tmp_path / "sync.db")
    database = Database(f"sqlite:///{tmp_path / 'sync.db'}", SystemClock())
    yield database
    database.close()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    loopback = Loopback()
    monkeypatch.setenv("ALERT_WEBHOOK_URL", loopback.url + SECRET)
    yield loopback
    loopback.close()


def tick(instance: dg.DagsterInstance) -> str:
    context = dg.build_sensor_context(
        instance=instance, repository_def=repository(), sensor_name="failure_alerts"
    )
    result = failure_alerts(context)
    assert isinstance(result, dg.SkipReason)
    return result.skip_message or ""


def messages(webhook: Loopback) -> list[str]:
    assert all(set(seen.body) == {"text"} for seen in webhook.seen)
    return [seen.body["text"] for seen in webhook.seen]


def let_die(store: Database, key: str) -> None:
    inbox = Inbox(store)
    inbox.receive([IncomingEvent(key, "kommo", "update")])
    claimed = inbox.claim(LIVE, 50, "run", 60)
    assert claimed is not None
    inbox.settle(claimed.batch_id, {key: Outcome("dead", error="Zoë Smith's price")}, 8)


def fail_run(instance: dg.DagsterInstance) -> str:
    job = repository().get_job("sync_changes")
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    instance.report_run_failed(run, "The process of this run is gone.")
    return run.run_id


def test_one_message_when_it_begins_and_one_when_it_is_over(
    store: Database, instance: dg.DagsterInstance, webhook: Loopback
) -> None:
    webhook.script.extend([Reply(body=b"ok"), Reply(body=b"ok")])
    assert tick(instance) == "stands: nothing"
    let_die(store, "lead:1")
    assert tick(instance).startswith("stands: dead; ")
    let_die(store, "lead:2")
    assert tick(instance) == "stands: dead"
    Reports(store).drop_events([event.id for event in Reports(store).list_events("dead")])
    tick(instance)
    assert tick(instance) == "stands: nothing"
    begun, over = messages(webhook)
    assert begun.startswith("kommo-airtable-sync: dead: 1. ")
    assert "events retry --dead" in begun
    assert "Zoë" not in begun
    assert over == "kommo-airtable-sync: dead: this is over."


@pytest.mark.parametrize(
    "reply",
    [
        Reply(500),
        Reply(404, body=b"no_service"),
        Reply(302, headers={"Location": "/elsewhere"}),
        Reply(how="drop"),
        Reply(how="hang"),
    ],
    ids=["error", "gone", "redirect", "drop", "hang"],
)
def test_what_could_not_be_posted_is_posted_later_and_the_address_is_not_shown(
    store: Database,
    instance: dg.DagsterInstance,
    webhook: Loopback,
    reply: Reply,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(alerts, "POST_SECONDS", 0.3)
    caplog.set_level(logging.INFO)
    webhook.script.extend([reply, Reply(204)])
    let_die(store, "lead:1")
    said = tick(instance)
    assert "stands: dead; not posted: " in said
    tick(instance)
    tick(instance)
    first, second = messages(webhook)
    assert first == second
    assert SECRET not in said + caplog.text


def test_an_address_that_is_none_is_said_without_it(
    store: Database, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_die(store, "lead:1")
    for url in (refused_url() + SECRET, "no-address" + SECRET, "http://[" + SECRET):
        monkeypatch.setenv("ALERT_WEBHOOK_URL", url)
        said = tick(instance)
        assert "not posted: " in said
        assert SECRET not in said


@pytest.mark.parametrize("fails", [1, 2])
def test_the_first_message_that_fails_is_the_next_to_be_sent(store: Database, fails: int) -> None:
    let_die(store, "lead:1")
    Runners(store).pause("kommo", 300, 1, "blocked", "its words")
    sent: list[str] = []

    def send(message: str) -> str:
        sent.append(message)
        return "HTTP 500" if len(sent) == fails else ""

    for expected in (fails, 3, 3):
        tell(store, look(store, {}), "alerts posted", send)
        assert len(sent) == expected
    assert sent[fails - 1] == sent[fails]
    assert len(set(sent)) == 2
    assert "its words" not in "".join(sent)


def test_a_slow_webhook_takes_no_more_messages_at_that_tick(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "POST_SECONDS", 0.0)
    let_die(store, "lead:1")
    Runners(store).pause("kommo", 300, 1, "blocked", "")
    sent: list[str] = []
    for expected in (1, 2, 2):
        tell(store, look(store, {}), "alerts posted", lambda message: sent.append(message) or "")
        assert len(sent) == expected


def test_without_a_webhook_changes_are_logged_and_are_news_to_a_later_one(
    store: Database,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    let_die(store, "lead:1")
    assert "dead: 1. " in tick(instance)
    assert "dead: 1. " in caplog.text
    assert tick(instance) == "stands: dead"
    loopback = Loopback()
    loopback.script.append(Reply())
    monkeypatch.setenv("ALERT_WEBHOOK_URL", loopback.url)
    tick(instance)
    tick(instance)
    loopback.close()
    assert len(loopback.seen) == 1


def test_each_failed_run_is_told_once_though_its_tags_change(
    store: Database, instance: dg.DagsterInstance, webhook: Loopback
) -> None:
    webhook.script.extend([Reply(), Reply()])
    first = fail_run(instance)
    other = dg.GraphDefinition(name="somebody_elses").to_job()
    instance.report_run_failed(instance.create_run_for_job(other), "not ours")
    tick(instance)
    second = fail_run(instance)
    instance.add_run_tags(first, {"seen": "yes"})
    tick(instance)
    tick(instance)
    shown = messages(webhook)
    assert [run_id in text for run_id, text in zip((first, second), shown, strict=True)] == [
        True
    ] * 2


def test_a_run_that_failed_long_ago_is_no_news_though_somebody_tags_it(
    store: Database,
    instance: dg.DagsterInstance,
    webhook: Loopback,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_id = fail_run(instance)
    hour_after = HandClock(SystemClock().now() + alerts.RUNS_AGE)
    monkeypatch.setattr(alerts, "SystemClock", lambda: hour_after)
    instance.add_run_tags(run_id, {"seen": "yes"})
    assert tick(instance) == "stands: nothing"


def test_without_a_usable_database_the_tick_says_so(
    store: Database, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNC_DATABASE_URL", "sqlite:////no/such/folder/sync.db")
    assert "SYNC_DATABASE_URL" in tick(instance)


# ---------------------------------------------------------------------- over the stand-ins


def test_nudges_that_nobody_answers_are_told(database: Database, clock: HandClock) -> None:
    runners = Runners(database)
    for _ in range(5):
        runners.nudge(LIVE)
        clock.advance(12)
    said = tell(database, look(database, {}), "alerts logged", lambda _: "")
    assert said.startswith("stands: no live worker; ")
    runners.answer_nudges("run", LIVE)
    assert "is over" in tell(database, look(database, {}), "alerts logged", lambda _: "")


def test_a_backlog_is_told_while_no_side_is_paused(database: Database, clock: HandClock) -> None:
    inbox = Inbox(database)
    inbox.receive([IncomingEvent("lead:1", "kommo", "update")])
    assert inbox.claim(LIVE, 50, "stuck", 1000) is not None
    clock.advance(301)
    assert "backlog" in tell(database, look(database, {}), "alerts logged", lambda _: "")


class Told:
    """Ticks by hand over a world's store, and keeps what was sent."""

    def __init__(self, world: World) -> None:
        self.world, self.sent = world, list[str]()

    def tick(self) -> None:
        def send(message: str) -> str:
            self.sent.append(message)
            return ""

        tell(self.world.database, look(self.world.database, {}), "alerts posted", send)

    def work(self) -> int:
        """Work off what is due with a tick after each batch; how many there were."""
        batches = 0
        while (batch := claim_batch(self.world.engine, "run")) is not None:
            work_batch(self.world.engine, batch)
            batches += 1
            self.tick()
        return batches


@pytest.fixture
def deleting(database: Database, clock: HandClock) -> Iterator[World]:
    """A world of 120 synced leads, in which a deleted lead's record is deleted."""
    kommo = {"when_deleted": "delete"}
    world = World(database, clock, parts={**KOMMO_OWNED, "kommo": kommo})
    world.add_leads([{"name": f"Deal {number}"} for number in range(120)])
    world.sync(patience=60)
    assert len(world.records()) == 120
    yield world
    world.close()


def lose_rights(world: World, told: Told) -> None:
    """The token's rights go, then everybody edits: many batches find nothing."""
    told.tick()
    assert told.sent == []
    leads = list(world.by_lead())
    world.kommo.settings.token_sees_leads = False
    for lead_id in leads:
        world.hint(lead_id)
    assert told.work() >= 3
    world.clock.advance(60)
    told.tick()
    assert len(world.records()) == 120, "a record was deleted without evidence"
    assert world.journal_rows("open") == []
    [message] = told.sent
    assert "vanished" in message
    assert "token" in message


def test_a_token_that_lost_its_rights_deletes_nothing_and_is_one_alert(deleting: World) -> None:
    told = Told(deleting)
    lose_rights(deleting, told)
    deleting.kommo.settings.token_sees_leads = True
    reports = Reports(deleting.database)
    reports.drop_events([event.id for event in reports.list_holds()])
    told.work()
    told.tick()
    told.tick()
    assert len(deleting.records()) == 120
    assert len(told.sent) == 2
    assert told.sent[1].endswith("vanished: this is over.")


def test_vanished_leads_that_a_person_releases_are_deleted_and_that_is_one_message(
    deleting: World,
) -> None:
    told = Told(deleting)
    lose_rights(deleting, told)
    reports = Reports(deleting.database)
    reports.release_holds([event.id for event in reports.list_holds()])
    told.work()
    told.tick()
    assert deleting.records() == []
    assert len(told.sent) == 2
    assert told.sent[1].endswith("vanished: this is over.")


def test_rights_that_come_back_make_it_good_by_themselves(deleting: World) -> None:
    told = Told(deleting)
    lose_rights(deleting, told)
    deleting.kommo.settings.token_sees_leads = True
    for lead_id in deleting.by_lead():
        deleting.hint(lead_id)
    told.work()
    told.tick()
    assert len(deleting.records()) == 120
    assert len(told.sent) == 2


def test_what_the_brake_holds_is_another_alert(database: Database, clock: HandClock) -> None:
    world = World(database, clock, parts={**KOMMO_OWNED, "safety": {"max_records_changed": 2}})
    leads = world.add_leads([{"name": f"Deal {number}"} for number in range(4)])
    world.sync(patience=60)
    told = Told(world)
    for lead_id in leads:
        world.edit_lead(lead_id, price=7)
    world.deliver_hooks()
    told.work()
    told.tick()
    [message] = told.sent
    assert "braked: 2. " in message
    world.close()
