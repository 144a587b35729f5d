"""The pages for web developers, literally: their programs run, their lines give what they say, their tests pass."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

import postdicom_async
from postdicom_async import PostdicomError
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.emulator.samples import write_samples
from postdicom_async.web import STATUSES
from tests.docs.pages import DOCS, PROJECT, blocks_of
from tests.support.dicom_files import study_files, uid
from tests.support.faulty_server import unused_port
from tests.support.plain_http import NO_AUTHORITIES

pytest.importorskip("fastapi")
pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="installed without its documentation")

START, PAGE, TESTING = "docs/start/web-backend.md", "docs/howto/web-backends.md", "docs/howto/testing.md"
FILES = list(study_files(3, study=1, series=1).values())


SETTINGS = """\
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings =
    error
    ignore:Using .httpx. with .starlette.testclient.
"""


def blocks(page: str, language: str) -> list[str]:
    return [block.text for block in blocks_of(language) if block.page == page]


@asynccontextmanager
async def running(folder: Path, code: str, line: str, archive: EmbeddedArchive) -> AsyncIterator[str]:
    """Run a page's program by the page's own line, at another port; give its address."""
    port = unused_port()
    (folder / "app.py").write_text(code)
    words = line.replace("8000", str(port)).split()
    account = {"POSTDICOM_URL": archive.url, "POSTDICOM_USERNAME": "demo", "POSTDICOM_PASSWORD": "demo"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *words),
        cwd=folder,
        env={**os.environ, **account, "PYTHONPATH": str(PROJECT)},
        stderr=asyncio.subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(verify=NO_AUTHORITIES, trust_env=False) as client, asyncio.timeout(30):
            while True:
                try:
                    await client.get(f"{url}/openapi.json")
                    break
                except httpx.ConnectError:
                    await asyncio.sleep(0.1)
        yield url
    finally:
        process.terminate()
        await process.wait()


async def test_the_first_page(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    lines = "".join(blocks(START, "sh")).splitlines()
    (serve,) = (line for line in lines if line.startswith("uvicorn"))
    (code,) = blocks(START, "python")
    asked = [line for line in lines if line.startswith("curl")]
    async with EmbeddedArchive() as archive:
        await archive.add(write_samples(tmp_path / "samples"))
        async with running(tmp_path, code, serve, archive) as url:
            said = [await _said(line.replace("http://127.0.0.1:8000", url), tmp_path) for line in asked]
    studies, _, uploaded, unknown = said
    shown = [line for line in "".join(blocks(START, "text")).splitlines() if line]
    assert [uploaded, unknown] == shown
    (saved,) = tmp_path.glob("*.zip")
    assert saved.stem in {study["uid"] for study in json.loads(studies)}
    with zipfile.ZipFile(saved) as zipped:
        assert zipped.testzip() is None
        assert zipped.namelist()


async def _said(line: str, folder: Path) -> str:
    process = await asyncio.create_subprocess_shell(
        f"{line} --silent --noproxy '*'", cwd=folder, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, line
    return said.decode()


async def test_the_page_s_backend(tmp_path: Path) -> None:
    """All its blocks in one file, as somebody would who copies each below the other."""
    code = "\n\n".join(blocks(PAGE, "python"))
    form = [("files", ("image.dcm", data)) for data in FILES]
    async with (
        EmbeddedArchive() as archive,
        running(tmp_path, code, "uvicorn app:app --port 8000", archive) as url,
        httpx.AsyncClient(verify=NO_AUTHORITIES, trust_env=False, timeout=30, auth=archive.auth) as client,
    ):
        assert (await client.post(f"{url}/studies", files=form)).json() == {"stored": 3}
        assert (await client.put(f"{url}/instances", content=FILES[0])).json() == {"stored": 1}
        watched = await client.post(f"{url}/studies/events", files=form)
        whole = await client.get(f"{url}/studies/{uid(1)}.zip")
        images = await client.get(f"{url}/studies/{uid(1)}/images.zip")
        refused = await client.get(f"{url}/studies/{uid(1)}.zip", auth=("demo", "wrong"))
    assert watched.text.endswith('event: ended\ndata: {"problem": "", "counts": {"stored": 3}}\n\n')
    for answer in (whole, images):
        with zipfile.ZipFile(io.BytesIO(answer.content)) as zipped:
            assert sorted(zipped.read(name) for name in zipped.namelist()) == sorted(FILES)
    assert refused.status_code == 401  # the last block says so


def test_the_table_of_statuses_is_the_one_in_force() -> None:
    text = (PROJECT / PAGE).read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (\d{3}) \|", text, re.MULTILINE)
    shown = {name: int(status) for names, status in rows for name in re.findall(r"\w+", names)}
    assert shown == {kind.__name__: status for kind, status in STATUSES.items()}
    assert all(issubclass(getattr(postdicom_async, name), PostdicomError) for name in shown)


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    fixtures, *tests = blocks(TESTING, "python")
    (app,) = blocks(START, "python")
    (tmp_path / "conftest.py").write_text(fixtures)
    (tmp_path / "app.py").write_text(app)
    for number, code in enumerate(tests):
        (tmp_path / f"test_{number}.py").write_text(f"from pathlib import Path\n\n{code}")
    (tmp_path / "pytest.ini").write_text(SETTINGS)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST")},
        "PYTHONPATH": str(PROJECT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
    assert f"{len(tests)} passed" in ran.stdout
