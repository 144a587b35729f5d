"""Two archives that fail at random: whatever an outcome says is so, and in the end the target is exact."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import pytest

from postdicom_async import DicomWeb, PostdicomError
from postdicom_async.dicomweb import confirm, opening
from postdicom_async.jobs.ends.archive import ArchiveEnd
from postdicom_async.jobs.ends.end import ListedInstance, Selection
from postdicom_async.results import Status
from postdicom_async.transfer import holding_sink
from postdicom_async.transfer.holding_sink import HoldingSink
from tests.faults.archive import MemoryArchive, is_search, uids_of
from tests.faults.clients import settings
from tests.support.bodies import DICOM, multipart_related
from tests.support.dicom_files import small_dicom, uid
from tests.support.exchange import Request
from tests.support.faulty_server import FaultyServer, Reply

STUDY = uid(1)
FILES = [
    small_dicom(STUDY, uid(1, one), uid(1, one, n), pixel_bytes=128 * (n % 9 + 1))
    for one in range(1, 9)
    for n in range(1, 41)
]
FOREIGN = small_dicom(uid(7), uid(7, 1), uid(7, 1, 1))
SHARE = 0.2


@dataclass
class Source(MemoryArchive):
    """An archive that says how long its parts are, or does not."""

    says_lengths: bool = False

    def retrieve(self, study: str, series: str | None, instance: str | None) -> Reply:
        """Answer WADO-RS."""
        found = self.below(study, series, instance)
        return self.related(found.values()) if found else Reply(404)

    def related(self, files: Iterable[bytes]) -> Reply:
        """Return an answer of these."""
        lengths = {"Content-Length"} if self.says_lengths else set()
        return multipart_related(
            list(files),
            part_headers=lambda _, file: {"Content-Type": DICOM} | {name: str(len(file)) for name in lengths},
        ).reply()


@pytest.fixture(autouse=True)
def everything_is_tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make some of these small instances large ones, and memory as small."""
    monkeypatch.setattr(confirm, "_LOOK_AFTER", (0.0, 0.01))
    monkeypatch.setattr(opening, "HoldingSink", partial(HoldingSink, in_memory=1200, most=9000))
    monkeypatch.setattr(holding_sink, "_PIECE", 700)
    monkeypatch.setattr(holding_sink, "_WRITTEN", 500)


def common(chance: random.Random) -> Reply | None:
    return chance.choice([
        Reply(503), Reply(500), Reply(429, {"Retry-After": "0"}), Reply(502, {"Content-Type": "text/html"}, b"<html>"),
        Reply(drop_after_request=True), Reply(drop_after_request=True, reset=True), Reply(404), None,
    ])  # fmt: skip


def faulty_source(archive: Source, chance: random.Random) -> Callable[[Request], Reply]:
    def answer(request: Request) -> Reply:
        if is_search(request) or chance.random() > SHARE:
            return archive(request)
        whole = archive(request)
        if chance.random() < 0.5 or not isinstance(whole.body, bytes) or whole.status != 200:
            return common(chance) or whole
        headers = whole.headers
        kind = chance.randrange(5)
        if kind == 0:
            return Reply(200, headers, whole.body, cut_after=chance.randrange(len(whole.body)))
        if kind == 1:
            return Reply(200, headers, whole.body[: chance.randrange(len(whole.body))])
        if kind == 2:
            return Reply(200, headers, whole.body, cut_after=chance.randrange(len(whole.body)), framing="chunked")
        files = chance.sample(FILES, 5)
        return archive.related([FOREIGN, *files, files[0]] if kind == 3 else files[:1])

    return answer


def faulty_target(archive: MemoryArchive, chance: random.Random) -> Callable[[Request], Reply]:
    def answer(request: Request) -> Reply:
        if chance.random() > SHARE:
            return archive(request)
        if request.method == "POST" and chance.random() < 0.5:
            archive(request)  # stored, and the answer is lost
            return chance.choice([Reply(504), Reply(drop_after_request=True), Reply(200), Reply(202)])
        return common(chance) or archive(request)

    return answer


@pytest.mark.parametrize("says_lengths", [True, False])
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_instance_gets_there_once_and_nothing_is_claimed_that_is_not_so(
    seed: int, says_lengths: bool
) -> None:
    chance = random.Random(seed)
    source_archive, target_archive = Source(FILES, says_lengths=says_lengths), MemoryArchive()
    every = {uids_of(file).sop_instance_uid: file for file in FILES}
    left = dict.fromkeys(every)
    problems: list[PostdicomError] = []
    async with (
        FaultyServer(faulty_source(source_archive, chance)) as one,
        FaultyServer(faulty_target(target_archive, chance)) as other,
        ArchiveEnd(DicomWeb(one.url, settings=settings(max_attempts=2))) as source,
        ArchiveEnd(DicomWeb(other.url, settings=settings(max_attempts=2, batch_instances=5))) as target,
    ):

        async def move(chunk: list[str]) -> None:
            series = {one.rpartition(".")[0] for one in chunk}
            listed = [ListedInstance(one.rpartition(".")[0], one) for one in chunk]
            wanted = Selection(STUDY, series.pop() if len(series) == 1 else None, listed, len(chunk) == 40, once=True)
            told: set[str] = set()
            try:
                async for outcome in target.store(source.open(wanted)):
                    assert outcome.where in chunk
                    assert outcome.where not in told
                    told.add(outcome.where)
                    there = {uids.sop_instance_uid for uids in target_archive.stored}
                    if outcome.in_archive:
                        assert outcome.where in there
                        del left[outcome.where]
                    else:
                        assert outcome.status in {Status.FAILED, Status.UNCONFIRMED, Status.UNREADABLE}
            except PostdicomError as error:
                problems.append(error)

        for _ in range(60):
            if not left:
                break
            by_series: dict[str, list[str]] = {}
            for uid_ in left:
                by_series.setdefault(uid_.rpartition(".")[0], []).append(uid_)
            await asyncio.gather(*map(move, by_series.values()))
    assert not left
    assert all(error.temporary or error.status == 404 for error in problems)
    assert {uids.sop_instance_uid: file for uids, file in target_archive.stored.items()} == every
