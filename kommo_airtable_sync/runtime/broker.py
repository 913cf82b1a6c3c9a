"""Celery's filesystem transport with whole messages only, and a cheaper look for them.

kombu's own opens a message's file and then writes it. A worker that looks in between takes an empty
file, dies of it, and the message is gone. And it lists the folder once a queue at each look, though
nothing may have come.
"""

# kombu's own signatures are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportMissingSuperCall=false

from __future__ import annotations

import time
from functools import cached_property
from pathlib import Path
from queue import Empty
from typing import Any
from uuid import uuid4

from kombu.exceptions import ChannelError
from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps

SAME_TIME_NANOSECONDS = 100_000_000


class Channel(filesystem.Channel):
    """A message appears under its name when it is complete."""

    def _put(self, queue: str, payload: Any, **_: Any) -> None:
        name = f"{round(time.monotonic() * 1000)}_{uuid4()}.{queue}.msg"
        path = Path(str(self.data_folder_out)) / name
        draft = path.with_name(f"{name}.draft")
        try:
            draft.write_text(dumps(payload), encoding="utf-8")
            draft.replace(path)
        except OSError as error:
            raise ChannelError(f"Cannot add {path} to the folder.") from error


class Transport(filesystem.Transport):
    """The transport of ``filesystem://``, once `use_whole_messages` was called."""

    Channel = Channel

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:
        """Deliver one message; as kombu's, but the folder is listed again only if it has changed.

        Celery waits for two seconds at a time, so that it is listed as often at least.
        """
        del connection
        cycle: Any = self.cycle
        ends_at = None if timeout is None else time.monotonic() + timeout
        listed_at = 0
        while True:
            changed_at = self._folder.stat().st_mtime_ns
            if changed_at != listed_at:
                try:
                    cycle.get(self._deliver, timeout=timeout)
                except Empty:
                    # Another change in the same tick of the clock would show the same time.
                    old = time.time_ns() - changed_at > SAME_TIME_NANOSECONDS
                    listed_at = changed_at if old else 0
                else:
                    return
            if ends_at is not None and time.monotonic() >= ends_at:
                raise TimeoutError
            time.sleep(self.polling_interval)

    @cached_property
    def _folder(self) -> Path:
        return Path(str(self.client.transport_options["data_folder_in"]))


def use_whole_messages() -> None:
    """Let ``filesystem://`` mean this transport in this process."""
    TRANSPORT_ALIASES["filesystem"] = f"{__name__}:Transport"
