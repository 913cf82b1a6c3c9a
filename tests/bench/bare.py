"""The baseline of an acknowledgement: an endpoint that does nothing, in the receiver's server.

``python -m tests.bench.bare PORT``
"""

from __future__ import annotations

import sys

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kommo_airtable_sync.receiver.server import serve


async def nothing(request: Request) -> Response:
    """Read the body and say yes."""
    await request.body()
    return JSONResponse({"accepted": 1})


if __name__ == "__main__":
    hook = Route("/hooks/kommo/{secret}", nothing, methods=["POST"])
    serve(Starlette(routes=[hook, Route("/readyz", nothing)]), "127.0.0.1", int(sys.argv[1]))
