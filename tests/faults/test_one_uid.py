"""Several sources with one SOP Instance UID: what is cut off displaces nothing, and a refused one makes room."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from postdicom_async import CloudApi, DicomWeb, Status, UploadReport
from tests.faults.archive import MemoryArchive, parts_sent, uids_of
from tests.faults.clients import settings
from tests.support.bodies import stow_answer
from tests.support.dicom_files import small_dicom, uid
from tests.support.faulty_server import FaultyServer, Reply, Request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.clients import Connect

pytestmark = pytest.mark.above_the_transport

FAILED, STORED, UNREADABLE = Status.FAILED, Status.STORED, Status.UNREADABLE
WHOLE = small_dicom(pixel_bytes=4096)
CUT = WHOLE[:-100]
OTHER = small_dicom(pixel_bytes=4096, patient_name="OTHER^ONE")
NEIGHBOUR = small_dicom(uid(1), uid(1, 1), uid(1, 1, 2))
CUT_OFF = "cut off: its pixel data need 4096 bytes, 3996 are there"


@dataclass
class Picky:
    """An archive that fails some files, by their bytes, and stores the others."""

    refused: tuple[bytes, ...]
    archive: MemoryArchive = field(default_factory=MemoryArchive)
    sent: list[bytes] = field(default_factory=list)

    def __call__(self, request: Request) -> Reply:
        if request.method != "POST":
            return self.archive(request)
        parts = parts_sent(request)
        self.sent += parts
        bad = [part for part in parts if part in self.refused]
        good = [part for part in parts if part not in self.refused]
        self.archive.stored.update({uids_of(part): part for part in good})
        body = stow_answer(
            referenced=[uids_of(part).sop_instance_uid for part in good],
            failed=[uids_of(part).sop_instance_uid for part in bad],
        )
        return Reply(200 if good else 409, {"Content-Type": "application/dicom+json"}, body)


def summary(report: UploadReport) -> list[tuple[Status, str | None]]:
    return [(one.status, one.reason) for one in report.outcomes]


def on_disk(folder: Path, files: list[bytes]) -> Path:
    for number, data in enumerate(files):
        (folder / f"{number}").write_bytes(data)
    return folder


@pytest.mark.parametrize("kind", ["memory", "disk"])
async def test_the_cut_one_comes_first(connect: Connect, kind: str, tmp_path: Path) -> None:
    files = [CUT, WHOLE, NEIGHBOUR]
    archive = Picky(())
    async with FaultyServer(archive) as server, connect(server.url) as client:
        report = await client.upload(on_disk(tmp_path, files) if kind == "disk" else files)
        assert summary(report) == [(UNREADABLE, CUT_OFF), (STORED, None), (STORED, None)]
        assert sorted(archive.sent) == sorted([WHOLE, NEIGHBOUR])
        insisted = await client.upload(CUT, send_truncated=True)
        assert summary(insisted) == [(STORED, None)]
        (one,) = await client.store_instances(CUT)
        assert (one.status, one.reason) == (UNREADABLE, CUT_OFF)
        (one,) = await client.store_instances(CUT, send_truncated=True)
        assert one.status is STORED
    assert archive.sent[2:] == [CUT, CUT]


@pytest.mark.parametrize("kind", ["memory", "disk"])
@pytest.mark.parametrize("batch", [1, 2, 10])
async def test_the_archive_refuses_the_first(connect: Connect, kind: str, batch: int, tmp_path: Path) -> None:
    files = [CUT, OTHER, WHOLE, NEIGHBOUR]
    archive = Picky((CUT, OTHER))
    async with FaultyServer(archive) as server, connect(server.url, settings(batch_instances=batch)) as client:
        report = await client.upload(on_disk(tmp_path, files) if kind == "disk" else files, send_truncated=True)
    assert [one.status for one in report.outcomes] == [FAILED, FAILED, STORED, STORED]
    assert archive.archive.stored == {uids_of(WHOLE): WHOLE, uids_of(NEIGHBOUR): NEIGHBOUR}
    assert sorted(archive.sent) == sorted(files)


async def test_in_one_request_the_second_takes_one_more(connect: Connect) -> None:
    archive = Picky((OTHER,))
    async with FaultyServer(archive) as server, connect(server.url) as client:
        outcomes = await client.store_instances([OTHER, WHOLE, NEIGHBOUR])
    assert [one.status for one in outcomes] == [FAILED, STORED, STORED]
    assert archive.sent == [OTHER, NEIGHBOUR, WHOLE]


def test_the_options_are_keywords() -> None:
    for method in (DicomWeb.upload, DicomWeb.store_instances, CloudApi.upload):
        option = inspect.signature(method).parameters["send_truncated"]
        assert (option.kind, option.default) == (inspect.Parameter.KEYWORD_ONLY, False)
