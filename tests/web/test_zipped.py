"""Parts as a ZIP archive: what unpackers make of it, however it was cut, and what breaks off."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Self

import pytest

from postdicom_async import DicomWeb, InstanceUids, NotFound, ProtocolError, UsageError
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.web import as_zip, series_as_zip, study_as_zip
from postdicom_async.web.zipped import _Handed
from tests.support.dicom_files import small_dicom, study_files, uid

ONE, OTHER = (small_dicom(uid(1), uid(1, 1), uid(1, 1, number)) for number in (1, 2))
NAME = f"{uid(1)}/{uid(1, 1)}/{uid(1, 1, 1)}.dcm"


class Parts:
    """What an archive gives, cut into pieces, and whether it was closed."""

    def __init__(self, parts: Sequence[bytes], piece: int = 1 << 16, *, breaks_in: int | None = None) -> None:
        self._parts = iter(enumerate(parts))
        self._piece, self._breaks_in = piece, breaks_in
        self.given = 0
        self.closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AsyncIterator[bytes]:
        for number, part in self._parts:
            return self._pieces(number, part)
        raise StopAsyncIteration

    async def _pieces(self, number: int, part: bytes) -> AsyncGenerator[bytes, None]:
        for start in range(0, len(part), self._piece):
            if number == self._breaks_in and start:
                raise ProtocolError("it broke")
            self.given += 1
            yield part[start : start + self._piece]

    async def aclose(self) -> None:
        self.closed = True


async def read(zipped: AsyncGenerator[bytes, None]) -> bytes:
    return b"".join([piece async for piece in zipped])


def contents(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        return {name: opened.read(name) for name in opened.namelist()}


@pytest.mark.parametrize("piece", [1, 7, 131, 132, 1000, 1 << 20])
async def test_however_it_is_cut(piece: int) -> None:
    parts = Parts([ONE, OTHER], piece)
    assert contents(await read(as_zip(parts))) == {NAME: ONE, NAME.replace("1.1.1.dcm", "1.1.2.dcm"): OTHER}
    assert parts.closed


async def test_of_an_archive() -> None:
    files = study_files(5, study=1, series=2)
    async with EmbeddedArchive() as embedded, DicomWeb(embedded.url, auth=embedded.auth) as archive:
        await archive.upload(list(files.values()))
        study = contents(await read(study_as_zip(archive, uid(1))))
        series = contents(await read(series_as_zip(archive, uid(1), uid(1, 1), layout="{instance}.dcm")))
        with pytest.raises(NotFound):
            await read(study_as_zip(archive, uid(9)))
    assert sorted(study.values()) == sorted(files.values())
    assert set(series) < {name.rpartition("/")[2] for name in study}


async def test_other_unpackers_read_it(tmp_path: Path) -> None:
    if not (unzip := shutil.which("unzip")):
        pytest.skip("unzip is not installed")
    (tmp_path / "study.zip").write_bytes(await read(as_zip(Parts([ONE, OTHER]))))
    subprocess.run([unzip, "-q", "study.zip"], cwd=tmp_path, check=True)
    assert (tmp_path / NAME).read_bytes() == ONE


# --- names -----------------------------------------------------------------------------------------------------------


async def test_names_are_given_once() -> None:
    def layout(uids: InstanceUids) -> str:
        return "A.dcm" if uids.sop_instance_uid.endswith("1") else "a.DCM"

    found = contents(await read(as_zip(Parts([ONE, OTHER, ONE]), layout=layout)))
    assert found == {"A.dcm": ONE, "a-2.DCM": OTHER, "A-3.dcm": ONE}
    bare = contents(await read(as_zip(Parts([ONE, ONE, ONE]), layout="v1.0/{instance}")))
    assert list(bare) == [f"v1.0/{uid(1, 1, 1)}", f"v1.0/{uid(1, 1, 1)}-2", f"v1.0/{uid(1, 1, 1)}-3"]
    folder = contents(await read(as_zip(Parts([ONE, ONE]), layout=lambda _: "v1.0/image")))
    assert list(folder) == ["v1.0/image", "v1.0/image-2"]


@pytest.mark.parametrize("piece", [1, 300, 1 << 16])
async def test_names_of_patients_only_when_asked_for_and_safe(piece: int) -> None:
    named = small_dicom(uid(4), uid(4, 1), uid(4, 1, 1), patient_name="Lucía^Dot", patient_id="../../4711:A")
    layout = "{PatientName}/{Modality}/{SeriesNumber}/{InstanceNumber}-{instance}.dcm"
    (name,) = contents(await read(as_zip(Parts([named], piece), layout=layout)))
    assert name == f"Lucía^Dot/CT/1/1-{uid(4, 1, 1)}.dcm"
    (name,) = contents(await read(as_zip(Parts([named], piece), layout="{PatientID}/{instance}.dcm")))
    assert name == f"_.._4711_A/{uid(4, 1, 1)}.dcm"
    (name,) = contents(await read(as_zip(Parts([named], piece))))
    assert name == f"{uid(4)}/{uid(4, 1)}/{uid(4, 1, 1)}.dcm"


async def test_what_has_no_uids_is_in_it_too() -> None:
    found = contents(await read(as_zip(Parts([b"no DICOM", b"", ONE]))))
    assert found == {"unnamed/000001.dcm": b"no DICOM", "unnamed/000002.dcm": b"", NAME: ONE}


def test_a_wrong_layout_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="layout"):
        as_zip(Parts([ONE]), layout="{study}.dcm")


async def test_a_name_that_leads_out_is_refused() -> None:
    with pytest.raises(UsageError, match="layout"):
        await read(as_zip(Parts([ONE]), layout=lambda _: "../x"))


# --- what does not go well -------------------------------------------------------------------------------------------


async def test_nothing_is_no_archive() -> None:
    with pytest.raises(NotFound):
        await read(as_zip(Parts([])))


async def test_what_breaks_off_is_no_archive() -> None:
    parts = Parts([small_dicom(uid(2), uid(2, 1), uid(2, 1, 1), pixel_bytes=1 << 18), OTHER], 1000, breaks_in=1)
    got: list[bytes] = []
    with pytest.raises(ProtocolError) as caught:
        await _collect(as_zip(parts), got)
    assert parts.closed
    assert len(b"".join(got)) > 100_000
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(b"".join(got)))
    assert not [frame for frame in _frames(caught.value) if "postdicom_async" in frame or "zipstream" in frame]


async def _collect(zipped: AsyncGenerator[bytes, None], into: list[bytes]) -> None:
    async for piece in zipped:
        into.append(piece)  # noqa: PERF401 - what came before the break is wanted


def _frames(error: BaseException) -> list[str]:
    found, trace = [], error.__traceback__
    while trace is not None:
        found.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    return found


async def test_what_is_not_read_is_not_fetched() -> None:
    large = small_dicom(uid(2), uid(2, 1), uid(2, 1, 1), pixel_bytes=4 << 20)
    parts = Parts([large])
    async with aclosing(as_zip(parts)) as zipped:
        first = await anext(zipped)
        assert 1 << 16 <= len(first) < 1 << 18
        assert parts.given < 4
        assert not parts.closed
    assert parts.closed


async def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zipstream.ng", None)
    with pytest.raises(UsageError, match=r'pip install "postdicom-async\[web\]"'):
        as_zip(Parts([ONE]))


def test_a_writer_that_would_cut_a_file_is_found_out() -> None:
    """The package that writes the records may change; then this must not pass for an end."""
    handed = _Handed()
    with pytest.raises(RuntimeError, match="more than there is"):
        next(iter(handed))
    with pytest.raises(RuntimeError, match="did not take"):
        handed.over(b"x", iter([b"header"]))


@pytest.mark.large
async def test_more_than_4_gib(tmp_path: Path) -> None:
    async def large() -> AsyncGenerator[bytes, None]:
        yield ONE
        block = bytes(1 << 22)
        for _ in range(1100):
            yield block

    async def parts() -> AsyncGenerator[AsyncIterator[bytes], None]:
        yield large()
        async for part in Parts([OTHER]):
            yield part

    with (tmp_path / "large.zip").open("wb") as file:
        async for piece in as_zip(parts()):
            if piece.count(0) == len(piece):
                file.seek(len(piece), io.SEEK_CUR)  # a hole
            else:
                file.write(piece)
    with zipfile.ZipFile(tmp_path / "large.zip") as opened:
        assert opened.testzip() is None
        first, second = opened.infolist()
        assert first.file_size == len(ONE) + 1100 * (1 << 22) > 1 << 32
        assert opened.read(second) == OTHER
