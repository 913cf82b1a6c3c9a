"""Airtable's error answers, spelled as reference section 1.10 records them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = Any

NOT_FOUND_OR_NOT_YOURS = (
    "Invalid permissions, or the requested model was not found. Check that both your user and "
    "your token have the required permissions, and that the model names and/or ids are correct."
)
QUOTA_SPENT = (
    "API billing plan limit exceeded. You've reached the maximum number of requests allowed for "
    "this month. Please upgrade your plan or wait until next month."
)
BAD_RECORDS = (
    'You must provide an array of up to 10 record objects, each with an "id" ID field and a '
    '"fields" object for cell values.'
)


class Refusal(Exception):
    """A request that Airtable answers with an error, with nothing of it applied.

    Args:
        status: HTTP status.
        body: the JSON body, in whichever of the three shapes the case has.
        headers: extra response headers.
    """

    def __init__(self, status: int, body: Json, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.body = body
        self.headers = dict(headers or {})
        super().__init__(f"{status} {body}")


def typed(status: int, kind: str, message: str | None = None) -> Refusal:
    """The common shape ``{"error": {"type", "message"}}``; without a message, type only."""
    error = {"type": kind} if message is None else {"type": kind, "message": message}
    return Refusal(status, {"error": error})


def not_found() -> Refusal:
    """Unknown route or malformed id: the shape in which ``error`` is a string."""
    return Refusal(404, {"error": "NOT_FOUND"})


def not_yours() -> Refusal:
    """Unknown and ungranted base, table or record look the same (errors page)."""
    return typed(403, "INVALID_PERMISSIONS_OR_MODEL_NOT_FOUND", NOT_FOUND_OR_NOT_YOURS)


def not_permitted(what: str = "perform this operation") -> Refusal:
    """A scope or a role is missing."""
    return typed(403, "INVALID_PERMISSIONS", f"You are not permitted to {what}")


def bad_request(
    message: str = "Invalid request: parameter validation failed. Check your request data.",
) -> Refusal:
    """A malformed parameter."""
    return typed(422, "INVALID_REQUEST_UNKNOWN", message)


def bad_records(message: str = BAD_RECORDS) -> Refusal:
    """More than ten, none, or malformed record objects."""
    return typed(422, "INVALID_RECORDS", message)


def unknown_field(name: str) -> Refusal:
    """A field that the table does not have, in a write, ``fields[]`` or a sort."""
    return typed(422, "UNKNOWN_FIELD_NAME", f'Unknown field name: "{name}"')


def bad_value(field: str) -> Refusal:
    """A value of the wrong type."""
    message = f'Field "{field}" cannot accept the provided value'
    return typed(422, "INVALID_VALUE_FOR_COLUMN", message)


def computed(field: str) -> Refusal:
    """A write to a field that Airtable fills itself."""
    message = f'Field "{field}" cannot accept a value because the field is computed'
    return typed(422, "INVALID_VALUE_FOR_COLUMN", message)


def unknown_choice(name: str) -> Refusal:
    """A select option that is not there, without typecast; the extra quotes are Airtable's."""
    message = f'Insufficient permissions to create new select option "\\"{name}\\""'
    return typed(422, "INVALID_MULTIPLE_CHOICE_OPTIONS", message)


def dead_row(record_id: str) -> Refusal:
    """A record id that is not, or no longer, in the table."""
    message = f"Record ID {record_id} does not exist in this table"
    return typed(422, "ROW_DOES_NOT_EXIST", message)


def rate_limited(*, shape: str, retry_after: str | None) -> Refusal:
    """The 429 for too many calls.

    Args:
        shape: ``error`` (documented) or ``errors`` (as reported from the wire).
        retry_after: value of a ``Retry-After`` header, None for no header.
    """
    kind, message = "RATE_LIMIT_REACHED", "Rate limit exceeded. Please try again later"
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    if shape == "error":
        return Refusal(429, {"error": {"type": kind, "message": message}}, headers)
    return Refusal(429, {"errors": [{"error": kind, "message": message}]}, headers)


def quota_spent() -> Refusal:
    """The 429 for a spent monthly quota, where waiting is of no use."""
    kind = "PUBLIC_API_BILLING_LIMIT_EXCEEDED"
    return Refusal(429, {"errors": [{"error": kind, "message": QUOTA_SPENT}]})
