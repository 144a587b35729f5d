"""Download and retrieve, from every archive, byte for byte."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path, PurePath

import pytest

from postdicom_async import DICOMWEB, DicomWeb, InstanceUids, LocalFileError, NotFound, PostdicomError, UsageError
from postdicom_async.dicomweb.dialects import Route
from tests.live.conftest import VENDOR, Server
from tests.live.support import Progress, by_uid, dataset_of, files_below, require_identical, require_stored
from tests.support.dicom_files import small_dicom, study_files, uid


@pytest.fixture
async def files(any_archive: DicomWeb) -> dict[str, bytes]:
    """Store a study of 9 instances in 3 series, of several sizes, and another study."""
    made = study_files(8, series=3)
    large = uid(1, 3, 9)
    made[large] = small_dicom(uid(1), uid(1, 3), large, pixel_bytes=3 << 20, number=9)
    others = study_files(3, study=2)
    require_stored(await any_archive.upload([*made.values(), *others.values()]), 12)
    return made


async def test_study(any_server: Server, files: dict[str, bytes], tmp_path: Path, transport_name: str) -> None:
    progress = Progress()
    async with any_server.client(transport_name) as client:
        report = await client.download_study(uid(1), to=tmp_path / "out", progress=progress)
    require_identical(report, files)
    assert report.listing == "counted"
    assert report.transfer_syntax_as_stored
    assert report.already_present == ()
    progress.require_sound(instances=9, size=report.bytes_received, total_known=False)  # the list may come last
    expected = {f"{uid(1)}/{one.rpartition('.')[0]}/{one}.dcm" for one in files}
    assert set(files_below(tmp_path / "out")) == expected


async def test_series(any_archive: DicomWeb, files: dict[str, bytes], tmp_path: Path) -> None:
    report = await any_archive.download_series(uid(1), uid(1, 3), to=tmp_path / "out")
    require_identical(report, {one: data for one, data in files.items() if one.startswith(uid(1, 3) + ".")})


async def test_instance(any_archive: DicomWeb, files: dict[str, bytes], tmp_path: Path) -> None:
    for one in (uid(1, 2, 2), uid(1, 3, 9)):
        progress = Progress()
        series = one.rpartition(".")[0]
        report = await any_archive.download_instance(uid(1), series, one, to=tmp_path / "out", progress=progress)
        require_identical(report, {one: files[one]})
        assert report.listing == "not asked"
        progress.require_sound(instances=1, size=len(files[one]))


async def test_a_second_download_fetches_nothing(
    any_archive: DicomWeb, files: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    await any_archive.download_study(uid(1), to=out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.dcm")}
    again = await any_archive.download_study(uid(1), to=out)
    assert again.ok
    assert again.saved == ()
    assert len(again.already_present) == 9
    assert again.bytes_received == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.dcm")} == before


async def test_only_what_is_missing_is_fetched(any_archive: DicomWeb, files: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = await any_archive.download_study(uid(1), to=out)
    lost = [report.saved[0], report.saved[5]]
    lost[0].path.unlink()
    lost[1].path.write_bytes(small_dicom()[:200])
    again = await any_archive.download_study(uid(1), to=out)
    require_identical(again, {one.uids.sop_instance_uid: files[one.uids.sop_instance_uid] for one in lost if one.uids})
    assert len(again.already_present) == 7


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("{instance}", lambda one: one),
        ("all of {study}/{instance}.dcm", lambda one: f"all of {uid(1)}/{one}.dcm"),
        (lambda uids: PurePath("x", uids.sop_instance_uid[-5:]), lambda one: f"x/{one[-5:]}"),
    ],
)
async def test_layouts(archive: DicomWeb, tmp_path: Path, layout: object, expected: object) -> None:
    assert callable(expected)
    made = study_files(4, series=2)
    await archive.upload(list(made.values()))
    report = await archive.download_study(uid(1), to=tmp_path / "out", layout=layout)  # type: ignore[arg-type]
    assert report.ok
    assert files_below(tmp_path / "out") == {expected(one): data for one, data in made.items()}


async def test_hostile_layouts_write_nothing(archive: DicomWeb, tmp_path: Path) -> None:
    await archive.upload(small_dicom())
    for layout in ("{patient}", "../{instance}", "/{instance}", lambda _uids: "../../x"):
        with pytest.raises(UsageError, match="layout"):
            await archive.download_study(uid(1), to=tmp_path / "out", layout=layout)
    assert not (tmp_path / "x").exists()
    assert files_below(tmp_path / "out") == {} if (tmp_path / "out").exists() else True


async def test_without_comparing(archive: DicomWeb, tmp_path: Path) -> None:
    made = study_files(5, series=2)
    await archive.upload(list(made.values()))
    report = await archive.download_study(uid(1), to=tmp_path, compare_with_search=False)
    require_identical(report, made)
    assert report.listing == "not asked"


async def test_unknown_uids(archive: DicomWeb, tmp_path: Path) -> None:
    await archive.upload(small_dicom())
    for call in (
        archive.download_study(uid(99), to=tmp_path / "out"),
        archive.download_study(uid(99), to=tmp_path / "out", compare_with_search=False),
        archive.download_series(uid(1), uid(99), to=tmp_path / "out"),
        archive.download_instance(uid(1), uid(1, 1), uid(99), to=tmp_path / "out"),
        archive.retrieve_instance(uid(1), uid(1, 1), uid(99)),
    ):
        with pytest.raises(NotFound) as caught:
            await call
        assert not caught.value.temporary
    assert not (tmp_path / "out").exists() or files_below(tmp_path / "out") == {}


async def test_a_folder_that_cannot_be(archive: DicomWeb, tmp_path: Path) -> None:
    await archive.upload(small_dicom())
    (tmp_path / "file").touch()
    with pytest.raises(LocalFileError):
        await archive.download_study(uid(1), to=tmp_path / "file")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / uid(1)).touch()
    with pytest.raises(LocalFileError):
        await archive.download_study(uid(1), to=tmp_path / "out")


async def test_samples_come_back_as_they_went(archive: DicomWeb, samples: Path, tmp_path: Path) -> None:
    expected = by_uid(samples.rglob("*.dcm"))
    await archive.upload(samples)
    studies = await archive.search_for_studies().all()
    reports = await asyncio.gather(
        *(archive.download_study(study.StudyInstanceUID, to=tmp_path / "out") for study in studies)
    )
    saved = {one.uids.sop_instance_uid: one.path.read_bytes() for report in reports for one in report.saved if one.uids}
    assert saved == expected


async def test_many_downloads_at_once_into_one_folder(archive: DicomWeb, tmp_path: Path) -> None:
    made = study_files(40, series=8, pixel_bytes=64)
    await archive.upload(list(made.values()))
    reports = await asyncio.gather(
        *(archive.download_series(uid(1), uid(1, n), to=tmp_path / "out") for n in range(1, 9))
    )
    assert sum(len(report.saved) for report in reports) == 40
    assert len(files_below(tmp_path / "out")) == 40


# --- as streams and in memory -----------------------------------------------------------------------------------------


async def test_iter(any_archive: DicomWeb, files: dict[str, bytes], any_server: Server) -> None:
    parts = [b"".join([chunk async for chunk in part]) async for part in any_archive.iter_study(uid(1))]
    assert sorted(parts) == sorted(files.values())
    series = [await part.read() async for part in any_archive.iter_series(uid(1), uid(1, 3))]
    assert len(series) == 3
    (one,) = [await part.read() async for part in any_archive.iter_instance(uid(1), uid(1, 3), uid(1, 3, 9))]
    assert one == files[uid(1, 3, 9)]


async def test_iter_left_early_gives_the_connection_back(archive: DicomWeb) -> None:
    made = study_files(6)
    await archive.upload(list(made.values()))
    for _ in range(40):  # more often than there are connections
        async with archive.iter_study(uid(1)) as parts:
            async for part in parts:
                assert "dicom" in part.content_type
                break
    assert len(await archive.search_for_instances(study_instance_uid=uid(1)).all()) == 6


async def test_parts_passed_over(archive: DicomWeb) -> None:
    await archive.upload(list(study_files(5).values()))
    count = 0
    async for _part in archive.iter_study(uid(1)):
        count += 1
    assert count == 5


async def test_retrieve_instance(any_archive: DicomWeb, files: dict[str, bytes]) -> None:
    for one in (uid(1, 1, 1), uid(1, 3, 9)):
        found = await any_archive.retrieve_instance(uid(1), one.rpartition(".")[0], one)
        assert found == dataset_of(files[one])
        assert found.file_meta.TransferSyntaxUID == dataset_of(files[one]).file_meta.TransferSyntaxUID


async def test_frames(archive: DicomWeb, archive_server: Server, samples: Path) -> None:
    (path,) = [path for path in samples.rglob("*.dcm") if "NumberOfFrames" in dataset_of(path.read_bytes())]
    ds = dataset_of(path.read_bytes())
    require_stored(await archive.upload(path), 1)
    uids = InstanceUids(ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)
    size = ds.Rows * ds.Columns * 2
    expected = [ds.PixelData[start : start + size] for start in range(0, len(ds.PixelData), size)]
    assert await archive.retrieve_instance_frames(*uids, [1]) == expected[:1]
    assert await archive.retrieve_instance_frames(*uids, [2, 3, 12]) == [expected[1], expected[2], expected[11]]
    streamed = [await part.read() async for part in archive.iter_instance_frames(*uids, range(1, 13))]
    assert streamed == expected
    address = DICOMWEB.path(Route.INSTANCE, study=uids[0], series=uids[1], instance=uids[2])
    short = replace(DICOMWEB, url_bytes=len(archive_server.url + address + "/frames/1,2,3,4"))
    async with DicomWeb(archive_server.url, auth=archive_server.auth, dialect=short) as client:
        order = [12, 1, 7, *range(2, 7), 11, 10, 9, 8]
        assert await client.retrieve_instance_frames(*uids, order) == [expected[number - 1] for number in order]
    with pytest.raises(PostdicomError):
        await archive.retrieve_instance_frames(*uids, [999])
    for wrong in ([], [0], [-1], [True]):
        with pytest.raises(UsageError, match="frame_numbers"):
            await archive.retrieve_instance_frames(*uids, wrong)


async def test_bulk_data_elsewhere_is_not_fetched(archive: DicomWeb) -> None:
    for url in ("http://other.example/bulk", "//other.example/bulk", "https://127.0.0.1/x", "ftp://127.0.0.1/"):
        with pytest.raises(UsageError, match="another server"):
            await archive.retrieve_bulkdata(url)


async def test_the_vendor_answers_in_its_own_shapes(any_server: Server, files: dict[str, bytes]) -> None:
    if any_server.name != VENDOR:
        return
    standard = Server("same", any_server.url, any_server.auth)
    async with standard.client() as client:
        assert len([part async for part in client.iter_study(uid(1))]) == len(files)
