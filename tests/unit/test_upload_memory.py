"""What an upload keeps does not grow with the number of instances, unless the caller asks for every outcome."""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from postdicom_async import CloudApi, DicomWeb, InstanceFinished, Limits, ProgressEvent, Settings, Status
from postdicom_async.cloud import upload as cloud_upload
from postdicom_async.dicomweb import upload as upload_module
from postdicom_async.dicomweb.store import Reached
from postdicom_async.dicomweb.store_answer import StoreVerdict
from postdicom_async.disk import scratch
from postdicom_async.disk.sources import Usable
from postdicom_async.transfer.intake import Fate, SettledVersions, Version
from tests.cloud.service import CloudService
from tests.support.dicom_files import small_dicom, uid
from tests.support.large import large

SIZES = [(3000, 6000), large((10_000, 20_000))]
MOST_AN_INSTANCE = 0.2  # blocks of memory; an outcome alone is several

pytestmark = pytest.mark.usefixtures("_nothing_is_sent")


class Made(Collection[bytes]):
    """So many small instances, each made when it is drawn."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._number = b"1000000"
        self._template = small_dicom(uid(1), uid(1, 1), uid(1, 1, int(self._number)), pixel_bytes=64)

    def __len__(self) -> int:
        return self.count

    def __contains__(self, one: object) -> bool:
        raise NotImplementedError

    def __iter__(self) -> Iterator[bytes]:
        for number in range(self.count):
            yield self._template.replace(b"." + self._number, b".%d" % (int(self._number) + number))


class _Stored:
    """Stands in for what sends batches: all is stored."""

    def __init__(self, *_: object) -> None:
        pass

    async def deliver(
        self, batch: Sequence[Usable], reached: Reached, settle: Callable[[Usable, StoreVerdict], None]
    ) -> None:
        for one in batch:
            reached(one, one.body.length)
            settle(one, StoreVerdict(Status.STORED))


@pytest.fixture
def _nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stored(*_: object) -> Any:
        return cloud_upload._Verdict(Status.STORED)

    monkeypatch.setattr(upload_module, "Storing", _Stored)
    monkeypatch.setattr(cloud_upload.CloudUpload, "_verdict", stored)


@pytest.fixture(params=["DICOMweb", "Cloud"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[DicomWeb | CloudApi]:
    if request.param == "DICOMweb":
        transport = httpx.MockTransport(lambda _: httpx.Response(500))
        async with DicomWeb("http://127.0.0.1", settings=Settings(limits=Limits()), transport=transport) as archive:
            yield archive
        return
    async with CloudService() as service, service.client() as api:
        yield api


class Growth:
    """Looks at how many blocks of memory Python holds when so many instances are done, and again later."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self._held: list[int] = []

    def look(self, done: int) -> None:
        if done in (self.first, self.last - 300):
            gc.collect()
            self._held.append(sys.getallocatedblocks())

    def __call__(self, event: ProgressEvent) -> None:
        if isinstance(event, InstanceFinished):
            self.look(event.totals.instances_done)

    def require_none(self) -> None:
        before, after = self._held
        assert (after - before) / (self.last - self.first) < MOST_AN_INSTANCE


@pytest.fixture(params=SIZES, ids=str)
def growth(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Growth:
    monkeypatch.setattr(scratch, "_RECENT", 64)  # what is in memory by design is next to nothing
    return Growth(*request.param)


async def test_outcomes_that_are_read_as_they_come(client: DicomWeb | CloudApi, growth: Growth) -> None:
    done = 0
    outcomes = client.upload_each(Made(growth.last))
    async for outcome in outcomes:
        assert outcome.status is Status.STORED
        done += 1
        growth.look(done)
    growth.require_none()
    assert outcomes.report.counts == {Status.STORED: growth.last}
    assert outcomes.report.outcomes == ()


async def test_outcomes_that_go_into_a_file(client: DicomWeb | CloudApi, growth: Growth, tmp_path: Path) -> None:
    report = await client.upload(Made(growth.last), progress=growth, report=tmp_path / "report")
    growth.require_none()
    assert report.counts == {Status.STORED: growth.last}
    assert (tmp_path / "report").read_bytes().count(b"\n") == growth.last


# --- what was seen ----------------------------------------------------------------------------------------------------


def test_what_was_seen_is_found_again_however_much_there_is() -> None:
    seen = SettledVersions()
    fates = [Fate(Status.STORED, False, "order"), Fate(Status.FAILED, True, None)]
    for number in range(2000):
        versions = [Version(number, 7, bytes([number % 256]) * 32, fate) for fate in fates[: 1 + number % 2]]
        seen.put(uid(number), versions)
    for number in range(2000):
        found = seen.of(uid(number))
        assert [one.fate for one in found] == fates[: 1 + number % 2]
        assert {(one.number, one.length, one.content) for one in found} == {(number, 7, bytes([number % 256]) * 32)}
    assert seen.of(uid(2000)) == []
    seen.close()
    assert seen.of(uid(1)) == []
