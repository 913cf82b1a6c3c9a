"""What can be switched while the stand-in runs: limits, latency, and the reference's unknowns."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """The JSON of ``/_control/settings``. Section numbers are those of the API reference.

    Attributes:
        latency_seconds: every call waits so long before it is applied.
        rate_limit: ``strict`` = after an excess every call is a 429 for ``lock_seconds`` x
            ``lock_scale``; ``soft`` = only the calls in excess are refused; ``off`` (section 2).
        requests_per_second: of a base, all tokens together.
        token_requests_per_second: of a token, all bases together.
        throttle_shape: body of a rate 429: as documented or as seen on the wire (1.10).
        retry_after: send that header with a 429 (unknown).
        monthly_quota: record calls a month; None = no limit. Schema calls go on (section 2).
        quota_used: calls counted so far.
        serialised_upserts: False = rows are matched when the call arrives, so that concurrent
            upserts of a new key all create (section 8).
        merge_types: field types upsert may merge on besides the documented ones (unknown).
        same_new_key: one upsert with two rows of the same new key creates both, or is refused.
        several_matches_type: error type when a key matches several rows (unknown).
        missing: a missing record or table is the 403 of today's docs or the 404 of 2022 (1.3).
        offset_life_seconds: a page's offset dies after so long without use (1.2).
        unparseable_status: for a body that is not JSON (1.10 knows both).
        long_url_status: for a URL over 16,000 characters (unknown).
        max_body_bytes: above it, 413 (size not documented).
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    latency_seconds: float = Field(default=0.0, ge=0)
    rate_limit: Literal["strict", "soft", "off"] = "strict"
    requests_per_second: int = Field(default=5, ge=1)
    token_requests_per_second: int = Field(default=50, ge=1)
    lock_seconds: float = Field(default=30.0, ge=0)
    lock_scale: float = Field(default=1.0, ge=0)
    throttle_shape: Literal["error", "errors"] = "errors"
    retry_after: bool = False
    monthly_quota: int | None = Field(default=None, ge=0)
    quota_used: int = Field(default=0, ge=0)
    serialised_upserts: bool = True
    merge_types: list[str] = []
    same_new_key: Literal["create", "refuse"] = "create"
    several_matches_type: str = "INVALID_RECORDS"
    missing: Literal["403", "404"] = "403"
    offset_life_seconds: float = Field(default=300.0, gt=0)
    unparseable_status: Literal[400, 422] = 400
    long_url_status: int = Field(default=414, ge=400, le=499)
    max_body_bytes: int = Field(default=5_000_000, ge=1)
