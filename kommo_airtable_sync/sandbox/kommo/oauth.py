"""Kommo's token endpoint: codes, rotating refresh tokens, access that ends (reference 1.2)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from kommo_airtable_sync.sandbox.kommo.answers import Answer, hal, parsed
from kommo_airtable_sync.sandbox.kommo.seed import ADMIN_ID
from kommo_airtable_sync.sandbox.kommo.settings import Settings

TOKEN_PATH = "/oauth2/access_token"  # noqa: S105 - an address
CLIENT_ID = "sandbox-client-id"
CLIENT_SECRET = "sandbox-client-secret"  # noqa: S105 - opens nothing but the stand-in
REDIRECT_URI = "https://sandbox.example/oauth"
CODE_SECONDS = 20 * 60
REFRESH_SECONDS = 90 * 86_400

Json = dict[str, Any]


@dataclass(slots=True)
class _Refresh:
    """A refresh token; ``successor`` once it was exchanged."""

    issued_at: float
    access: str
    successor: str = ""


class OAuth:
    """Codes and tokens of one integration. The model's lock guards it.

    Args:
        settings: ``oauth_access_seconds``, ``oauth_grace``.
        tokens: access tokens that open the API, by user; shared with the model.
    """

    def __init__(self, settings: Settings, tokens: dict[str, int]) -> None:
        self._settings = settings
        self._tokens = tokens
        self._codes: dict[str, float] = {}
        self._refresh: dict[str, _Refresh] = {}
        self._ends: dict[str, float] = {}
        self._used: set[str] = set()
        self._serial = 0
        self.log: list[str] = []
        """What each call came to: ``code``, ``refresh``, ``refused``."""

    def new_code(self, now: float) -> str:
        """What a person gets by giving consent."""
        self._serial += 1
        code = f"code-{self._serial}"
        self._codes[code] = now + CODE_SECONDS
        return code

    def revoke(self) -> None:
        """The account's administrator takes consent back: every token dies."""
        for access in self._ends:
            self._tokens.pop(access, None)
        self._ends.clear()
        self._refresh.clear()

    def opens(self, access: str, now: float) -> bool:
        """Whether an access token is not over; notes that it was used."""
        self._used.add(access)
        return now < self._ends.get(access, float("inf"))

    def as_json(self) -> Json:
        """For the stage crew: calls, and how many grants were ever used."""
        used = sum(each.access in self._used for each in self._refresh.values())
        return {"log": self.log, "grants_used": used}

    def answer(self, body: bytes, now: float) -> Answer:
        """One exchange."""
        asked: Json = parsed(body, dict)
        known = (CLIENT_ID, CLIENT_SECRET, REDIRECT_URI)
        keys = ("client_id", "client_secret", "redirect_uri")
        kind = asked.get("grant_type")
        if tuple(asked.get(key) for key in keys) == known:
            ends = self._codes.pop(str(asked.get("code")), 0.0)
            if kind == "authorization_code" and now < ends:
                self.log.append("code")
                return self._granted("", now)
            if kind == "refresh_token" and self._is_good(str(asked.get("refresh_token")), now):
                self.log.append("refresh")
                return self._granted(str(asked["refresh_token"]), now)
        self.log.append("refused")
        return _revoked()

    def _is_good(self, token: str, now: float) -> bool:
        found = self._refresh.get(token)
        if found is None or now > found.issued_at + REFRESH_SECONDS:
            return False
        if not found.successor:
            return True
        # Kommo: the old one stays usable until the new one is used; amoCRM: it is dead.
        new = self._refresh[found.successor]
        return self._settings.oauth_grace and not new.successor and new.access not in self._used

    def _granted(self, old: str, now: float) -> Answer:
        self._serial += 1
        access, refresh = f"access-{self._serial}", f"refresh-{self._serial}"
        seconds = self._settings.oauth_access_seconds
        if old:
            self._refresh[old].successor = refresh
        self._refresh[refresh] = _Refresh(now, access)
        self._tokens[access] = ADMIN_ID
        self._ends[access] = now + seconds
        shown: Json = {"token_type": "Bearer", "expires_in": seconds, "server_time": int(now)}
        return hal(shown | {"access_token": access, "refresh_token": refresh}, 200, "json")


def _revoked() -> Answer:
    """The captured answer to a spent refresh token."""
    body = {
        "hint": "Token has been revoked",
        "title": "Некорректный запрос",
        "type": "https://developers.amocrm.ru/v3/errors/OAuthProblemJson",
        "status": 401,
        "detail": "В запросе отсутствует ряд параметров или параметры невалидны",
    }
    return Answer(401, {"Content-Type": "application/problem+json"}, json.dumps(body).encode())
