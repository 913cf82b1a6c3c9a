"""Celery's filesystem transport with whole messages only.

kombu's own opens a message's file and then writes it. A worker that looks in between takes an empty
file, dies of it, and the message is gone.
"""

# kombu's own signatures are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportMissingSuperCall=false

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from kombu.exceptions import ChannelError
from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps


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


def use_whole_messages() -> None:
    """Let ``filesystem://`` mean this transport in this process."""
    TRANSPORT_ALIASES["filesystem"] = f"{__name__}:Transport"
