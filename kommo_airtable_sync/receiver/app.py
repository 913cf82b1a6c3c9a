"""The receiver's HTTP face (contract section 4): durable first, then 200.

The order of checks is the order of trust: secret, content type, size, content. A stranger costs
one hash and leaves nothing behind; an authenticated sender's bytes are never thrown away.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import ipaddress
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.core.types import IncomingEvent
from kommo_airtable_sync.core.webhooks import Unreadable, accepted, parse_kommo
from kommo_airtable_sync.receiver.group_commit import GroupCommit, Inbox, NotStored

BODY_BYTES_MAX = 1024 * 1024
BODY_SECONDS_MAX = 10.0
PARSE_BYTES_INLINE = 64 * 1024
"""1 MiB takes about 0.1 s to parse: too long to keep everybody else waiting."""
SECRET_LENGTH_MIN = 16

_log = logging.getLogger("kommo_airtable_sync.receiver")
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-real-ip")


def create_app(
    inbox: Inbox,
    *,
    kommo_secret: str,
    metrics: Callable[[], bytes],
    metrics_token: str = "",
    links: bool = False,
) -> Starlette:
    """The receiver as an ASGI application.

    Args:
        inbox: where events go; used from one thread at a time, ``writable`` from others as well.
        kommo_secret: KOMMO_WEBHOOK_SECRET, the last part of the webhook's URL.
        metrics: gives the Prometheus text; called in a thread.
        metrics_token: METRICS_TOKEN; without it /metrics answers loopback only.
        links: whether contacts and companies are mapped.

    Raises:
        ConfigurationError: the secret is too short to be one.
    """
    if len(kommo_secret) < SECRET_LENGTH_MIN:
        raise ConfigurationError(
            f"KOMMO_WEBHOOK_SECRET needs at least {SECRET_LENGTH_MIN} characters.",
            "Make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    group = GroupCommit(inbox)

    async def kommo_hook(request: Request) -> Response:
        if not _same(request.path_params.get("secret", ""), kommo_secret):
            _log.warning("refused a webhook with a wrong secret")
            return PlainTextResponse("wrong secret", 401)
        if _media_type(request) != "application/x-www-form-urlencoded":
            return PlainTextResponse("application/x-www-form-urlencoded is expected", 415)
        try:
            body = await asyncio.wait_for(_read_body(request), BODY_SECONDS_MAX)
        except (asyncio.TimeoutError, ClientDisconnect):
            return PlainTextResponse("the body did not arrive in time", 408)
        if body is None:
            return PlainTextResponse(f"at most {BODY_BYTES_MAX} bytes", 413)
        if len(body) < PARSE_BYTES_INLINE:
            events = kommo_events(body, links=links)
        else:
            events = await asyncio.to_thread(kommo_events, body, links=links)
        try:
            if events:
                await group.submit(events)
        except NotStored as error:
            _log.error("events not stored, the sender is to repeat them: %s", error.reason)
            return PlainTextResponse("not stored, send it again", 503)
        return JSONResponse(_receipt(events))

    def readyz(request: Request) -> Response:
        del request
        ready = inbox.writable()
        return PlainTextResponse("ok" if ready else "inbox not writable", 200 if ready else 503)

    def metrics_page(request: Request) -> Response:
        if not metrics_token and not _from_loopback(request):
            return PlainTextResponse("Not Found", 404)
        if metrics_token and not _same(_bearer(request), metrics_token):
            return PlainTextResponse("wrong token", 401, {"WWW-Authenticate": "Bearer"})
        return Response(metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
        del app
        yield
        await group.stop()

    app = Starlette(
        routes=[
            Route("/hooks/kommo", kommo_hook, methods=["POST"]),
            Route("/hooks/kommo/{secret:path}", kommo_hook, methods=["POST"]),
            Route("/healthz", _healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics_page),
        ],
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a redirect would repeat the secret in its Location
    return app


def kommo_events(body: bytes, *, links: bool) -> list[IncomingEvent]:
    """The events of a body from a sender who knows the secret; unreadable ones are kept whole."""
    try:
        return parse_kommo(body, links=links)
    except Unreadable as error:
        payload = {**_kept(body), "error": error.reason}
        return [
            IncomingEvent(
                key="", source="kommo", kind="unreadable", payload=payload, state="quarantined"
            )
        ]


def _kept(body: bytes) -> dict[str, Any]:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        text = "\x00"
    if "\x00" in text:  # what a text column cannot hold
        return {"body": base64.b64encode(body).decode("ascii"), "encoding": "base64"}
    return {"body": text}


def _receipt(events: list[IncomingEvent]) -> dict[str, int]:
    receipt = {"accepted": accepted(events)}
    quarantined = sum(event.state == "quarantined" for event in events)
    return {**receipt, "quarantined": quarantined} if quarantined else receipt


async def _healthz(request: Request) -> Response:
    del request
    return PlainTextResponse("ok")


async def _read_body(request: Request) -> bytes | None:
    """The body, or None once it is known to be too long; uvicorn then drops the rest unkept."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 12 or int(declared) > BODY_BYTES_MAX):
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            return None
    return bytes(body)


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _same(given: str, secret: str) -> bool:
    """Compare in constant time; through a hash, so that not even the length shows."""
    digests = (hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (given, secret))
    return hmac.compare_digest(*digests)


def _from_loopback(request: Request) -> bool:
    """Asked on this machine, and not through a proxy or tunnel that runs on it."""
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
