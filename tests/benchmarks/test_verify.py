"""A figure stands for nothing else than every byte: what the benchmark takes for a whole download."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread

from benchmarks.data import Study, Written, write_study
from benchmarks.names import series_uid
from benchmarks.verify import Expected, WrongBytes

PLAIN = Study(201, 5, side=14, series=2)
SPARSE = Study(202, 1, side=64, frames=3, sparse=True)
FRAMES = Study(203, 2, side=64, frames=2)


@pytest.mark.parametrize("study", [PLAIN, SPARSE, FRAMES])
def test_files_and_bodies_as_they_were_written(study: Study, tmp_path: Path) -> None:
    written = write_study(tmp_path, study)
    Expected([study]).check(written.files)
    body = tmp_path / "kept"
    body.mkdir()
    (body / "0").write_bytes(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n" + written.body.read_bytes())
    Expected([study]).check(body)


def test_bodies_of_series_are_the_study(tmp_path: Path) -> None:
    written = write_study(tmp_path, PLAIN)
    kept = tmp_path / "kept"
    kept.mkdir()
    for number in range(PLAIN.series):
        body = written.body.with_suffix("") / "series" / f"{series_uid(PLAIN.number, number)}.body"
        (kept / str(number)).write_bytes(body.read_bytes())
    Expected([PLAIN]).check(kept)


def test_the_instances_are_dicom(tmp_path: Path) -> None:
    written = write_study(tmp_path, PLAIN, served=False)
    found = [dcmread(written.file_of(index)) for index in range(PLAIN.instances)]
    assert [one.SOPInstanceUID for one in found] == [PLAIN.uid_of(index) for index in range(PLAIN.instances)]
    assert [one.SeriesInstanceUID for one in found] == [
        series_uid(PLAIN.number, PLAIN.series_of(index)) for index in range(PLAIN.instances)
    ]
    assert {len(one.PixelData) for one in found} == {PLAIN.pixels}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


SPOILT: dict[str, Callable[[Path], object]] = {
    "a pixel": flip,
    "the header": lambda path: path.write_bytes(path.read_bytes().replace(b"BENCH", b"WRENC", 1)),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "gone": lambda path: path.unlink(),
    "twice": lambda path: path.with_name(f"copy-{path.name}").write_bytes(path.read_bytes()),
    "no instance": lambda path: path.write_bytes(b"nothing"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_is_spoilt_is_found(what: str, tmp_path: Path) -> None:
    written = write_study(tmp_path, PLAIN, served=False)
    SPOILT[what](written.file_of(3))
    with pytest.raises(WrongBytes):
        Expected([PLAIN]).check(written.files)


@pytest.mark.parametrize("end", [-1, -30, -300])
def test_a_body_that_is_cut_is_found(end: int, tmp_path: Path) -> None:
    written: Written = write_study(tmp_path, PLAIN)
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "0").write_bytes(written.body.read_bytes().rstrip()[:end])
    with pytest.raises(WrongBytes):
        Expected([PLAIN]).check(kept)
