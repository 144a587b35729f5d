"""The fixtures as users have them: a project of its own, in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from postdicom_async.emulator import EmbeddedArchive, archive_in_thread
from postdicom_async.errors import UsageError
from tests.emulator.support import TEST_FILES, make_instance

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
SYNCHRONOUS = """
from pathlib import Path

from fastapi import FastAPI
from fastapi.testclient import TestClient

from postdicom_async import DicomWeb
from postdicom_async.emulator import EmbeddedArchive


def make_app(url, auth):
    app = FastAPI()

    @app.get("/count")
    async def count():
        async with DicomWeb(url, auth=auth) as archive:
            return len([one async for one in archive.search_for_studies()])

    return app


def test_the_app(embedded_archive_in_thread: EmbeddedArchive) -> None:
    archive = embedded_archive_in_thread
    client = TestClient(make_app(archive.url, archive.auth))
    assert client.get("/count").json() == 0
    archive.add_files([Path("one.dcm")])
    assert client.get("/count").json() == 1
    assert len(archive.store.instances()) == 1


def test_it_is_empty_again(embedded_archive_in_thread: EmbeddedArchive) -> None:
    assert embedded_archive_in_thread.store.instances() == []
"""
ASYNCHRONOUS = """
import pytest

from postdicom_async import DicomWeb


@pytest.mark.asyncio
async def test_a_search(embedded_archive) -> None:
    async with DicomWeb(embedded_archive.url, auth=embedded_archive.auth) as archive:
        assert [one async for one in archive.search_for_studies()] == []


@pytest.mark.asyncio
async def test_the_other_in_an_event_loop(embedded_archive_in_thread) -> None:
    archive = embedded_archive_in_thread
    async with DicomWeb(archive.url, auth=archive.auth) as client:
        assert [one async for one in client.search_for_studies()] == []
"""
IMPORTS = "from postdicom_async.emulator.pytest_fixtures import embedded_archive, embedded_archive_in_thread\n"
PLUGINS = 'pytest_plugins = ["postdicom_async.emulator.pytest_fixtures"]\n'
WITHOUT = """
import importlib.util

before = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "pytest_asyncio" else before(name, *more)
"""


def run(project: Path, test: str, conftest: str, *arguments: str, **environment: str) -> tuple[int, str]:
    """Run pytest in a project that has nothing but these two files and an instance."""
    (project / "pytest.ini").write_text("[pytest]\n")
    (project / "conftest.py").write_text(conftest)
    (project / "test_users.py").write_text(test)
    (project / "one.dcm").write_bytes(make_instance())
    kept: Mapping[str, str] = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=project,
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
        timeout=120,
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize("conftest", [IMPORTS, PLUGINS, WITHOUT + IMPORTS], ids=["imported", "plugin", "no asyncio"])
def test_a_plain_test_with_a_test_client(tmp_path: Path, conftest: str) -> None:
    pytest.importorskip("fastapi")
    status, told = run(tmp_path, SYNCHRONOUS, conftest, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")

    assert status == 0, told
    assert "2 passed" in told


@pytest.mark.parametrize("conftest", [IMPORTS, PLUGINS], ids=["imported", "plugin"])
def test_a_test_with_an_event_loop(tmp_path: Path, conftest: str) -> None:
    status, told = run(
        tmp_path, ASYNCHRONOUS, conftest, "-p", "pytest_asyncio.plugin", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"
    )

    assert status == 0, told
    assert "2 passed" in told


BOTH = """
import httpx
import pytest

from tests.support.plain_http import NO_AUTHORITIES


def test_plain(embedded_archive):
    httpx.get(f"{embedded_archive.url}/studies", auth=embedded_archive.auth, trust_env=False, timeout=60)


class TestOfAClass:
    @pytest.mark.%s
    async def test_async(self, embedded_archive):
        async with httpx.AsyncClient(verify=NO_AUTHORITIES, trust_env=False) as client:
            answer = await client.get(f"{embedded_archive.url}/studies", auth=embedded_archive.auth)
        assert answer.status_code == 200
"""


@pytest.mark.parametrize(("mark", "plugin"), [("asyncio", "pytest_asyncio.plugin"), ("anyio", "anyio.pytest_plugin")])
def test_a_plain_test_does_not_wait_for_ever(tmp_path: Path, mark: str, plugin: str) -> None:
    backend = "import pytest\n\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n\n"
    plugins = ["-p", "pytest_asyncio.plugin"] + (["-p", plugin] if mark == "anyio" else [])
    status, told = run(tmp_path, BOTH % mark, backend + IMPORTS, *plugins, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")

    assert status == 1
    assert "1 passed, 1 error" in told, told
    assert "this test is no 'async def': use embedded_archive_in_thread" in told


def test_without_pytest_asyncio_the_other_says_what_is_missing(tmp_path: Path) -> None:
    test = "def test_it(embedded_archive):\n    pass\n"
    status, told = run(tmp_path, test, WITHOUT + IMPORTS, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")

    assert status == 1
    assert "needs pytest-asyncio, which comes with the extra 'pytest'" in told


def test_the_extra_brings_what_the_fixtures_need() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    brought = " ".join(extras["pytest"])

    for name in ("postdicom-async[server]", "pytest>=", "pytest-asyncio>="):
        assert name in brought
    for name in ("starlette", "uvicorn", "pillow", "numpy"):
        assert name in " ".join(extras["server"])


def test_an_archive_in_a_thread() -> None:
    with archive_in_thread(EmbeddedArchive(username=None, password=None)) as archive:
        (stored,) = archive.add_files(TEST_FILES[:1])
        found = httpx.get(f"{archive.url}/studies", trust_env=False).json()
        assert found[0]["0020000D"]["Value"] == [stored.uids.study_instance_uid]
        archive.cloud.drop_sockets()
        url, folder = archive.url, archive.folder
    assert not folder.exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/studies", trust_env=False)


def test_what_goes_wrong_in_the_thread_is_raised_here() -> None:
    with archive_in_thread() as first:
        port = int(first.url.rpartition(":")[2])
        with pytest.raises(UsageError, match="cannot listen"), archive_in_thread(EmbeddedArchive(port=port)):
            pass
    with pytest.raises(ZeroDivisionError), archive_in_thread():
        raise ZeroDivisionError
