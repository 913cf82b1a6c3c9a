"""TCP ports: one that is free, and one that has to be."""

from __future__ import annotations

import socket

from kommo_airtable_sync.core.errors import ConfigurationError


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_free_port(name: str, host: str, port: int) -> None:
    """Say clearly that somebody else has the port, before a server fails in its own words.

    Raises:
        ConfigurationError: naming the setting.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"{name} {port} on {host} cannot be used: {error.strerror}.",
                "Stop what has it, or name another port.",
            ) from error
