"""Somebody at the status page: in headless Chromium where there is one, else by its HTML."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urljoin

import requests
from websockets.sync.client import ClientConnection, connect

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")


class Browser(Protocol):
    name: str

    def open(self, url: str) -> None: ...

    def text(self) -> str: ...

    def click(self, label: str) -> None:
        """Press the first button with this label, and wait for the page that follows."""
        ...


@contextmanager
def browser(folder: Path, password: str) -> Iterator[Browser]:
    """The best there is on this machine."""
    program = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if program is None:
        yield PlainHtml(password)
        return
    arguments = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
                 "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]  # fmt: skip
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port_file = folder / "DevToolsActivePort"
        port = wait(lambda: port_file.exists() and port_file.read_text().splitlines()[:1])[0]
        pages = requests.get(f"http://127.0.0.1:{port}/json/list", timeout=10).json()
        address = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
        with connect(address, max_size=None) as connection:
            yield Chromium(connection, password)
    finally:
        process.terminate()
        process.wait(10)


def wait(condition: Any) -> Any:
    ends_at = time.monotonic() + 20
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < ends_at, "the browser does not get there"
        time.sleep(0.02)


class Chromium:
    """A page of a headless Chromium, by its debugging protocol."""

    name = "Chromium"

    def __init__(self, connection: ClientConnection, password: str) -> None:
        self._connection = connection
        self._serial = 0
        self._call("Page.enable")
        self._call("Network.enable")
        word = base64.b64encode(f"Zoë:{password}".encode()).decode()
        self._call("Network.setExtraHTTPHeaders", headers={"Authorization": f"Basic {word}"})

    def _call(self, method: str, **parameters: Any) -> Any:
        self._serial += 1
        self._connection.send(
            json.dumps({"id": self._serial, "method": method, "params": parameters})
        )
        while True:
            answer = json.loads(self._connection.recv(timeout=20))
            if answer.get("id") == self._serial:
                assert "error" not in answer, answer
                return answer["result"]

    def evaluate(self, expression: str) -> Any:
        done = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        return done["result"].get("value")

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)
        wait(lambda: self.evaluate("document.readyState") == "complete" and self.text())

    def text(self) -> str:
        return str(self.evaluate("document.body.innerText") or "")

    def click(self, label: str) -> None:
        self.evaluate("document.documentElement.dataset.old = '1'")
        self.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        found = self.evaluate(
            "(b => b ? (b.click(), true) : false)([...document.querySelectorAll('button')]"
            f".find(each => each.innerText.trim() === {json.dumps(label)}))"
        )
        assert found, f"no button {label!r}"
        wait(lambda: self.evaluate(
            "document.documentElement.dataset.old !== '1' && document.readyState === 'complete'"
        ))  # fmt: skip


class PlainHtml:
    """No browser here: the page's text and forms as HTML says they work."""

    name = "html.parser (no Chromium on the PATH)"

    def __init__(self, password: str) -> None:
        self._session = requests.Session()
        self._session.auth = ("Zoe", password)
        self._page = _Page()
        self._url = ""

    def open(self, url: str) -> None:
        self._read(self._session.get(url, timeout=20))

    def _read(self, answer: requests.Response) -> None:
        self._url, self._page = answer.url, _Page()
        self._page.feed(answer.text)

    def text(self) -> str:
        return " ".join(" ".join(self._page.texts).split())

    def click(self, label: str) -> None:
        action, fields = next(
            (action, fields) for action, fields, name in self._page.forms if name == label
        )
        self._read(self._session.post(urljoin(self._url, action), data=fields, timeout=20))


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.forms: list[tuple[str, dict[str, str], str]] = []
        self._open: tuple[str, dict[str, str]] = ("", {})
        self._tag = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._tag = tag
        if tag == "form":
            self._open = (given["action"], {})
        elif tag == "input":
            self._open[1][given["name"]] = given["value"]

    def handle_data(self, data: str) -> None:
        if self._tag == "button" and data.strip():
            self.forms.append((*self._open, data.strip()))
        if self._tag != "style":
            self.texts.append(data)
