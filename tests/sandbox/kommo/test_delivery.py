"""When webhooks are sent, sent again, and stopped: reference 6.4."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.sandbox.kommo.delivery import Delivery, is_ok, retry_delay_seconds
from kommo_airtable_sync.sandbox.kommo.model import KommoModel
from tests.sandbox.kommo.conftest import Caller, TurnedClock

URL = "https://x.test/hook"


@pytest.fixture(autouse=True)
def subscribed(call: Caller) -> None:
    call("POST", "webhooks", {"destination": URL, "settings": ["add_lead", "update_lead"]})


def attempts(model: KommoModel, clock: TurnedClock, status: int) -> list[float]:
    """Seconds after the first attempt at which each attempt came, all answered the same."""
    start, found = model.now(), list[float]()
    while (due_at := model.next_hook_at()) is not None:
        clock.sleep(max(0.0, due_at - model.now()) + 0.001)
        for delivery in model.take_due_hooks():
            found.append(round(model.now() - start))
            model.settle_hook(delivery, status, model.now())
    return found


@pytest.mark.parametrize("status", [100, 200, 204, 299])
def test_a_good_answer_ends_it(call: Caller, status: int):
    call.lead(name="a")
    assert attempts(call.model, call.clock, status) == [0]


@pytest.mark.parametrize("status", [0, 302, 404])
def test_a_refusal_or_silence_is_tried_three_times(call: Caller, status: int):
    call.lead(name="a")
    assert attempts(call.model, call.clock, status) == [0, 300, 1200]


@pytest.mark.parametrize("status", [499, 500, 503])
def test_a_server_error_is_tried_five_times(call: Caller, status: int):
    call.lead(name="a")
    assert attempts(call.model, call.clock, status) == [0, 300, 1200, 2100, 5700]


def test_the_ladder_can_be_shortened(call: Caller):
    call.model.settings.hook_retry_scale = 0.01
    call.lead(name="a")
    assert attempts(call.model, call.clock, 500) == [0, 3, 12, 21, 57]


@given(st.integers(1, 9), st.integers(0, 599))
def test_retries_always_end_and_never_follow_success(attempt: int, status: int):
    delay = retry_delay_seconds(attempt, status)
    assert delay is None or (attempt <= 4 and not is_ok(status))


def test_a_retry_brings_the_old_body_under_a_new_request_id(call: Caller):
    lead_id = call.lead(name="first")
    (first,) = call.model.take_due_hooks()
    call.model.settle_hook(first, 500, call.model.now())
    call("PATCH", f"leads/{lead_id}", {"name": "second"})
    call.clock.sleep(301)
    fresh, stale = call.model.take_due_hooks()
    assert b"second" in fresh.body
    assert (stale.body, stale.attempt) == (first.body, 2)
    assert stale.headers["x-amocrm-requestid"] != first.headers["x-amocrm-requestid"]
    assert stale.headers["user-agent"] == "amoCRM-Webhooks/3.0"


def fail_times(call: Caller, times: int) -> None:
    for _ in range(times):
        call.lead(name="a")
        for delivery in call.model.take_due_hooks():
            call.model.settle_hook(delivery, 404, call.model.now())


def is_disabled(call: Caller) -> bool:
    return call("GET", "webhooks").rows("webhooks")[0]["disabled"]


def test_more_than_100_bad_answers_in_two_hours_switch_a_hook_off(call: Caller):
    fail_times(call, 100)
    assert not is_disabled(call)
    fail_times(call, 1)
    assert is_disabled(call)
    call.lead(name="lost")
    call.clock.sleep(7200)
    assert call.model.take_due_hooks() == []


def test_bad_answers_are_forgotten_after_two_hours(call: Caller):
    call.model.settings.hook_invalid_limit = 5
    fail_times(call, 5)
    call.clock.sleep(7201)
    call.model.take_due_hooks()
    fail_times(call, 1)
    assert not is_disabled(call)


def test_a_disabled_hook_is_enabled_by_hand_or_by_switch_on_subscribing(call: Caller):
    call.model.settings.hook_invalid_limit = 0
    body = {"destination": URL, "settings": ["add_lead"]}
    fail_times(call, 1)
    call("POST", "webhooks", body)
    assert is_disabled(call)
    call.control("POST", "webhooks")
    assert not is_disabled(call)
    fail_times(call, 1)
    call.model.settings.post_reenables = True
    call("POST", "webhooks", body)
    assert not is_disabled(call)


def deliveries(call: Caller, **knobs: Any) -> list[Delivery]:
    for key, value in knobs.items():
        setattr(call.model.settings, key, value)
    for n in range(20):
        call.lead(name=str(n))
    call.clock.sleep(1000)
    return call.model.take_due_hooks()


def test_deliveries_may_come_twice(call: Caller):
    bodies = [each.body for each in deliveries(call, hook_duplicate=1)]
    assert len(bodies) == 40
    assert len(set(bodies)) == 20


def test_deliveries_may_be_lost_by_code(call: Caller):
    assert len(deliveries(call, hook_lose=1, hook_lose_codes=["status_lead"])) == 20
    assert deliveries(call, hook_lose_codes=["add_lead"]) == []


def test_deliveries_may_come_late(call: Caller):
    start = call.model.now()
    late = deliveries(call, hook_late=1, hook_late_seconds=90)
    assert {each.due_at - start for each in late} == {90}


def test_deliveries_may_change_places_and_a_seed_repeats_it(call: Caller, clock: TurnedClock):
    def order(caller: Caller) -> list[bytes]:
        return [each.body for each in deliveries(caller, hook_reorder_seconds=60)]

    def fresh(seed: int) -> Caller:
        model = KommoModel(TurnedClock(), seed=seed)
        model.settings.requests_per_second = 1000
        model.seed_account()
        caller = Caller(model, model.clock)
        caller("POST", "webhooks", {"destination": URL, "settings": ["add_lead"]})
        return caller

    first = order(fresh(1))
    assert first == order(fresh(1)) != order(fresh(2))
    assert sorted(first) == sorted(order(fresh(2)))


def test_digital_pipeline_hooks_are_sent_once_and_never_switched_off(call: Caller):
    call.model.settings.dp_destination = "https://dp.test"
    call.model.settings.hook_invalid_limit = 0
    lead_id = call.lead(name="a")
    call.model.take_due_hooks()
    call("PATCH", f"leads/{lead_id}", {"status_id": 142})
    dp = next(each for each in call.model.take_due_hooks() if each.destination == "https://dp.test")
    call.model.settle_hook(dp, 500, call.model.now())
    assert call.model.next_hook_at() is None
    assert not is_disabled(call)


def test_every_attempt_is_in_the_log(call: Caller):
    call.lead(name="a")
    (delivery,) = call.model.take_due_hooks()
    call.clock.sleep(1)
    call.model.settle_hook(delivery, 500, call.model.now() - 1)
    shown = call.control("GET", "deliveries")
    (entry,) = shown["deliveries"]
    assert (entry["status"], entry["attempt"], entry["codes"]) == (500, 1, ["add_lead"])
    assert entry["body"] == delivery.body.decode()
    assert entry["answered_at"] - entry["sent_at"] == 1
    assert shown["waiting"] == 1
