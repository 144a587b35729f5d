"""A folder as an end, whatever ends the work: a cancellation at any moment, or a signal that cannot be caught."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from postdicom_async.jobs.ends.end import ListedStudy, Selection
from postdicom_async.jobs.ends.folder import FolderEnd
from tests.jobs.folders import excluded, files_below, instances, stored, studies, written
from tests.support.dicom_files import small_dicom, study_files, uid

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted by /proc")

ROOT = Path(__file__).parents[2]
MOST_TURNS = 400


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def cancelled_after(turns: int, work: Callable[[], Awaitable[object]]) -> bool:
    """Run work and cancel it after so many turns of the event loop; return whether it had come to its end."""
    running = asyncio.ensure_future(work())
    for _ in range(turns):
        if running.done():
            break
        await asyncio.sleep(0)
    ended = running.done()
    running.cancel()
    await asyncio.wait([running])
    if ended:
        running.result()
    return ended


async def test_cancelled_at_any_turn(tmp_path: Path) -> None:
    files = {**study_files(3), uid(1, 1, 9): small_dicom(instance=uid(1, 1, 9), pixel_bytes=2 << 20)}
    source, to = tmp_path / "source", tmp_path / "to"
    written(source, {f"{n}": data for n, data in enumerate(files.values())})
    before = open_files()
    turns = 0
    while True:

        async def copy() -> None:
            async with (
                FolderEnd(source, index=tmp_path / "a") as one,
                FolderEnd(to, index=tmp_path / "b", target=True, fsync=False) as other,
            ):
                await studies(other)
                wanted = Selection(uid(1), None, await instances(one, uid(1)))
                async for _ in other.store(one.open(wanted)):
                    pass

        ended = await cancelled_after(turns, copy)
        assert open_files() <= before
        below = files_below(to) if to.exists() else {}
        assert {Path(name).stem: data for name, data in below.items()}.items() <= files.items(), "whole, or not there"
        if ended:
            break
        for path in list(below)[::2]:  # so that there is something to do
            (to / path).unlink()
        turns += 1 + turns // 8
        assert turns < MOST_TURNS * 100
    async with FolderEnd(to, index=tmp_path / "b", target=True) as other:
        await stored(other, files.values())
        assert await other.study(uid(1)) == ListedStudy(uid(1), "20200102", 4)
        assert await excluded(other) == []


CODE = """
import asyncio, os, signal, sys
from pathlib import Path
from postdicom_async.jobs.ends import folder_files
from postdicom_async.jobs.ends.end import Selection
from postdicom_async.jobs.ends.folder import FolderEnd

folder_files._FILES_A_STEP = 8
source, to, index, when = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
points = 0

def point(*_):
    global points
    points += 1
    if points == when:
        os.kill(os.getpid(), signal.SIGKILL)

def watched(name):
    real = getattr(os, name)
    def call(*args, **options):
        point()
        result = real(*args, **options)
        point()
        return result
    setattr(os, name, call)

async def main():
    async with (
        FolderEnd(source, index=Path(index + ".source"), on_scan=point) as one,
        FolderEnd(to, index=Path(index + ".target"), target=True) as other,
    ):
        [_ async for _ in one.studies()]
        [_ async for _ in other.studies()]
        for name in ("mkdir", "fsync", "rename", "writev"):
            watched(name)
        for study in [study async for some in one.studies() for study in some]:
            listed = [one async for some in one.instances(study.uid) for one in some]
            async for outcome in other.store(one.open(Selection(study.uid, None, listed))):
                point()

asyncio.run(main())
print(points)
"""


def run_killed_at(point: int, tmp_path: Path) -> int:
    arguments = [str(tmp_path / "source"), str(tmp_path / "to"), str(tmp_path / "index"), str(point)]
    done = subprocess.run([sys.executable, "-c", CODE, *arguments], cwd=ROOT, check=False, capture_output=True)
    assert done.returncode in {0, -9}, done.stderr.decode()
    return int(done.stdout) if done.returncode == 0 else 0


async def test_killed_at_any_point_and_again_the_next_run_makes_it_whole(tmp_path: Path) -> None:
    files = study_files(12) | study_files(12, study=2)
    written(tmp_path / "source", {f"{n}": data for n, data in enumerate(files.values())})
    killed = 0
    for point in (2, 5, 17, 40, 80):
        killed += run_killed_at(point, tmp_path) == 0
        to = tmp_path / "to"
        below = {name: data for name, data in (files_below(to) if to.exists() else {}).items() if ".part" not in name}
        assert {Path(name).stem: data for name, data in below.items()}.items() <= files.items(), "whole, or not there"
    assert killed >= 3
    assert run_killed_at(0, tmp_path) > 0
    assert {Path(name).stem: data for name, data in files_below(tmp_path / "to").items()} == files
    async with FolderEnd(tmp_path / "to", index=tmp_path / "index.target", target=True) as end:
        assert {study.instances for study in await studies(end)} == {12}
        assert await excluded(end) == []
