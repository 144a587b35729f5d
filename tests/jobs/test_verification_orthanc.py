"""Verification by bytes of what a real archive holds."""

from __future__ import annotations

from contextlib import aclosing
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest

from postdicom_async import Anonymization, DicomWeb, jobs
from postdicom_async.jobs.ends.archive import ArchiveEnd
from postdicom_async.jobs.states import Reason, State
from postdicom_async.jobs.summary import Summary
from tests.support.dicom_files import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, JPEG, small_dicom, uid
from tests.support.orthanc import OrthancServer

SYNTAXES = (EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED, JPEG)


@pytest.fixture
def of_every_kind(tmp_path: Path) -> Path:
    """Give a folder with an instance of each transfer syntax, and a large one."""
    folder = tmp_path / "every-kind"
    folder.mkdir()
    for number, syntax in enumerate(SYNTAXES, 1):
        data = small_dicom(instance=uid(1, 1, number), transfer_syntax=syntax, number=number)
        (folder / f"{number}.dcm").write_bytes(data)
    (folder / "large.dcm").write_bytes(small_dicom(instance=uid(1, 1, 9), pixel_bytes=20 << 20))
    return folder


def counts(summary: Summary) -> dict[State, int]:
    return {state: count.instances for state, count in summary.counts.items() if count.instances}


def replaced(orthanc: OrthancServer, uid_there: str, change: Any) -> None:
    """Have the archive hold another instance under a UID: what it had is deleted, and another one stored."""
    with orthanc.client(base_url=orthanc.rest_url) as client:
        dataset = pydicom.dcmread(BytesIO(orthanc.file(uid_there)))
        change(dataset)
        buffer = BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        (found,) = client.post("/tools/lookup", content=uid_there).raise_for_status().json()
        client.delete(f"/instances/{found['ID']}").raise_for_status()
        answer: httpx.Response = client.post("/instances", content=buffer.getvalue())
        assert answer.raise_for_status().json()["Status"] == "Success"


def reconciled(dataset: Any) -> None:
    dataset.PatientName, dataset.IssuerOfPatientID = "RECONCILED", "HOSPITAL"


def flipped(dataset: Any) -> None:
    pixels = bytearray(dataset.PixelData)
    pixels[len(pixels) // 2] ^= 1
    dataset.PixelData = bytes(pixels)


@pytest.mark.parametrize("anonymized", [False, True])
async def test_what_it_changed_is_told_from_what_was_damaged(
    anonymized: bool, of_every_kind: Path, orthanc: OrthancServer
) -> None:
    rules = Anonymization({"StudyDescription": ""}, remap_uids=True, secret="of the tests") if anonymized else None

    def there(number: int) -> str:
        return uid(1, 1, number) if rules is None else rules.new_uid(uid(1, 1, number))

    target = DicomWeb(orthanc.url, auth=(orthanc.username, orthanc.password))
    copied = await (await jobs.copy(of_every_kind, target, verify="bytes", anonymize=rules)).wait()
    assert counts(copied) == {State.DONE: 6}
    assert (copied.verified, copied.mismatches, dict(copied.coerced)) == (6, 0, {})
    replaced(orthanc, there(1), reconciled)
    replaced(orthanc, there(2), flipped)
    replaced(orthanc, there(9), reconciled)
    compared = await (await jobs.verify(of_every_kind, target, anonymize=rules, level="bytes")).wait()
    assert counts(compared) == {State.PRESENT: 5, State.FAILED: 1}
    (failed,) = [one for one in compared.reasons if one.state is State.FAILED]
    assert (failed.reason, failed.examples) == (Reason.DIFFERENT, (uid(1, 1, 2),))
    assert {tag: number for tag, number in compared.coerced.items() if tag.startswith("0010")} == {
        "00100010": 2,
        "00100021": 2,
    }


async def test_a_study_under_two_patient_ids_is_never_there(tmp_path: Path, orthanc: OrthancServer) -> None:
    """Orthanc calls a corrected study stored, lists it whole, and returns neither it nor what it had."""
    for patient in "AB":
        (tmp_path / patient).mkdir()
        (tmp_path / patient / "1.dcm").write_bytes(small_dicom(patient_id=patient))
    target = DicomWeb(orthanc.url, auth=(orthanc.username, orthanc.password))
    assert counts(await (await jobs.copy(tmp_path / "A", target, job=tmp_path / "a")).wait()) == {State.DONE: 1}
    verified = await (await jobs.verify(tmp_path / "A", target)).wait()
    assert counts(verified) == {State.PRESENT: 1}
    async with target:
        assert (await target.upload(tmp_path / "B")).ok, "a plain upload asks nothing more"
        async with ArchiveEnd(target) as end, aclosing(end.studies()) as pages:
            listed = [one async for page in pages for one in page]
        assert (len(listed), listed[-1].instances) == (2, None), "no count of it is believed"
    again = await (await jobs.copy(tmp_path / "A", target, job=tmp_path / "b")).wait()
    assert counts(again) == {State.UNCONFIRMED: 1}, "not present because its count is equal"
    found = await (await jobs.verify(tmp_path / "A", target)).wait()
    assert counts(found) == {State.UNCONFIRMED: 1}
    assert [one.reason for one in found.reasons if one.state is State.UNCONFIRMED] == [Reason.TWO_PATIENTS]
    with orthanc.client(base_url=orthanc.rest_url) as client:
        wrong = client.post("/tools/find", json={"Level": "Patient", "Query": {"PatientID": "B"}}).json()
        client.delete(f"/patients/{wrong[0]}").raise_for_status()
    assert counts(await (await jobs.verify(tmp_path / "A", target)).wait()) == {State.PRESENT: 1}
