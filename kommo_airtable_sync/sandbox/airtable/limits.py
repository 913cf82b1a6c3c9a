"""Rate limits and the monthly quota (reference section 2)."""

from __future__ import annotations

from kommo_airtable_sync.sandbox.airtable.refusal import Refusal, quota_spent, rate_limited
from kommo_airtable_sync.sandbox.airtable.settings import Settings
from kommo_airtable_sync.sandbox.http_log import RateWindow


class Limits:
    """5 calls a second for a base and 50 for a token, and what follows an excess.

    Args:
        settings: read, and the used quota written, at each call.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._bases = RateWindow(settings.requests_per_second)
        self._tokens = RateWindow(settings.token_requests_per_second)
        self._locked_until: dict[str, float] = {}

    def check(self, at: float, base: str, token: str, *, counts_for_quota: bool) -> Refusal | None:
        """Count one call; the 429 it gets, if it does.

        Args:
            at: arrival, epoch seconds.
            base: base id, ``""`` for calls on none.
            token: the caller, ``""`` if unknown.
            counts_for_quota: False for schema calls, which go on without quota.
        """
        wait = 0.0 if self._settings.rate_limit == "off" else self._wait(at, base, token)
        if wait > 0:
            retry_after = str(max(1, round(wait))) if self._settings.retry_after else None
            return rate_limited(shape=self._settings.throttle_shape, retry_after=retry_after)
        quota = self._settings.monthly_quota
        if quota is None or not counts_for_quota:
            return None
        if self._settings.quota_used >= quota:
            return quota_spent()
        self._settings.quota_used += 1
        return None

    def _wait(self, at: float, base: str, token: str) -> float:
        """Seconds this call is asked to wait; 0 = it is within the limits."""
        settings = self._settings
        self._bases.limit = settings.requests_per_second
        self._tokens.limit = settings.token_requests_per_second
        locked = max(self._locked_until.get(key, at) - at for key in (base, token))
        if locked > 0 and settings.rate_limit == "strict":
            return locked
        windows = ((self._bases, base), (self._tokens, token))
        late = [key for window, key in windows if key and not window.admit(at, key)]
        if not late:
            return 0.0
        lock = settings.lock_seconds * settings.lock_scale
        if settings.rate_limit == "strict":
            self._locked_until.update({key: at + lock for key in late})
        return max(lock, 0.001)
