"""Kommo's API v4, as far as the sync needs it (reference/kommo-api sections 3 to 6).

Policy: every call waits for its slot in the shared budget, has a time-out, follows no redirect
(the token stays with the host it was made for) and is tried once; a GET whose connection broke off
is tried once more. All pauses are the caller's business.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

import requests
from requests.auth import AuthBase

from kommo_airtable_sync.core.errors import ConfigurationError, SideUnavailable, SyncError
from kommo_airtable_sync.core.ports import Budget, Clock
from kommo_airtable_sync.core.types import EntityKind
from kommo_airtable_sync.kommo.errors import NotGranted, classify, classify_lost
from kommo_airtable_sync.transport import dropped, require_token, server_ahead_seconds

PAGE_SIZE = 250
"""Kommo's most per page, and per batch of a write (reference 2)."""
THROTTLE_SECONDS = 1.0
"""The pause after a 429 that names none: the limit counts requests per second."""

Entity = dict[str, Any]


class KommoClient:
    """One Kommo account.

    Args:
        base_url: ``https://{subdomain}.kommo.com``, without a path.
        token: gives the access token of the moment; called once per HTTP call.
        budget: the account's shared request budget.
        clock: compared with Kommo's own (``server_ahead_seconds``).
        renew: takes a token that was answered with 401 and sees that ``token`` gives another one;
            without it a 401 is final.
        timeout: connect and read, in seconds.
        session: to share a connection pool.

    Every method raises what ``classify`` says: SideUnavailable, ConfigurationError, BatchRefused.
    """

    def __init__(
        self,
        base_url: str,
        token: Callable[[], str],
        budget: Budget,
        *,
        clock: Clock,
        renew: Callable[[str], None] | None = None,
        timeout: tuple[float, float] = (3.05, 15.0),
        session: requests.Session | None = None,
    ) -> None:
        self._api = base_url.rstrip("/") + "/api/v4/"
        self._token = token
        self._renew = renew
        self._budget = budget
        self._clock = clock
        self._timeout = timeout
        self._session = session or requests.Session()
        self.server_ahead_seconds: float | None = None
        """Kommo's clock less ours at the last answer, to about a second; None before one."""

    def __repr__(self) -> str:
        return f"KommoClient({self._api})"

    def leads_by_id(self, ids: Iterable[int], *, with_: Sequence[str] = ()) -> dict[int, Entity]:
        """The leads that exist among these, by id; one call per 250.

        Args:
            ids: lead ids, repetitions allowed.
            with_: ``contacts``, ``loss_reason``, ``source_id``...: what is embedded on demand.
        """
        return self._by_id("leads", ids, with_)

    def contacts_by_id(self, ids: Iterable[int], *, with_: Sequence[str] = ()) -> dict[int, Entity]:
        """The contacts that exist among these, as ``leads_by_id``."""
        return self._by_id("contacts", ids, with_)

    def companies_by_id(
        self, ids: Iterable[int], *, with_: Sequence[str] = ()
    ) -> dict[int, Entity]:
        """The companies that exist among these, as ``leads_by_id``."""
        return self._by_id("companies", ids, with_)

    def lead_pages(
        self,
        *,
        updated_from: datetime | None = None,
        created: tuple[datetime, datetime] | None = None,
        with_: Sequence[str] = (),
    ) -> Iterator[list[Entity]]:
        """All leads, a page of up to 250 at a time, those changed longest ago first.

        Numbered pages shift while people work, and a lead would be missed (reference 7.7). So the
        next page is asked for by the time of the last lead: one that is edited meanwhile moves to
        the end and comes again, and none is left out.

        Args:
            updated_from: only leads changed at or after this instant (aware).
            created: only leads created from the one instant to the other, both included.
            with_: as in ``leads_by_id``.
        """
        common = [("limit", str(PAGE_SIZE)), ("order[updated_at]", "asc"), *_with(with_)]
        first_made, last_made = (int(at.timestamp()) for at in created) if created else (0, 0)
        if created:
            common.append(("filter[created_at][from]", str(first_made)))
            common.append(("filter[created_at][to]", str(last_made)))
        start = int(updated_from.timestamp()) if updated_from else None
        while True:
            params = list(common)
            if start is not None:
                # A bare filter[updated_at] would match one second only (reference 7.8).
                params.append(("filter[updated_at][from]", str(start)))
            for page in filter(None, self._pages("leads", "leads", params)):
                made = [_number(lead, "created_at") for lead in page if created]
                _require(all(first_made <= at <= last_made for at in made), "created_at")
                yield page
                first, last = (
                    _number(lead, "updated_at") if lead.get("updated_at") else 0
                    for lead in (page[0], page[-1])
                )
                # Whoever ignores the filter or the order is read page by page after all.
                if len(page) == PAGE_SIZE and last > max(start or 0, first):
                    start = last
                    break
            else:
                return

    def account(self) -> Entity:
        """The account, with its time zone under ``_embedded.datetime_settings``."""
        return self._object("GET", "account", urlencode({"with": "datetime_settings"}))

    def pipelines(self) -> list[Entity]:
        """Every pipeline with its stages under ``_embedded.statuses``."""
        return self._all("leads/pipelines", "pipelines")

    def users(self) -> list[Entity] | None:
        """Every user, or None if the token's user may not list them (it takes an admin)."""
        try:
            return self._all("users", "users", [("limit", str(PAGE_SIZE))])
        except NotGranted as refused:
            if refused.status != 403:
                raise
            return None

    def custom_fields(self, entity: EntityKind) -> list[Entity]:
        """Every custom field, all pages (Kommo may cap a page at 50, reference 8.9)."""
        return self._all(f"{entity}/custom_fields", "custom_fields", [("limit", str(PAGE_SIZE))])

    def loss_reasons(self) -> list[Entity]:
        """Every loss reason; none where the account does not offer them."""
        try:
            return self._all("leads/loss_reasons", "loss_reasons")
        except NotGranted as refused:
            if refused.status not in {403, 404}:
                raise
            return []

    def update_leads(self, items: Sequence[Mapping[str, Any]]) -> list[Entity]:
        """Change up to 250 leads in one call; Kommo takes all of them or none.

        Args:
            items: each with ``id`` and only the fields that change (reference 3.5).

        Returns:
            ``{"id", "updated_at"}`` of each, as Kommo answers.

        Raises:
            ValueError: more than 250 items, or one that JSON cannot hold.
        """
        if len(items) > PAGE_SIZE:
            raise ValueError(f"{len(items)} leads in one call; Kommo takes {PAGE_SIZE}")
        return _embedded(self._object("PATCH", "leads", payload=list(items)), "leads")

    def webhooks(self) -> list[Entity]:
        """Every webhook of the account, as registered."""
        return self._all("webhooks", "webhooks")

    def subscribe(self, destination: str, events: Sequence[str]) -> Entity:
        """Register a webhook, or change the events of the one with this destination.

        Args:
            destination: the receiver's URL; it carries the secret and appears in no error.
            events: e.g. ``add_lead``, ``status_lead`` (reference 6.1).
        """
        payload = {"destination": destination, "settings": list(events)}
        return self._object("POST", "webhooks", payload=payload, secret=destination)

    def unsubscribe(self, destination: str) -> None:
        """Remove the webhook with this destination; none there is as good."""
        try:
            payload = {"destination": destination}
            self._call("DELETE", "webhooks", payload=payload, secret=destination)
        except NotGranted as refused:
            if refused.status != 404:
                raise

    def _by_id(
        self, name: EntityKind, ids: Iterable[int], with_: Sequence[str] = ()
    ) -> dict[int, Entity]:
        wanted = list(dict.fromkeys(ids))
        found: dict[int, Entity] = {}
        for start in range(0, len(wanted), PAGE_SIZE):
            some = wanted[start : start + PAGE_SIZE]
            params = [("limit", str(PAGE_SIZE)), *_with(with_)]
            params += [("filter[id][]", str(wanted_id)) for wanted_id in some]
            for page in self._pages(name, name, params):
                found.update(_only(some, page))
        return found

    def _all(self, path: str, name: str, params: Sequence[tuple[str, str]] = ()) -> list[Entity]:
        return [item for page in self._pages(path, name, params) for item in page]

    def _pages(
        self, path: str, name: str, params: Sequence[tuple[str, str]]
    ) -> Iterator[list[Entity]]:
        query: str | None = urlencode(params)
        seen: set[str] = set()
        while query is not None:
            if query in seen:
                raise _unreadable("its next page is one it has given already")
            seen.add(query)
            answer = self._call("GET", path, query)
            if answer is None:  # 204: nothing found, or past the end (reference 3.1)
                return
            yield _embedded(answer, name)
            query = _next_query(answer)

    def _object(
        self, method: str, path: str, query: str = "", *, payload: object = None, secret: str = ""
    ) -> Entity:
        answer = self._call(method, path, query, payload=payload, secret=secret)
        if answer is None:
            raise _unreadable("an empty answer where one was due")
        return answer

    def _call(
        self, method: str, path: str, query: str = "", *, payload: object = None, secret: str = ""
    ) -> Entity | None:
        """One call and its meaning: the JSON object, None for 204, or the error it amounts to."""
        body = None if payload is None else json.dumps(payload, allow_nan=False).encode()
        auth = _Bearer(self._token())
        url = self._api + path + (f"?{query}" if query else "")
        outcome = self._try(method, url, body, auth)
        if method == "GET" and isinstance(outcome, Exception) and dropped(outcome):
            outcome = self._try(method, url, body, auth)
        if self._renew and not isinstance(outcome, Exception) and outcome.status_code == 401:
            # A refused call was not carried out, whatever it was: it may be made again.
            self._renew(auth.token)
            auth = _Bearer(self._token())
            outcome = self._try(method, url, body, auth)
        if isinstance(outcome, Exception):
            raise classify_lost(outcome)
        self.server_ahead_seconds = server_ahead_seconds(
            outcome, self._clock, self.server_ahead_seconds
        )
        if outcome.status_code == 204:
            return None
        answer = _json(outcome) if 200 <= outcome.status_code < 300 else None
        if answer is None:
            raise self._failure(outcome, (auth.token, secret))
        return answer

    def _try(
        self, method: str, url: str, body: bytes | None, auth: _Bearer
    ) -> requests.Response | requests.RequestException:
        # The error is a value, not a cause: it holds the request and with it the token, which
        # a chained traceback or an error reporter would show.
        with self._budget.slot():
            try:
                return self._session.request(
                    method,
                    url,
                    data=body,
                    auth=auth,
                    headers={"Content-Type": "application/json"} if body else None,
                    timeout=self._timeout,
                    allow_redirects=False,
                )
            except requests.RequestException as error:
                return error

    def _failure(self, response: requests.Response, secrets: tuple[str, ...]) -> SyncError:
        body = response.content.decode("utf-8", "replace")
        for secret in filter(None, secrets):
            body = body.replace(secret, "[secret]").replace(secret.replace("/", "\\/"), "[secret]")
        content_type = response.headers.get("Content-Type", "")
        failure = classify(response.status_code, response.headers, body, content_type)
        if isinstance(failure, SideUnavailable) and failure.reason == "rate_limited":
            wait = failure.retry_after_seconds
            self._budget.throttled(THROTTLE_SECONDS if wait is None else wait)
        return failure


class _Bearer(AuthBase):
    """Puts the token into one request; as ``auth`` it also keeps .netrc from replacing it."""

    def __init__(self, token: str) -> None:
        remedy = "Copy the long-lived token again, without spaces or line breaks."
        require_token(token, "kommo", "KOMMO_TOKEN", remedy)
        self.token = token

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        r.headers["Authorization"] = f"Bearer {self.token}"
        return r


def _with(names: Sequence[str]) -> list[tuple[str, str]]:
    return [("with", ",".join(names))] if names else []


def _only(wanted: Sequence[int], page: Sequence[Entity]) -> dict[int, Entity]:
    found = {_number(item, "id"): item for item in page}
    _require(found.keys() <= set(wanted), "id")
    return found


def _require(asked_for: bool, name: str) -> None:
    if not asked_for:
        # amoCRM sells filters as an add-on (reference 3.1); without it we would read the account.
        raise ConfigurationError(
            f"Kommo answered items that were not asked for: it ignores filter[{name}].",
            "Ask Kommo's support to switch on API filters for the account.",
            side="kommo",
        )


def _json(response: requests.Response) -> Entity | None:
    try:
        parsed: object = json.loads(response.content)
    except (ValueError, RecursionError):
        return None
    return cast("Entity", parsed) if isinstance(parsed, dict) else None


def _embedded(answer: Entity, name: str) -> list[Entity]:
    """The items of a list. A failed read is not an empty answer, so a missing list is an error."""
    embedded: object = answer.get("_embedded")
    items: object = cast("Entity", embedded).get(name) if isinstance(embedded, dict) else None
    if not items and answer.get("_total_items") == 0:
        return []
    if not isinstance(items, list):
        raise _unreadable(f"no list of {name}")
    if not all(isinstance(item, dict) for item in cast("list[object]", items)):
        raise _unreadable(f"something else among the {name}")
    return cast("list[Entity]", items)


def _number(item: Entity, name: str) -> int:
    try:
        return int(item[name])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _unreadable(f"no number for {name}") from error


def _next_query(answer: Entity) -> str | None:
    # Only the query is taken: the token never follows a link to another host.
    try:
        return urlsplit(answer["_links"]["next"]["href"] or "").query or None
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _unreadable(what: str) -> SideUnavailable:
    return SideUnavailable("kommo", "server_error", f"an answer that cannot be right: {what}")
