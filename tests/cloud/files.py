"""DICOM files for uploads, and what an archive holds of them."""

from __future__ import annotations

import random
from pathlib import Path

from postdicom_async.emulator import EmbeddedArchive
from tests.support.dicom_files import small_dicom, uid

__all__ = ["PART", "dicom_of_size", "held_by", "study_in"]

PART = 512 * 1024


def study_in(folder: Path, count: int = 5, *, study: int = 1, pixel_bytes: int = 512) -> dict[str, bytes]:
    """Write a study's files; return them by SOP Instance UID."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        uid(study, 1, number): small_dicom(
            uid(study), uid(study, 1), uid(study, 1, number), number=number, pixel_bytes=pixel_bytes
        )
        for number in range(1, count + 1)
    }
    for name, data in files.items():
        (folder / f"{name}.dcm").write_bytes(data)
    return files


def dicom_of_size(size: int, number: int = 1) -> bytes:
    """Return a file of exactly so many bytes."""
    start = small_dicom(uid(9), uid(9, 1), uid(9, 1, number), pixel_bytes=0)
    body = size - len(start) - 12
    assert body >= 0
    head = b"\xe0\x7f\x10\x00OW\0\0" + body.to_bytes(4, "little")
    return start + head + random.Random(size).randbytes(body)


def held_by(server: EmbeddedArchive) -> dict[str, bytes]:
    """Return every file that the archive holds, by its SOP Instance UID; blocks."""
    return {one.uids.sop_instance_uid: one.path.read_bytes() for one in server.store.instances()}
