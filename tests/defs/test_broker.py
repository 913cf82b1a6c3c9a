"""Celery's filesystem transport shows whole messages only, and is looked at no more than needed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from kombu import Connection, Queue

from kommo_airtable_sync.runtime.broker import SAME_TIME_NANOSECONDS
from kommo_airtable_sync.runtime.celery_app import build_celery
from kommo_airtable_sync.runtime.instance import prepare_home
from kommo_airtable_sync.settings import Settings


class Peek:
    """Looks into the queue while the message that it is part of is being written."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel

    def __json__(self) -> str:
        with pytest.raises(Empty):
            self.channel._get("live")
        return "seen"


def test_a_message_is_not_there_before_it_is_complete(tmp_path: Path) -> None:
    settings = Settings(dagster_home=tmp_path, _env_file=None)
    prepare_home(settings)
    with build_celery(settings).connection_for_write() as connection:
        channel = connection.default_channel
        channel._put("live", {"peek": Peek(channel)})
        assert channel._get("live") == {"peek": "seen"}


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[tuple[Connection, list[Any]]]:
    """A connection that listens to a queue, and what it has heard."""
    settings = Settings(dagster_home=tmp_path, _env_file=None)
    prepare_home(settings)
    bodies: list[Any] = []
    with build_celery(settings).connection_for_read() as connection:
        queue = Queue("live", no_ack=True)
        with connection.Consumer(queue, callbacks=[lambda body, _: bodies.append(body)]):
            yield connection, bodies


def folder_of(connection: Connection) -> Path:
    return Path(connection.transport_options["data_folder_in"])


def test_what_arrives_in_the_same_tick_of_the_clock_as_the_last_look_is_heard(
    heard: tuple[Connection, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, bodies = heard
    folder = folder_of(connection)
    os.utime(folder)
    seen_at = folder.stat().st_mtime_ns

    def publish(_: float) -> None:
        monkeypatch.undo()
        connection.Producer().publish("news", routing_key="live")
        os.utime(folder, ns=(seen_at, seen_at))

    monkeypatch.setattr(time, "sleep", publish)
    connection.drain_events(timeout=2)
    assert bodies == ["news"]


def test_a_folder_in_which_nothing_happens_is_not_listed_again(
    heard: tuple[Connection, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, bodies = heard
    lately = time.time_ns() - 2 * SAME_TIME_NANOSECONDS
    os.utime(folder_of(connection), ns=(lately, lately))
    listed: list[str] = []
    channel = connection.transport.channels[-1]
    look = channel._get
    monkeypatch.setattr(channel, "_get", lambda queue: (listed.append(queue), look(queue))[1])
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=0.2)
    assert listed == ["live"]
    connection.Producer().publish("news", routing_key="live")
    connection.drain_events(timeout=2)
    assert bodies == ["news"]
