"""Airtable's answers: every error, spelled as reference section 1.10 records it, and the bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

Json = Any

# type -> (status, message), with places for what a case names
_ERRORS: dict[str, tuple[int, str]] = {
    "INVALID_REQUEST_BODY": (400, "Could not parse request body"),
    "AUTHENTICATION_REQUIRED": (401, "Authentication required"),
    "UNAUTHORIZED": (401, "Invalid authentication token"),
    "INVALID_PERMISSIONS": (403, "You are not permitted to perform this operation"),
    # Unknown and ungranted base, table or record look the same.
    "INVALID_PERMISSIONS_OR_MODEL_NOT_FOUND": (
        403,
        "Invalid permissions, or the requested model was not found. Check that both your user and "
        "your token have the required permissions, and that the model names and/or ids are "
        "correct.",
    ),
    # Its status is unknown; the type was seen in client code.
    "TOO_MANY_WEBHOOKS_IN_BASE": (403, "The base has as many webhooks as it may have"),
    "MODEL_ID_NOT_FOUND": (404, "Record not found"),
    "TABLE_NOT_FOUND": (404, "Could not find table {0} in application {1}"),
    "URI_TOO_LONG": (414, "The URL is too long"),
    "INVALID_REQUEST_UNKNOWN": (
        422,
        "Invalid request: parameter validation failed. Check your request data.",
    ),
    "INVALID_RECORDS": (
        422,
        'You must provide an array of up to 10 record objects, each with an "id" ID field and a '
        '"fields" object for cell values.',
    ),
    "UNKNOWN_FIELD_NAME": (422, 'Unknown field name: "{0}"'),
    "INVALID_VALUE_FOR_COLUMN": (422, 'Field "{0}" cannot accept {1}'),
    # The extra quotes are Airtable's.
    "INVALID_MULTIPLE_CHOICE_OPTIONS": (
        422,
        'Insufficient permissions to create new select option "\\"{0}\\""',
    ),
    "ROW_DOES_NOT_EXIST": (422, "Record ID {0} does not exist in this table"),
    "INVALID_OFFSET_VALUE": (422, "The value of offset {0} is invalid"),
    "INVALID_FILTER_BY_FORMULA": (422, "The formula for filtering records is invalid: {0}"),
    "DUPLICATE_OR_EMPTY_FIELD_NAME": (422, 'Duplicate or empty field name: "{0}"'),
    "UNSUPPORTED_FIELD_TYPE_FOR_CREATE": (
        422,
        'Creating fields of type "{0}" is not supported at this time',
    ),
    "INVALID_FIELD_TYPE_OPTIONS_FOR_CREATE": (422, "Invalid options for {0}"),
    "RATE_LIMIT_REACHED": (429, "Rate limit exceeded. Please try again later"),
    "PUBLIC_API_BILLING_LIMIT_EXCEEDED": (
        429,
        "API billing plan limit exceeded. You've reached the maximum number of requests allowed "
        "for this month. Please upgrade your plan or wait until next month.",
    ),
    "SERVER_ERROR": (500, "The server encountered an unexpected condition"),
    "BAD_GATEWAY": (502, "An unexpected outage is in progress"),
    "RETRIABLE_ERROR": (
        503,
        "Server encountered an error while processing your request, and it is safe to retry the "
        "request",
    ),
}
# What an injected status says.
_USUAL = (
    "UNAUTHORIZED",
    "INVALID_PERMISSIONS_OR_MODEL_NOT_FOUND",
    "SERVER_ERROR",
    "BAD_GATEWAY",
    "RETRIABLE_ERROR",
)
_HTML = b"<html><head><title>Error</title></head><body><h1>Something went wrong</h1></body></html>"


class Refusal(Exception):
    """A request that is answered with an error, nothing of it applied."""

    def __init__(self, status: int, body: Json, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.body = body
        self.headers = dict(headers or {})
        super().__init__(f"{status} {body}")


def refuse(kind: str, *parts: str, message: str = "") -> Refusal:
    """The common shape ``{"error": {"type", "message"}}``.

    Args:
        kind: a type of ``_ERRORS``, or any other, which is a 422.
        parts: what its message names.
        message: in place of the usual one.
    """
    status, usual = _ERRORS.get(kind, (422, ""))
    return Refusal(status, {"error": {"type": kind, "message": message or usual.format(*parts)}})


def not_found() -> Refusal:
    """Unknown route or malformed id: the shape in which ``error`` is a string."""
    return Refusal(404, {"error": "NOT_FOUND"})


def not_yours() -> Refusal:
    """Unknown, or not granted."""
    return refuse("INVALID_PERMISSIONS_OR_MODEL_NOT_FOUND")


def bad_request(message: str = "") -> Refusal:
    """A malformed parameter."""
    return refuse("INVALID_REQUEST_UNKNOWN", message=message)


def bad_value(field: str, what: str = "the provided value") -> Refusal:
    """A value of the wrong type."""
    return refuse("INVALID_VALUE_FOR_COLUMN", field, what)


def too_many(kind: str, shape: str = "errors") -> Refusal:
    """A 429: documented with ``error``, seen on the wire with ``errors``."""
    status, message = _ERRORS[kind]
    listed = {"errors": [{"error": kind, "message": message}]}
    return Refusal(status, refuse(kind).body if shape == "error" else listed)


class Answer(NamedTuple):
    """What goes back over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes


def json_answer(status: int, body: Json, headers: Mapping[str, str] | None = None) -> Answer:
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
    other = Refusal(status, {"error": {"type": "INJECTED_FAULT", "message": "In the sandbox"}})
    usual = next((refuse(kind) for kind in _USUAL if _ERRORS[kind][0] == status), other)
    if status == 404:
        usual = not_found()
    if status == 429:
        kind = "PUBLIC_API_BILLING_LIMIT_EXCEEDED" if variant == "quota" else "RATE_LIMIT_REACHED"
        usual = too_many(kind, variant)
    return json_answer(status, usual.body, {"Retry-After": "1"} if variant == "retry-after" else {})
