"""An open-loop HTTP sender: each request has its moment, whether or not the last was answered.

Latency counts from that moment, so a server that falls behind cannot slow its own measurement down.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

CONNECTIONS_MAX = 200
IDLE_SECONDS_MAX = 3.0
"""The server closes a connection that idles for 5 s; a request must not meet that moment."""


@dataclass(frozen=True)
class Sent:
    """What became of the requests.

    Args:
        took: seconds from each request's moment to its answer, sorted.
        refused: answers other than 200, and connections that broke.
        seconds: from the first moment to the last answer.
    """

    took: list[float]
    refused: int
    seconds: float


def send(url: str, body: Callable[[int], str], rate: float, count: int) -> Sent:
    """POST ``count`` forms, ``rate`` a second, on as many connections as that takes."""
    return asyncio.run(_send(url, body, rate, count))


async def _send(url: str, body: Callable[[int], str], rate: float, count: int) -> Sent:
    parts = urlsplit(url)
    free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]] = []
    limit = asyncio.Semaphore(CONNECTIONS_MAX)
    took: list[float] = []
    refused = 0
    began = time.perf_counter() + 0.2

    async def one(number: int) -> None:
        nonlocal refused
        moment = began + number / rate
        content = body(number).encode()
        head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        async with limit:
            try:
                if free and free[-1][2] > time.perf_counter() - IDLE_SECONDS_MAX:
                    reader, writer, _ = free.pop()
                else:
                    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
                writer.write(head.encode() + content)
                answer = await reader.readuntil(b"\r\n\r\n")
                length = answer.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
                await reader.readexactly(int(length))
            except (OSError, asyncio.IncompleteReadError):
                refused += 1
                return
            free.append((reader, writer, time.perf_counter()))
        refused += not answer.startswith(b"HTTP/1.1 200")
        took.append(time.perf_counter() - moment)

    tasks: list[asyncio.Task[None]] = []
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(one(number)))
    await asyncio.gather(*tasks)
    seconds = time.perf_counter() - began
    for _, writer, _ in free:
        writer.close()
    return Sent(sorted(took), refused, seconds)
