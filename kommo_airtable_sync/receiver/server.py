"""Runs the receiver in uvicorn, with a log that never shows a path's secret."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
import traceback
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

STOP_SECONDS_MAX = 5
"""Requests in flight get so long to end; Kommo would not wait longer than 2 s anyway."""
CONNECTIONS_MAX = 1_000

_log = logging.getLogger("kommo_airtable_sync.receiver")
_SHOWN_PATHS = frozenset(
    {"/", "/healthz", "/readyz", "/metrics", "/hooks/airtable", "/hooks/airtable/ping"}
)
_HOOKS = "/hooks/kommo"

_LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        name: {"handlers": ["stderr"], "level": "INFO", "propagate": False}
        for name in ("uvicorn", "kommo_airtable_sync.receiver")
    },
}


def serve(app: ASGIApp, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM; then finish what has begun, commit what waits, and return.

    uvicorn raises the signal again when it has stopped: SIGTERM is made to interrupt as SIGINT
    does, so that both end in a return and whoever called may still tidy up.

    Args:
        app: the application of ``create_app``.
        host: RECEIVER_HOST.
        port: RECEIVER_PORT.
    """
    config = uvicorn.Config(
        LineLog(app),
        host=host,
        port=port,
        log_config=_LOGGING,
        access_log=False,  # it prints whole paths, and the secret is in one
        proxy_headers=False,  # who asks is the real peer; /metrics depends on it
        server_header=False,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_graceful_shutdown=STOP_SECONDS_MAX,
    )
    with contextlib.suppress(KeyboardInterrupt):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        uvicorn.Server(config).run()


class LineLog:
    """ASGI wrapper: one line a request, and the last stop for errors.

    Neither shows what the sender sent: paths are named by kind, and of an error only its type and
    place, since its text may quote anything.

    Args:
        app: the application to wrap.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and log how it ended."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status = 0

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        except Exception as error:  # noqa: BLE001 - uvicorn would print its text; 500 is sent
            place = "".join(traceback.format_tb(error.__traceback__))
            _log.error("%s while answering; at\n%s", type(error).__name__, place)
        milliseconds = (time.monotonic() - began) * 1000
        shown = shown_path(scope["path"])
        _log.info("%s %s %d %.1f ms", scope["method"], shown, status, milliseconds)


def shown_path(path: str) -> str:
    """What the log says for a path: what we serve by name, all else as unknown."""
    if path in _SHOWN_PATHS:
        return path
    return f"{_HOOKS}/***" if path.startswith(_HOOKS) else "(another path)"
