"""What is measured: the sections of the benchmark and their sizes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from shutil import rmtree
from typing import TYPE_CHECKING

from benchmarks.data import Study, make_study
from benchmarks.measure import Task
from benchmarks.names import BOUNDARY, FRAME
from benchmarks.runner import Bench, Case
from benchmarks.servers import (
    ORTHANC_PASSWORD,
    ORTHANC_USER,
    orthanc,
    orthanc_installed,
    routes_of,
    sink,
    static_server,
    static_server_name,
)
from benchmarks.sides import OURS_FAST, OURS_PLAIN, sides_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OURS = (OURS_FAST, OURS_PLAIN)
STREAMS = 16


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is moved. Frames are of half a megabyte.

    Attributes:
        many: instances of one frame in the study of small ones.
        large_frames: frames of the large instance.
        huge_frames: frames of the instance in the memory cases; its pixels stay below the 4 GiB DICOM allows.
        beside: instances of one frame in each of the 15 studies moved beside that one.
        needed: bytes free that all this takes.
    """

    many: int
    large_frames: int
    huge_frames: int
    beside: int
    needed: int


FULL = Sizes(many=400, large_frames=1907, huge_frames=7629, beside=256, needed=12 * 10**9)
QUICK = Sizes(many=40, large_frames=128, huge_frames=512, beside=16, needed=10**9)


def label(size: float) -> str:
    return f"{size / 1e9:.1f} GB".replace(".0", "") if size >= 0.99e9 else f"{size / 1e6:.0f} MB"


def titled(action: str, study: Study) -> str:
    each = "0.5 MB" if study.frames == 1 else label(study.pixel_bytes)
    return f"{action} {study.instances} x {each}"


def task(action: str, url: str, studies: Sequence[Study]) -> Task:
    return Task(
        action=action,
        url=url,
        studies=[study.uid for study in studies],
        sources=[str(study.folder) for study in studies],
        body=str(studies[0].body),
        target="",
        boundary=BOUNDARY,
    )


def plain_case(name: str, action: str, url: str, study: Study) -> Case:
    work, sides = task(action, url, [study]), sides_for(action)
    return Case(name, titled(action, study), work, study.instances, study.pixel_bytes, sides)


def run_downloads(bench: Bench, sizes: Sizes) -> None:
    many, large = make_study(bench.root, 101, sizes.many), make_study(bench.root, 102, 1, sizes.large_frames)
    bench.note(f"downloads come from {static_server_name()}, each study as one multipart answer")
    bench.note("curl and the raw socket keep that answer whole, in one file")
    with static_server(bench.root, routes_of([many, large])) as url:
        bench.run(plain_case("download-many", "download", url, many))
        bench.run(plain_case("download-large", "download", url, large))
    remove(many, large)


def run_uploads(bench: Bench, sizes: Sizes) -> None:
    many, large = make_study(bench.root, 101, sizes.many), make_study(bench.root, 102, 1, sizes.large_frames)
    bench.note("curl and the raw socket store a premade body with one request, the others read one file each")
    with sink() as url:
        bench.run(plain_case("upload-many", "upload", url, many))
        bench.run(plain_case("upload-large", "upload", url, large))
    remove(many, large)


def run_orthanc_download(bench: Bench, sizes: Sizes) -> None:
    if not _orthanc_here(bench):
        return
    study = make_study(bench.root, 101, sizes.many)
    with orthanc(bench.root, preload=study) as url:
        bench.run(_orthanc_case("orthanc-download", "download", study, url))
    remove(study)


def run_orthanc_upload(bench: Bench, sizes: Sizes) -> None:
    if not _orthanc_here(bench):
        return
    study = make_study(bench.root, 101, sizes.many)
    bench.run(_orthanc_case("orthanc-upload", "upload", study, "", partial(orthanc, bench.root)))
    remove(study)


def _orthanc_here(bench: Bench) -> bool:
    if not orthanc_installed():
        bench.note("Orthanc left out: Orthanc with its DICOMweb plugin is not installed")
    return orthanc_installed()


def _orthanc_case(
    name: str,
    action: str,
    study: Study,
    url: str,
    serve: Callable[[], AbstractContextManager[str]] | None = None,
) -> Case:
    case = plain_case(name, action, url, study)
    with_credentials = replace(case.task, user=ORTHANC_USER, password=ORTHANC_PASSWORD)
    return replace(case, title=f"Orthanc: {case.title}", task=with_credentials, serve=serve)


def run_memory(bench: Bench, sizes: Sizes) -> None:
    """16 streams at once, one of them a single huge part. Its zeros are holes, so only the target takes room."""
    huge = make_study(bench.root, 300, 1, sizes.huge_frames, sparse=True)
    beside = [make_study(bench.root, 301 + index, sizes.beside, sparse=True) for index in range(STREAMS - 1)]
    studies = [huge, *beside]
    once = Bench(bench.root, 1, bench.rows, bench.notes)
    with static_server(bench.root, routes_of(studies)) as url:
        once.run(_memory_case("memory-download", "download", url, studies))
    with sink() as url:
        once.run(_memory_case("memory-upload", "upload", url, studies))
    remove(*studies)


def _memory_case(name: str, action: str, url: str, studies: list[Study]) -> Case:
    at_once = replace(task(action, url, studies), streams=STREAMS)
    title = f"memory: {action}, {STREAMS} streams, one of them a part of {label(studies[0].frames * FRAME)}"
    items, volume = sum(study.instances for study in studies), sum(study.pixel_bytes for study in studies)
    return Case(name, title, at_once, items, volume, OURS)


def remove(*studies: Study) -> None:
    for study in studies:
        rmtree(study.folder)
        study.body.unlink()
        study.listing.unlink()


SECTIONS: dict[str, Callable[[Bench, Sizes], None]] = {
    "download": run_downloads,
    "upload": run_uploads,
    "orthanc-download": run_orthanc_download,
    "orthanc-upload": run_orthanc_upload,
    "memory": run_memory,
}
