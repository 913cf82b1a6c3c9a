"""What a failed call to Kommo means: one pure, total function for answers, one for lost calls.

Sources: reference/kommo-api section 2 (limits, error bodies) and 7.16, 7.20 (the two 403s).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import requests

from kommo_airtable_sync.core.errors import (
    BatchRefused,
    ConfigurationError,
    SideUnavailable,
    SyncError,
)
from kommo_airtable_sync.transport import lost, retry_after_seconds, seconds

DETAIL_LENGTH_MAX = 500

_SIDE = {
    401: ("unauthorized", "Renew KOMMO_TOKEN, or give consent again."),
    402: ("quota", "Kommo holds this for an unpaid account."),
    408: ("timeout", "Kommo gave up waiting for the request."),
}


class NotGranted(ConfigurationError):
    """Kommo will not do this for this token, or does not know the address.

    Args:
        status: 403 (rights), 404 or another 4xx; a caller may go on without an optional list.
    """

    def __init__(self, status: int, message: str, remedy: str) -> None:
        self.status = status
        super().__init__(message, remedy, side="kommo")


def classify(
    status: int, headers: Mapping[str, str], body: str | bytes, content_type: str
) -> SyncError:
    """The one meaning of an answer that is not the one we asked for.

    Args:
        status: HTTP status; a 2xx means "an answer that cannot be read".
        headers: the answer's headers, names in any case if the mapping ignores it.
        body: the answer's body; only a JSON object in it is believed.
        content_type: the answer's content type, for the message.
    """
    problem = _json_object(body)
    said = (
        _detail(problem) if problem is not None else f"HTTP {status}, {content_type or 'no body'}"
    )
    if status == 429:
        wait = seconds((problem or {}).get("retry_after"))
        if wait is None:
            wait = retry_after_seconds(headers)
        return SideUnavailable("kommo", "rate_limited", said, retry_after_seconds=wait)
    if status == 403 and problem is None:
        # nginx's page, not the API's: this address is blocked, and asking on prolongs it.
        return SideUnavailable("kommo", "blocked", f"{said}. Only Kommo's support unblocks.")
    if status in _SIDE:
        reason, remark = _SIDE[status]
        return SideUnavailable("kommo", reason, f"{said}. {remark}")
    if status in {400, 413, 422}:
        return _refusal(status, problem or {}, said)
    if 300 <= status < 500:
        return _not_granted(status, said)
    return SideUnavailable("kommo", "server_error", said)


def classify_lost(error: requests.RequestException) -> SyncError:
    """The meaning of a call that brought no answer."""
    return lost(error, "kommo", "KOMMO_SUBDOMAIN or KOMMO_BASE_URL")


def _not_granted(status: int, said: str) -> NotGranted:
    if status == 403:
        remedy = "Let an administrator grant the right, or create KOMMO_TOKEN as one."
        return NotGranted(status, f"Kommo denies this to the token's user: {said}.", remedy)
    remedy = "Check KOMMO_SUBDOMAIN or KOMMO_BASE_URL."
    return NotGranted(status, f"Kommo does not serve this address (HTTP {status}): {said}.", remedy)


def _refusal(status: int, problem: Mapping[str, Any], said: str) -> BatchRefused:
    by_item: dict[int, str] = {}
    paths: dict[int, tuple[str, ...]] = {}
    code = ""
    for item in _objects(problem.get("validation-errors")):
        errors = _objects(item.get("errors"))
        code = code or next((str(error.get("code")) for error in errors), "")
        # Our requests carry no request_id, so Kommo names items by their index, as a string.
        index = str(item.get("request_id"))
        if index.isascii() and index.isdigit() and len(index) < 6:
            by_item[int(index)] = _clip("; ".join(_line(error) for error in errors))
            paths[int(index)] = tuple(str(error.get("path") or "") for error in errors)
    detail = _clip("; ".join([said, *by_item.values()]))
    return BatchRefused(
        "kommo", status, code or str(problem.get("title") or "refused"), detail, by_item, paths
    )


def _line(error: Mapping[str, Any]) -> str:
    return f"{error.get('path')}: {error.get('detail')} ({error.get('code')})"


def _detail(problem: Mapping[str, Any]) -> str:
    told = problem.get("detail") or problem.get("title") or "no detail"
    hint = problem.get("hint")
    return _clip(f"{told} ({hint})" if hint else str(told)).rstrip(".")


def _clip(text: str) -> str:
    return text if len(text) <= DETAIL_LENGTH_MAX else text[: DETAIL_LENGTH_MAX - 1] + "…"


def _json_object(body: str | bytes) -> dict[str, Any] | None:
    try:
        parsed: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else None


def _objects(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        return []
    return [
        cast("dict[str, Any]", item)
        for item in cast("list[object]", value)
        if isinstance(item, dict)
    ]
