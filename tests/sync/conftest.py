"""An embedded archive with a few studies, for the tests of the synchronous client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from postdicom_async.emulator import EmbeddedArchive, archive_in_thread
from postdicom_async.sync import DICOMwebClient
from tests.support.dicom_files import small_dicom, uid

# Three studies of two series with two instances each.
UIDS = [
    (uid(study), uid(study, series), uid(study, series, number))
    for study in (1, 2, 3)
    for series in (1, 2)
    for number in (1, 2)
]


@pytest.fixture(scope="session", name="running_archive")
def _running_archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedArchive]:
    folder = tmp_path_factory.mktemp("sync")
    paths = []
    for number, uids in enumerate(UIDS):
        path = folder / f"{number}.dcm"
        path.write_bytes(small_dicom(*uids, patient_id=f"P-{uids[0][-1]}", number=number))
        paths.append(path)
    with archive_in_thread() as archive:
        archive.add_files(paths)
        yield archive


@pytest.fixture
def archive(running_archive: EmbeddedArchive) -> EmbeddedArchive:
    """Give the archive; tests leave in it what was there."""
    return running_archive


@pytest.fixture
def client(archive: EmbeddedArchive) -> Iterator[DICOMwebClient]:
    """Give a client of it."""
    with DICOMwebClient(archive.url, auth=archive.auth) as made:
        yield made
