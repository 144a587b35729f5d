"""The pages of shares in a real browser, at the width of a phone and of a desk.

Pictures are kept in the folder that POSTDICOM_SCREENSHOTS names, if it does.
"""

from __future__ import annotations

import asyncio
import html
import json
import os
import re
import shutil
import zlib
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from postdicom_async.emulator import ArchiveOptions, EmbeddedArchive
from tests.emulator.support import client_of
from tests.emulator.vendor_support import create_order, told, upload

if TYPE_CHECKING:
    import httpx

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
KEPT_IN = os.environ.get("POSTDICOM_SCREENSHOTS")  # read here: tests run without such settings
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
WIDTHS = (390, 1280)
NAMES = {"Święty^Łukasz": "Święty, Łukasz", "قباني^لنزار": "قباني, لنزار", "Müller^Jérôme": "Müller, Jérôme"}
LONG = "Averylongdescriptionwithoutablank" * 4
MEASURE = """
<!DOCTYPE html><meta charset="utf-8">
<script>
const pages = PAGES;
for (const [name, width, source] of pages) {
  const frame = document.createElement("iframe");
  frame.width = width; frame.height = 800; frame.style.border = 0; frame.dataset.name = name;
  frame.srcdoc = source;
  document.body ? document.body.append(frame) : document.documentElement.append(frame);
}
onload = () => {
  const found = [...document.querySelectorAll("iframe")].map((frame) => {
    const root = frame.contentDocument.documentElement, seen = [...root.querySelectorAll("body *")];
    const boxes = seen.filter((one) => !one.matches(".hidden")).map((one) => one.getBoundingClientRect());
    const columns = new Set([...root.querySelectorAll("li h3, li dt")].map((one) => one.getBoundingClientRect().left));
    return {name: frame.dataset.name, width: root.clientWidth, scroll: root.scrollWidth,
      right: Math.max(...boxes.map((box) => box.right)), left: Math.min(...boxes.map((box) => box.left)),
      flat: seen.filter((one) => one.matches("h1, h3, dt, dd, a, p, label, button") && one.offsetHeight < 8).length,
      small: [...root.querySelectorAll("a, button, input")].filter((one) => one.offsetHeight < 44).length,
      columns: columns.size, text: root.innerText};
  });
  document.documentElement.dataset.found = JSON.stringify(found);
};
</script>
"""

if CHROMIUM is None and os.environ.get("POSTDICOM_REQUIRE_CHROMIUM") != "1":
    pytest.skip("chromium is not installed", allow_module_level=True)


async def browse(profile: Path, address: str, *arguments: str) -> str:
    """Open an address in a browser of its own and return the document it made of it."""
    assert CHROMIUM is not None, "chromium is required and not installed"
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *arguments, "--dump-dom", address,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return output.decode()


async def make_share(archive: EmbeddedArchive, client: httpx.AsyncClient, **more: str) -> str:
    folder = (await told(client, "createfolder", FolderName="a/Łódź"))["FolderUuid"]
    top = (await told(client, "searchfolder"))["FolderList"][0]["FolderUuid"]
    for number, name in enumerate(NAMES):
        uuid = await upload(
            archive, client, f"1.{number}", PatientName=name, StudyDate="20240131", StudyDescription=LONG[:64]
        )
        await told(client, "addordertofolder", PatientOrderUuid=uuid, FolderUuidList=[folder if number else top])
    uuid = await create_order(archive, client, PatientName="Yamada^Tarou=山田^太郎", StudyDescription="Head & <neck>")
    await told(client, "addordertofolder", PatientOrderUuid=uuid, FolderUuidList=[top])
    answer = await told(
        client,
        "sharefolderwithurl",
        FolderUuid=top,
        ShareTitle="Zweitmeinung für Łukasz",
        ShareDescription=f"Guten Tag,\n{LONG}",
        ExpireDate="2099-12-31",
        UserCanDownloadStudies="True",
        **more,
    )
    url: str = answer["Result"]
    return url


def first_pixel(picture: Path) -> bytes:
    """Return the colour of the upper left corner of a PNG, and insist on its width."""
    data = picture.read_bytes()
    assert int.from_bytes(data[16:20], "big") == WIDTHS[0]
    start = data.index(b"IDAT") + 4
    return zlib.decompressobj().decompress(data[start:], 4)[1:4]


async def test_the_page_on_a_phone(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    kept = Path(KEPT_IN or tmp_path)
    picture = kept / "share-phone.png"
    url = await make_share(embedded_archive, client)

    document = await browse(tmp_path / "profile", url, "--window-size=390,1600", f"--screenshot={picture}")

    text = html.unescape(document)
    for name in (*NAMES.values(), "山田 太郎", "Zweitmeinung für Łukasz", "Head & <neck>", "31 Jan 2024"):
        assert name in text
    assert picture.stat().st_size > 20_000
    assert first_pixel(picture) == b"\xf3\xf5\xf8"  # the style sheet's: the policy let it in


async def test_nothing_sticks_out(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, tmp_path: Path) -> None:
    pages = await fetch_pages(embedded_archive, client)
    frames = [(name, width, source) for name, source in pages.items() for width in WIDTHS]
    file = tmp_path / "measure.html"
    file.write_text(MEASURE.replace("PAGES", json.dumps(frames).replace("</", "<\\/")), encoding="utf-8")

    document = await browse(tmp_path / "profile", file.as_uri(), "--window-size=1400,900")

    measured = re.search(r'data-found="([^"]*)"', document)
    assert measured, document[:500]
    found: list[dict[str, Any]] = json.loads(html.unescape(measured[1]))
    assert [(one["name"], one["width"]) for one in found] == [(name, width) for name, width, _ in frames]
    for one in found:
        assert one["scroll"] == one["width"], one
        assert one["left"] >= 0, one
        assert one["right"] <= one["width"], one
        assert one["flat"] == one["small"] == 0, one
    phone, desk = found[:2]
    assert (phone["columns"], desk["columns"]) == (4, 6)
    for name in (*NAMES.values(), "山田 太郎"):
        assert name in phone["text"]


async def fetch_pages(archive: EmbeddedArchive, client: httpx.AsyncClient) -> dict[str, str]:
    opened = await make_share(archive, client)
    closed = await make_share(archive, client, SharePassword="p")
    async with client_of() as visitor:
        return {
            "list": (await visitor.get(opened)).text,
            "password": (await visitor.get(closed)).text,
            "wrong": (await visitor.post(closed, data={"password": "x"})).text,
            "missing": (await visitor.get(archive.url + "/share/x")).text,
        }


PAGE = """
<!DOCTYPE html><meta charset="utf-8"><title>a viewer</title><link rel="icon" href="data:,"><img src="/wait">
<script>
const ask = async () => {
  const found = {};
  try {
    const answer = await fetch("URL/studies?NoSuch=1", {headers: {Authorization: "Basic " + btoa("demo:demo")}});
    found.studies = (await answer.json()).length;
    found.warning = answer.headers.get("Warning");
    const header = {Authorization: "Basic " + btoa("demo:demo"), SearchFolderParameters: "{}"};
    found.folders = (await (await fetch("URL/searchfolder", {headers: header})).json()).Success;
  } catch (error) { found.error = error.name; }
  found.socket = await new Promise((tell) => {
    const socket = new WebSocket("SOCKET/?ClientUniqueId=KEY");
    socket.onopen = () => tell("open"); socket.onerror = () => tell("refused");
  });
  document.documentElement.dataset.found = JSON.stringify(found);
  await fetch("/done");
};
ask();
</script>
"""


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_page_of_another_origin(tmp_path: Path, allowed: bool) -> None:
    """A viewer's page on a server of its own: the archive is there for it when it is told so, and else not at all."""
    async with AsyncExitStack() as stack:
        site = Folder()
        page = await stack.enter_async_context(site)
        archive = EmbeddedArchive(options=ArchiveOptions(allow_origin=[page] if allowed else []))
        await stack.enter_async_context(archive)
        client = await stack.enter_async_context(client_of(archive))
        await upload(archive, client)
        text = PAGE.replace("URL", archive.url).replace("SOCKET", archive.cloud.socket_url)
        site.page = text.replace("KEY", archive.cloud_api_key).encode()

        document = await browse(tmp_path / "profile", page)

    told = re.search(r'data-found="([^"]*)"', document)
    assert told, document[:500]
    found = json.loads(html.unescape(told[1]))
    if allowed:
        assert "NoSuch" in found.pop("warning")
        assert found == {"studies": 1, "folders": True, "socket": "open"}
    else:
        assert found == {"error": "TypeError", "socket": "refused"}


class Folder:
    """A server with one page, under a name that is another host than the archive's.

    The page is not loaded, and the browser does not end, before the page has said that it is done.
    """

    page = b""

    def __init__(self) -> None:
        self._done = asyncio.Event()

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        return f"http://viewer.localhost:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        if asked.startswith(b"GET /done"):
            self._done.set()
        elif asked.startswith(b"GET /wait"):
            await asyncio.wait_for(self._done.wait(), 60)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(self.page)}\r\nConnection: close"
        writer.write(head.encode() + b"\r\n\r\n" + self.page)
        await writer.drain()
        writer.close()
