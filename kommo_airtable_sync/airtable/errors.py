"""What a failed call to Airtable means: one pure, total function for answers, one for lost calls.

Sources: reference/airtable-api 1.10 (three error shapes, codes), 2 (the two meanings of 429).
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
from kommo_airtable_sync.transport import lost, retry_after_seconds

RATE_LOCK_SECONDS = 30.0
"""How long Airtable answers 429 to a whole base after one request too many (reference 2)."""
DETAIL_LENGTH_MAX = 500
SCOPES = "data.records:read, data.records:write, schema.bases:read and webhook:manage"
"""That AIRTABLE_TOKEN needs day by day (reference 4)."""

_OFFSET_CODES = frozenset({"LIST_RECORDS_ITERATOR_NOT_AVAILABLE", "INVALID_OFFSET_VALUE"})
_SCHEMA_CODES = frozenset({"UNKNOWN_FIELD_NAME", "TABLE_NOT_FOUND", "VIEW_NAME_NOT_FOUND"})
_RECORD_CODES = frozenset({"MODEL_ID_NOT_FOUND", "ROW_DOES_NOT_EXIST"})


class OffsetExpired(SideUnavailable):
    """Airtable has forgotten where a listing stood: start again at its first page."""

    def __init__(self, said: str) -> None:
        super().__init__("airtable", "server_error", said)


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
    code, message = _error_parts(body)
    said = ": ".join(filter(None, [code, message])) or f"HTTP {status}, {content_type or 'no body'}"
    if code in _OFFSET_CODES:
        return OffsetExpired(said)
    if status == 429:
        return _throttled(code, said, headers)
    if status == 401:
        return SideUnavailable("airtable", "unauthorized", f"{said}. Renew AIRTABLE_TOKEN.")
    if code not in _RECORD_CODES and _is_configuration(status, code):
        return _not_granted(status, code, said)
    if 400 <= status < 500 and status != 408 and (code or status != 403):
        return BatchRefused("airtable", status, code or "refused", message or said)
    reason = {403: "blocked", 408: "timeout"}.get(status, "server_error")
    wait = retry_after_seconds(headers)
    return SideUnavailable("airtable", reason, said, retry_after_seconds=wait)


def classify_lost(error: requests.RequestException) -> SyncError:
    """The meaning of a call that brought no answer that pyairtable could read."""
    if isinstance(error, requests.exceptions.JSONDecodeError):
        return SideUnavailable("airtable", "server_error", "a good status with a body not JSON")
    return lost(error, "airtable", "AIRTABLE_ENDPOINT_URL")


def _throttled(code: str, said: str, headers: Mapping[str, str]) -> SideUnavailable:
    if "BILLING_LIMIT" in code:
        return SideUnavailable(
            "airtable", "quota", f"{said}. It lasts until the month ends or the plan is raised."
        )
    wait = retry_after_seconds(headers)
    return SideUnavailable(
        "airtable",
        "rate_limited",
        said,
        retry_after_seconds=RATE_LOCK_SECONDS if wait is None else wait,
    )


def _is_configuration(status: int, code: str) -> bool:
    if status == 403:
        return bool(code)  # without a code it is a proxy's page, not the API's answer
    return (
        300 <= status < 400
        or status in {404, 405}
        or code in _SCHEMA_CODES
        or code.startswith("INVALID_PERMISSIONS")
    )


def _not_granted(status: int, code: str, said: str) -> ConfigurationError:
    if code == "TOO_MANY_WEBHOOKS_IN_BASE":
        remedy = "A base takes ten webhooks: delete one that nobody needs."
    elif status == 403 or code.startswith("INVALID_PERMISSIONS"):
        remedy = f"Give AIRTABLE_TOKEN access to the base, and the scopes {SCOPES}."
    elif code in _SCHEMA_CODES:
        remedy = "Run `doctor`: a table or field of sync.yaml is gone from the base."
    else:
        remedy = "Check AIRTABLE_BASE_ID and AIRTABLE_ENDPOINT_URL."
    return ConfigurationError(f"Airtable denies this ({status}): {said}.", remedy, side="airtable")


def _error_parts(body: str | bytes) -> tuple[str, str]:
    """Type and message out of the three shapes that Airtable uses (reference 1.10)."""
    try:
        parsed: object = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(parsed, dict):
        return "", ""
    told = cast("dict[str, Any]", parsed)
    error: object = told.get("error")
    errors: object = told.get("errors")
    if error is None and isinstance(errors, list) and errors:
        error = cast("list[object]", errors)[0]
    if isinstance(error, dict):
        told = cast("dict[str, Any]", error)
        error = told.get("type") or told.get("error")
    message: object = told.get("message")
    return (
        error[:100] if isinstance(error, str) else "",
        message[:DETAIL_LENGTH_MAX].rstrip(".") if isinstance(message, str) else "",
    )
