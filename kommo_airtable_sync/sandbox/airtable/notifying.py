"""Whoever is told of changes: webhooks by payloads and pings, automations by their scripts."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import groupby
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from kommo_airtable_sync.sandbox.airtable.data import Actor, Change
from kommo_airtable_sync.sandbox.airtable.kinds import read_cell, spell
from kommo_airtable_sync.sandbox.airtable.payloads import Shape, action, wanted
from kommo_airtable_sync.sandbox.airtable.state import PERSON, State
from kommo_airtable_sync.sandbox.airtable.webhooks import Webhook, missing_ids
from kommo_airtable_sync.sandbox.airtable.writing import kept_cells
from kommo_airtable_sync.sandbox.outgoing import Outgoing, Post, fates

Json = Any
_RETRIES = 13
_FIRST_RETRY_SECONDS = 10.0


class Automation(BaseModel):
    """One "run a script" automation that POSTs each change; there is no trigger on deletions (6).

    Attributes:
        url: where to.
        secret: goes along as a bearer token.
        table: name or id.
        on: its triggers.
        watch: names or ids of the fields whose changes count; empty = all.
        send: names or ids of the fields whose values go along as ``fields``.
        send_key: whether the record's key goes along as ``kommoDealId``.
        on_api: whether writes by API trigger it, too; in Airtable they do.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    secret: str
    table: str = "Deals"
    on: tuple[Literal["create", "update"], ...] = ("create", "update")
    watch: tuple[str, ...] = ()
    send: tuple[str, ...] = ()
    send_key: bool = True
    on_api: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(Post):
    """A ping or an automation's POST; ``sender`` is the id of its webhook or automation."""

    kind: Literal["ping", "automation"]
    sender: str


def is_ok(status: int) -> bool:
    """Airtable takes nothing but these two as an answer to a ping."""
    return status in (200, 204)


def retry_delay_seconds(attempt: int) -> float | None:
    """How long after a failed ping the next comes: 10 s doubling, 13 times; None = given up."""
    return _FIRST_RETRY_SECONDS * 2 ** (attempt - 1) if attempt <= _RETRIES else None


def tell(state: State) -> None:
    """Tell everybody of what the change log holds and they have not been told.

    All that one actor changed at one instant is one transaction of its base.
    """
    _run_robots(state)
    changes = state.data.changes_since(state.told)
    state.told = state.data.sequence
    for (actor, base_id), group in groupby(changes, lambda each: (each.actor, each.table.base.id)):
        state.transactions[base_id] += 1
        done = list(group)
        for webhook in state.webhooks.values():
            if webhook.base.id == base_id and webhook.is_live(actor.at):
                _record(state, webhook, done)
        for change in done:
            _run_automations(state, change)
    for webhook in state.webhooks.values():
        if not webhook.broken and missing_ids(webhook.base, webhook.options.filters):
            break_webhook(state, webhook, "INVALID_FILTERS")


def _run_robots(state: State) -> None:
    """Automations that round what somebody else has just written (setting ``rounding``)."""
    robot = Actor("automation", PERSON["id"], state.clock.now())
    for change in state.data.changes_since(state.told):
        record = change.table.records.get(change.record)
        if record and change.actor.source != robot.source:
            cells = {field_id: new for field_id, (_, new) in change.cells.items()}
            kept = kept_cells(state, change.table, cells, robot=True)
            state.data.update(change.table, record, kept, robot)


def _record(state: State, webhook: Webhook, transaction: Sequence[Change]) -> None:
    """Append the payloads of one transaction, and ping."""
    changes = wanted(transaction, webhook.options.filters)
    shows_cleared = state.settings.cleared_cells == "null"
    shape = Shape(webhook.options, state.clock.now(), shows_cleared)
    step = state.settings.payload_records or len(changes) or 1
    for start in range(0, len(changes), step):
        actor, tables = changes[0].actor, shape.tables(changes[start : start + step])
        told = {"actionMetadata": action(actor, state.users), "changedTablesById": tables}
        _append(state, webhook, actor.at, told)
    if changes:
        _ping(state, webhook)


def break_webhook(state: State, webhook: Webhook, code: str) -> None:
    """Append an error payload: the webhook is dead for good (5.4)."""
    _append(state, webhook, state.clock.now(), {"error": True, "code": code})
    _ping(state, webhook)
    webhook.broken = code


def _append(state: State, webhook: Webhook, at: datetime, told: dict[str, Json]) -> None:
    number = state.transactions[webhook.base.id]
    head = {"timestamp": spell(at), "baseTransactionNumber": number, "payloadFormat": "v0"}
    webhook.payloads.append((at, head | told))


def _ping(state: State, webhook: Webhook) -> None:
    """Ping, unless one waits already: that one tells of this change as well."""
    if webhook.ping == "":
        _push_ping(state, webhook, state.settings.ping_seconds, attempt=1)
    elif webhook.ping == "sent":
        webhook.again = True


def _push_ping(state: State, webhook: Webhook, delay_seconds: float, attempt: int) -> None:
    if webhook.url is None or not webhook.notifies:
        return
    webhook.ping, webhook.again = "waits", False
    told = {"base": {"id": webhook.base.id}, "webhook": {"id": webhook.id}}
    body = json.dumps({**told, "timestamp": spell(state.clock.now())}).encode("ascii")
    code = hmac.new(webhook.secret, body, hashlib.sha256).hexdigest()
    state.outbox.push(
        Delivery(
            destination=webhook.url,
            body=body,
            headers={
                "Content-Type": "application/json",
                "X-Airtable-Content-MAC": f"hmac-sha256={code}",
            },
            due_at=state.now() + delay_seconds,
            attempt=attempt,
            kind="ping",
            sender=webhook.id,
        )
    )


def _run_automations(state: State, change: Change) -> None:
    for automation_id, automation in state.automations.items():
        if _triggers(automation, change):
            settings = state.settings
            held = fates(
                state.dice,
                lose=settings.automation_lose,
                duplicate=settings.automation_duplicate,
                reorder_seconds=settings.automation_reorder_seconds,
            )
            for seconds in held:
                due_at = state.now() + settings.automation_seconds + seconds
                state.outbox.push(_script(automation_id, automation, change, due_at))


def _triggers(automation: Automation, change: Change) -> bool:
    return (
        change.table.id == automation.table
        and change.kind in automation.on
        and (automation.on_api or change.actor.source != "publicApi")
        and (not automation.watch or not set(automation.watch).isdisjoint(change.cells))
    )


def _script(sender: str, automation: Automation, change: Change, due_at: float) -> Delivery:
    """What the script of an automation POSTs (contract of ``/hooks/airtable``)."""
    table, at = change.table, change.actor.at
    told: dict[str, Json] = {"recordId": change.record, "changedAt": spell(at)}
    if automation.send_key and change.key is not None:
        told["kommoDealId"] = change.key
    record, fields = table.records.get(change.record), map(table.fields.get, automation.send)
    if automation.send and record:
        told["fields"] = {each.name: read_cell(record, each, at) for each in fields if each}
    bearer = {"Authorization": f"Bearer {automation.secret}"}
    return Delivery(
        destination=automation.url,
        body=json.dumps(told).encode("ascii"),
        headers={"Content-Type": "application/json", **bearer},
        due_at=due_at,
        kind="automation",
        sender=sender,
    )


class Outbox(Outgoing[Delivery]):
    """Pings, which come again until they are taken, and the POSTs of scripts, which do not."""

    def __init__(self, state: State) -> None:
        super().__init__(state.now)
        self._state = state

    def take_due(self, most: int = 1000) -> list[Delivery]:
        """Take out what is due; pings of webhooks gone or silenced meanwhile are dropped."""
        due: list[Delivery] = []
        for delivery in super().take_due(most):
            webhook = self._state.webhooks.get(delivery.sender)
            if webhook is not None:
                webhook.ping = "sent" if webhook.notifies else ""
            if delivery.kind == "automation" or (webhook and webhook.notifies):
                due.append(delivery)
        return due

    def settle(self, delivery: Delivery, status: int, sent_at: float) -> None:
        """Note an answer: a failed ping comes again, or was the last."""
        self.note(delivery, status, sent_at)
        webhook, state = self._state.webhooks.get(delivery.sender), self._state
        if webhook is None:
            return
        delay = None if is_ok(status) else retry_delay_seconds(delivery.attempt)
        webhook.ping, again = "", webhook.again
        webhook.result = _result(delivery, status, sent_at, self.now(), retried=delay is not None)
        if delay is not None:
            scaled = delay * state.settings.ping_retry_scale
            _push_ping(state, webhook, scaled, delivery.attempt + 1)
        elif is_ok(status):
            webhook.succeeded = webhook.result["completionTimestamp"]
            if again:
                _ping(state, webhook)
        else:
            webhook.notifies = False  # until somebody enables them

    def timeout_seconds(self, delivery: Delivery) -> float:
        """A slower answer counts as none."""
        settings = self._state.settings
        is_ping = delivery.kind == "ping"
        return settings.ping_timeout_seconds if is_ping else settings.automation_timeout_seconds


def _result(
    delivery: Delivery, status: int, sent_at: float, now: float, *, retried: bool
) -> dict[str, Json]:
    """``lastNotificationResult`` as list-webhooks shows it."""
    shown: dict[str, Json] = {
        "success": is_ok(status),
        "completionTimestamp": spell(datetime.fromtimestamp(now, timezone.utc)),
        "durationMs": round((now - sent_at) * 1000, 3),
        "retryNumber": delivery.attempt - 1,
    }
    if not is_ok(status):
        message = f"The endpoint answered {status}" if status else "The endpoint did not answer"
        shown |= {"willBeRetried": retried, "error": {"message": message}}
    return shown
