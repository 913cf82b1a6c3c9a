"""What can be turned on the Kommo stand-in while it runs, and who it pretends to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from kommo_airtable_sync.sandbox.rounding import Rounding

SANDBOX_TOKEN = "sandbox-kommo-token"  # noqa: S105 - opens nothing but the stand-in


@dataclass(slots=True)
class Account:
    """The account the stand-in serves; ``timezone`` is where ``date`` values are midnights."""

    id: int = 35379952
    subdomain: str = "sandbox"
    domain: str = "kommo.com"
    name: str = "Sandbox"
    timezone: str = "Europe/Berlin"
    currency: str = "EUR"

    @property
    def url(self) -> str:
        """The account's public address."""
        return f"https://{self.subdomain}.{self.domain}"


class Settings(BaseModel):
    """Limits, switches and knobs; times in seconds, chances 0 to 1.

    A switch is here only where the reference knows two behaviours, and both must be survived; its
    first value is the one the docs favour.

    Attributes:
        latency_seconds: each call waits so long before it is applied.
        requests_per_second: sliding window over all callers (reference 2).
        violations_before_block: so many 429s turn every answer into the 403 page; 0 = never.
        too_many_variant: how a 429 says when to come back (reference 8.5).
        token_is_admin: whether the token may list users and manage webhooks.
        token_sees_leads: without the right to see leads, every read of them is a 204.
        patch_missing: a batch PATCH that names a lead which is gone: refused whole, or that item is
            left out of the answer.
        decimal_price: a whole number is documented, some clients write floats, and newer accounts
            show ``price_with_minor_units`` (reference 3.2).
        price_rounding: how prices are kept, if not as written.
        noop_touches: a PATCH that changes nothing still moves ``updated_at`` and fires hooks.
        tags_touch: a change of tags alone moves ``updated_at`` and fires hooks (reference 8.8).
        hook_account_last: the account block ends the webhook body (captures until 2021).
        hooks_per_post: at most so many changes share one POST.
        hook_duplicate, hook_lose, hook_late: chance that a delivery comes twice, never, or
            ``hook_late_seconds`` later.
        hook_lose_codes: ``hook_lose`` hits only bodies with these event codes; empty = all.
        hook_reorder_seconds: each delivery is held for a random time up to this.
        hook_timeout_seconds: a slower answer counts as none.
        hook_retry_scale: factor on the retry ladder of 5, 15, 15 and 60 minutes.
        hook_invalid_limit: more invalid answers than this in two hours switch the hook off.
        post_reenables: subscribing a disabled destination again switches it on (reference 6.4).
        dp_destination: where Digital Pipeline hooks with their five ids go on stage changes.
        oauth_access_seconds: how long an access token of OAuth lasts.
        oauth_grace: an exchanged refresh token stays good until its successor is used (Kommo says
            so once), or is dead at once (amoCRM, and Kommo elsewhere; reference 1.2).
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    latency_seconds: float = Field(default=0.0, ge=0)
    requests_per_second: int = Field(default=7, ge=1)
    violations_before_block: int = Field(default=100, ge=0)
    too_many_variant: Literal["json", "header", "text"] = "json"
    retry_after_seconds: int = 1
    token_is_admin: bool = True
    token_sees_leads: bool = True
    patch_missing: Literal["refuse", "skip"] = "refuse"
    decimal_price: bool = False
    price_rounding: Rounding | None = None
    noop_touches: bool = False
    tags_touch: bool = True
    hook_account_last: bool = False
    hooks_per_post: int = Field(default=1, ge=1)
    hook_duplicate: float = Field(default=0.0, ge=0, le=1)
    hook_lose: float = Field(default=0.0, ge=0, le=1)
    hook_late: float = Field(default=0.0, ge=0, le=1)
    hook_late_seconds: float = Field(default=300.0, ge=0)
    hook_lose_codes: list[str] = []
    hook_reorder_seconds: float = Field(default=0.0, ge=0)
    hook_timeout_seconds: float = Field(default=2.0, gt=0)
    hook_retry_scale: float = Field(default=1.0, ge=0)
    hook_invalid_limit: int = Field(default=100, ge=0)
    post_reenables: bool = False
    dp_destination: str = ""
    oauth_access_seconds: int = Field(default=86_400, ge=1)
    oauth_grace: bool = True
