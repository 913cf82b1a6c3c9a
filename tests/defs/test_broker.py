"""Celery's filesystem transport shows whole messages only."""

from __future__ import annotations

from pathlib import Path
from queue import Empty
from typing import Any

import pytest

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
