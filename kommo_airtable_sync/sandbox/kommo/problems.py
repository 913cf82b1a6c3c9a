"""Kommo's refusals, with the bodies of reference 2 (K-http), and the answer type they share."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from kommo_airtable_sync.sandbox.kommo.settings import Settings

BLOCKED_PAGE = (
    b"<html>\r\n<head><title>403 Forbidden</title></head>\r\n<body>\r\n"
    b"<center><h1>403 Forbidden</h1></center>\r\n<hr><center>nginx</center>\r\n"
    b"</body>\r\n</html>\r\n"
)
_TITLES = {
    400: ("Bad Request", "Request validation failed"),
    401: ("Unauthorized", "Invalid user name or password"),
    402: ("Payment Required", "Payment required"),
    403: ("Forbidden", "You do not have permission to perform this action"),
    404: ("Not Found", "Not Found"),
    405: ("Method Not Allowed", "Method Not Allowed"),
    422: ("Unprocessable Entity", "Limit 250 per page"),
    429: (
        "Too Many Requests",
        "You have sent too many requests in a given amount of time. Please try again later.",
    ),
}
_DETAILS = {
    "InvalidType": "This value should be of type {}.",
    "NotSupportedChoice": "The value you selected is not a valid choice.",
    "FieldNotExpected": "This field was not expected.",
    "FieldMissing": "This field is missing.",
}


class Answer(NamedTuple):
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class Refused(Exception):
    """The request is refused as a whole; nothing of it is stored."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        super().__init__(answer.body.decode())


class ItemErrors:
    """The errors of one request, collected item by item before anything is written."""

    def __init__(self) -> None:
        self._items: dict[str, list[dict[str, str]]] = {}

    def add(self, request_id: str, code: str, path: str, wanted: str = "") -> None:
        """Note one error; ``wanted`` is the type an InvalidType asks for."""
        error = {"code": code, "path": path, "detail": _DETAILS[code].format(wanted)}
        self._items.setdefault(request_id, []).append(error)

    def raise_if_any(self) -> None:
        """Refuse the whole batch if one item is bad.

        Raises:
            Refused: with the 400 body that lists every error by request id.
        """
        if not self._items:
            return
        items = [{"request_id": key, "errors": errors} for key, errors in self._items.items()]
        raise Refused(problem(400, "", {"validation-errors": items}))


def hal(payload: Any, status: int = 200) -> Answer:
    """A success body."""
    body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    return Answer(status, {"content-type": "application/hal+json"}, body)


def no_content() -> Answer:
    """What Kommo answers where others answer ``[]`` or 404 (reference 3.1)."""
    return Answer(204, {}, b"")


def problem(status: int, detail: str = "", extra: dict[str, Any] | None = None) -> Answer:
    """An ``application/problem+json`` body; ``extra`` keys come first."""
    title, usual = _TITLES[status]
    body: dict[str, Any] = {
        **(extra or {}),
        "title": title,
        "type": f"https://httpstatus.es/{status}",
        "status": status,
        "detail": detail or usual,
    }
    encoded = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return Answer(status, {"content-type": "application/problem+json"}, encoded)


def blocked() -> Answer:
    """The 403 page of the proxy in front of Kommo (SDK#434)."""
    return Answer(403, {"content-type": "text/html"}, BLOCKED_PAGE)


def too_many(settings: Settings) -> Answer:
    """A 429 in the spelling asked for."""
    if settings.too_many_variant == "text":
        return Answer(429, {"content-type": "text/html"}, b"Too Many Requests")
    answer = problem(429, "", {"retry_after": settings.retry_after_seconds})
    if settings.too_many_variant == "header":
        answer.headers["retry-after"] = str(settings.retry_after_seconds)
    return answer


def fault_answer(status: int, variant: str, settings: Settings) -> Answer:
    """The faithful body of any status a fault asks for; variant ``html`` = the proxy's own page."""
    if status == 403 and variant != "json":
        return blocked()
    if status == 429:
        return too_many(settings)
    if status == 500 and variant != "html":
        body = {
            "title": "ErrInternalServer",
            "status": 500,
            "detail": "Our team are probably already working on the elimination of the problem",
            "trace_id": "8e9b1e47-1ea4-111f0-a4f9-0031163e1de759",
        }
        encoded = json.dumps(body, separators=(",", ":")).encode()
        return Answer(500, {"content-type": "application/problem+json"}, encoded)
    if status in _TITLES and variant != "html":
        return problem(status)
    page = f"<html>\r\n<head><title>{status}</title></head>\r\n<body>{status}</body>\r\n</html>\r\n"
    return Answer(status, {"content-type": "text/html"}, page.encode())
