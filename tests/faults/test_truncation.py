"""An answer cut at every byte: what was whole is kept, the rest is fetched or named, and nothing is ever half there."""

from __future__ import annotations

import asyncio
import copy
import re
from contextvars import ContextVar
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any, get_args

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian, RawDataStorage

from postdicom_async import DICOMWEB, ConnectionFailed, DicomWeb, IncompleteDownload, ProtocolError
from postdicom_async.dicomweb.retrieve import Retrieval
from tests.faults.archive import MemoryArchive, is_search, uids_of
from tests.faults.clients import settings, transport_of
from tests.support.bodies import multipart_related
from tests.support.dicom_files import uid
from tests.support.exchange import ReplyFraming
from tests.support.faulty_server import FaultyServer, Reply, Request
from tests.support.large import large

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from pathlib import Path

    from postdicom_async import InstanceUids


def tiny(number: int) -> bytes:
    """Build the least that names an instance, so that every byte can be cut at."""
    dataset = Dataset()
    dataset.SOPClassUID = RawDataStorage
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid(1), uid(1, 1)
    dataset.SOPInstanceUID = uid(1, 1, number)
    dataset.EncapsulatedDocument = bytes(range(48 * number))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


FILES = [tiny(number) for number in (1, 2, 3)]
BOUNDARY = "b0undary"
WHOLE = multipart_related(FILES, boundary=BOUNDARY)
DELIMITER = b"\r\n--" + BOUNDARY.encode()
FILE_UIDS = [uids_of(file) for file in FILES]
SIZE = len(WHOLE.body)
STUDY = uid(1)
FRAMINGS = get_args(ReplyFraming)
AT_ONCE = 12
FLAT = "{instance}.dcm"
lane: ContextVar[int] = ContextVar("lane")  # each worker has a folder, used again and again


def whole_after(cut: int) -> list[bytes]:
    """Return the parts whose end is proved by the bytes before the cut.

    A part has ended when the delimiter after it has: another line of it, or the two dashes of the last one.
    """
    seen = WHOLE.body[:cut]
    ends = re.findall(re.escape(DELIMITER) + rb"(?:\r\n|--)", seen)
    return FILES[: len(ends)]


def missing_after(cut: int) -> tuple[InstanceUids, ...]:
    return tuple(uids_of(file) for file in FILES[len(whole_after(cut)) :])


def files_taken_from(folder: Path) -> list[bytes]:
    """Return the files below a folder in order of their names, hidden ones too, and empty it."""
    names = sorted(one.name for one in folder.iterdir()) if folder.exists() else []
    files = [(folder / name).read_bytes() for name in names]
    assert names == [f"{uids_of(file).sop_instance_uid}.dcm" for file in files]
    for name in names:
        (folder / name).unlink()
    return files


async def every(cases: Iterable[Any], check: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """Run a check on every case, some at a time."""
    waiting = iter(cases)

    async def worker(number: int) -> None:
        lane.set(number)
        for case in waiting:
            await check(case)

    async with asyncio.TaskGroup() as group:
        for number in range(AT_ONCE):
            group.create_task(worker(number))


@dataclass
class Cutter:
    """Cuts the study's answer at the byte that a request's path begins with.

    ``mends`` says whether it is cut only the first time, and whether the smaller resources are there at all.
    """

    framing: ReplyFraming
    mends: bool

    def __post_init__(self) -> None:
        self.archive = MemoryArchive(FILES)
        self.asked: dict[int, list[str]] = {}

    def __call__(self, request: Request) -> Reply:
        _, number, path = request.target.split("/", 2)
        inner = replace(request, target="/" + path)
        if inner.path == "/studies" or is_search(inner):
            return self.archive(inner)
        asked = self.asked.setdefault(int(number), [])
        asked.append(inner.path)
        if inner.path == f"/studies/{STUDY}" and (len(asked) == 1 or not self.mends):
            chunk_size = max(1, int(number)) if self.framing == "chunked" else 65536
            return WHOLE.reply(framing=self.framing, cut_after=int(number), chunk_size=chunk_size)
        return self.archive(inner) if self.mends else Reply(404)


async def sweep(
    transport: str,
    framing: ReplyFraming,
    cuts: Iterable[int],
    check: Callable[[DicomWeb, int, Cutter], Coroutine[Any, Any, None]],
    *,
    mends: bool,
    attempts: int = 2,
) -> None:
    """Run a check for each cut, all of them on one server and one pool of connections."""
    cutter = Cutter(framing, mends)
    quick = settings(max_attempts=attempts, base=0.0001, cap=0.0001, budget=1 << 30)
    async with (
        FaultyServer(cutter, keep_bodies=False) as server,
        DicomWeb(server.url, settings=quick, transport=transport_of(transport, quick)) as archive,
    ):
        await every(cuts, lambda cut: check(numbered(archive, cut), cut, cutter))


def numbered(archive: DicomWeb, number: int) -> DicomWeb:
    """Return a copy on the same connections whose paths begin with a number."""
    routes = {route: f"/{number}{path}" for route, path in DICOMWEB.routes.items()}
    other = copy.copy(archive)
    other._dialect = replace(DICOMWEB, routes=routes, pages=False)
    other._retrieval = Retrieval(other._session, other._dialect)
    return other


def cuts(transport_name: str, *, every_nth: int = 1) -> list[int]:
    """Return where to cut: as often as told, all around the delimiters, and less often on httpx, which is slower."""
    step = every_nth if transport_name == "aiohttp" else 7 * every_nth
    near = {
        match.start() + offset
        for match in re.finditer(DELIMITER, WHOLE.body)
        for offset in (-1, 0, 1, 2, 4, *range(len(DELIMITER) - 1, len(DELIMITER) + 4))
    }
    return sorted({*range(0, SIZE, step), *near, SIZE - 1} & set(range(SIZE)))


often = pytest.mark.parametrize("nth", [9, large(1)])
"""At every ninth byte, and all around the delimiters; at every byte where large tests are run."""


@often
@pytest.mark.parametrize("framing", FRAMINGS)
async def test_without_a_list_what_was_whole_is_kept_and_the_cut_is_an_error(
    framing: ReplyFraming, nth: int, transport_name: str, tmp_path: Path
) -> None:
    async def check(archive: DicomWeb, cut: int, _cutter: Cutter) -> None:
        folder = tmp_path / str(lane.get())
        whole, broken = whole_after(cut), False
        try:
            report = await archive.download_study(STUDY, to=folder, layout=FLAT, compare_with_search=False)
        except IncompleteDownload as error:
            report, broken = error.report, True
        assert files_taken_from(folder) == whole, cut
        assert broken != (framing == "until-close" and len(whole) == 3), cut
        assert [one.uids for one in report.saved] == [uids_of(file) for file in whole], cut
        assert report.refused == 0, cut

    await sweep(transport_name, framing, cuts(transport_name, every_nth=nth), check, mends=False, attempts=1)


@often
@pytest.mark.parametrize("framing", FRAMINGS)
async def test_with_a_list_only_what_is_missing_is_asked_for_again(
    framing: ReplyFraming, nth: int, transport_name: str, tmp_path: Path
) -> None:
    async def check(archive: DicomWeb, cut: int, cutter: Cutter) -> None:
        folder = tmp_path / str(lane.get())
        report = await archive.download_study(STUDY, to=folder, layout=FLAT)
        assert files_taken_from(folder) == FILES, cut
        assert (report.ok, len(report.saved), report.listing) == (True, 3, "compared"), cut
        missing = missing_after(cut)
        of_series = [f"/studies/{STUDY}/series/{FILE_UIDS[0].series_instance_uid}"]
        one_by_one = ["/studies/{}/series/{}/instances/{}".format(*uids) for uids in missing]
        assert sorted(cutter.asked[cut][1:]) == (of_series if len(missing) == 3 else one_by_one), cut

    nth *= 8 if framing == "content-length" else 16
    await sweep(transport_name, framing, cuts(transport_name, every_nth=nth), check, mends=True)


@often
@pytest.mark.parametrize("framing", FRAMINGS)
async def test_what_never_comes_is_named(framing: ReplyFraming, nth: int, transport_name: str, tmp_path: Path) -> None:
    async def check(archive: DicomWeb, cut: int, _cutter: Cutter) -> None:
        folder = tmp_path / str(lane.get())
        missing = missing_after(cut)
        try:
            await archive.download_study(STUDY, to=folder, layout=FLAT)
        except IncompleteDownload as error:
            named, said = error.report.missing, str(error)
        else:
            named, said = (), ""
        assert named == missing, cut
        assert not missing or f"{len(missing)} of 3" in said, cut
        assert files_taken_from(folder) == whole_after(cut), cut

    await sweep(transport_name, framing, cuts(transport_name, every_nth=24 * nth), check, mends=False)


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_a_second_attempt_without_a_list_refuses_nothing(
    framing: ReplyFraming, transport_name: str, tmp_path: Path
) -> None:
    async def check(archive: DicomWeb, cut: int, _cutter: Cutter) -> None:
        folder = tmp_path / str(lane.get())
        report = await archive.download_study(STUDY, to=folder, layout=FLAT, compare_with_search=False)
        assert files_taken_from(folder) == FILES, cut
        assert (report.ok, report.refused, len(report.saved)) == (True, 0, 3), cut

    await sweep(transport_name, framing, cuts(transport_name, every_nth=48), check, mends=True)


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_streams_end_only_when_they_are_whole(framing: ReplyFraming, transport_name: str) -> None:
    async def check(archive: DicomWeb, cut: int, _cutter: Cutter) -> None:
        found: list[bytes] = []
        broken = False
        async with archive.iter_study(STUDY) as parts:
            try:
                async for part in parts:
                    piece = await part.read()
                    found += [piece]
            except (ConnectionFailed, ProtocolError) as error:
                broken = error.temporary
        whole = whole_after(cut)
        assert found == whole, cut
        assert broken != (framing == "until-close" and len(whole) == 3), cut

    await sweep(transport_name, framing, cuts(transport_name, every_nth=7), check, mends=False, attempts=1)
