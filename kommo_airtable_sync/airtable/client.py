"""Airtable's Web API, as far as the sync needs it, over pyairtable (reference/airtable-api 1, 7).

Policy: every call waits for its slot in the shared budget, has a time-out, and is tried once; a GET
whose connection broke off is tried once more, a write never. pyairtable's own retries are off: they
repeat creates and give up on a 429 after 3 s where Airtable asks for 30 (reference 7.2). Fields go
by id in both directions, so that a rename in Airtable breaks nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

import requests
from pyairtable import Api, formulas

from kommo_airtable_sync.airtable.errors import (
    RATE_LOCK_SECONDS,
    classify,
    classify_lost,
)
from kommo_airtable_sync.core.errors import BatchRefused, ConfigurationError, SideUnavailable
from kommo_airtable_sync.core.ports import Budget, Clock
from kommo_airtable_sync.transport import dropped, require_token, server_ahead_seconds

BATCH_SIZE = 10
"""Airtable's most records per write (reference 2)."""
PAGE_SIZE = 100
"""Airtable's most records per page."""

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class UpsertAnswer:
    """What Airtable says it did.

    Args:
        records: as stored, in the order of the request, fields by field id.
        created_ids: which of them are new; empty if the answer does not say.
    """

    records: list[Record]
    created_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class PayloadPage:
    """Some payloads of a webhook, oldest first.

    Args:
        payloads: at most 50.
        cursor: the number of the one after them, to ask for next.
        might_have_more: whether more wait already.
    """

    payloads: list[Record]
    cursor: int
    might_have_more: bool


class AirtableClient:
    """One Airtable base.

    Args:
        token: a personal access token; appears in no repr, log or error.
        base_id: ``app...``.
        endpoint_url: ``https://api.airtable.com``, without a path.
        budget: the base's shared request budget.
        clock: compared with Airtable's own (``server_ahead_seconds``).
        timeout: connect and read, in seconds.

    Every method raises what ``classify`` says: SideUnavailable, ConfigurationError, BatchRefused,
    and OffsetExpired from a listing.
    """

    def __init__(
        self,
        token: str,
        base_id: str,
        endpoint_url: str,
        budget: Budget,
        clock: Clock,
        *,
        timeout: tuple[float, float] = (3.05, 15.0),
    ) -> None:
        remedy = "Copy the personal access token again, without spaces or line breaks."
        require_token(token, "airtable", "AIRTABLE_TOKEN", remedy)
        self._token = token
        self._base_id = base_id
        self._budget = budget
        self._clock = clock
        # pyairtable declares whole seconds but hands them to requests, which takes fractions.
        seconds = cast("tuple[int, int]", timeout)
        self._api = Api(
            token,
            timeout=seconds,
            retry_strategy=None,
            endpoint_url=endpoint_url.rstrip("/"),
            use_field_ids=True,
        )
        self._api.session.auth = _keep_authorization
        # Judged before pyairtable looks: its own error drops the message of one of Airtable's
        # three error shapes, and carries the request with the token.
        self._api.session.hooks = {"response": [self._judge]}
        self.server_ahead_seconds: float | None = None
        """Airtable's clock less ours at the last answer, to about a second; None before one."""

    def __repr__(self) -> str:
        return f"AirtableClient({self._base_id})"

    def tables(self) -> list[Record]:
        """The base's tables with their fields and choices, as the metadata API gives them."""
        answer = self._object("GET", self._api.build_url("meta", "bases", self._base_id, "tables"))
        return _list(answer, "tables")

    def create_field(self, table_id: str, definition: Mapping[str, Any]) -> Record:
        """Add a field to a table; takes schema.bases:write and the role creator (reference 4).

        Args:
            table_id: ``tbl...``.
            definition: ``name``, ``type`` and, for most types, ``options``.
        """
        url = self._api.build_url("meta", "bases", self._base_id, "tables", table_id, "fields")
        return self._object("POST", url, json=dict(definition))

    def role(self) -> str:
        """What the token's user may do in the base: ``read``, ``comment``, ``edit``, ``create``.

        ``none`` if the base is not among those that the token may open.
        """
        options: dict[str, Any] = {}
        while True:
            url = self._api.build_url("meta", "bases")
            answer = self._object("GET", url, params=options)
            for base in _list(answer, "bases"):
                if base.get("id") == self._base_id:
                    return str(base.get("permissionLevel"))
            if not answer.get("offset") or answer.get("offset") == options.get("offset"):
                return "none"
            options = {"offset": answer["offset"]}

    def may_write(self, table_id: str) -> bool:
        """Whether the token's scopes let it write records; nothing is written.

        Airtable judges a token before it looks at the body, and this one holds no record.
        """
        try:
            self._call("PATCH", self._table_url(table_id), json={"records": []})
        except BatchRefused:
            return True
        except ConfigurationError:
            return False
        return True

    def upsert(
        self,
        table_id: str,
        key_field_id: str,
        rows: Sequence[tuple[str | None, Mapping[str, Any]]],
        typecast: bool = False,
    ) -> UpsertAnswer:
        """Write up to ten rows in one call; Airtable takes all of them or none (reference 1.9).

        Args:
            table_id: ``tbl...``.
            key_field_id: the field by which rows without a record id are matched.
            rows: (record id or None, cells by field id). With an id the row is a plain update,
                never a creation (reference 1.7); without one its key cell must be given.
            typecast: let Airtable convert strings and create missing choices.

        Raises:
            ValueError: before anything is sent: more than ten rows, a row without key, or two
                rows for one key or record (Airtable's answer to those is undefined).
        """
        _check_rows(key_field_id, rows)
        if not rows:
            return UpsertAnswer([], frozenset())
        records = [
            {"id": id_, "fields": dict(f)} if id_ else {"fields": dict(f)} for id_, f in rows
        ]
        body: dict[str, Any] = {
            "records": records,
            "typecast": typecast,
            "returnFieldsByFieldId": True,
        }
        if not all(id_ for id_, _ in rows):
            body["performUpsert"] = {"fieldsToMergeOn": [key_field_id]}
        json.dumps(body, allow_nan=False)  # a cell that JSON cannot hold is our mistake: say so now
        answer = self._object("PATCH", self._table_url(table_id), json=body)
        stored = _list(answer, "records")
        sent_ids = [id_ for id_, _ in rows]
        if len(stored) != len(rows) or any(
            id_ and record.get("id") != id_ for id_, record in zip(sent_ids, stored, strict=True)
        ):
            raise _unreadable("other records than were sent")
        created: object = answer.get("createdRecords")
        return UpsertAnswer(
            stored, frozenset(cast("list[str]", created) if isinstance(created, list) else ())
        )

    def find_records(
        self,
        table_id: str,
        record_ids: Sequence[str],
        key_field_id: str,
        key_cells: Sequence[str | int],
    ) -> list[Record]:
        """The records of a table with one of these ids or keys, whole; duplicates included.

        Args:
            table_id: ``tbl...``; a GET by id would search the whole base (reference 1.3).
            record_ids: ``rec...``.
            key_field_id: ``fld...``.
            key_cells: as the field stores them, numbers for a number field, else text.
        """
        key = formulas.Field(key_field_id)
        conditions = [formulas.EQ(formulas.RECORD_ID(), id_) for id_ in record_ids]
        conditions += [formulas.EQ(key, cell) for cell in key_cells]
        if not conditions:
            return []
        try:
            options = {"formula": str(formulas.OR(*conditions))}
            return [record for page in self._pages(table_id, options) for record in page]
        except BatchRefused as refused:
            _require_formula_refused(refused)
        # Then all are read, and these picked out here: dearer, and as right.
        ids, cells = set(record_ids), set(key_cells)
        return [
            record
            for page in self._pages(table_id, {})
            for record in page
            if record.get("id") in ids or record.get("fields", {}).get(key_field_id) in cells
        ]

    def delete_records(self, table_id: str, record_ids: Sequence[str]) -> None:
        """Delete up to ten records; Airtable takes all of them or none (reference 1.8).

        Raises:
            ValueError: before anything is sent: more than ten.
        """
        if len(record_ids) > BATCH_SIZE:
            raise ValueError(f"{len(record_ids)} records in one call; Airtable takes {BATCH_SIZE}")
        if record_ids:
            options = {"records[]": list(record_ids)}
            self._call("DELETE", self._table_url(table_id), params=options)

    def record_pages(self, table_id: str, field_ids: Sequence[str]) -> Iterator[list[Record]]:
        """All records of a table with these fields, up to 100 at a time, in no order.

        Raises:
            OffsetExpired: the caller was too slow between pages; it starts again.
        """
        return self._pages(table_id, {"fields": list(field_ids)} if field_ids else {})

    def changed_record_pages(
        self, table_id: str, field_ids: Sequence[str], modified_field_id: str, since: datetime
    ) -> Iterator[list[Record]]:
        """As ``record_pages``, but only records that changed at or after an aware instant.

        A lastModifiedTime field tells; it may watch some fields only. All come where Airtable
        refuses to filter by it.
        """
        # Formulas compare whole milliseconds, IS_AFTER excludes the instant itself.
        instant = (since - timedelta(milliseconds=1)).isoformat()
        formula = f'IS_AFTER({formulas.Field(modified_field_id)}, "{instant}")'
        try:
            yield from self._pages(table_id, {"fields": list(field_ids), "formula": formula})
        except BatchRefused as refused:
            _require_formula_refused(refused)
            yield from self.record_pages(table_id, field_ids)

    def user_id(self) -> str:
        """The user whom the token belongs to, ``usr...``."""
        user_id = self._object("GET", self._api.build_url("meta", "whoami")).get("id")
        if not isinstance(user_id, str):
            raise _unreadable("a user without id")
        return user_id

    def webhooks(self) -> list[Record]:
        """Every webhook of the base that the token may see, without its secret."""
        return _list(self._object("GET", self._webhook_url()), "webhooks")

    def create_webhook(self, notification_url: str, specification: Mapping[str, Any]) -> Record:
        """Register a webhook (reference 5.2).

        Returns:
            ``id``, ``expirationTime`` and ``macSecretBase64``, which Airtable shows only here.
        """
        body = {"notificationUrl": notification_url, "specification": dict(specification)}
        answer = self._object("POST", self._webhook_url(), json=body)
        if not isinstance(answer.get("id"), str) or not isinstance(
            answer.get("macSecretBase64"), str
        ):
            raise _unreadable("a webhook without id or secret")
        return answer

    def delete_webhook(self, webhook_id: str) -> None:
        """End a webhook; its payloads are gone then."""
        self._call("DELETE", self._webhook_url(webhook_id))

    def refresh_webhook(self, webhook_id: str) -> None:
        """Let it live for seven days from now; an expired one is refused (BatchRefused)."""
        self._call("POST", self._webhook_url(webhook_id, "refresh"))

    def enable_notifications(self, webhook_id: str) -> None:
        """Turn its pings on again."""
        url = self._webhook_url(webhook_id, "enableNotifications")
        self._call("POST", url, json={"enable": True})

    def payloads(self, webhook_id: str, cursor: int) -> PayloadPage:
        """What the webhook recorded from the payload with this number on; the first is 1."""
        url = self._webhook_url(webhook_id, "payloads")
        answer = self._object("GET", url, params={"cursor": cursor})
        payloads, following = _list(answer, "payloads"), answer.get("cursor")
        if not isinstance(following, int) or following < max(cursor, len(payloads) + 1):
            raise _unreadable("a cursor that leads nowhere")
        more = answer.get("mightHaveMore") is True
        if more and following == cursor:
            raise _unreadable("the same payloads again")
        return PayloadPage(payloads, following, more)

    def _webhook_url(self, *parts: str) -> str:
        return self._api.build_url("bases", self._base_id, "webhooks", *parts)

    def _pages(self, table_id: str, options: Mapping[str, Any]) -> Iterator[list[Record]]:
        url = self._table_url(table_id)
        offset: str | None = None
        while True:
            asked: dict[str, Any] = {**options, "page_size": PAGE_SIZE, "use_field_ids": True}
            if offset:
                asked["offset"] = offset
            # The fallback takes over where the URL would pass 16,000 characters (reference 1.2).
            answer = self._object(
                "GET", url, options=asked, fallback=("POST", f"{url}/listRecords")
            )
            yield _list(answer, "records")
            following: object = answer.get("offset")
            if not following:
                return
            if following == offset:
                raise _unreadable("the same page again")
            offset = str(following)

    def _table_url(self, table_id: str) -> str:
        return self._api.build_url(self._base_id, table_id)

    def _object(self, method: str, url: str, **arguments: Any) -> Record:
        answer = self._call(method, url, **arguments)
        if not isinstance(answer, dict):
            raise _unreadable("no JSON object")
        return cast("Record", answer)

    def _call(self, method: str, url: str, **arguments: Any) -> object:
        outcome = self._try(method, url, arguments)
        if method == "GET" and isinstance(outcome, requests.RequestException) and dropped(outcome):
            outcome = self._try(method, url, arguments)
        if isinstance(outcome, requests.RequestException):
            raise classify_lost(outcome)
        return outcome

    def _try(self, method: str, url: str, arguments: dict[str, Any]) -> object:
        # The error is a value, not a cause: it holds the request and with it the token, which
        # a chained traceback or an error reporter would show.
        with self._budget.slot():
            try:
                return self._api.request(method, url, **arguments)
            except requests.RequestException as error:
                return error

    def _judge(self, response: requests.Response, **_: Any) -> None:
        """Called by requests with every answer, redirects included, before anyone else sees it."""
        self.server_ahead_seconds = server_ahead_seconds(
            response, self._clock, self.server_ahead_seconds
        )
        if 200 <= response.status_code < 300:
            return
        body = response.content.decode("utf-8", "replace").replace(self._token, "[secret]")
        content_type = response.headers.get("Content-Type", "")
        failure = classify(response.status_code, response.headers, body, content_type)
        if isinstance(failure, SideUnavailable) and failure.reason == "rate_limited":
            self._budget.throttled(failure.retry_after_seconds or RATE_LOCK_SECONDS)
        raise failure


def _require_formula_refused(refused: BatchRefused) -> None:
    if refused.code != "INVALID_FILTER_BY_FORMULA":
        raise refused


def _keep_authorization(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """As ``session.auth``: keeps a .netrc entry from replacing the token."""
    return request


def _check_rows(key_field_id: str, rows: Sequence[tuple[str | None, Mapping[str, Any]]]) -> None:
    if len(rows) > BATCH_SIZE:
        raise ValueError(f"{len(rows)} rows in one call; Airtable takes {BATCH_SIZE}")
    ids = [id_ for id_, _ in rows if id_]
    keys = [str(fields[key_field_id]) for _, fields in rows if fields.get(key_field_id) is not None]
    if len(set(ids)) < len(ids) or len(set(keys)) < len(keys):
        raise ValueError("two rows of one call are for the same key or record")
    if any(not id_ and fields.get(key_field_id) in (None, "") for id_, fields in rows):
        raise ValueError("a row has neither record id nor key")


def _list(answer: Record, name: str) -> list[Record]:
    """The items of a list. A failed read is not an empty answer, so a missing list is an error."""
    items: object = answer.get(name)
    if not isinstance(items, list):
        raise _unreadable(f"no list of {name}")
    return cast("list[Record]", items)


def _unreadable(what: str) -> SideUnavailable:
    return SideUnavailable("airtable", "server_error", f"an answer that cannot be right: {what}")
