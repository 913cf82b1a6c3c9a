"""Authentication, the rate limit, blocks and faults: reference 1 and 2, section 9."""

from __future__ import annotations

import pytest

from kommo_airtable_sync.sandbox.faults import ConnectionDropped, Fault, Faults
from kommo_airtable_sync.sandbox.http_log import RateWindow
from kommo_airtable_sync.sandbox.kommo.model import KommoModel
from kommo_airtable_sync.sandbox.kommo.settings import SANDBOX_TOKEN
from tests.sandbox.kommo.conftest import Caller


def test_a_missing_or_wrong_token_is_401(call: Caller):
    for header in ("", "Bearer nonsense", SANDBOX_TOKEN[:-1]):
        reply = call("GET", "account", Authorization=header)
        assert reply.json == {
            "title": "Unauthorized",
            "type": "https://httpstatus.es/401",
            "status": 401,
            "detail": "Invalid user name or password",
        }
    call.model.tokens.clear()
    assert call("GET", "account").status == 401


def statuses(call: Caller, count: int) -> list[int]:
    return [call("GET", "account").status for _ in range(count)]


def test_the_eighth_call_in_a_second_is_429_with_retry_after_in_the_body(call: Caller):
    call.model.settings.requests_per_second = 7
    assert statuses(call, 8) == [200] * 7 + [429]
    refused = call("GET", "account")
    assert refused.json["retry_after"] == 1
    assert refused.json["title"] == "Too Many Requests"
    assert "retry-after" not in refused.headers
    call.clock.sleep(1)
    assert statuses(call, 8) == [200] * 7 + [429]


def test_the_window_slides(call: Caller):
    call.model.settings.requests_per_second = 2
    assert statuses(call, 1) == [200]
    call.clock.sleep(0.6)
    assert statuses(call, 1) == [200]
    call.clock.sleep(0.5)
    assert statuses(call, 2) == [200, 429]


def test_429_variants(call: Caller):
    call.model.settings.requests_per_second = 1
    statuses(call, 1)
    call.model.settings.too_many_variant = "header"
    assert call("GET", "account").headers["retry-after"] == "1"
    call.model.settings.too_many_variant = "text"
    assert call("GET", "account").body == b"Too Many Requests"


def test_repeated_violations_block_everything_until_released(call: Caller):
    call.model.settings.requests_per_second = 1
    call.model.settings.violations_before_block = 2
    assert statuses(call, 4) == [200, 429, 429, 403]
    call.clock.sleep(60)
    blocked = call("GET", "account")
    assert blocked.headers["content-type"] == "text/html"
    assert b"<center>nginx</center>" in blocked.body
    call.control("POST", "unblock")
    assert statuses(call, 1) == [200]


def test_latency_passes_before_the_write_and_the_limit_counts_arrivals(call: Caller):
    call.model.settings.latency_seconds = 0.12
    before = call.model.now()
    lead_id = call.lead(name="a")
    (change,) = call.control("GET", "changes")["changes"]
    assert (change["lead_id"], round(change["changed_at"] - before, 6)) == (lead_id, 0.12)
    (logged,) = call.control("GET", "requests")["log"]
    assert logged["at"] == before


def fault(call: Caller, **spec: object) -> None:
    call.control("POST", "faults", spec)


@pytest.mark.parametrize(
    ("status", "title"),
    [
        (401, "Unauthorized"),
        (402, "Payment Required"),
        (422, "Unprocessable Entity"),
        (429, "Too Many Requests"),
        (500, "ErrInternalServer"),
    ],
)
def test_a_status_fault_has_the_documented_body(call: Caller, status: int, title: str):
    fault(call, kind="status", status=status, times=1)
    reply = call("GET", "account")
    assert (reply.status, reply.json["title"]) == (status, title)
    assert call("GET", "account").status == 200
    assert ("trace_id" in reply.json) == (status == 500)


@pytest.mark.parametrize("status", [403, 502, 504])
def test_the_proxys_answers_are_html(call: Caller, status: int):
    fault(call, kind="status", status=status)
    reply = call("GET", "account")
    assert (reply.status, reply.headers["content-type"]) == (status, "text/html")
    call.control("DELETE", "faults")
    assert call("GET", "account").status == 200


def test_a_dropped_write_is_applied_or_not_as_asked(call: Caller):
    lead_id = call.lead(name="a")
    for kind, price in (("drop_before", 0), ("drop_after", 7)):
        fault(call, kind=kind, method="PATCH", route="/api/v4/leads*", times=1)
        with pytest.raises(ConnectionDropped) as dropped:
            call("PATCH", f"leads/{lead_id}", {"price": 7})
        assert dropped.value.applied == (price == 7)
        assert call("GET", f"leads/{lead_id}").json["price"] == price
    assert call.control("GET", "requests")["by_status"]["0"] == 2


def test_an_error_answer_may_hide_an_applied_write(call: Caller):
    fault(call, kind="status", status=504, applied=True, method="POST", times=1)
    assert call("POST", "leads", [{"name": "there"}]).status == 504
    assert call("GET", "leads").rows()[0]["name"] == "there"


def test_delays_add_to_the_latency(call: Caller):
    call.model.settings.latency_seconds = 0.5
    fault(call, kind="delay", seconds=2)
    before = call.model.now()
    call("GET", "account")
    assert call.model.now() - before == 2.5


def test_faults_hit_only_their_route_and_method(call: Caller):
    fault(call, kind="status", status=500, method="GET", route="/api/v4/leads/*")
    assert call("GET", "leads").status == 204
    assert call("GET", "leads/5").status == 500
    assert call("POST", "leads", [{"name": "a"}]).status == 200


def test_an_unknown_key_of_a_fault_is_refused(call: Caller):
    assert call("POST", "/_control/faults", {"kind": "status", "sttus": 1}).status == 400
    assert call.control("GET", "faults") == []


def test_fault_dice_repeat_under_a_seed_and_keep_their_odds():
    def rolled(seed: int) -> list[bool]:
        faults = Faults(seed)
        faults.add(Fault(kind="drop_before", probability=0.3))
        return [faults.verdict("GET", "/x").drop == "before" for _ in range(500)]

    assert rolled(1) == rolled(1) != rolled(2)
    assert 100 < sum(rolled(1)) < 200


def test_times_are_spent_only_by_hits():
    faults = Faults()
    faults.add(Fault(kind="delay", seconds=1, times=2, method="GET"))
    delays = [
        faults.verdict(method, "/x").delay_seconds for method in ("POST", "GET", "GET", "GET")
    ]
    assert delays == [0, 1, 1, 0]
    assert faults.current() == []


def test_a_rate_window_counts_each_key_apart():
    window = RateWindow(limit=1, seconds=1)
    assert [window.admit(0, "a"), window.admit(0, "b"), window.admit(0.5, "a")] == [
        True,
        True,
        False,
    ]
    assert window.admit(1, "a")


def test_a_reset_model_is_as_new(model: KommoModel, call: Caller):
    call.lead(name="a")
    fault(call, kind="status")
    call.control("POST", "reset")
    assert call("GET", "leads").status == 204
    assert call("GET", "leads/pipelines").status == 200
    assert call.lead(name="b") == 20_000_001
