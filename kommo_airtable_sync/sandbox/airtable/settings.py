"""What can be switched while the stand-in runs, and the limits that follow from it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from kommo_airtable_sync.sandbox.airtable.refusal import Refusal, too_many
from kommo_airtable_sync.sandbox.http_log import RateWindow


class Settings(BaseModel):
    """The JSON of ``/_control/settings``. Section numbers are those of the API reference.

    Attributes:
        latency_seconds: every call waits so long before it is applied.
        rate_limit: ``strict`` = after an excess every call is a 429 for 30 s x ``lock_scale``;
            ``soft`` = only the calls in excess are refused; ``off`` (section 2).
        requests_per_second: of a base, all tokens together.
        token_requests_per_second: of a token, all bases together.
        throttle_shape: body of a rate 429: as documented or as seen on the wire (1.10).
        retry_after: send that header with a rate 429 (unknown).
        monthly_quota: record calls a month; None = no limit. Schema calls go on (section 2).
        quota_used: calls counted so far.
        serialised_upserts: False = an upsert does not see rows created after it arrived, so that
            concurrent upserts of a new key all create (section 8).
        several_matches_type: error type when a key matches several rows (unknown).
        missing: a missing record or table is the 403 of today's docs or the 404 of 2022 (1.3).
        offset_life_seconds: a page's offset dies after so long without use (1.2).
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    latency_seconds: float = Field(default=0.0, ge=0)
    rate_limit: Literal["strict", "soft", "off"] = "strict"
    requests_per_second: int = Field(default=5, ge=1)
    token_requests_per_second: int = Field(default=50, ge=1)
    lock_scale: float = Field(default=1.0, ge=0)
    throttle_shape: Literal["error", "errors"] = "errors"
    retry_after: bool = False
    monthly_quota: int | None = Field(default=None, ge=0)
    quota_used: int = Field(default=0, ge=0)
    serialised_upserts: bool = True
    several_matches_type: str = "INVALID_RECORDS"
    missing: Literal["403", "404"] = "403"
    offset_life_seconds: float = Field(default=300.0, gt=0)


class Limits:
    """The limits of bases and tokens, and the monthly quota (reference section 2)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._bases = RateWindow(settings.requests_per_second)
        self._tokens = RateWindow(settings.token_requests_per_second)
        self._locked_until: dict[str, float] = {}

    def check(self, at: float, base: str, token: str, *, counts_for_quota: bool) -> Refusal | None:
        """Count one call that arrives at ``at`` (epoch seconds); the 429 it gets, if it does."""
        settings = self._settings
        wait = None if settings.rate_limit == "off" else self._wait(at, base, token)
        if wait is not None:
            announced = wait if settings.retry_after else None
            return too_many("RATE_LIMIT_REACHED", settings.throttle_shape, announced)
        if settings.monthly_quota is None or not counts_for_quota:
            return None
        if settings.quota_used >= settings.monthly_quota:
            return too_many("PUBLIC_API_BILLING_LIMIT_EXCEEDED")
        settings.quota_used += 1
        return None

    def _wait(self, at: float, base: str, token: str) -> float | None:
        """Seconds this call is asked to wait; None = it is within the limits."""
        settings = self._settings
        self._bases.limit = settings.requests_per_second
        self._tokens.limit = settings.token_requests_per_second
        strict = settings.rate_limit == "strict"
        locked = max(self._locked_until.get(key, at) - at for key in (base, token))
        if strict and locked > 0:
            return locked
        windows = ((self._bases, base), (self._tokens, token))
        late = [key for window, key in windows if key and not window.admit(at, key)]
        lock = 30.0 * settings.lock_scale
        if strict:
            self._locked_until.update({key: at + lock for key in late})
        return lock if late else None
