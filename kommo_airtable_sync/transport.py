"""What both APIs' clients know of HTTP: calls without an answer, waits, clocks, tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import requests
import urllib3.exceptions

from kommo_airtable_sync.core.errors import ConfigurationError, Side, SideUnavailable, SyncError
from kommo_airtable_sync.core.ports import Clock

_NO_ADDRESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
)


def lost(error: requests.RequestException, side: Side, settings: str) -> SyncError:
    """The meaning of a call that brought no answer. Quotes nothing: the error holds the token.

    Args:
        error: of the call.
        side: that was called.
        settings: that hold the side's address.
    """
    if isinstance(error, _NO_ADDRESS):
        message = f"{side.capitalize()}'s address is not a web address."
        return ConfigurationError(message, f"Check {settings}.")
    name = type(error).__name__
    if isinstance(error, requests.ConnectTimeout):
        return SideUnavailable(side, "timeout", name, sent=False)
    if isinstance(error, requests.Timeout) or _has_cause(
        error, urllib3.exceptions.ReadTimeoutError
    ):
        return SideUnavailable(side, "timeout", name)
    refused = _has_cause(error, urllib3.exceptions.NewConnectionError)
    detail = f"{name}. Check the network, and {settings}"
    return SideUnavailable(side, "unreachable", detail, sent=not refused)


def dropped(error: requests.RequestException) -> bool:
    """Whether the connection was open and then broke off, as a stale one does."""
    return isinstance(error, requests.exceptions.ChunkedEncodingError) or _has_cause(
        error, urllib3.exceptions.ProtocolError
    )


def _has_cause(error: requests.RequestException, kind: type[Exception]) -> bool:
    # requests keeps urllib3's error as its first argument, which may hold the reason in turn.
    cause = error.args[0] if error.args else None
    return isinstance(cause, kind) or isinstance(getattr(cause, "reason", None), kind)


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """The wait of a Retry-After header: seconds, or until a date by the answer's own clock."""
    named = {name.lower(): value for name, value in headers.items()}
    value = named.get("retry-after", "")
    try:
        until, now = (parsedate_to_datetime(each) for each in (value, named.get("date", "")))
        return max(0.0, (until - now).total_seconds())
    except (TypeError, ValueError):
        return seconds(value)


def seconds(value: object) -> float | None:
    """A wait in seconds; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        wait = float(value)
    except (ValueError, OverflowError):
        return None
    return wait if math.isfinite(wait) and wait >= 0 else None


def server_ahead_seconds(
    response: requests.Response, clock: Clock, known: float | None
) -> float | None:
    """The server's clock less ours, to about a second; ``known`` if this answer does not say."""
    try:
        theirs = parsedate_to_datetime(response.headers["Date"])
    except (KeyError, ValueError):
        return known
    return known if theirs.tzinfo is None else (theirs - clock.now()).total_seconds()


def require_token(token: str, side: Side, setting: str, remedy: str) -> None:
    """Refuse here what HTTP cannot carry: the libraries' own errors would quote it.

    Raises:
        ConfigurationError: naming the setting.
    """
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        message = f"{setting} is empty or holds characters that no token has."
        raise ConfigurationError(message, remedy, side=side)
