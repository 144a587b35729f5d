"""What the tests of the embedded archive share: instances, bodies, parts."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from postdicom_async.emulator.samples import pydicom_test_files
from tests.support.plain_http import NO_AUTHORITIES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postdicom_async.emulator import EmbeddedArchive

TEST_FILES = pydicom_test_files()
STOW_TYPE = 'multipart/related; type="application/dicom"; boundary="{}"'
FAILED, STORED = "00081198", "00081199"


def client_of(archive: EmbeddedArchive | None = None) -> httpx.AsyncClient:
    if archive is None:
        return httpx.AsyncClient(verify=NO_AUTHORITIES, trust_env=False)
    return httpx.AsyncClient(base_url=archive.url, auth=archive.auth, verify=NO_AUTHORITIES, trust_env=False)


def make_dataset(
    study: str = "1.2.3", series: str = "1.2.3.1", instance: str = "1.2.3.1.1", **keywords: Any
) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = keywords.pop("SpecificCharacterSet", "ISO_IR 192")
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = instance
    ds.StudyInstanceUID = study
    ds.SeriesInstanceUID = series
    ds.Modality = "CT"
    for keyword, value in keywords.items():
        setattr(ds, keyword, value)
    return ds


def encode(ds: Dataset, transfer_syntax: UID = ExplicitVRLittleEndian) -> bytes:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = transfer_syntax
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def make_instance(*uids: str, **keywords: Any) -> bytes:
    return encode(make_dataset(*uids, **keywords))


def with_pixels(*uids: str, rows: int = 4, columns: int = 4, frames: int = 1, **keywords: Any) -> Dataset:
    ds = make_dataset(*uids, Rows=rows, Columns=columns, SamplesPerPixel=1, BitsAllocated=16, **keywords)
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 15, 0
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.NumberOfFrames = frames
    ds.PixelData = b"".join(bytes([number + 1, 0]) * (rows * columns) for number in range(frames))
    ds["PixelData"].VR = "OW"
    return ds


def related(parts: Iterable[bytes], boundary: str = "limit") -> bytes:
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(head + part + b"\r\n" for part in parts) + f"--{boundary}--\r\n".encode()


async def store(
    client: httpx.AsyncClient, *parts: bytes, path: str = "/studies", boundary: str = "limit", **headers: str
) -> httpx.Response:
    body = related(parts, boundary)
    return await client.post(path, content=body, headers={"Content-Type": STOW_TYPE.format(boundary), **headers})


def uids_in(answer: httpx.Response, sequence: str = STORED) -> list[str]:
    items = answer.json().get(sequence, {}).get("Value", [])
    return [item.get("00081155", {}).get("Value", [""])[0] for item in items]


def reasons_in(answer: httpx.Response) -> list[int]:
    return [item["00081197"]["Value"][0] for item in answer.json()[FAILED]["Value"]]


class ReceivedPart(NamedTuple):
    headers: dict[str, str]
    body: bytes


def parts_of(answer: httpx.Response) -> list[ReceivedPart]:
    """Take an answer apart by its parts' lengths, and insist on every delimiter."""
    boundary = answer.headers["content-type"].partition("boundary=")[2]
    rest, parts = answer.content, []
    delimiter = f"--{boundary}\r\n".encode()
    while rest.startswith(delimiter):
        head, _, rest = rest.removeprefix(delimiter).partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        length = int(headers["Content-Length"])
        parts.append(ReceivedPart(headers, rest[:length]))
        assert rest[length : length + 2] == b"\r\n"
        rest = rest[length + 2 :]
    assert rest == f"--{boundary}--\r\n".encode()
    return parts


def values(results: list[dict[str, Any]], tag: str) -> list[Any]:
    return [result.get(tag, {}).get("Value", [None])[0] for result in results]
