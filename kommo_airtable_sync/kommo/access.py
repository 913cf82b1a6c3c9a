"""Access to Kommo by OAuth: one exchange at a time among all processes, stored before it is used.

The order that keeps everybody in: take the lease and note that the refresh token is being
exchanged; ask; store the answer; only then use it. Whoever dies in between leaves a lease that runs
out and a refresh token that the next one tries again (reference/kommo-api 1.2).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import requests

from kommo_airtable_sync.core.errors import ConfigurationError, SideUnavailable, SyncError
from kommo_airtable_sync.core.oauth import (
    Consent,
    Grant,
    find_code,
    is_fresh,
    is_usable,
    may_ask,
    read_grant,
)
from kommo_airtable_sync.core.ports import Budget, Clock
from kommo_airtable_sync.kommo.errors import classify, classify_lost

WAIT_SECONDS = 60.0
LOOK_SECONDS = 0.1
AUTHORIZE = "kommo-airtable-sync authorize CODE"


class ConsentRefused(SideUnavailable):
    """Kommo gives no access for this code or refresh token: a person must give consent again."""

    def __init__(self, detail: str) -> None:
        super().__init__("kommo", "unauthorized", f"{detail} Give it again: `{AUTHORIZE}`.")


class ConsentStore(Protocol):
    """Where the account's consent is kept, shared by all processes."""

    def load(self) -> Consent | None:
        """The consent as it stands."""
        ...

    def seed(self, refresh_token: str) -> None:
        """Take a refresh token that a person has set, unless it was taken before."""
        ...

    def begin(self) -> Consent | None:
        """Take the right to exchange; None while another process has it."""
        ...

    def keep(self, grant: Grant, generation: int | None) -> bool:
        """Store a grant that was got on this generation; False if a newer one is there."""
        ...

    def give_up(self, lease_id: int, *, refused: bool) -> None:
        """The exchange brought nothing."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class Integration:
    """The integration's keys, as its page in Kommo shows them; no repr shows them.

    Args:
        redirect_uri: exactly as in the integration's settings.
        refresh_token: one that a person has set, or empty.
    """

    client_id: str
    client_secret: str
    redirect_uri: str
    refresh_token: str = ""


class KommoAccess:
    """The access token of the moment.

    Args:
        base_url: the account's address, without a path.
        integration: whom consent was given to.
        store: shared by all processes.
        budget: the token endpoint counts like any other.
        clock: by which tokens age.
        timeout: connect and read, in seconds; together less than the store's lease.
    """

    def __init__(
        self,
        base_url: str,
        integration: Integration,
        store: ConsentStore,
        budget: Budget,
        clock: Clock,
        *,
        timeout: tuple[float, float] = (3.05, 15.0),
    ) -> None:
        self._url = base_url.rstrip("/") + "/oauth2/access_token"
        self._integration = integration
        self._store = store
        self._budget = budget
        self._clock = clock
        self._timeout = timeout
        self._held: Grant | None = None

    def __repr__(self) -> str:
        return f"KommoAccess({self._url})"

    def token(self) -> str:
        """An access token, renewed beforehand if it is time.

        Raises:
            ConfigurationError: if nobody has given consent yet.
            SideUnavailable: if there is none that works, and none to be had now.
        """
        held = self._held
        if held is None or not is_fresh(held, self._now()):
            held = self._held = self._renewed()
        return held.access_token

    def renew(self, refused: str) -> None:
        """Get another token than this one, which Kommo has answered with 401.

        Raises:
            SideUnavailable: as ``token``.
        """
        self._held = self._renewed(refused)

    def authorize(self, code: str) -> Grant:
        """The first exchange: a code that a person got by giving consent, within 20 minutes.

        Args:
            code: itself, or the whole address to which Kommo sent the person back.

        Raises:
            ConsentRefused: if Kommo does not take it.
        """
        found = find_code(code)
        if not found:
            raise ConfigurationError(
                "There is no code in that address.", f"Give what follows `code=`: `{AUTHORIZE}`."
            )
        self._store.seed(self._integration.refresh_token)  # so that it does not come later
        grant = self._ask({"grant_type": "authorization_code", "code": found})
        self._store.keep(grant, None)
        self._held = grant
        return grant

    def _renewed(self, refused: str = "") -> Grant:
        self._store.seed(self._integration.refresh_token)
        deadline = self._now() + WAIT_SECONDS
        while True:
            consent, now = self._store.load(), self._now()
            if consent is None:
                raise ConfigurationError(
                    "Nobody has given this integration access to the Kommo account yet.",
                    f"Run `{AUTHORIZE}`; its --help says where the code is.",
                    side="kommo",
                )
            if is_fresh(consent.grant, now, refused):
                return consent.grant
            usable = is_usable(consent.grant, now, refused)
            if may_ask(consent, now, usable=usable):
                self._exchange(refused, usable=usable)
            elif not usable:
                raise ConsentRefused("Kommo has refused to renew our access.")
            consent = self._store.load()
            if consent is not None and is_usable(consent.grant, now, refused):
                return consent.grant
            if self._now() > deadline:
                raise SideUnavailable("kommo", "timeout", "access is not renewed by anybody")
            self._clock.sleep(LOOK_SECONDS)

    def _exchange(self, unwanted: str, *, usable: bool) -> None:
        """Exchange the refresh token, unless another process does; failing is no matter if usable.

        Raises:
            SyncError: what the call amounts to, if nothing usable is in hand.
        """
        taken = self._store.begin()
        if taken is None:
            return
        # Between our look and our turn another process may have had its own.
        known = replace(taken, asked_at=None)
        if is_fresh(taken.grant, self._now(), unwanted) or not may_ask(
            known, self._now(), usable=usable
        ):
            self._store.give_up(taken.lease_id, refused=False)
            return
        try:
            token = taken.grant.refresh_token
            grant = self._ask({"grant_type": "refresh_token", "refresh_token": token})
        except SyncError as error:
            self._store.give_up(taken.lease_id, refused=isinstance(error, ConsentRefused))
            if usable:
                return
            raise
        self._store.keep(grant, taken.generation)

    def _ask(self, what: Mapping[str, str]) -> Grant:
        """One call of the token endpoint. It is not repeated: it may have been carried out."""
        mine = self._integration
        asked = {
            "client_id": mine.client_id,
            "client_secret": mine.client_secret,
            "redirect_uri": mine.redirect_uri,
            **what,
        }
        answer = self._post(json.dumps(asked).encode())
        if isinstance(answer, requests.RequestException):
            raise classify_lost(answer)
        grant = read_grant(answer.content, self._now()) if answer.status_code == 200 else None
        if grant is not None:
            return grant
        # The endpoint's own words may quote what was sent: only the kind of trouble is told.
        kind = answer.headers.get("Content-Type", "")
        failure = classify(answer.status_code, answer.headers, b"", kind)
        if answer.status_code in {400, 401} and "json" in kind:
            raise ConsentRefused(f"Kommo refuses our consent (HTTP {answer.status_code}).")
        if isinstance(failure, SideUnavailable) and failure.reason == "rate_limited":
            self._budget.throttled(failure.retry_after_seconds or 1.0)
        raise failure

    def _post(self, body: bytes) -> requests.Response | requests.RequestException:
        # As a value, for the error holds the request and so the secret.
        with self._budget.slot():
            try:
                return requests.post(
                    self._url,
                    data=body,
                    headers={"Content-Type": "application/json"},
                    auth=_as_it_is,
                    timeout=self._timeout,
                    allow_redirects=False,
                )
            except requests.RequestException as error:
                return error

    def _now(self) -> float:
        return self._clock.now().timestamp()


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps .netrc from adding a password of its own."""
    return request
