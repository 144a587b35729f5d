"""Make the pictures of the README and the pages anew, from real runs: ``python -m docs.pictures [NAME...]``.

Needs the development environment, and Chromium for all but ``terminal``. Figures in them are of the machine that they
were made on. Look at what was made before it is taken.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from postdicom_async import DicomWeb, PostDicom
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.emulator.samples import write_samples
from tests.jobs.browser import Tab, chromium
from tests.support.dicom_files import study_files

INTO = Path(__file__).parent / "_static"
WIDTH = 94  # columns of the terminal
FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
THEME = TerminalTheme(
    (24, 27, 32),
    (222, 226, 232),
    [
        *((24, 27, 32), (240, 113, 120), (126, 211, 133), (235, 203, 139)),
        *((129, 170, 244), (200, 150, 230), (110, 205, 210), (222, 226, 232)),
    ],
)
MOST_BYTES = 150_000
NAMES = ("Phantom", "Święty", "Müller")  # in letters that most machines have a font for

SESSION = (
    "postdicom upload to-send/",
    "postdicom copy old: new: --dry-run",
    "postdicom copy old: new:",
    "postdicom verify old: new: --level bytes",
    "postdicom copy old: new:",
    "postdicom jobs report copy --to report.html",
)


class Commands:
    """Runs the command in a folder, with jobs and profiles of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "COLUMNS": str(WIDTH),
            "POSTDICOM_STATE": str(folder / "state"),
            "POSTDICOM_CONFIG": str(folder / "profiles.toml"),
            "POSTDICOM_PASSWORD_OLD": "old",
            "POSTDICOM_PASSWORD_NEW": "new",
            "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
        }

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        """Start a command whose output is read line by line."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "postdicom_async.cli", *words),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    async def __call__(self, *words: str) -> str:
        """Run a command to its end; return what it wrote."""
        process = await self.start(*words)
        said, _ = await process.communicate()
        if process.returncode:
            raise SystemExit(f"postdicom {shlex.join(words)}: {said.decode()}")
        return said.decode()


@asynccontextmanager
async def two_archives(folder: Path) -> AsyncIterator[tuple[Commands, EmbeddedArchive, EmbeddedArchive]]:
    """Give archives that are called ``old:`` and ``new:``."""
    run = Commands(folder)
    async with (
        EmbeddedArchive(username="demo", password="old") as old,
        EmbeddedArchive(username="demo", password="new") as new,
    ):
        for name, archive in (("old", old), ("new", new)):
            await run("profiles", "add", name, "--url", archive.url, "--username", "demo", "--no-password")
        yield run, old, new


async def terminal(folder: Path) -> None:
    """Make the picture of a terminal, in which a few commands are run."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), color_system="truecolor", legacy_windows=False)
    write_samples(folder / "to-send")
    async with two_archives(folder) as (run, old, _):
        run.environment |= {"POSTDICOM_URL": old.url, "POSTDICOM_USERNAME": "demo", "POSTDICOM_PASSWORD": "old"}
        for line in SESSION:
            said = await run(*shlex.split(line)[1:])
            shown, more = (
                line.replace(" --field ", " \\\n      --field ", 1),
                said.strip("\n").replace(str(folder), "~"),
            )
            console.print(Text.assemble(("$ ", Style(color="green", bold=True)), (shown, Style(bold=True))))
            console.print(Text.from_ansi(more))
            console.print()
    drawing = console.export_svg(title="postdicom", theme=THEME, unique_id="terminal")
    drawing = re.sub(r"@font-face \{.*?\n    \}\n", "", drawing, flags=re.DOTALL)  # nothing is fetched by a reader
    drawing = drawing.replace("Fira Code, monospace", FONT).replace("font-family: arial", "font-family: sans-serif")
    drawing = "\n".join(line.rstrip() for line in drawing.splitlines() if line.strip()) + "\n"
    (INTO / "terminal.svg").write_text(drawing, encoding="utf-8")


async def take(tab: Tab, name: str, width: int, height: int, schemes: tuple[str, ...] = ("light", "dark")) -> None:
    """Take a picture of what a tab shows, in light and dark, with few colours and so few bytes."""
    for scheme in schemes:
        await tab.size(width, height, dark=scheme == "dark")
        await asyncio.sleep(0.3)  # what moves has come to rest
        path = INTO / f"{name}-{scheme}.png"
        await tab.picture(path)
        with Image.open(path) as picture:
            small = picture.convert("RGB").crop((0, 0, width, min(height, picture.height))).quantize(96)
        small.save(path, optimize=True)
        if path.stat().st_size > MOST_BYTES:
            raise SystemExit(f"{path.name} has {path.stat().st_size} bytes")


async def job_pages(folder: Path) -> None:
    """Make the pictures of the live page of a job, and of its report."""
    async with two_archives(folder) as (run, old, _), chromium(folder / "browser") as tab:
        async with DicomWeb(old.url, auth=old.auth) as client:
            for study in range(1, 25):
                await client.upload(list(study_files(12 + study, study=study, series=3, pixel_bytes=60_000).values()))
        copying = await run.start("copy", "old:", "new:", "--max-rate", "2M")
        await asyncio.sleep(4)
        serving = await run.start("jobs", "serve", "copy", "--control")
        try:
            assert serving.stdout
            async for line in serving.stdout:
                if address := re.search(rb"http://\S+", line):
                    await tab.go(address[0].decode())
                    break
            await asyncio.sleep(6)
            await take(tab, "live-page", 900, 760)
        finally:
            serving.terminate()
            await serving.communicate()
        await copying.communicate()
        await run("verify", "old:", "new:", "--level", "bytes")
        await run("jobs", "report", "copy", "--to", "report.html")
        await tab.go((folder / "report.html").as_uri())
        await take(tab, "report", 900, 900)


async def share_page(folder: Path) -> None:
    """Make the picture of the page behind a share link, which the embedded archive shows."""
    async with EmbeddedArchive() as archive, chromium(folder / "browser") as tab:
        user, password = archive.auth or ("", "")
        async with PostDicom(archive.url, user, password) as client:
            await client.upload(write_samples(folder / "samples"))
            made = await client.folders.create("Second opinion")
            for order in await client.orders.search().all():
                if (order.patient_name or "").startswith(NAMES):
                    await client.folders.add_order(order.patient_order_uuid, [made.folder_uuid])
            link = await client.folders.share(made.folder_uuid, title="Second opinion", expires="2030-12-31")
        await tab.go(str(link.url))
        await take(tab, "share-page", 420, 760, ("light",))


PICTURES: dict[str, Callable[[Path], Coroutine[None, None, None]]] = {
    "terminal": terminal,
    "jobs": job_pages,
    "share": share_page,
}


async def main(names: list[str]) -> None:
    """Make those that are named, or all."""
    INTO.mkdir(exist_ok=True)
    for name in names or PICTURES:
        with tempfile.TemporaryDirectory() as folder, suppress(asyncio.CancelledError):
            await PICTURES[name](Path(folder))
        print(json.dumps({name: sorted(path.name for path in INTO.iterdir())}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
