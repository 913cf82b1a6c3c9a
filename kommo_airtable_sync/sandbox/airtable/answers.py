"""Answers as bytes, and the bodies that go with injected statuses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from kommo_airtable_sync.sandbox.airtable.refusal import (
    Refusal,
    not_found,
    not_yours,
    quota_spent,
    rate_limited,
    typed,
)

_HTML = b"<html><head><title>Error</title></head><body><h1>Something went wrong</h1></body></html>"
_SERVER_ERRORS = {
    500: ("SERVER_ERROR", "The server encountered an unexpected condition"),
    502: (
        "BAD_GATEWAY",
        "Airtable's servers are restarting or an unexpected outage is in progress",
    ),
    503: (
        "RETRIABLE_ERROR",
        "Server encountered an error while processing your request, and it is safe to retry the "
        "request",
    ),
}


class Answer(NamedTuple):
    """What goes back over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes


def json_answer(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
    """A JSON answer with Airtable's content type."""
    kind = {"Content-Type": "application/json; charset=utf-8"}
    return Answer(status, {**kind, **(headers or {})}, json.dumps(body).encode())


def refusal_answer(refusal: Refusal) -> Answer:
    """A refusal as an answer."""
    return json_answer(refusal.status, refusal.body, refusal.headers)


def faulty_answer(status: int, variant: str) -> Answer:
    """The body for an injected status.

    Args:
        status: any HTTP status.
        variant: ``html`` = a page of some proxy; ``retry-after`` = with that header (1 s);
            for 429 ``error``, ``errors`` (its two shapes) or ``quota``; ``""`` = the usual.
    """
    if variant == "html":
        return Answer(status, {"Content-Type": "text/html; charset=utf-8"}, _HTML)
    answer = refusal_answer(_refusal_for(status, variant))
    if variant == "retry-after":
        answer.headers["Retry-After"] = "1"
    return answer


def _refusal_for(status: int, variant: str) -> Refusal:
    if status == 429:
        shape = "error" if variant == "error" else "errors"
        return quota_spent() if variant == "quota" else rate_limited(shape=shape, retry_after=None)
    usual = {
        401: typed(401, "UNAUTHORIZED", "Invalid authentication token"),
        403: not_yours(),
        404: not_found(),
    }
    kind, message = _SERVER_ERRORS.get(status, ("INJECTED_FAULT", "A fault set in the sandbox"))
    return usual.get(status) or typed(status, kind, message)
