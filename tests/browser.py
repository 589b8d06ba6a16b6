"""A headless Chromium, driven through its DevTools protocol: pages are opened, asked, and photographed.

Tornado, which Dask brings along, speaks to it, so no driver is downloaded.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE_S = 60.0
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
    *("--no-first-run", "--no-default-browser-check", "--disable-extensions", "--disable-background-networking"),
    "--remote-debugging-port=0",
)


def find() -> str | None:
    """Return the path of a Chromium; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass
class Browser:
    """One tab of a running Chromium."""

    loop: asyncio.AbstractEventLoop
    socket: Any
    number: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    def call(self, method: str, **parameters: Any) -> Any:
        """Send a command and return its result; events that come meanwhile are kept."""
        self.number += 1
        self.socket.write_message(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = self._next()
            if message.get("id") == self.number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def open(self, page: Path, width: int, *, dark: bool = False, media: str = "screen") -> None:
        """Open a file at a width, in pixels, and wait until it is there."""
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def ask(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def complaints(self) -> list[str]:
        """Return what the console has of the page."""
        said = []
        for event in self.events:
            what = event.get("params", {})
            if event.get("method") == "Log.entryAdded":
                said.append(f"{what['entry']['level']}: {what['entry']['text']}")
            elif event.get("method") in {"Runtime.consoleAPICalled", "Runtime.exceptionThrown"}:
                said.append(json.dumps(what)[:500])
        return said

    def requests(self) -> list[str]:
        """Return the addresses that the page asked for, itself left out."""
        sent = [event["params"]["request"]["url"] for event in self.events if event.get("method", "") == REQUEST]
        return [url for url in sent[1:] if not url.startswith("data:")]

    def photograph(self, to: Path) -> None:
        """Write a picture of the whole page."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        to.write_bytes(base64.b64decode(shot["data"]))

    def _next(self) -> dict[str, Any]:
        text = self.loop.run_until_complete(asyncio.wait_for(_read(self.socket), PATIENCE_S))
        assert text is not None, "Chromium closed the connection"
        message: dict[str, Any] = json.loads(text)
        return message


REQUEST = "Network.requestWillBeSent"


@contextmanager
def browser(program: str, folder: Path) -> Iterator[Browser]:
    """Start a Chromium with a profile in a folder, and end it afterwards."""
    from tornado.httpclient import HTTPRequest
    from tornado.websocket import websocket_connect

    process = subprocess.Popen(
        [program, *OPTIONS, f"--user-data-dir={folder}", "about:blank"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    loop = asyncio.new_event_loop()
    try:
        port = _port(folder / "DevToolsActivePort", process)

        async def connect() -> Any:
            from tornado.httpclient import AsyncHTTPClient

            client = AsyncHTTPClient()
            listed = json.loads((await client.fetch(f"http://127.0.0.1:{port}/json/list")).body)
            client.close()
            (tab,) = [one for one in listed if one["type"] == "page"]
            return await websocket_connect(HTTPRequest(tab["webSocketDebuggerUrl"]), max_message_size=1 << 28)

        socket = loop.run_until_complete(connect())
        yield Browser(loop, socket)
        socket.close()
        loop.run_until_complete(asyncio.sleep(0.1))
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        loop.close()


async def _read(socket: Any) -> str | None:
    text: str | None = await socket.read_message()
    return text


def _port(file: Path, process: subprocess.Popen[bytes]) -> int:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        assert process.poll() is None, f"Chromium ended with status {process.returncode}"
        lines = file.read_text().splitlines() if file.exists() else []
        if len(lines) > 1:
            return int(lines[0])
        time.sleep(0.05)
    raise TimeoutError(f"Chromium did not start within {PATIENCE_S:.0f} s")
