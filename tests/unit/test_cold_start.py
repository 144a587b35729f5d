"""What a start imports: each of these processes is a new one. No clock is read, names alone are counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer.main
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

import postdicom_async
from postdicom_async.cli.app import app
from postdicom_async.dicom import tags
from tests.cli.commands import all_commands

PROJECT = Path(postdicom_async.__file__).parents[1]
HEAVY = {
    "PIL", "aiohttp", "click", "keyring", "numpy", "pydantic", "pydicom", "pygments", "requests", "rich", "sqlite3",
    "starlette", "typer", "uvicorn", "uvloop", "websockets",
}  # fmt: skip
NETWORK = {"anyio", "asyncio", "http.client", "httpx", "ssl", "urllib.request"}

OPENED = """
import asyncio, sys
from postdicom_async import {0}
async def main():
    async with {1}:
        pass
asyncio.run(main())
"""
SEARCH = """
import asyncio, json, sys
from postdicom_async import DicomWeb
async def answer(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    body = json.dumps([{"0020000D": {"vr": "UI", "Value": ["1.2.3"]}}]).encode()
    writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Type: application/dicom+json\\r\\nConnection: close\\r\\n")
    writer.write(b"Content-Length: %d\\r\\n\\r\\n" % len(body) + body)
    await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, DicomWeb(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as archive:
        await search(archive)
def results(archive):
    asked_for = {"PatientName": "DOE*", "StudyDate": ("20240101", None), "00080061": "CT"}
    return archive.search_for_studies(asked_for, fields=["StudyDescription"], limit=1)
"""
RAW = """
async def search(archive):
    assert [one["0020000D"]["Value"] for one in await results(archive).raw.all()] == [["1.2.3"]]
asyncio.run(main())
"""
WHILE_THE_LOOP_RUNS = """
import importlib.util, threading
going_on, loading, told = threading.Event(), threading.Event(), []
pydicom = importlib.util.find_spec("pydicom")
load = pydicom.loader.exec_module
def slowly(module):
    loading.set()
    told.append(going_on.wait(30))
    load(module)
pydicom.loader.exec_module = slowly
class Slow:
    def find_spec(self, name, path=None, target=None):
        return pydicom if name == "pydicom" else None
sys.meta_path.insert(0, Slow())
async def search(archive):
    async def other_work():
        while not loading.is_set():
            await asyncio.sleep(0.01)
        going_on.set()
    other = asyncio.create_task(other_work())
    assert (FOUND).StudyInstanceUID == "1.2.3"
    await other
asyncio.run(main())
assert told == [True], "the event loop stood still while pydicom was loaded"
"""


def modules_after(code: str) -> set[str]:
    """Return what a new process has imported, packages that are not Python's own by their first name too."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}  # it imports much
    environment = {**kept, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-W", "error", "-c", code + "\nimport sys; print('\\n', *sys.modules)"]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", timeout=60)
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.splitlines()[-1].split())


def test_the_package_alone_imports_no_network_and_no_dicom() -> None:
    assert not modules_after("import postdicom_async; postdicom_async.NotFound") & (HEAVY | NETWORK)


@pytest.mark.parametrize(
    ("name", "client"),
    [
        ("DicomWeb", "DicomWeb('http://127.0.0.1:1', auth=('user', 'password'), settings=None, dialect='dicomweb')"),
        ("PostDicom", "PostDicom('https://127.0.0.1:1', 'user', 'password')"),
    ],
)
def test_an_open_client_needs_nothing_heavy(name: str, client: str) -> None:
    loaded = modules_after(OPENED.format(name, client))
    assert "httpx" in loaded
    assert not loaded & HEAVY


def test_a_search_for_plain_json_needs_no_pydicom() -> None:
    assert not modules_after(SEARCH + RAW) & (HEAVY - {"aiohttp"})


@pytest.mark.parametrize(
    "found",
    ["await results(archive).first()", "(await results(archive).all())[0]", "await anext(aiter(results(archive)))"],
)
def test_the_event_loop_goes_on_while_pydicom_is_loaded(found: str) -> None:
    assert "pydicom" in modules_after(SEARCH + WHILE_THE_LOOP_RUNS.replace("FOUND", found))


def test_the_dictionary_says_what_pydicom_s_says() -> None:
    known = tags._COMMON
    assert len(known) > 80
    for keyword, (tag, vr) in known.items():
        assert (tag_for_keyword(keyword), dictionary_VR(tag), keyword_for_tag(tag)) == (tag, vr, keyword)
        assert tags.tag_of_keyword(keyword) == tag
        assert (tags.keyword_of(tag), tags.vr_of_tag(tag)) == (keyword, vr)


def test_what_is_not_in_the_short_dictionary_is_asked_of_pydicom() -> None:
    assert tags.tag_of_keyword("WaveformSequence") == 0x54000100
    assert (tags.keyword_of(0x54000100), tags.vr_of_tag(0x54000100)) == ("WaveformSequence", "SQ")
    assert (tags.tag_of_keyword(""), tags.tag_of_keyword("NoSuchName")) == (None, None)
    assert (tags.keyword_of(0x00091001), tags.vr_of_tag(0x00091001)) == ("", "")


# --- httpx's command --------------------------------------------------------------------------------------------------

needs_httpx_command = pytest.mark.skipif(find_spec("click") is None, reason="httpx has no command without click")


@needs_httpx_command
def test_httpx_s_command_is_not_loaded_but_can_be() -> None:
    assert "httpx._main" not in modules_after("import postdicom_async.http.session, httpx")
    assert "httpx._main" in modules_after("import postdicom_async.http.session, httpx._main; httpx._main.main.name")


@needs_httpx_command
def test_an_httpx_that_is_there_already_keeps_its_command() -> None:
    code = "import httpx; command = httpx.main; import postdicom_async.http.session; assert httpx.main is command"
    assert "httpx._main" in modules_after(code)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_version_needs_no_parser_and_no_network() -> None:
    code = "from postdicom_async.cli.main import main; assert main(['--version']) == 0"
    assert not modules_after(code) & (HEAVY | (NETWORK - {"http.client"}))


def test_the_help_imports_no_network_but_the_loop() -> None:
    code = "from postdicom_async.cli.main import main; assert main(['--help']) == 0"
    assert not modules_after(code) & (HEAVY - {"click", "pydantic", "pygments", "rich", "typer"} | {"httpx"})


def test_a_command_imports_only_its_own_words() -> None:
    code = "from postdicom_async.cli.app import app; import typer.main; typer.main.get_command(app({0!r}))"
    ours = {
        json.dumps(words): {
            name for name in modules_after(code.format(words)) if name.startswith("postdicom_async.cli.")
        }
        for words in (["search", "studies"], ["cloud", "account"])
    }
    assert not [name for name in ours['["search", "studies"]'] if "cloud" in name or "orders" in name]
    assert "postdicom_async.cli.folders" not in ours['["cloud", "account"]']


@pytest.mark.parametrize("dashes", [[], ["--"]], ids=["plain", "behind dashes"])
def test_every_command_is_found_by_its_words(dashes: list[str]) -> None:
    for words in all_commands():
        command = typer.main.get_command(app([*dashes, *words, "--help"]))
        for word in words:
            assert set(command.commands) == {word}  # type: ignore[attr-defined]  # a group
            command = command.commands[word]  # type: ignore[attr-defined]


@pytest.mark.parametrize("words", [[], ["--help"], ["--help", "upload"], ["serach"], ["--", "serach"], [""]])
def test_where_no_command_is_named_all_are_offered(words: list[str]) -> None:
    named = {first for first, *_ in all_commands()}
    assert set(typer.main.get_command(app(words)).commands) == named  # type: ignore[attr-defined]


def test_where_no_command_of_a_group_is_named_all_of_it_are_offered() -> None:
    cloud = typer.main.get_command(app(["cloud", "--help"])).commands["cloud"]  # type: ignore[attr-defined]
    assert set(cloud.commands) == {words[1] for words in all_commands() if words[0] == "cloud"}
