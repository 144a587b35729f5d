"""What the tests of the suite share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from postdicom_async import BytesMoved, DownloadReport, InstanceFinished, ProgressEvent, Status, UploadReport
from postdicom_async.dicom.header import InstanceHeader, read_header

__all__ = ["Progress", "by_uid", "dataset_of", "files_below", "require_stored"]


def dataset_of(data: bytes) -> Dataset:
    return pydicom.dcmread(BytesIO(data))


def files_below(folder: Path) -> dict[str, bytes]:
    """Return relative path -> content of everything below, partial files included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def by_uid(paths: Iterable[Path]) -> dict[str, bytes]:
    """Return SOP Instance UID -> content."""
    files = {path: path.read_bytes() for path in paths}
    headers = {path: read_header(data, complete=True) for path, data in files.items()}
    return {one.uids.sop_instance_uid: files[path] for path, one in headers.items() if isinstance(one, InstanceHeader)}


def require_stored(report: UploadReport, count: int) -> None:
    assert report.ok, [(outcome.status, outcome.reason_code, outcome.reason) for outcome in report.failures]
    assert dict(report.counts) == {Status.STORED: count}


def require_identical(report: DownloadReport, expected: Mapping[str, bytes]) -> None:
    assert report.ok
    saved = {one.uids.sop_instance_uid: one for one in report.saved if one.uids}
    assert set(saved) == set(expected)
    for uid, one in saved.items():
        assert one.path.read_bytes() == expected[uid]
        assert one.size == len(expected[uid])
    assert report.bytes_received == sum(map(len, expected.values()))


class Progress:
    """Listens, and checks that events grow and add up."""

    def __init__(self) -> None:
        self.events: list[ProgressEvent] = []

    def __call__(self, event: ProgressEvent) -> None:
        self.events.append(event)

    def require_sound(self, *, instances: int, size: int, total_known: bool = True) -> None:
        bytes_done = [event.totals.bytes_done for event in self.events]
        instances_done = [event.totals.instances_done for event in self.events]
        assert bytes_done == sorted(bytes_done)
        assert instances_done == sorted(instances_done)
        finished = [event for event in self.events if isinstance(event, InstanceFinished)]
        assert len(finished) == instances == instances_done[-1]
        assert bytes_done[-1] == size
        assert any(isinstance(event, BytesMoved) for event in self.events) is (size > 0)
        known = {instances} if total_known else {instances, None}
        assert self.events[-1].totals.instances_total in known
