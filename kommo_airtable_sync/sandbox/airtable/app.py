"""The Airtable stand-in over HTTP: the model behind Starlette and uvicorn."""

from __future__ import annotations

import asyncio

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kommo_airtable_sync.sandbox.airtable.control import PREFIX, handle_control
from kommo_airtable_sync.sandbox.airtable.model import AirtableModel
from kommo_airtable_sync.sandbox.faults import ConnectionDropped, DroppingProtocol

_METHODS = ["GET", "POST", "PATCH", "PUT", "DELETE"]


def create_app(model: AirtableModel) -> Starlette:
    """The API under ``/v0`` and the control surface under ``/_control``."""

    async def endpoint(request: Request) -> Response:
        raw = request.scope["raw_path"].partition(b"?")[0].decode("ascii")
        query = request.scope["query_string"].decode("ascii")
        body = await request.body()
        if raw.startswith(PREFIX):
            status, headers, content = handle_control(model, request.method, raw, query, body)
            return Response(content, status, headers)
        arrival = model.arrive(request.method, raw, query, request.headers, body)
        if arrival.delay_seconds:
            await asyncio.sleep(arrival.delay_seconds)
        try:
            status, headers, content = model.finish(arrival)
        except ConnectionDropped:
            return await _cut(request)
        return Response(content, status, headers)

    return Starlette(routes=[Route("/{path:path}", endpoint, methods=_METHODS)])


async def _cut(request: Request) -> Response:
    request.scope["state"]["abort"]()
    while (await request.receive())["type"] != "http.disconnect":
        pass
    return Response()  # nobody is there to get it


def make_server(model: AirtableModel, host: str, port: int) -> uvicorn.Server:
    """A server that is not running yet; port 0 takes a free one."""
    config = uvicorn.Config(
        create_app(model),
        host=host,
        port=port,
        http=DroppingProtocol,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
    )
    return uvicorn.Server(config)
