"""Webhooks as they are created, listed, refreshed and read (reference 5.1, 5.2, 5.4)."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kommo_airtable_sync.sandbox.airtable.kinds import spell
from kommo_airtable_sync.sandbox.airtable.refusal import bad_request, refuse
from kommo_airtable_sync.sandbox.airtable.schema import Base

if TYPE_CHECKING:
    from kommo_airtable_sync.sandbox.airtable.state import State

Json = Any
LIFE = timedelta(days=7)
PER_BASE = 10
PAGE = 50
Source = Literal[
    "client", "publicApi", "formSubmission", "formPageSubmission", "automation", "system", "sync",
    "anonymousUser", "unknown",
]  # fmt: skip


class Part(BaseModel):
    """A part of a specification; what the sandbox does not know is refused, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Filters(Part):
    """Which changes make payloads; an absent list leaves nothing out.

    Schema changes (``tableFields``, ``tableMetadata``) and view scopes are unknown here.
    """

    dataTypes: list[Literal["tableData"]] = Field(min_length=1)
    recordChangeScope: str | None = None
    changeTypes: list[Literal["add", "remove", "update"]] | None = None
    fromSources: list[Source] | None = None
    watchDataInFieldIds: list[str] | None = None


class Includes(Part):
    """What payloads hold beside the changes."""

    includeCellValuesInFieldIds: list[str] | Literal["all"] | None = None
    includePreviousCellValues: bool = False


class Options(Part):
    """Of a specification."""

    filters: Filters
    includes: Includes = Includes()


class Specification(Part):
    """What a webhook is created with (AT:model/webhooks-specification)."""

    options: Options


class _Creation(Part):
    notificationUrl: str | None = None
    specification: Specification


@dataclass(slots=True)
class Webhook:
    """One webhook.

    Args:
        id: ``ach...``.
        base: whose changes it follows.
        given: its specification, as sent.
        options: the same, read.
        url: where pings go, if anywhere.
        secret: key of the MAC.
        expires: nothing is recorded from then on; what is there stays for seven more days.
        payloads: (instant, payload) of those not purged yet, oldest first.
        purged: how many came before those.
        notifies: whether pings are on.
        broken: code of the error that killed it for good, if one did.
        ping: a ping waits, or was sent and is not answered yet; there is never more than one.
        again: something changed while the ping was under way.
        result: of the last ping, as listed.
        succeeded: when a ping last succeeded, as listed.
    """

    id: str
    base: Base
    given: Json
    options: Options
    url: str | None
    secret: bytes
    expires: datetime
    payloads: list[tuple[datetime, Json]] = field(default_factory=list[tuple[datetime, Json]])
    purged: int = 0
    notifies: bool = True
    broken: str = ""
    ping: Literal["", "waits", "sent"] = ""
    again: bool = False
    result: Json = None
    succeeded: str | None = None

    @property
    def head(self) -> int:
        """The number that the next payload will get."""
        return self.purged + len(self.payloads) + 1

    def is_live(self, now: datetime) -> bool:
        """Whether it still records."""
        return now < self.expires and not self.broken

    def json(self, now: datetime) -> Json:
        """As listed, without the secret."""
        return {
            "id": self.id,
            "areNotificationsEnabled": self.notifies,
            "cursorForNextPayload": self.head,
            "isHookEnabled": self.is_live(now),
            "lastSuccessfulNotificationTime": self.succeeded,
            "lastNotificationResult": self.result,
            "notificationUrl": self.url,
            "expirationTime": spell(self.expires),
            "specification": self.given,
        }


def sweep(state: State) -> None:
    """Purge payloads after seven days, and webhooks seven days after their end."""
    now = state.clock.now()
    for webhook in list(state.webhooks.values()):
        if now >= webhook.expires + LIFE:
            del state.webhooks[webhook.id]
        old = next((n for n, each in enumerate(webhook.payloads) if each[0] > now - LIFE), None)
        gone = len(webhook.payloads) if old is None else old
        webhook.purged += gone
        del webhook.payloads[:gone]


def create_webhook(state: State, base: Base, body: Json) -> Json:
    """``{id, macSecretBase64, expirationTime}``; the secret is never shown again. Or 422."""
    try:
        given = _Creation.model_validate(body)
    except ValidationError as error:
        raise bad_request(str(error)) from None
    options = given.specification.options
    if missing_ids(base, options.filters):
        raise bad_request("Filters name what the base does not have")
    if sum(each.base is base for each in state.webhooks.values()) >= PER_BASE:
        raise refuse("TOO_MANY_WEBHOOKS_IN_BASE")
    webhook = Webhook(
        id=state.ids.new("ach"),
        base=base,
        given=body["specification"],
        options=options,
        url=given.notificationUrl,
        secret=state.dice.randbytes(32),
        expires=state.clock.now() + LIFE,
    )
    state.webhooks[webhook.id] = webhook
    secret = base64.b64encode(webhook.secret).decode("ascii")
    expires = spell(webhook.expires)
    return {"id": webhook.id, "macSecretBase64": secret, "expirationTime": expires}


def missing_ids(base: Base, filters: Filters) -> set[str]:
    """The tables and fields that these filters name and the base does not have."""
    known = set(base.tables).union(*(table.fields for table in base.tables.values()))
    scope = [filters.recordChangeScope] if filters.recordChangeScope else []
    return {*scope, *(filters.watchDataInFieldIds or ())} - known


def refresh(webhook: Webhook, now: datetime) -> Json:
    """Seven more days from now, or 422: only what has not expired can be extended."""
    if now >= webhook.expires:
        raise bad_request("The webhook has expired")
    webhook.expires = now + LIFE
    return {"expirationTime": spell(webhook.expires)}


def list_payloads(webhook: Webhook, cursor: int, limit: int, now: datetime) -> Json:
    """``{payloads, cursor, mightHaveMore}``, oldest first; extends the webhook's life, too.

    Args:
        webhook: whose.
        cursor: number of the first payload wanted; numbers start at 1 and never reset.
        limit: at most so many, and 50.
        now: the present.
    """
    if now < webhook.expires:
        webhook.expires = now + LIFE
    start = max(0, cursor - webhook.purged - 1)
    page = [each for _, each in webhook.payloads[start : start + min(limit, PAGE)]]
    # Behind the head it stays as asked, and with nothing new it stays where it is.
    following = webhook.purged + start + len(page) + 1
    more = following < webhook.head
    return {"payloads": page, "cursor": max(cursor, following), "mightHaveMore": more}
