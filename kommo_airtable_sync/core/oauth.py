"""OAuth towards Kommo, decided: when access is renewed, and what the token endpoint said. Pure.

Sources: reference/kommo-api 1.2. An access token lasts a day; a refresh token lasts three months
and can be exchanged once: whether the old one stays good until the new one is used, the documents
say both ways. So access is renewed while much of it is left: whoever then loses an answer still has
hours in which a person can give consent again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

SHARE_LEFT_MIN = 1 / 3
"""Renewed once less than this share of its life is left."""
ASK_AGAIN_SECONDS = 60.0
"""After an exchange that brought nothing, while the access in hand still works."""
REFUSED_AGAIN_SECONDS = 900.0
"""After Kommo refused the refresh token: a person has to act, who may only mend a setting."""


@dataclass(frozen=True, slots=True, repr=False)
class Grant:
    """What the token endpoint gives; no repr shows it.

    Args:
        granted_at: by our clock, epoch seconds.
        expires_at: when the access token ends, epoch seconds.
    """

    access_token: str
    refresh_token: str
    granted_at: float
    expires_at: float


@dataclass(frozen=True, slots=True, repr=False)
class Consent:
    """The account's consent as it is stored; no repr shows its tokens.

    Args:
        grant: the newest one; its access token is empty until the first exchange.
        generation: counts grants: one that was got on an older generation is too late.
        asked_at: when an exchange of this refresh token began that has not ended well; it may
            have been carried out.
        refused_at: when Kommo refused this refresh token.
        lease_id: of the exchange that may be made now.
    """

    grant: Grant
    generation: int
    asked_at: float | None = None
    refused_at: float | None = None
    lease_id: int = 0


def is_usable(grant: Grant, now: float, refused: str = "") -> bool:
    """Whether the access token can still work.

    Args:
        grant: of any age.
        now: epoch seconds.
        refused: a token that Kommo has just answered with 401.
    """
    return grant.access_token not in ("", refused) and now < grant.expires_at


def is_fresh(grant: Grant, now: float, refused: str = "") -> bool:
    """Whether nobody need think of renewing it yet."""
    life = grant.expires_at - grant.granted_at
    return is_usable(grant, now, refused) and grant.expires_at - now > life * SHARE_LEFT_MIN


def may_ask(consent: Consent, now: float, *, usable: bool) -> bool:
    """Whether the refresh token may be exchanged now, or has lately failed to be."""
    if consent.refused_at is not None and now - consent.refused_at < REFUSED_AGAIN_SECONDS:
        return False
    lately = consent.asked_at is not None and now - consent.asked_at < ASK_AGAIN_SECONDS
    return not (usable and lately)


def read_grant(body: bytes, now: float) -> Grant | None:
    """The grant in a 200 answer of the token endpoint; None for anything else.

    Args:
        body: JSON, ``{"token_type", "expires_in", "access_token", "refresh_token", ...}``.
        now: epoch seconds.
    """
    try:
        answer: Any = json.loads(body)
        access, refresh = answer["access_token"], answer["refresh_token"]
        seconds = float(answer["expires_in"])
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None
    good = isinstance(access, str) and isinstance(refresh, str) and access and refresh
    return Grant(access, refresh, now, now + seconds) if good and 0 < seconds < 1e9 else None


def find_code(text: str) -> str:
    """The authorization code in what a person pastes: the code, or the address it came with."""
    text = text.strip()
    if "://" not in text:
        return text
    try:
        return (parse_qs(urlsplit(text).query).get("code") or [""])[0]
    except ValueError:
        return ""
