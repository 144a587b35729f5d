"""One study over several connections: by series, as many at once as the archive gains by, and nothing lost."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from postdicom_async import (
    AuthenticationFailed,
    DicomWeb,
    IncompleteDownload,
    InstanceFinished,
    Outcome,
    ProgressEvent,
    Status,
)
from postdicom_async.dicomweb import lanes
from postdicom_async.events import AttemptFailed
from tests.faults.archive import MemoryArchive, related
from tests.faults.clients import files_below, settings
from tests.support.bodies import dicom_json, json_reply
from tests.support.dicom_files import study_files, uid
from tests.support.faulty_server import FaultyServer, Reply, Request

SERIES, EACH = 8, 8
FILES = study_files(SERIES * EACH, series=SERIES)


def is_retrieve(request: Request) -> bool:
    return "accept" in {name.lower() for name, _ in request.headers} and "multipart" in request.header("accept")


@dataclass
class LongLine:
    """An archive of one study that counts its series, and sends each answer in pieces with pauses.

    Attributes:
        allows: retrieves at once; what is more is answered 429.
        refuses: series are answered with this status.
        at_once: retrieves under way.
        most: the most that were.
        asked: the last part of each retrieve's path but one: "studies", "series", "instances".
        unsent: pieces of answers for the study that nobody waited for.
    """

    allows: int = 100
    refuses: int = 0
    pause: float = 0.02
    at_once: int = 0
    most: int = 0
    refused: int = 0
    series_counted: bool = True
    unsent: int = 0
    asked: list[str] = field(default_factory=list)
    archive: MemoryArchive = field(default_factory=lambda: MemoryArchive(FILES.values(), counts=True))

    def __call__(self, request: Request) -> Reply:
        kind = request.path.split("/")[-2]
        if not is_retrieve(request):
            if request.path.endswith("/series") and "SeriesInstanceUID" not in dict(request.query):
                return json_reply(self.series() if self.series_counted else [])
            return self.archive(request)
        self.asked.append(kind)
        if kind == "series" and self.refuses:
            return Reply(self.refuses)
        if self.at_once >= self.allows:
            self.refused += 1
            return Reply(429, {"Retry-After": "0"})
        reply = self.archive(request)
        assert isinstance(reply.body, bytes)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        return Reply(200, reply.headers, self.pieces(reply.body, kind), framing="chunked", pause=self.pause)

    def series(self) -> list[dict[str, object]]:
        counts = Counter(one.series_instance_uid for one in self.archive.stored)
        return [dicom_json(SeriesInstanceUID=uid, NumberOfSeriesRelatedInstances=n) for uid, n in counts.items()]

    def pieces(self, body: bytes, kind: str) -> Iterator[bytes]:
        left = pieces = range(0, len(body), 512)
        try:
            for start in pieces:
                yield body[start : start + 512]
                left = left[1:]
        finally:
            self.at_once -= 1
            self.unsent += len(left) if kind == "studies" else 0


async def download(line: LongLine, to: Path, **values: object) -> object:
    async with (
        FaultyServer(line) as server,
        DicomWeb(server.url, settings=settings(**values)) as archive,
    ):
        report = await archive.download_study(uid(1), to=to)
    assert report.ok
    assert report.counts == {Status.SAVED: SERIES * EACH}
    assert files_below(to) == {f"{uid(1)}/{name}": data for name, data in by_name().items()}
    return report


def by_name() -> dict[str, bytes]:
    return {f"{uid(1, 1 + index % SERIES)}/{name}.dcm": data for index, (name, data) in enumerate(FILES.items())}


async def test_series_come_side_by_side_where_each_connection_is_slow(tmp_path: Path) -> None:
    line = LongLine()
    await download(line, tmp_path)
    assert line.asked[0] == "studies", "one at first"
    assert 3 <= line.asked.count("series") <= SERIES
    assert line.most >= 3
    assert line.unsent, "the first answer is left when the others have brought all"


async def test_the_setting_is_the_bound(tmp_path: Path) -> None:
    line = LongLine(pause=0.005)
    await download(line, tmp_path / "two", parallel_retrieves=2)
    assert line.most <= 2
    one = LongLine(pause=0)
    await download(one, tmp_path / "one", parallel_retrieves=1)
    assert one.asked == ["studies"]


async def test_an_archive_that_allows_two_at_once_loses_nothing(tmp_path: Path) -> None:
    line = LongLine(allows=2, pause=0.01)
    events: list[object] = []
    await download(line, tmp_path, on_event=events.append)
    assert line.most == 2
    assert line.refused
    assert any(isinstance(one, AttemptFailed) and one.status == 429 for one in events)


async def test_what_is_refused_again_and_again_waits_until_it_is_the_only_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download never ends for what was refused while others were given."""
    monkeypatch.setattr(lanes, "_MOST_TIMES_BACK", 0)
    line = LongLine(allows=2, pause=0.01)
    await download(line, tmp_path, max_attempts=1)
    assert line.refused


@pytest.mark.parametrize("at_once", [2, 8])
async def test_a_forbidden_series_does_not_keep_the_others_out(at_once: int, tmp_path: Path) -> None:
    line = LongLine(pause=0.005)

    def forbidding(request: Request) -> Reply:
        if is_retrieve(request) and "/series/" not in request.path:
            return Reply(501)  # so that series are asked for
        return Reply(403) if is_retrieve(request) and f"{uid(1, 3)}" in request.path else line(request)

    async with (
        FaultyServer(forbidding) as server,
        DicomWeb(server.url, settings=settings(parallel_retrieves=at_once)) as archive,
    ):
        with pytest.raises(AuthenticationFailed) as caught:
            await archive.download_study(uid(1), to=tmp_path)
    assert caught.value.report is not None
    assert caught.value.report.counts[Status.SAVED] == (SERIES - 1) * EACH
    assert files_below(tmp_path) == {f"{uid(1)}/{n}": data for n, data in by_name().items() if f"{uid(1, 3)}/" not in n}


async def test_help_that_has_not_ended_is_left_when_everything_has_come(tmp_path: Path) -> None:
    line = LongLine(pause=0.005)

    def slow_to_help(request: Request) -> Reply:
        reply = line(request)
        is_help = is_retrieve(request) and "/series/" in request.path
        return replace(reply, pause=3600) if is_help else reply

    async with (
        FaultyServer(slow_to_help) as server,
        DicomWeb(server.url, settings=settings(parallel_retrieves=2, idle_read=3600)) as archive,
    ):
        async with asyncio.timeout(60):
            report = await archive.download_study(uid(1), to=tmp_path)
    assert report.ok
    assert "series" in line.asked
    assert files_below(tmp_path) == {f"{uid(1)}/{name}": data for name, data in by_name().items()}


async def test_a_small_study_is_one_request(tmp_path: Path) -> None:
    line = LongLine(archive=MemoryArchive(study_files(12, series=3).values(), counts=True))
    async with FaultyServer(line) as server, DicomWeb(server.url, settings=settings()) as archive:
        report = await archive.download_study(uid(1), to=tmp_path)
        asked = len(server.requests)
    assert report.ok
    assert line.asked == ["studies"]
    assert asked == 2, "the count, and the study"


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("status", [0, 403, 404, 501])
async def test_an_archive_that_gives_no_series_gives_the_study_all_the_same(
    status: int, counted: bool, tmp_path: Path
) -> None:
    line = LongLine(pause=0.005, refuses=status, series_counted=counted)
    await download(line, tmp_path)
    assert line.asked[0] == "studies"
    assert "instances" not in line.asked
    assert ("series" in line.asked) == counted


async def test_a_series_that_breaks_off_is_asked_for_again(tmp_path: Path) -> None:
    line = LongLine(pause=0.01)
    broken: list[str] = []
    answer = line.archive.retrieve

    def breaking(study: str, series: str | None, instance: str | None) -> Reply:
        reply = answer(study, series, instance)
        if series is not None and instance is None and not broken:
            broken.append(series)
            assert isinstance(reply.body, bytes)
            return Reply(200, reply.headers, reply.body[: len(reply.body) // 2])
        return reply

    line.archive.retrieve = breaking  # type: ignore[method-assign]
    report = await download(line, tmp_path)
    assert broken
    assert getattr(report, "listing", None) == "compared"


# --- outcomes ---------------------------------------------------------------------------------------------------------


async def test_every_end_is_told_once_and_is_in_the_report(tmp_path: Path) -> None:
    files = study_files(40, series=2)
    archive = MemoryArchive(files.values(), counts=True)
    lost = next(iter(archive.stored))
    data = archive.stored[lost]
    to, told = tmp_path / "to", tmp_path / "report.jsonl"
    there = to.joinpath(*list(archive.stored)[1][:2]) / f"{list(archive.stored)[1][2]}.dcm"
    there.parent.mkdir(parents=True)
    there.write_bytes(archive.stored[list(archive.stored)[1]])
    real = archive.retrieve

    def retrieve(study: str, series: str | None, instance: str | None) -> Reply:
        if instance is not None and instance == lost.sop_instance_uid:
            return Reply(404)
        if series is not None and instance is None:
            others = [one for one in archive.below(study, series).values() if one != data]
            return related([*others, b"nonsense" * 40, others[0]]).reply()
        return real(study, series, instance)

    archive.retrieve = retrieve  # type: ignore[method-assign]
    async with FaultyServer(archive) as server, DicomWeb(server.url, settings=settings()) as client:
        with pytest.raises(IncompleteDownload) as caught:
            await client.download_study(uid(1), to=to, report=told)
        each = client.download_each(uid(1), to=tmp_path / "each")
        outcomes: list[Outcome] = [one async for one in each]
    assert Counter(one.status for one in outcomes) == {Status.SAVED: 40} == each.report.counts
    assert each.report.ok
    report = caught.value.report
    assert report is not None
    lines = [json.loads(line) for line in told.read_text().splitlines()]
    assert Counter(line["status"] for line in lines) == {str(one): n for one, n in report.counts.items()}
    assert report.counts[Status.SAVED] == 38
    assert report.counts[Status.PRESENT] == 1
    assert report.counts[Status.MISSING] == 1
    assert report.counts[Status.REFUSED] == report.refused > 0
    assert report.saved == ()
    assert report.missing == (lost,)
    assert len(report.already_present) == 1
    assert not any("path" in line for line in lines)
    saved = {line["sop_instance_uid"] for line in lines if line["status"] == "saved"}
    assert len(saved) == 38
    assert {path.stem for path in to.rglob("*.dcm")} == saved | {there.stem}


async def test_a_giant_series_is_helped_from_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes that have nothing else to do ask for instances, and the answer is left when all is here."""
    monkeypatch.setattr(lanes, "_LONG", 0.5)
    monkeypatch.setattr(lanes, "_LOOK_AFTER", 0.1)
    files = study_files(90)
    line = LongLine(archive=MemoryArchive(files.values(), counts=True), pause=0.01)
    async with FaultyServer(line) as server, DicomWeb(server.url, settings=settings()) as archive:
        report = await archive.download_study(uid(1), to=tmp_path)
    assert report.ok
    assert report.listing == "compared"
    assert report.counts == {Status.SAVED: 90}
    assert files_below(tmp_path) == {f"{uid(1)}/{uid(1, 1)}/{name}.dcm": data for name, data in files.items()}
    assert line.asked.count("studies") == 1
    assert 10 < line.asked.count("instances") < 90
    assert line.most > 1


@pytest.mark.parametrize("reply", [Reply(403), Reply(404), Reply(429, {"Retry-After": "0"}), Reply(500), Reply(200)])
async def test_help_that_fails_harms_nothing(reply: Reply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "_LONG", 0.5)
    monkeypatch.setattr(lanes, "_LOOK_AFTER", 0.1)
    monkeypatch.setattr(lanes, "_MOST_TIMES_BACK", 1)
    files = study_files(60)
    line = LongLine(archive=MemoryArchive(files.values(), counts=True), pause=0.01)

    def failing(request: Request) -> Reply:
        is_help = is_retrieve(request) and "/instances/" in request.path
        line.asked.extend(["instances"] * is_help)
        return reply if is_help else line(request)

    events: list[ProgressEvent] = []
    async with FaultyServer(failing) as server, DicomWeb(server.url, settings=settings(budget=1000)) as archive:
        report = await archive.download_study(uid(1), to=tmp_path, progress=events.append)
    assert report.ok
    assert report.counts == {Status.SAVED: 60}
    assert files_below(tmp_path) == {f"{uid(1)}/{uid(1, 1)}/{name}.dcm": data for name, data in files.items()}
    assert line.asked.count("studies") == 1
    assert line.asked.count("instances")
    assert sum(isinstance(event, InstanceFinished) for event in events) == 60
