"""Memory: of many streams, of one huge instance, and by the number of instances."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.data import Study, write_study
from benchmarks.measure import Task
from benchmarks.runner import Bench, Case
from benchmarks.sections.moving import download, size_of, upload
from benchmarks.servers import generated, sink, static_server
from benchmarks.sides import OURS

if TYPE_CHECKING:
    from benchmarks.data import Written
    from benchmarks.sizes import Sizes

STREAMS = 16
#: Rows and columns of an instance of 1 kB.
SMALLEST = 14
SERIES = 4
SECONDS = 4 * 3600.0


def run_memory(bench: Bench, sizes: Sizes) -> None:
    """Move 16 studies at once, one of them a single huge part, and one large instance. Their zeros are holes."""
    huge = Study(300, 1, frames=sizes.huge_frames, sparse=True)
    beside = [Study(301 + index, sizes.beside, sparse=True) for index in range(STREAMS - 1)]
    large = Study(320, 1, frames=sizes.large_frames, sparse=True)
    written = [write_study(bench.root, study) for study in (huge, *beside, large)]
    with static_server(bench.root) as url:
        bench.run(_at_once("download", url, written[:-1]))
        case = download("memory", "memory-download-1", url, large, (OURS,))
        bench.run(replace(case, title=f"download {case.title}", repeat=1))
    with sink(huge.side * huge.side * 2) as url:
        bench.run(_at_once("upload", url, written[:-1]))
        case = upload("memory", "memory-upload-1", url, written[-1], (OURS,))
        bench.run(replace(case, title=f"upload {case.title}", repeat=1))
    bench.note(
        "memory", f"{STREAMS} calls at once on one client; idle is after imports, with the client open; one run each"
    )
    for one in written:
        one.remove()


def _at_once(action: str, url: str, written: list[Written]) -> Case:
    studies = tuple(one.study for one in written)
    uids, folders = tuple(study.uid for study in studies), tuple(str(one.files) for one in written)
    task = Task(action, url, studies=uids, sources=folders)
    title = f"{action} {len(written)} studies at once, one of them {size_of(studies[0])}"
    return Case("memory", f"memory-{action}-{STREAMS}", title, task, studies, (OURS,), repeat=1)


def run_scale(bench: Bench, sizes: Sizes) -> None:
    bench.note(
        "scale",
        "one run each, outcomes one by one; down from a server that makes its answers on the fly, up into a sink",
    )
    for number, count in enumerate(sizes.scale):
        study = Study(400 + number, count, side=SMALLEST, series=SERIES)
        with generated(study) as url:
            bench.run(_of_scale(download("scale", f"scale-download-{count}", url, study, (OURS,)), "download"))
    for number, count in enumerate(sizes.scale):
        written = write_study(bench.root, Study(400 + number, count, side=SMALLEST, series=SERIES), served=False)
        with sink(written.study.pixels) as url:
            bench.run(_of_scale(upload("scale", f"scale-upload-{count}", url, written, (OURS,)), "upload"))
        written.remove()


def _of_scale(case: Case, action: str) -> Case:
    """Take the outcomes one by one, as a caller with a million of them does."""
    task = replace(case.task, each=True)
    return replace(case, title=f"{action} {case.title}", task=task, repeat=1, seconds=SECONDS)
