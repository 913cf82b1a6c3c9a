"""What can be switched while the stand-in runs, and the limits that follow from it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from kommo_airtable_sync.sandbox.airtable.refusal import Refusal, too_many
from kommo_airtable_sync.sandbox.http_log import RateWindow
from kommo_airtable_sync.sandbox.rounding import Rounding


class Settings(BaseModel):
    """The JSON of ``/_control/settings``. Section numbers are those of the API reference."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    # Every call waits so long before it is applied.
    latency_seconds: float = Field(default=0.0, ge=0)
    # strict: after an excess every call is a 429 for 30 s x lock_scale; soft: only the excess (2).
    rate_limit: Literal["strict", "soft", "off"] = "strict"
    lock_scale: float = Field(default=1.0, ge=0)
    # Of a base, all tokens together; a token has 50, all bases together.
    requests_per_second: int = Field(default=5, ge=1)
    # Record calls a month, None = no limit; schema calls go on (2).
    monthly_quota: int | None = Field(default=None, ge=0)
    quota_used: int = Field(default=0, ge=0)
    # False: an upsert does not see rows created after it arrived, so that concurrent ones of a
    # new key all create (8).
    serialised_upserts: bool = True
    # A missing record or table: the 403 of today's docs, or the 404 of 2022 (1.3).
    missing: Literal["403", "404"] = "403"
    # Number field's name or id -> how its numbers are kept.
    rounding: dict[str, Rounding] = {}
    # How a payload shows a cell that was emptied (unknown), and the most changed records in one; a
    # bigger action is split over several, 0 = never (5.4, 5.5).
    cleared_cells: Literal["null", "absent"] = "null"
    payload_records: int = Field(default=0, ge=0)
    # Pings (5.3): held so long, on top of retries at 10 s, 20 s, 40 s... x ping_retry_scale.
    ping_seconds: float = Field(default=0.0, ge=0)
    ping_timeout_seconds: float = Field(default=25.0, gt=0)
    ping_retry_scale: float = Field(default=1.0, ge=0)
    # Automations (6): how long after the change they run, and up to how much later at random; the
    # chance that a POST is lost or sent twice.
    automation_seconds: float = Field(default=0.0, ge=0)
    automation_reorder_seconds: float = Field(default=0.0, ge=0)
    automation_lose: float = Field(default=0.0, ge=0, le=1)
    automation_duplicate: float = Field(default=0.0, ge=0, le=1)
    automation_timeout_seconds: float = Field(default=12.0, gt=0)
    # So many records a page, however many are asked for.
    page_records: int = Field(default=100, ge=1, le=100)
    # A page's offset dies after so long without use (1.2).
    offset_life_seconds: float = Field(default=300.0, gt=0)


class Limits:
    """The limits of bases and tokens, and the monthly quota (reference section 2)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._bases = RateWindow(settings.requests_per_second)
        self._tokens = RateWindow(50)
        self._locked_until: dict[str, float] = {}

    def check(self, at: float, base: str, token: str, *, counts_for_quota: bool) -> Refusal | None:
        """Count one call that arrives at ``at`` (epoch seconds); the 429 it gets, if it does."""
        settings = self._settings
        if settings.rate_limit != "off" and not self._admits(at, base, token):
            return too_many("RATE_LIMIT_REACHED")
        if settings.monthly_quota is None or not counts_for_quota:
            return None
        if settings.quota_used >= settings.monthly_quota:
            return too_many("PUBLIC_API_BILLING_LIMIT_EXCEEDED")
        settings.quota_used += 1
        return None

    def _admits(self, at: float, base: str, token: str) -> bool:
        settings = self._settings
        self._bases.limit = settings.requests_per_second
        strict = settings.rate_limit == "strict"
        if strict and any(self._locked_until.get(key, at) > at for key in (base, token)):
            return False
        windows = ((self._bases, base), (self._tokens, token))
        late = [key for window, key in windows if key and not window.admit(at, key)]
        if strict:
            self._locked_until.update({key: at + 30.0 * settings.lock_scale for key in late})
        return not late
