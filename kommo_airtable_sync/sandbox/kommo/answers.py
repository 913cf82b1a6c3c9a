"""Kommo's answers and refusals, with the bodies of reference 2 (K-http), and its validator."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, cast

from kommo_airtable_sync.sandbox.kommo.settings import Settings

Json = dict[str, Any]
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
_SERVER_ERROR = {
    "title": "ErrInternalServer",
    "status": 500,
    "detail": "Our team are probably already working on the elimination of the problem",
    "trace_id": "8e9b1e47-1ea4-111f0-a4f9-0031163e1de759",
}
_DETAILS = {
    "InvalidType": "This value should be of type {}.",
    "NotSupportedChoice": "The value you selected is not a valid choice.",
    "FieldNotExpected": "This field was not expected.",
    "FieldMissing": "This field is missing.",
}
TYPE_NAMES = {int: "int", float: "numeric", str: "string", bool: "bool", dict: "array"}


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


class Mistake(NamedTuple):
    """One thing wrong with a request; ``wanted`` is the type an InvalidType asks for."""

    code: str
    path: str
    wanted: str = ""


def mistakes(value: Any, schema: Any, nullable: set[str], path: str = "") -> Iterator[Mistake]:
    """Where a JSON value departs from a schema.

    Args:
        value: parsed JSON.
        schema: a type, ``{key: schema}``, ``[schema of each item]``, or ``object`` for anything.
        nullable: keys that may be null wherever they stand.
        path: of the value, in dots.
    """
    if isinstance(schema, dict | list):
        if not isinstance(value, dict if isinstance(schema, dict) else list):
            yield Mistake("InvalidType", path, "array")
            return
        for key, each in members(value):
            where = f"{path}.{key}" if path else str(key)
            if isinstance(schema, dict) and key not in schema:
                yield Mistake("FieldNotExpected", where)
            elif each is not None or key not in nullable:
                wanted = cast(Any, schema)[key if isinstance(schema, dict) else 0]
                yield from mistakes(each, wanted, nullable, where)
    elif not is_a(value, schema):
        yield Mistake("InvalidType", path, TYPE_NAMES[schema])


def members(value: Any) -> Iterable[tuple[Any, Any]]:
    """Keys or indexes of a JSON object or array, with what is there."""
    is_object = isinstance(value, dict)
    return cast(Json, value).items() if is_object else enumerate(cast("list[Any]", value))


def is_a(value: Any, wanted: type) -> bool:
    """``isinstance`` as JSON sees it: true is no number."""
    return isinstance(value, wanted) and (wanted in (bool, object) or not isinstance(value, bool))


def refuse(found: dict[str, list[Mistake]]) -> None:
    """Refuse the whole request if one item is bad.

    Args:
        found: mistakes by request id.

    Raises:
        Refused: with the 400 body that lists every mistake.
    """
    items = [
        {"request_id": key, "errors": [_shown(each) for each in found[key]]}
        for key in found
        if found[key]
    ]
    if items:
        raise Refused(problem(400, "", {"validation-errors": items}))


def _shown(mistake: Mistake) -> Json:
    detail = _DETAILS[mistake.code].format(mistake.wanted)
    return {"code": mistake.code, "path": mistake.path, "detail": detail}


def parsed(body: bytes, wanted: type) -> Any:
    """The JSON of a request body.

    Raises:
        Refused: 400 for an empty body or another kind of JSON than ``wanted``.
    """
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if value is None or value == []:
        raise Refused(problem(400, "Request data can not be empty"))
    if not isinstance(value, wanted):
        kind = "object" if wanted is dict else "array"
        refuse({"0": [Mistake("InvalidType", "", kind)]})
    return value


def hal(payload: Any, status: int = 200, kind: str = "hal+json") -> Answer:
    """A JSON answer; ``kind`` is the subtype of its content type."""
    body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    return Answer(status, {"content-type": f"application/{kind}"}, body)


def no_content() -> Answer:
    """What Kommo answers where others answer ``[]`` or 404 (reference 3.1)."""
    return Answer(204, {}, b"")


def problem(status: int, detail: str = "", extra: Json | None = None) -> Answer:
    """An ``application/problem+json`` answer; ``extra`` keys come first."""
    title, usual = _TITLES[status]
    usual_keys = {"title": title, "type": f"https://httpstatus.es/{status}", "status": status}
    return hal((extra or {}) | usual_keys | {"detail": detail or usual}, status, "problem+json")


def page(status: int) -> Answer:
    """What the proxy in front of Kommo answers: HTML (the block's 403 page is SDK#434)."""
    title = "403 Forbidden" if status == 403 else str(status)
    html = (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n"
        f"<center><h1>{title}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    )
    return Answer(status, {"content-type": "text/html"}, html.encode())


def too_many(settings: Settings) -> Answer:
    """A 429 in the spelling asked for."""
    if settings.too_many_variant == "text":
        return Answer(429, {"content-type": "text/html"}, b"Too Many Requests")
    answer = problem(429, "", {"retry_after": settings.retry_after_seconds})
    if settings.too_many_variant == "header":
        answer.headers["retry-after"] = str(settings.retry_after_seconds)
    return answer


def fault_answer(status: int, variant: str, settings: Settings) -> Answer:
    """The body of a status that a fault asks for; variants: ``html``, and ``json`` for a 403."""
    if variant == "html" or (status == 403 and variant != "json"):
        return page(status)
    if status == 429:
        return too_many(settings)
    if status == 500:
        return hal(_SERVER_ERROR, 500, "problem+json")
    return problem(status) if status in _TITLES else page(status)
