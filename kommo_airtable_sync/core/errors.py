"""What went wrong, grouped by what to do next.

    SyncError
    ├── ConfigurationError   a setting, mapping or permission: a person must change something
    ├── SideUnavailable      Kommo or Airtable as a whole: pause that side for everyone, then go on
    ├── BatchRefused         the API refused one request: split it until the culprit stands alone
    ├── LeadFailed           this lead only: ``permanent`` -> dead letter, else retry with backoff
    └── LeaseLost            another run holds these keys now: stop, write nothing, settle nothing

Every failure of an outside call is classified once, in the client, into one of these.
"""

from __future__ import annotations

from typing import Literal

Side = Literal["kommo", "airtable"]


class SyncError(Exception):
    """Root of every error raised on purpose by this package."""


class ConfigurationError(SyncError):
    """A setting, a mapping or a permission is wrong.

    Args:
        message: one sentence that names the setting, field or file.
        remedy: one sentence that says what to do.
        side: the API that refused, if one did (its side is then paused).
    """

    def __init__(self, message: str, remedy: str = "", *, side: Side | None = None) -> None:
        self.message = message
        self.remedy = remedy
        self.side: Side | None = side
        super().__init__(f"{message} {remedy}".strip())


class SideUnavailable(SyncError):
    """One API cannot be used at the moment; nothing of it is the fault of a lead.

    Args:
        side: which API.
        reason: ``unreachable``, ``timeout``, ``server_error``, ``rate_limited``, ``blocked``,
            ``unauthorized``, ``quota``; ``reserved``: the month's rest is not for bulk work.
        detail: what the API said, for people; never holds a secret.
        retry_after_seconds: what the API asked for, if it did.
        sent: False only if the request surely never reached the API.
    """

    def __init__(
        self,
        side: Side,
        reason: str,
        detail: str = "",
        *,
        retry_after_seconds: float | None = None,
        sent: bool = True,
    ) -> None:
        self.side: Side = side
        self.reason = reason
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds
        self.sent = sent
        super().__init__(f"{side} is unavailable ({reason}): {detail}".rstrip(": "))


class BatchRefused(SyncError):
    """The API answered 4xx to one request and stored nothing of it.

    Args:
        side: which API.
        status: HTTP status.
        code: the API's own error type, e.g. ``INVALID_VALUE_FOR_COLUMN``.
        detail: the API's own message.
        item_errors: by index in the request, where the API names the culprits (Kommo does).
        item_paths: where in these items, e.g. ``custom_fields_values.0.values.0.value``.
    """

    def __init__(
        self,
        side: Side,
        status: int,
        code: str,
        detail: str,
        item_errors: dict[int, str] | None = None,
        item_paths: dict[int, tuple[str, ...]] | None = None,
    ) -> None:
        self.side: Side = side
        self.status = status
        self.code = code
        self.detail = detail
        self.item_errors = item_errors or {}
        self.item_paths = item_paths or {}
        super().__init__(f"{side} refused the request: {code}: {detail} (HTTP {status})")


class LeadFailed(SyncError):
    """One lead cannot be synced; its neighbours can.

    Args:
        reason: one sentence for people, with the field and the remedy where known.
        permanent: True if trying again cannot help until somebody changes something.
    """

    def __init__(self, reason: str, *, permanent: bool = True) -> None:
        self.reason = reason
        self.permanent = permanent
        super().__init__(reason)


class LeaseLost(SyncError):
    """The batch's fencing token is no longer the one in ``due``; somebody else acts now."""
