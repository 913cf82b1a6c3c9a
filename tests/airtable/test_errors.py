from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.airtable.errors import OffsetExpired, classify
from kommo_airtable_sync.core.errors import (
    BatchRefused,
    ConfigurationError,
    SideUnavailable,
    SyncError,
)

JSON = "application/json; charset=utf-8"


def shapes(code: str, message: str = "What happened") -> list[bytes]:
    """The three shapes in which Airtable tells one error (reference/airtable-api 1.10)."""
    return [
        json.dumps(body).encode()
        for body in (
            {"error": code},
            {"error": {"type": code, "message": message}},
            {"errors": [{"error": code, "message": message}]},
        )
    ]


def expected(status: int, *, coded: bool) -> tuple[type[SyncError], str]:
    unavailable = {401: "unauthorized", 408: "timeout", 429: "rate_limited"}
    if status in unavailable:
        return SideUnavailable, unavailable[status]
    if status == 403 and not coded:
        return SideUnavailable, "blocked"
    if status < 400 or status in {403, 404, 405}:
        return ConfigurationError, ""
    return (BatchRefused, "") if status < 500 else (SideUnavailable, "server_error")


@pytest.mark.parametrize("status", range(300, 600))
def test_every_status_has_one_meaning_in_every_shape(status):
    for body in shapes("SOME_CODE"):
        failure = classify(status, {}, body, JSON)
        kind, reason = expected(status, coded=True)
        assert isinstance(failure, kind)
        assert failure.side == "airtable"
        assert getattr(failure, "reason", "") == reason
        assert "SOME_CODE" in str(failure)


@pytest.mark.parametrize("status", range(300, 600))
def test_every_status_with_a_web_page_has_one_meaning(status):
    failure = classify(status, {}, b"<html>oops</html>", "text/html")
    kind, reason = expected(status, coded=False)
    assert isinstance(failure, kind)
    assert getattr(failure, "reason", "") == reason
    assert "oops" not in str(failure)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, 30.0),
        ({"Retry-After": "5"}, 5.0),
        ({"Retry-After": "x"}, 30.0),
        (
            {
                "Retry-After": "Wed, 21 Oct 2026 07:28:07 GMT",
                "Date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            7.0,
        ),
    ],
)
def test_a_rate_429_locks_for_30_seconds_unless_told_otherwise(headers, wait):
    for body in [*shapes("RATE_LIMIT_REACHED"), b""]:
        failure = classify(429, headers, body, JSON)
        assert isinstance(failure, SideUnavailable)
        assert (failure.reason, failure.retry_after_seconds) == ("rate_limited", wait)


def test_a_quota_429_is_not_a_matter_of_seconds():
    for body in shapes("PUBLIC_API_BILLING_LIMIT_EXCEEDED"):
        failure = classify(429, {"Retry-After": "5"}, body, JSON)
        assert isinstance(failure, SideUnavailable)
        assert (failure.reason, failure.retry_after_seconds) == ("quota", None)


def test_a_503_says_when_to_come_back():
    failure = classify(503, {"retry-after": "3"}, shapes("RETRIABLE_ERROR")[1], JSON)
    assert isinstance(failure, SideUnavailable)
    assert (failure.reason, failure.retry_after_seconds) == ("server_error", 3.0)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (422, "UNKNOWN_FIELD_NAME"),
        (404, "TABLE_NOT_FOUND"),
        (403, "INVALID_PERMISSIONS"),
        (403, "INVALID_PERMISSIONS_OR_MODEL_NOT_FOUND"),
        (422, "INVALID_PERMISSIONS"),
        (404, "NOT_FOUND"),
    ],
)
def test_what_a_person_must_change_is_configuration(status, code):
    failure = classify(status, {}, shapes(code)[1], JSON)
    assert isinstance(failure, ConfigurationError)
    assert failure.side == "airtable"
    assert failure.remedy


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (422, "INVALID_VALUE_FOR_COLUMN"),
        (422, "INVALID_MULTIPLE_CHOICE_OPTIONS"),
        (422, "ROW_DOES_NOT_EXIST"),
        (404, "MODEL_ID_NOT_FOUND"),
        (413, ""),
    ],
)
def test_what_one_record_may_be_at_fault_for_is_a_refused_batch(status, code):
    failure = classify(status, {}, shapes(code)[1], JSON)
    assert isinstance(failure, BatchRefused)
    assert (failure.status, failure.code) == (status, code or "refused")
    assert failure.detail == "What happened"


@pytest.mark.parametrize("code", ["LIST_RECORDS_ITERATOR_NOT_AVAILABLE", "INVALID_OFFSET_VALUE"])
def test_a_forgotten_offset_has_an_error_of_its_own(code):
    for body in [*shapes(code), json.dumps({"error": {"type": code}}).encode()]:
        assert isinstance(classify(422, {}, body, JSON), OffsetExpired)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "errors", "type", "message"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(
    st.integers(100, 999),
    st.dictionaries(st.sampled_from(["Retry-After", "Date"]), st.text(max_size=8)),
    st.binary(max_size=40) | json_values.map(lambda value: json.dumps(value).encode()),
    st.text(max_size=10),
)
def test_no_answer_is_without_a_meaning(status, headers, body, content_type):
    assert isinstance(classify(status, headers, body, content_type), SyncError)


def test_a_missing_scope_is_answered_with_the_scopes_there_have_to_be():
    body = {"error": {"type": "INVALID_PERMISSIONS", "message": "You are not permitted"}}
    error = classify(403, {}, json.dumps(body), "application/json")
    assert isinstance(error, ConfigurationError)
    assert "schema.bases:read" in error.remedy
