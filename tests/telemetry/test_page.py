"""The recipes of the page on logs and traces do what the page says."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
import tomllib
from datetime import datetime
from importlib import import_module
from typing import Any

import pytest

from postdicom_async import DicomWeb
from postdicom_async.emulator import EmbeddedArchive
from tests.docs.pages import PROJECT, blocks_of
from tests.faults.archive import MemoryArchive
from tests.support.dicom_files import study_files
from tests.support.faulty_server import FaultyServer

PAGE = "docs/howto/logs-and-traces.md"
FILES = list(study_files(2).values())

pytestmark = pytest.mark.skipif(not (PROJECT / PAGE).is_file(), reason="installed without its pages")


def made_by(word: str) -> dict[str, Any]:
    """Run the block of the page that holds a word, and return what it makes."""
    (block,) = [one for one in blocks_of("python") if one.page == PAGE and word in one.text]
    made: dict[str, Any] = {}
    exec(compile(block.text, str(block), "exec"), made)
    return made


@pytest.fixture
def logger() -> Any:
    """Give the library's logger, and take away what is added to it."""
    logger = logging.getLogger("postdicom_async")
    before = list(logger.handlers)
    yield logger
    logger.handlers[:] = before
    logger.setLevel(logging.NOTSET)


async def test_lines_of_json(logger: logging.Logger) -> None:
    made = made_by("class AsJson")
    made["handler"].setStream(io.StringIO())
    async with FaultyServer(MemoryArchive()) as server, DicomWeb(server.url) as archive:
        await archive.upload(FILES)
    (line,) = made["handler"].stream.getvalue().splitlines()
    found = json.loads(line)
    assert datetime.fromisoformat(found["time"]).tzinfo is not None
    assert (found["level"], found["operation"], found["status"]) == ("DEBUG", "store instances", 200)
    assert found["sent"] == len(server.requests[0].body)


async def test_what_prometheus_reads() -> None:
    made = made_by("class Metrics")
    async with FaultyServer(MemoryArchive()) as server, DicomWeb(server.url, settings=made["settings"]) as archive:
        await archive.upload(FILES)
    lines = made["metrics"].text().splitlines()
    types = [line for line in lines if line.startswith("#")]
    assert types.count("# TYPE postdicom_requests_total counter") == 1
    assert len(types) == len(set(types)) == 5
    assert 'postdicom_requests_total{operation="store instances",status="200"} 1' in lines
    assert 'postdicom_instances_total{operation="upload",status="stored"} 2' in lines
    sent = len(server.requests[0].body)
    assert f'postdicom_sent_bytes_total{{operation="store instances",status="200"}} {sent}' in lines


async def test_opentelemetry_in_ten_lines() -> None:
    pytest.importorskip("opentelemetry.sdk")
    (block,) = [one for one in blocks_of("python") if one.page == PAGE and "ConsoleSpanExporter" in one.text]
    assert len(block.text.splitlines()) <= 10
    after = "import asyncio, sys\nfrom postdicom_async import DicomWeb\nasync def main():\n"
    after += "    async with DicomWeb(sys.argv[1]) as archive:\n        await archive.search_for_studies().all()\n"
    async with EmbeddedArchive(username=None, password=None) as archive:
        command = [sys.executable, "-c", f"{block.text}\n{after}asyncio.run(main())\nprovider.shutdown()", archive.url]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        done = await asyncio.to_thread(
            subprocess.run, command, check=True, capture_output=True, text=True, env=environment
        )
    assert '"name": "GET search for studies"' in done.stdout


def test_opentelemetry_instrument_finds_it() -> None:
    """What it does with the entry point, which an editable installation may not have yet."""
    pytest.importorskip("opentelemetry.sdk")
    from postdicom_async import watching

    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["entry-points"]["opentelemetry_instrumentor"]["postdicom_async"].partition(":")
    found = getattr(import_module(module), name)()
    found.instrument(skip_dep_check=True)
    assert watching._tracing is not None
    found.uninstrument()
    assert watching._tracing is None
