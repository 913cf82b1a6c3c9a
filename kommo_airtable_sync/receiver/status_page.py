"""The status page (contract: ``/`` behind STATUS_PAGE_PASSWORD): for people who never open Dagster.

Made on the server, without scripts; what is shown is escaped by the template, and nothing from
elsewhere is loaded. A button posts what its reader saw; the values are compared again before
anything is written.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Protocol
from urllib.parse import parse_qsl, quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from kommo_airtable_sync.core.headline import ago
from kommo_airtable_sync.receiver.chart import latency_chart
from kommo_airtable_sync.receiver.overview import Overview
from kommo_airtable_sync.store.database import StoreError

FORM_BYTES_MAX = 512 * 1024
FLASH_LENGTH_MAX = 300
LOOKS_AT_ONCE = 3
FAILED_AT_ONCE = 20
FAILED_SECONDS = 1.0


class Desk(Protocol):
    """Where the page's facts come from, and where its buttons lead; used in threads."""

    def look(self) -> Overview:
        """How things are now."""
        ...

    def act(self, asked: Mapping[str, str], actor: str) -> str:
        """Do what a button stands for."""
        ...


class StatusPage:
    """Answers ``GET /`` and ``POST /``.

    Args:
        desk: the store, as the page uses it.
        password: STATUS_PAGE_PASSWORD, not empty.
        kommo_url: of the account, for links to leads.
        dagster_url: of the Dagster UI, for links to runs.
    """

    def __init__(self, desk: Desk, password: str, kommo_url: str, dagster_url: str) -> None:
        self._desk = desk
        self._password = password
        self._links = {"kommo": kommo_url.rstrip("/"), "dagster": dagster_url.rstrip("/")}
        self._template = _environment().get_template("status.html")
        self._looks = asyncio.Semaphore(LOOKS_AT_ONCE)
        self._failing = 0
        key = hashlib.sha256(password.encode()).digest()
        self._token = hmac.new(key, b"status page", hashlib.sha256).hexdigest()

    def routes(self) -> list[Route]:
        """The page's routes."""
        return [Route("/", self._show, methods=["GET"]), Route("/", self._post, methods=["POST"])]

    async def _show(self, request: Request) -> Response:
        user = _user(request, self._password)
        if user is None:
            return await self._strangers()
        try:
            # So few at once: the page must not keep webhooks from their threads.
            async with self._looks:
                seen = await asyncio.to_thread(self._desk.look)
        except StoreError:
            return PlainTextResponse("The database does not answer; try again.", 503, _headers(""))
        nonce = base64.b64encode(hashlib.sha256(str(seen.now).encode()).digest()[:12]).decode()
        said = request.query_params.get("said", "")[:FLASH_LENGTH_MAX]
        text = self._template.render(
            seen=seen,
            said=said if _same(request.query_params.get("sign", ""), self._sign(said)) else "",
            token=self._token,
            nonce=nonce,
            links=self._links,
            chart=latency_chart(seen.hours),
        )
        return HTMLResponse(text, headers=_headers(nonce))

    async def _post(self, request: Request) -> Response:
        user = _user(request, self._password)
        if user is None:
            return await self._strangers()
        body = await _form(request)
        if body is None:
            return PlainTextResponse("too long", 413, _headers(""))
        asked = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        site = request.headers.get("sec-fetch-site", "same-origin")
        if site != "same-origin" or not _same(asked.get("token", ""), self._token):
            return PlainTextResponse("Open the page anew, then decide there.", 403, _headers(""))
        try:
            async with self._looks:
                said = await asyncio.to_thread(self._desk.act, asked, f"status page ({user})")
        except StoreError:
            return PlainTextResponse("The database does not answer; try again.", 503, _headers(""))
        said = said[:FLASH_LENGTH_MAX]
        return RedirectResponse(f"./?said={quote(said)}&sign={self._sign(said)}", 303, _headers(""))

    def _sign(self, said: str) -> str:
        """So that no link makes the page say what it did not."""
        return hmac.new(self._token.encode(), said.encode(), hashlib.sha256).hexdigest()[:16]

    async def _strangers(self) -> Response:
        """401, slowly: guessing takes time, and keeps few connections."""
        if self._failing >= FAILED_AT_ONCE:
            return PlainTextResponse("too many attempts", 429, _headers(""))
        self._failing += 1
        try:
            await asyncio.sleep(FAILED_SECONDS)
        finally:
            self._failing -= 1
        wanted = {"WWW-Authenticate": 'Basic realm="kommo-airtable-sync", charset="UTF-8"'}
        return PlainTextResponse("a password is needed", 401, _headers("") | wanted)


def _user(request: Request, password: str) -> str | None:
    """Who asks, with the right password; any name will do, and is noted with what is decided."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, word = base64.b64decode(given, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (name[:40] or "nobody") if _same(word, password) else None


def _same(given: str, wanted: str) -> bool:
    digests = (hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (given, wanted))
    return hmac.compare_digest(*digests)


async def _form(request: Request) -> bytes | None:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES_MAX:
            return None
    return bytes(body)


def _headers(nonce: str) -> dict[str, str]:
    style = f"'nonce-{nonce}'" if nonce else "'none'"
    return {
        "Cache-Control": "no-store",
        "Content-Security-Policy": f"default-src 'none'; style-src {style}; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("kommo_airtable_sync.receiver"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["ago"] = ago
    made.filters["clock"] = _clock
    return made


def _clock(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%m-%d %H:%M} UTC"
