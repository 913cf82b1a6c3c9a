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
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from kommo_airtable_sync.core.airtable_hooks import parse_automation, ping_event
from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.core.types import IncomingEvent
from kommo_airtable_sync.core.webhooks import Unreadable, accepted, parse_kommo
from kommo_airtable_sync.receiver.group_commit import GroupCommit, Inbox, NotStored
from kommo_airtable_sync.receiver.ping_senders import PingSenders, mac_of
from kommo_airtable_sync.store.database import StoreError

BODY_BYTES_MAX = 1024 * 1024
PING_BYTES_MAX = 16 * 1024
"""A ping names a base, a webhook and an instant; strangers get no more than this hashed."""
BODY_SECONDS_MAX = 10.0
PARSE_BYTES_INLINE = 64 * 1024
"""1 MiB takes about 0.1 s to parse: too long to keep everybody else waiting."""
SECRET_LENGTH_MIN = 16

Parse = Callable[[bytes], list[IncomingEvent]]

_log = logging.getLogger("kommo_airtable_sync.receiver")
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-real-ip")


def create_app(
    inbox: Inbox,
    *,
    kommo_secret: str,
    airtable_secret: str,
    airtable_webhooks: Callable[[], Mapping[str, bytes]],
    metrics: Callable[[], bytes],
    metrics_token: str = "",
    links: bool = False,
    more_routes: Sequence[Route] = (),
) -> Starlette:
    """The receiver as an ASGI application.

    Args:
        inbox: where events go; used from one thread at a time, ``writable`` from others as well.
        kommo_secret: KOMMO_WEBHOOK_SECRET, the last part of the webhook's URL.
        airtable_secret: AIRTABLE_WEBHOOK_SECRET, the automation's bearer.
        airtable_webhooks: reads the MAC secrets of the registered webhooks, by webhook id; called
            in a thread, now and then.
        metrics: gives the Prometheus text; called in a thread.
        metrics_token: METRICS_TOKEN; without it /metrics answers loopback only.
        links: whether contacts and companies are mapped.
        more_routes: the status page.

    Raises:
        ConfigurationError: a secret is too short to be one.
    """
    _check_secret("KOMMO_WEBHOOK_SECRET", kommo_secret)
    _check_secret("AIRTABLE_WEBHOOK_SECRET", airtable_secret)
    group = GroupCommit(inbox)
    senders = PingSenders(airtable_webhooks)

    async def kommo_hook(request: Request) -> Response:
        if not _same(request.path_params.get("secret", ""), kommo_secret):
            return _refused()
        media_type = "application/x-www-form-urlencoded"
        return await take(request, media_type, partial(kommo_events, links=links))

    async def airtable_hook(request: Request) -> Response:
        if not _same(_bearer(request), airtable_secret):
            return _refused()
        return await take(request, "application/json", automation_events)

    async def airtable_ping(request: Request) -> Response:
        mac = mac_of(request.headers.get("x-airtable-content-mac", ""))
        if mac is None:
            return _refused()
        body = await _read_body(request, PING_BYTES_MAX)
        if isinstance(body, Response):
            return body
        try:
            webhook_id = await senders.find(body, mac)
        except StoreError as error:
            _log.error("a ping cannot be checked: %s", type(error).__name__)
            return PlainTextResponse("not stored, send it again", 503)
        if webhook_id is None:
            return _refused()
        return await store([ping_event(webhook_id)]) or Response(status_code=204)

    async def take(request: Request, media_type: str, parse: Parse) -> Response:
        """Store what an authenticated sender tells of."""
        if _media_type(request) != media_type:
            return PlainTextResponse(f"{media_type} is expected", 415)
        body = await _read_body(request, BODY_BYTES_MAX)
        if isinstance(body, Response):
            return body
        inline = len(body) < PARSE_BYTES_INLINE
        events = parse(body) if inline else await asyncio.to_thread(parse, body)
        return await store(events) or JSONResponse(_receipt(events))

    async def store(events: Sequence[IncomingEvent]) -> Response | None:
        """None once these are committed, else the answer that makes the sender repeat them."""
        try:
            if events:
                await group.submit(events)
        except NotStored as error:
            _log.error("events not stored, the sender is to repeat them: %s", error.reason)
            return PlainTextResponse("not stored, send it again", 503)
        return None

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
            Route("/hooks/airtable", airtable_hook, methods=["POST"]),
            Route("/hooks/airtable/ping", airtable_ping, methods=["POST"]),
            Route("/healthz", _healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics_page),
            *more_routes,
        ],
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a redirect would repeat the secret in its Location
    return app


def kommo_events(body: bytes, *, links: bool) -> list[IncomingEvent]:
    """The events of a body from a sender who knows the secret; unreadable ones are kept whole."""
    return _readable(partial(parse_kommo, links=links), body, "kommo")


def automation_events(body: bytes) -> list[IncomingEvent]:
    """The events of an automation that knows the bearer; unreadable bodies are kept whole."""
    return _readable(parse_automation, body, "airtable")


def _readable(parse: Parse, body: bytes, source: str) -> list[IncomingEvent]:
    try:
        return parse(body)
    except Unreadable as error:
        payload = {**_kept(body), "error": error.reason}
        return [
            IncomingEvent(
                key="", source=source, kind="unreadable", payload=payload, state="quarantined"
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


def _check_secret(name: str, secret: str) -> None:
    if len(secret) < SECRET_LENGTH_MIN:
        raise ConfigurationError(
            f"{name} needs at least {SECRET_LENGTH_MIN} characters.",
            "Make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )


def _refused() -> Response:
    """Whoever it is does not know the secret: nothing of the request is kept, only the fact."""
    _log.warning("refused a webhook with a wrong secret")
    return PlainTextResponse("wrong secret", 401)


async def _healthz(request: Request) -> Response:
    del request
    return PlainTextResponse("ok")


async def _read_body(request: Request, bytes_max: int) -> bytes | Response:
    """The body, or the answer to one that is too long or does not come."""
    try:
        body = await asyncio.wait_for(_read_to(request, bytes_max), BODY_SECONDS_MAX)
    except (asyncio.TimeoutError, ClientDisconnect):
        return PlainTextResponse("the body did not arrive in time", 408)
    return PlainTextResponse(f"at most {bytes_max} bytes", 413) if body is None else body


async def _read_to(request: Request, bytes_max: int) -> bytes | None:
    """The body, or None once it is known to be too long; uvicorn then drops the rest unkept."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 12 or int(declared) > bytes_max):
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
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
