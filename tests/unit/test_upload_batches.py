"""How an upload is cut into requests, and what it makes of their verdicts."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import anyio
import httpx
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from postdicom_async import DicomWeb
from postdicom_async.dicomweb import upload as upload_module
from postdicom_async.dicomweb.dialects import DICOMWEB, POSTDICOM, Dialect
from postdicom_async.dicomweb.retrieve import Retrieval
from postdicom_async.dicomweb.store import Reached
from postdicom_async.dicomweb.store_answer import StoreVerdict
from postdicom_async.dicomweb.upload import Upload
from postdicom_async.disk.sources import Usable
from postdicom_async.errors import ConnectionFailed, UsageError
from postdicom_async.http.session import Session
from postdicom_async.results import InstanceFinished, ProgressEvent, Status, UploadReport
from postdicom_async.settings import Limits, Settings
from postdicom_async.transfer import intake as intake_module
from tests.support.bodies import stow_answer
from tests.support.dicom_files import small_dicom, study_files, uid
from tests.support.large import large


class Recorded:
    """Stands in for what sends batches; notes them."""

    def __init__(self) -> None:
        self.batches: list[list[Usable]] = []
        self.verdicts: dict[str, StoreVerdict] = {}
        self.fails_at: int | None = None
        self.running = self.most = 0

    def __call__(self, *_: object) -> Recorded:
        return self

    async def deliver(
        self, batch: Sequence[Usable], reached: Reached, settle: Callable[[Usable, StoreVerdict], None]
    ) -> None:
        self.batches.append(list(batch))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await anyio.sleep(0.001)
            if self.fails_at is not None and len(self.batches) > self.fails_at:
                raise ConnectionFailed("gone")
        finally:
            self.running -= 1
        for one in batch:
            reached(one, one.body.length)
            settle(one, self.verdicts.get(one.header.uids.sop_instance_uid, StoreVerdict(Status.STORED)))

    def sizes(self) -> list[list[int]]:
        return [[one.body.length for one in batch] for batch in self.batches]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    made = Recorded()
    monkeypatch.setattr(upload_module, "Storing", made)
    return made


def an_upload(dialect: Dialect = DICOMWEB, *, study: str | None = None, progress: Any = None, **limits: int) -> Upload:
    transport = httpx.MockTransport(lambda _request: httpx.Response(500))
    settings = Settings(limits=replace(Limits(), **limits))
    session = Session("http://127.0.0.1", auth=None, settings=settings, transport=transport)
    return Upload(Retrieval(session, dialect), study_instance_uid=study, on_progress=progress)


FILES = list(study_files(12, pixel_bytes=64).values())
SIZE = len(FILES[0])


async def test_by_count(recorded: Recorded) -> None:
    await an_upload(batch_instances=5).run(FILES)
    assert [len(batch) for batch in recorded.batches] == [5, 5, 2]


async def test_by_bytes(recorded: Recorded) -> None:
    await an_upload(batch_bytes=SIZE * 3 + 40).run(FILES)
    assert all(sum(sizes) <= SIZE * 3 + 40 for sizes in recorded.sizes())
    assert len(recorded.batches) == 4


async def test_a_larger_one_goes_alone(recorded: Recorded) -> None:
    large = small_dicom(uid(1), uid(1, 1), uid(1, 1, 99), pixel_bytes=100_000)
    await an_upload(batch_bytes=SIZE * 2 + 40).run([*FILES[:2], large, *FILES[2:4]])
    assert [len(batch) for batch in recorded.batches] == [2, 1, 2]


async def test_one_a_request_where_the_family_takes_no_more(recorded: Recorded) -> None:
    await an_upload(POSTDICOM).run(FILES)
    assert [len(batch) for batch in recorded.batches] == [1] * 12


async def test_as_one_request(recorded: Recorded) -> None:
    await an_upload(POSTDICOM, batch_bytes=1).run_as_one(FILES)
    assert [len(batch) for batch in recorded.batches] == [12]


async def test_never_more_requests_than_allowed(recorded: Recorded) -> None:
    await an_upload(batch_instances=1, parallel_stores=3).run(FILES)
    assert recorded.most == 3


async def test_outcomes_are_in_the_order_of_the_sources(recorded: Recorded) -> None:
    recorded.verdicts = {uid(1, 1, 3): StoreVerdict(Status.FAILED, 0x110, "processing failure")}
    report = await an_upload(batch_instances=2).run([b"junk", *FILES, b"", FILES[2], FILES[4]])
    statuses = [outcome.status for outcome in report.outcomes]
    stored, failed, junk = Status.STORED, Status.FAILED, Status.NOT_DICOM
    assert statuses == [junk, stored, stored, failed, *([stored] * 9), junk, failed, Status.DUPLICATE]
    assert (report.outcomes[3].reason_code, report.outcomes[3].reason) == (0x110, "processing failure")


async def test_another_study_is_not_sent(recorded: Recorded) -> None:
    report = await an_upload(study=uid(1)).run([FILES[0], small_dicom(uid(2), uid(2, 1), uid(2, 1, 1))])
    assert [outcome.status for outcome in report.outcomes] == [Status.STORED, Status.FAILED]
    assert [len(batch) for batch in recorded.batches] == [1]


async def test_an_end_in_the_middle_accounts_for_every_source(recorded: Recorded) -> None:
    recorded.fails_at = 2
    with pytest.raises(ConnectionFailed) as caught:
        await an_upload(batch_instances=2, parallel_stores=1).run(FILES)
    report = caught.value.report
    assert isinstance(report, UploadReport)
    assert [outcome.status for outcome in report.outcomes[:4]] == [Status.STORED] * 4
    assert {(one.status, one.reason) for one in report.outcomes[4:]} == {(Status.FAILED, "not sent: gone")}
    assert all(outcome.temporary for outcome in report.outcomes[4:])
    assert report.bytes_sent == sum(map(len, FILES[:4]))


async def test_sources_are_drawn_only_as_they_can_be_sent(recorded: Recorded) -> None:
    drawn = 0

    async def many() -> AsyncIterator[bytes]:
        nonlocal drawn
        for data in FILES * 100:
            drawn += 1
            yield data

    recorded.fails_at = 0
    with pytest.raises(ConnectionFailed):
        await an_upload(batch_instances=2, parallel_stores=2).run(many())
    assert drawn < 20


async def test_a_total_known_late_leaves_out_what_is_not_sent(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    events: list[ProgressEvent] = []
    delay = Recorded.deliver
    counted = anyio.Event()

    async def late(_sources: object) -> tuple[int, int]:
        await counted.wait()
        return 2, 4 + SIZE

    async def after_the_total(self: Recorded, *arguments: Any) -> None:
        counted.set()
        await anyio.sleep(0.01)
        await delay(self, *arguments)

    monkeypatch.setattr(intake_module, "measure", late)
    monkeypatch.setattr(Recorded, "deliver", after_the_total)
    (tmp_path / "0").write_bytes(b"junk")
    (tmp_path / "1").write_bytes(FILES[0])
    await an_upload(progress=events.append).run(tmp_path)
    assert events[-1].totals.bytes_total == SIZE


@pytest.mark.parametrize("progress", [5, "print", []])
def test_progress_that_cannot_be_called(progress: Any) -> None:
    with pytest.raises(UsageError, match="progress: "):
        an_upload(progress=progress)


@pytest.mark.parametrize("sources", ["", [FILES[0], ""]])
async def test_an_empty_path_ends_before_anything_is_sent(sources: Any, recorded: Recorded) -> None:
    with pytest.raises(UsageError, match="sources: an empty path"):
        await an_upload().run(sources)
    assert recorded.batches == []


# --- what is kept -----------------------------------------------------------------------------------------------------

LARGE, MANY = 2 << 20, 60


def fresh(number: int) -> bytes:
    """Make a file of 2 MB that nobody else holds."""
    return small_dicom.__wrapped__(uid(9), uid(9, 1), uid(9, 1, number), pixel_bytes=LARGE)


def as_dataset(data: bytes) -> Dataset:
    return pydicom.dcmread(BytesIO(data))


async def peak_of(sources: Any) -> int:
    """Upload through the client and return how much memory it took."""

    async def answer(request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        async for _ in request.stream:
            pass
        return httpx.Response(200, content=stow_answer(referenced=[uid(9, 1, n) for n in range(MANY)]))

    settings = Settings(limits=Limits(batch_bytes=4 << 20, parallel_stores=2))
    tracemalloc.start()
    try:
        async with DicomWeb("http://127.0.0.1", settings=settings, transport=httpx.MockTransport(answer)) as archive:
            report = await archive.upload(sources)
        assert report.counts == {Status.STORED: MANY}
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("kind", "asynchronous"), [(bytes, True), (as_dataset, False), large(bytes, False), large(as_dataset, True)]
)
async def test_what_was_sent_is_not_kept(kind: Callable[[bytes], Any], asynchronous: bool) -> None:
    async def stream() -> AsyncIterator[Any]:
        for number in range(MANY):
            yield kind(fresh(number))

    peak = await peak_of(stream() if asynchronous else (kind(fresh(number)) for number in range(MANY)))
    assert peak < 40 << 20


@pytest.mark.parametrize("first", ["bytes", "file"])
@pytest.mark.parametrize("second", ["bytes", "file"])
async def test_twins_of_every_kind(first: str, second: str, recorded: Recorded, tmp_path: Path) -> None:
    def given_as(kind: str, name: str, data: bytes) -> Any:
        if kind == "bytes":
            return data
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    data = small_dicom(pixel_bytes=300_000)
    other = data[:-1] + bytes([data[-1] ^ 1])
    sources = [given_as(first, "a", data), given_as(second, "b", data), given_as(second, "c", other)]
    report = await an_upload().run(sources)
    assert [one.status for one in report.outcomes] == [Status.STORED, Status.DUPLICATE, Status.FAILED]
    assert recorded.sizes() == [[len(data)]]


@given(
    picks=st.lists(st.integers(-1, 11), max_size=25),
    instances=st.integers(1, 5),
    size=st.integers(1, 8000),
)
@pytest.mark.asyncio
async def test_every_source_once(picks: list[int], instances: int, size: int) -> None:
    made, events = Recorded(), list[ProgressEvent]()
    sources = [FILES[pick] if pick >= 0 else b"junk" for pick in picks]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(upload_module, "Storing", made)
        report = await an_upload(batch_instances=instances, batch_bytes=size, progress=events.append).run(sources)
    sent = [one.header.uids.sop_instance_uid for batch in made.batches for one in batch]
    assert len(sent) == len(set(sent)) == len({pick for pick in picks if pick >= 0})
    assert len(report.outcomes) == len(sources)
    assert len([event for event in events if isinstance(event, InstanceFinished)]) == len(sources)
    assert all(len(batch) <= instances for batch in made.batches)
    assert all(len(sizes) == 1 or sum(sizes) <= size for sizes in made.sizes())
    assert report.counts.get(Status.DUPLICATE, 0) == len([pick for pick in picks if pick >= 0]) - len(sent)
    assert report.ok
