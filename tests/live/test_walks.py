"""How many files of the package an action walks through: whoever follows it has to open so many.

Counted are the files in which a function runs, on a client that is open and has done the same before.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import postdicom_async
from postdicom_async import CloudApi, PostDicom, read_files
from postdicom_async.emulator import EmbeddedArchive
from tests.support.dicom_files import study_files, uid

ROOT = str(Path(postdicom_async.__file__).parent) + "/"
ORDER = {"patient_name": "WALK^A", "patient_id": "W-1", "patient_birthdate": "2000-01-01", "modality": "CT"}


class Walk:
    """The files of the package in which functions were called, in any thread; the embedded archive stands apart."""

    def __init__(self) -> None:
        self.files: set[str] = set()

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Note a call; what the interpreter asks of a profiler."""
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(ROOT) and frame.f_code.co_name != "<module>":
            self.files.add(file.removeprefix(ROOT))

    def through(self) -> list[str]:
        """Return them."""
        return sorted(file for file in self.files if not file.startswith("emulator/"))


@pytest.fixture
def walk() -> Iterator[Walk]:
    walk = Walk()
    threading.setprofile(walk)  # before any thread is started: the disk's threads live as long as the event loop
    sys.setprofile(walk)
    yield walk
    sys.setprofile(None)
    threading.setprofile(None)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "sources"
    folder.mkdir()
    for name, data in study_files(3).items():
        (folder / f"{name}.dcm").write_bytes(data)
    return folder


async def test_scan(walk: Walk, sources: Path) -> None:
    await read_files(sources)
    assert len(walk.through()) <= 9


@pytest.mark.parametrize(("action", "most"), [("search", 20), ("upload", 24), ("download", 31), ("order", 20)])
async def test_dicomweb(
    walk: Walk, sources: Path, embedded_archive: EmbeddedArchive, tmp_path: Path, action: str, most: int
) -> None:
    async with PostDicom(embedded_archive.url, *(embedded_archive.auth or ())) as client:
        await client.upload(sources)
        for time in range(2):
            walk.files.clear()
            if action == "search":
                assert [study async for study in client.search_for_studies()]
            elif action == "upload":
                await client.upload(sources)
            elif action == "download":
                await client.download_study(uid(1), to=tmp_path / str(time))
            else:
                await client.orders.create(institution_uuid=embedded_archive.institution_uuid, **ORDER)
    assert len(walk.through()) <= most


@pytest.mark.parametrize(("action", "most"), [("order", 15), ("upload", 22)])
async def test_cloud(walk: Walk, sources: Path, embedded_archive: EmbeddedArchive, action: str, most: int) -> None:
    keys = embedded_archive.cloud_api_key, embedded_archive.cloud_account_key
    async with CloudApi(*keys, router_url=embedded_archive.router_url) as client:
        for _ in range(2):
            walk.files.clear()
            if action == "order":
                await client.orders.create(**ORDER)
            else:
                await client.upload(sources)
    assert len(walk.through()) <= most
