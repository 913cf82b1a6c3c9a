"""What ``doctor`` finds: one line each, ok, warning or problem, and what to do. Pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Literal

from kommo_airtable_sync.core.errors import SideUnavailable
from kommo_airtable_sync.core.oauth import Consent
from kommo_airtable_sync.core.quota import QuotaReport
from kommo_airtable_sync.core.types import Json

Level = Literal["ok", "warning", "problem"]
CLI = "kommo-airtable-sync"
# Both APIs stamp to the second, and `newest` takes edits within 2 s for a tie.
CLOCK_WARNING_SECONDS = 2.0
CLOCK_PROBLEM_SECONDS = 60.0
TOKEN_WARNING = timedelta(days=30)
EXPIRED = timedelta(0)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Args:
        check: what was looked at: ``settings``, ``kommo``, ``schema``...
        level: ``problem``: something does not work, or will not.
        message: what is so, one sentence; holds no secret.
        remedy: what to do, one sentence; ``""`` if there is nothing to do.
    """

    check: str
    level: Level
    message: str
    remedy: str = ""


def worst(found: Iterable[Finding]) -> Level:
    """The worst level of all."""
    levels = {each.level for each in found}
    return "problem" if "problem" in levels else "warning" if "warning" in levels else "ok"


_REMEDIES = {
    "unauthorized": "Set a new token, or its settings right: the account does not know this one.",
    "unreachable": "Is the machine connected, and the address right?",
    "blocked": "Write to the support of the account; asking on prolongs it.",
    "quota": "See what the account or the plan has left.",
}


def unavailable(check: str, outage: SideUnavailable) -> Finding:
    """A side that could not be asked."""
    remedy = _REMEDIES.get(outage.reason, "Try again in a minute.")
    return Finding(check, "problem", f"{outage}.".replace("..", "."), remedy)


def clock_skew(side: str, ahead_seconds: float | None) -> Finding:
    """How far the machine's clock is off, by an API's own.

    Args:
        side: whose clock.
        ahead_seconds: theirs less ours, to about a second; None: it did not say.
    """
    if ahead_seconds is None:
        return Finding("clock", "warning", f"{side} did not say what time it is.")
    off, by = abs(ahead_seconds), "behind" if ahead_seconds > 0 else "ahead of"
    if off <= CLOCK_WARNING_SECONDS:
        return Finding("clock", "ok", f"This machine's clock and {side}'s agree.")
    level: Level = "problem" if off > CLOCK_PROBLEM_SECONDS else "warning"
    message = f"This machine's clock is {off:.0f} s {by} {side}'s."
    return Finding("clock", level, message, "Let it be set by NTP (timedatectl set-ntp true).")


def quota(report: QuotaReport) -> Finding:
    """Airtable's monthly calls."""
    made = f"{report.used} calls to Airtable in {report.month}"
    if report.limit is None:
        remedy = "Set AIRTABLE_MONTHLY_CALLS to the plan's number (Free 1000, Team 100000)."
        return Finding("quota", "ok", f"{made}; they are counted, not governed.", remedy)
    if report.bulk == "full speed" and report.forecast <= report.limit:
        return Finding("quota", "ok", f"{made} of {report.limit}.")
    message = f"{made} of {report.limit}, perhaps {report.forecast} by its end; bulk work: "
    level: Level = "problem" if report.bulk == "stopped" else "warning"
    remedy = "Take a larger plan, or lower what other programs call."
    return Finding("quota", level, f"{message}{report.bulk}.", remedy)


def parts_running(parts: Mapping[str, bool]) -> list[Finding]:
    """Whether receiver, workers, daemon and UI of this machine answer, by name."""
    down = [name for name, works in parts.items() if not works]
    if not down:
        return [Finding("parts", "ok", f"Running: {', '.join(parts)}.")]
    if len(down) == len(parts):
        remedy = f"Start it: {CLI} up (or its parts on other machines)."
        return [Finding("parts", "warning", "Nothing of it runs on this machine.", remedy)]
    remedy = "See its log under DAGSTER_HOME/run/logs."
    return [Finding("parts", "problem", f"Part {name} does not answer.", remedy) for name in down]


def webhook(side: str, state: str, address: str) -> Finding:
    """A registered webhook."""
    if state == "ok":
        return Finding("webhooks", "ok", f"{side} calls {address}.")
    return Finding(
        "webhooks",
        "problem",
        f"The webhook of {side} to {address}: {state}.",
        f"Run {CLI} webhooks register --url https://HOST.",
    )


def no_webhook(side: str) -> Finding:
    """Nothing is registered at a side."""
    when = "at night only, unless an automation tells" if side == "airtable" else "at night only"
    return Finding(
        "webhooks",
        "warning",
        f"No webhook is registered at {side.capitalize()}: changes there are found {when}.",
        f"Run {CLI} webhooks register --url https://HOST.",
    )


def webhooks_hidden(side: str, why: str) -> Finding:
    """A side does not show its webhooks: the plan has none by API, or the user no right."""
    remedy = "See in Kommo, Settings > Integrations > Web hooks, that one calls the receiver."
    if side == "airtable":
        remedy = "Give the token webhook:manage and its user the role creator, or see that the "
        remedy += "automation of `webhooks register` runs."
    return Finding("webhooks", "warning", why, remedy)


def kommo_rights(*, lists_users: bool) -> Finding:
    """Whether the token's user may see what only administrators see."""
    if lists_users:
        return Finding("kommo", "ok", "The token's user may list users, as administrators may.")
    message = "The token's user may not list users: leads show them by number, `User 123`."
    remedy = "Let an administrator make KOMMO_TOKEN; webhooks take one, too."
    return Finding("kommo", "warning", message, remedy)


def airtable_role(role: str) -> Finding:
    """What the token's user may do in the base (reference/airtable-api 4)."""
    if role == "none":
        message = "AIRTABLE_TOKEN may not open the base AIRTABLE_BASE_ID."
        remedy = "Add the base to the token's access: https://airtable.com/create/tokens."
        return Finding("airtable", "problem", message, remedy)
    if role in {"edit", "create"}:
        remedy = "" if role == "create" else "Webhooks and `init` need the role creator."
        named = {"edit": "editor", "create": "creator"}[role]
        return Finding("airtable", "ok", f"The token's user is {named} of the base.", remedy)
    message = f"The token's user may only {role} in the base."
    return Finding("airtable", "problem", message, "Make that user an editor, or a creator.")


def token_end(token: str, now: datetime) -> Finding | None:
    """When a long-lived Kommo token ends; None if it does not say.

    It is a JWT (reference/kommo-api 1.1), whose ``exp`` is read without a look at its signature.
    """
    ends = _expiry(token)
    if ends is None:
        return None
    left = ends - now
    day = f"{ends:%Y-%m-%d}"
    if left > TOKEN_WARNING:
        return Finding("kommo", "ok", f"KOMMO_TOKEN is good until {day}.")
    remedy = "Make a new one: Kommo, Settings > Integrations > yours > Keys and scopes."
    if left > EXPIRED:
        return Finding("kommo", "warning", f"KOMMO_TOKEN ends on {day}.", remedy)
    return Finding("kommo", "problem", f"KOMMO_TOKEN ended on {day}.", remedy)


def consent(known: Consent, now: datetime) -> Finding:
    """Access by OAuth: until when, and whether Kommo renews it."""
    until = datetime.fromtimestamp(known.grant.expires_at, timezone.utc)
    if known.refused_at is not None:
        ended = "ended" if until <= now else "ends"
        message = f"Kommo renews our access no more; it {ended} at {until:%Y-%m-%d %H:%M} UTC."
        remedy = f"Give consent again: {CLI} authorize CODE (its --help says where the code is)."
        return Finding("kommo", "problem", message, remedy)
    message = f"Access by OAuth until {until:%Y-%m-%d %H:%M} UTC, renewed by itself."
    return Finding("kommo", "ok", message)


def _expiry(token: str) -> datetime | None:
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        body: Json = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return datetime.fromtimestamp(int(body["exp"]), timezone.utc)
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
