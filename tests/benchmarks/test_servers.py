"""The servers of the benchmark answer what archives answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.data import Study, write_study
from benchmarks.generated import PAGE, Held, answer
from benchmarks.names import series_uid
from benchmarks.places import file_system_in
from benchmarks.sink import KEPT, Scanner
from benchmarks.static import file_of
from benchmarks.verify import Expected

STUDY = Study(210, 7, side=14, series=3)
HELD = {STUDY.uid: Held(STUDY)}
SERIES = series_uid(STUDY.number, 1)


def made(target: str) -> bytes:
    _, length, pieces = answer(target, HELD)
    body = b"".join(pieces)
    assert len(body) == length
    return body


@pytest.mark.parametrize(
    "path",
    [
        f"/studies/{STUDY.uid}",
        f"/studies/{STUDY.uid}/series/{SERIES}",
        f"/studies/{STUDY.uid}/series/{SERIES}/instances/{STUDY.uid_of(3)}",
        f"/studies/{STUDY.uid}/instances",
        f"/studies/{STUDY.uid}/series",
        f"/studies/{STUDY.uid}/series/{SERIES}/instances",
        f"/studies?StudyInstanceUID={STUDY.uid}",
        f"/studies/{STUDY.uid}/series?SeriesInstanceUID={SERIES}",
    ],
)
def test_what_is_generated_is_what_lies_on_the_disk(path: str, tmp_path: Path) -> None:
    write_study(tmp_path, STUDY)
    plain, _, query = path.partition("?")
    file = file_of(tmp_path / "www", plain, dict([query.split("=")]) if query else {})
    assert file
    on_disk, generated = file.read_bytes(), made(path)
    if file.suffix == ".json":
        assert json.loads(on_disk) == json.loads(generated)
    else:
        assert on_disk == generated


def test_a_generated_study_is_whole(tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(made(f"/studies/{STUDY.uid}"))
    Expected([STUDY]).check(tmp_path)


def test_pages_of_a_listing() -> None:
    pages = [json.loads(made(f"/studies/{STUDY.uid}/instances?limit=3&offset={offset}")) for offset in (0, 3, 6, 9)]
    assert [len(page) for page in pages] == [3, 3, 1, 0]
    uids = [item["00080018"]["Value"][0] for page in pages for item in page]
    assert uids == [STUDY.uid_of(index) for index in range(STUDY.instances)]
    assert STUDY.instances < PAGE


@pytest.mark.parametrize("piece", [1, 61, 1000, 1 << 20])
def test_the_sink_names_every_instance_whatever_the_pieces_are(piece: int) -> None:
    scanner, body = Scanner(STUDY.pixels), made(f"/studies/{STUDY.uid}")
    scanner.start()
    for at in range(0, len(body), piece):
        some = body[at : at + piece]
        scanner.buffer[KEPT : KEPT + len(some)] = some
        scanner.took(len(some))
    named = json.loads(scanner.answer())["00081199"]["Value"]
    assert [one["00081155"]["Value"][0] for one in named] == [STUDY.uid_of(index) for index in range(STUDY.instances)]
    assert {one["00081150"]["Value"][0] for one in named} == {"1.2.840.10008.5.1.4.1.1.2"}


def test_which_file_system() -> None:
    mounts = "/dev/a / ext4 rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\n/dev/b /mnt/a\\040b xfs rw 0 0\n"
    assert file_system_in(mounts, Path("/dev/shm/x")) == "tmpfs"
    assert file_system_in(mounts, Path("/dev/shmoo")) == "ext4"
    assert file_system_in(mounts, Path("/mnt/a b")) == "xfs"
    assert file_system_in("", Path("/")) == "an unknown file system"
