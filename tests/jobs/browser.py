"""A real Chromium, led by its own protocol (CDP): go somewhere, look, click, take a picture."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

__all__ = ["CHROMIUM", "KEPT_IN", "Tab", "chromium", "needs_chromium"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
KEPT_IN = os.environ.get("POSTDICOM_SCREENSHOTS")  # read here: tests run without such settings
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0",
)  # fmt: skip
LONG = 60.0

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None and os.environ.get("POSTDICOM_REQUIRE_CHROMIUM") != "1", reason="chromium is not installed"
)


class Tab:
    """A tab of a browser.

    Attributes:
        problems: what its console said: exceptions, refused resources.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.problems: list[str] = []
        self._socket = socket
        self._number = 0
        self._session = ""
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def open(self) -> None:
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")

    async def close(self) -> None:
        self._reading.cancel()
        with suppress(asyncio.CancelledError):
            await self._reading

    async def _read(self) -> None:
        async for text in self._socket:
            told = json.loads(text)
            if "id" in told:
                self._waiting.pop(told["id"]).set_result(told)
            elif told["method"] == "Page.loadEventFired":
                self._loaded.set()
            elif told["method"] in {"Log.entryAdded", "Runtime.exceptionThrown"}:
                self.problems.append(json.dumps(told["params"])[:500])

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Tell the browser to do something and return its answer."""
        self._number += 1
        waiting = self._waiting[self._number] = asyncio.get_running_loop().create_future()
        message = {"id": self._number, "method": method, "params": params}
        await self._socket.send(json.dumps(message | ({"sessionId": self._session} if self._session else {})))
        told = await asyncio.wait_for(waiting, LONG)
        assert "error" not in told, (method, told)
        found: dict[str, Any] = told["result"]
        return found

    async def go(self, address: str) -> None:
        """Open an address and wait until all of it is there."""
        self._loaded.clear()
        await self.call("Page.navigate", url=address)
        await asyncio.wait_for(self._loaded.wait(), LONG)

    async def value(self, expression: str) -> Any:
        """Return what an expression of JavaScript is."""
        found = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until an expression is true; what it looks at may not be there yet."""
        tried = f"(() => {{ try {{ return !!({expression}) }} catch {{ return false }} }})()"
        async with asyncio.timeout(LONG):
            while not await self.value(tried):
                await asyncio.sleep(0.05)

    async def click(self, selector: str) -> None:
        """Click with the mouse on the middle of an element."""
        find = f"document.querySelector({json.dumps(selector)})"
        await self.until(f"!!{find}")
        await self.value(f"{find}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        x, y = await self.value(
            f"(() => {{ const box = {find}.getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def write(self, selector: str, text: str) -> None:
        """Write into a field as by a keyboard."""
        await self.click(selector)
        await self.call("Input.insertText", text=text)

    async def size(self, width: int, height: int = 900, *, dark: bool = False, paper: bool = False) -> None:
        """Be so large, in light or dark, on a screen or on paper."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", media="print" if paper else "", features=[scheme])

    async def picture(self, path: Path) -> bytes:
        """Take a picture of all of the page."""
        taken = await self.call("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        data = base64.b64decode(taken["data"])
        path.write_bytes(data)
        return data

    async def overflow(self) -> list[str]:
        """Return what sticks out at the sides, outside of what can be scrolled."""
        found: list[str] = await self.value(
            """(() => {
              const width = innerWidth, out = [];
              const root = document.documentElement;
              if (root.scrollWidth > width) out.push("page " + root.scrollWidth);
              for (const one of document.querySelectorAll("body *")) {
                if (one.closest(".hidden")) continue;
                const box = one.getBoundingClientRect(), table = one.closest(".wide");
                if (table === one && table.scrollWidth > table.clientWidth) out.push("table " + one.ariaLabel);
                if (table && table !== one) continue;
                if (box.width && (box.right > width + 1 || box.left < -1)) out.push(one.tagName + "." + one.className);
              }
              return out;
            })()"""
        )
        return found


@asynccontextmanager
async def chromium(profile: Path) -> AsyncIterator[Tab]:
    """Start a browser with a profile of its own, and give a tab of it."""
    assert CHROMIUM is not None, "chromium is required and not installed"
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port, path = await _port(profile)
        async with connect(f"ws://127.0.0.1:{port}{path}", max_size=1 << 26, proxy=None) as socket:
            tab = Tab(socket)
            try:
                await tab.open()
                yield tab
            finally:
                await tab.close()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _port(profile: Path) -> tuple[str, str]:
    told = profile / "DevToolsActivePort"
    async with asyncio.timeout(LONG):
        while not (told.exists() and told.read_text().count("\n") == 1):
            await asyncio.sleep(0.05)
    port, path = told.read_text().split("\n")
    return port, path
