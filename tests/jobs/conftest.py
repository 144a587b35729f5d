"""What the tests of jobs share: a state folder of their own, folders and archives, and what an end holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from postdicom_async.emulator import EmbeddedArchive
from tests.support.dicom_files import study_files


@pytest.fixture(autouse=True)
def _state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTDICOM_STATE", str(tmp_path / "state"))


@pytest.fixture
def files() -> Mapping[str, bytes]:
    """Give three studies of five instances in two series, by SOP Instance UID."""
    return {name: data for study in (1, 2, 3) for name, data in study_files(5, study=study, series=2).items()}


@pytest.fixture
def folder(tmp_path: Path, files: Mapping[str, bytes]) -> Path:
    """Give a folder with those, and one file that is not DICOM."""
    folder = tmp_path / "incoming"
    folder.mkdir()
    for number, data in enumerate(files.values()):
        (folder / f"{number}.dcm").write_bytes(data)
    (folder / "notes.txt").write_text("nothing of DICOM")
    return folder


@pytest.fixture
async def archive() -> AsyncIterator[EmbeddedArchive]:
    """Run an archive that asks for no credentials."""
    async with EmbeddedArchive(username=None, password=None) as archive:
        yield archive


@pytest.fixture
async def other_archive() -> AsyncIterator[EmbeddedArchive]:
    """Run another one."""
    async with EmbeddedArchive(username=None, password=None) as archive:
        yield archive
