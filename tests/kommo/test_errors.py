from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.errors import (
    BatchRefused,
    ConfigurationError,
    SideUnavailable,
    SyncError,
)
from kommo_airtable_sync.kommo.errors import NotGranted, classify

PROBLEM = "application/problem+json"
NGINX = b"<html><head><title>403 Forbidden</title></head></html>"


def problem(status: int, **more: object) -> str:
    return json.dumps({"title": "Title", "status": status, "detail": "What happened", **more})


def expected(status: int) -> tuple[type[SyncError], str]:
    unavailable = {401: "unauthorized", 402: "quota", 408: "timeout", 429: "rate_limited"}
    if status in unavailable:
        return SideUnavailable, unavailable[status]
    if status >= 500:
        return SideUnavailable, "server_error"
    if status in {400, 413, 422}:
        return BatchRefused, ""
    return ConfigurationError, ""


@pytest.mark.parametrize("status", range(300, 600))
def test_every_status_with_a_json_problem_has_one_meaning(status):
    failure = classify(status, {}, problem(status), PROBLEM)
    kind, reason = expected(status)

    assert isinstance(failure, kind)
    assert failure.side == "kommo"
    assert getattr(failure, "reason", "") == reason
    assert "What happened" in str(failure)


@pytest.mark.parametrize("status", range(300, 600))
def test_every_status_with_a_web_page_has_one_meaning(status):
    failure = classify(status, {}, NGINX, "text/html")
    kind, reason = (SideUnavailable, "blocked") if status == 403 else expected(status)

    assert isinstance(failure, kind)
    assert getattr(failure, "reason", "") == reason
    assert "<html>" not in str(failure)


def test_a_web_page_with_a_good_status_is_no_answer():
    failure = classify(200, {}, b"<html>maintenance</html>", "text/html")
    assert isinstance(failure, SideUnavailable)
    assert failure.reason == "server_error"


@pytest.mark.parametrize(
    ("headers", "body", "wait"),
    [
        ({}, problem(429, retry_after=300), 300.0),
        ({}, problem(429, retry_after="7"), 7.0),
        ({"Retry-After": "9"}, problem(429, retry_after=300), 300.0),
        ({"Retry-After": "9"}, problem(429), 9.0),
        ({"retry-after": "9"}, b"slow down", 9.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, problem(429), None),
        (
            {
                "retry-after": "Wed, 21 Oct 2026 07:28:09 GMT",
                "date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            problem(429),
            9.0,
        ),
        ({}, problem(429, retry_after=-1), None),
        ({}, problem(429, retry_after=True), None),
        ({}, problem(429, retry_after=float("nan")), None),
        ({}, b"", None),
    ],
)
def test_the_wait_after_a_429_is_in_the_body_or_else_in_the_header(headers, body, wait):
    failure = classify(429, headers, body, PROBLEM)
    assert isinstance(failure, SideUnavailable)
    assert failure.retry_after_seconds == wait


def test_a_refused_batch_names_its_culprits_by_index():
    body = problem(
        400,
        **{
            "validation-errors": [
                {
                    "request_id": "3",
                    "errors": [
                        {"code": "NotSupportedChoice", "path": "status_id", "detail": "No choice."},
                        {"code": "InvalidType", "path": "price", "detail": "Not a number."},
                    ],
                },
                {"request_id": "our-own", "errors": []},
                "noise",
            ]
        },
    )
    failure = classify(400, {}, body, PROBLEM)

    assert isinstance(failure, BatchRefused)
    assert failure.code == "NotSupportedChoice"
    assert failure.item_errors == {
        3: "status_id: No choice. (NotSupportedChoice); price: Not a number. (InvalidType)"
    }
    assert failure.item_paths == {3: ("status_id", "price")}
    assert "status_id" in failure.detail


def test_a_mistake_without_a_path_has_an_empty_one():
    body = json.dumps({"validation-errors": [{"request_id": "0", "errors": [{"code": "Odd"}]}]})
    failure = classify(400, {}, body, PROBLEM)
    assert isinstance(failure, BatchRefused)
    assert failure.item_paths == {0: ("",)}


def test_a_denied_right_says_what_to_do():
    failure = classify(403, {}, problem(403), PROBLEM)
    assert isinstance(failure, NotGranted)
    assert failure.status == 403
    assert "administrator" in failure.remedy


def test_a_spent_token_says_what_to_do():
    failure = classify(401, {}, problem(401, hint="Token has been revoked"), PROBLEM)
    assert isinstance(failure, SideUnavailable)
    assert "Token has been revoked" in failure.detail
    assert "KOMMO_TOKEN" in failure.detail


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["validation-errors", "errors", "request_id", "detail", "retry_after", "code"]
            ),
            inner,
            max_size=4,
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


def test_a_bottomless_body_is_no_json():
    failure = classify(500, {}, b'{"a":' * 200_000, PROBLEM)
    assert isinstance(failure, SideUnavailable)
