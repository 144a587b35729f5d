"""Studies down and up, beside others that do it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.data import Study, Written, write_study
from benchmarks.measure import Task
from benchmarks.names import PASSWORD, USER
from benchmarks.runner import Bench, Case
from benchmarks.servers import (
    certificates,
    delay_line,
    held_by_orthanc,
    orthanc,
    orthanc_installed,
    sink,
    static_server,
    static_server_name,
)
from benchmarks.sides import CURL, FLOOR, OURS, OURS_NO_FSYNC, PEER, REQUESTS, SYNC, SYNC_WHOLE
from benchmarks.verify import WrongBytes
from postdicom_async import Limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.sizes import Sizes

ALL = (OURS, PEER, CURL, FLOOR)
#: Rows and columns of an instance of 10 kB.
TINY = 66
DELAY = 0.03


def download(section: str, name: str, url: str, study: Study, sides: tuple[str, ...], title: str = "") -> Case:
    """Return the case of a whole study, which the sides that know no studies get as one body."""
    task = Task("download", url, studies=(study.uid,), bodies=(f"/studies/{study.uid}",))
    return Case(section, name, title or size_of(study), task, (study,), sides)


def upload(section: str, name: str, url: str, written: Written, sides: tuple[str, ...]) -> Case:
    """Return the case of a folder, which the sides that read no folders get as one premade body."""
    task = Task("upload", url, sources=(str(written.files),), bodies=(str(written.body),))
    return Case(section, name, size_of(written.study), task, (written.study,), sides)


def size_of(study: Study) -> str:
    """Say how much it is."""
    each = study.pixels
    unit = f"{each / 1e9:.1f} GB".replace(".0", "") if each > 0.99e9 else f"{each / 1e6:.1f} MB"
    return f"{study.instances:,} x {unit if each > 20_000 else '10 kB' if each > 2_000 else '1 kB'}"


# --- from a static server ---------------------------------------------------------------------------------------------


def _three(sizes: Sizes) -> dict[str, Study]:
    return {
        "many": Study(101, sizes.many),
        "large": Study(102, 1, frames=sizes.large_frames),
        "tiny": Study(103, sizes.tiny, side=TINY),
    }


def run_plain(bench: Bench, sizes: Sizes) -> None:
    studies = _three(sizes)
    written = [write_study(bench.root, study) for study in studies.values()]
    bench.note("plain", f"from {static_server_name()}; curl and the raw socket keep the multipart answer as one file")
    with static_server(bench.root) as url:
        for name, study in studies.items():
            bench.run(download("plain", f"plain-{name}", url, study, ALL))
    _remove(written)


def run_tls(bench: Bench, sizes: Sizes) -> None:
    studies = _three(sizes)
    written = [write_study(bench.root, study) for study in studies.values()]
    bench.note("tls", f"from {static_server_name()}, with a certificate of an authority made for it")
    with certificates(bench.root) as (authority, server), static_server(bench.root, server) as url:
        for name, study in studies.items():
            case = download("tls", f"tls-{name}", url, study, (OURS, PEER, CURL))
            bench.run(replace(case, task=replace(case.task, authority=str(authority))))
    _remove(written)


def run_disk(bench: Bench, sizes: Sizes) -> None:
    studies = {name: study for name, study in _three(sizes).items() if name != "large"}
    written = [write_study(bench.root, study) for study in studies.values()]
    bench.note("disk", "what is cached is written to the disk before each run, outside the time")
    with static_server(bench.root) as url:
        for name, study in studies.items():
            case = download("disk", f"disk-{name}", url, study, (OURS, OURS_NO_FSYNC))
            bench.run(replace(case, place=bench.disk, sync=True))
    _remove(written)


# --- into a sink ------------------------------------------------------------------------------------------------------


def run_upload(bench: Bench, sizes: Sizes) -> None:
    bench.note("upload", "into a sink that reads every byte; curl and the raw socket send one premade body")
    for name, study in _three(sizes).items():
        written = write_study(bench.root, study)
        with sink(study.pixels) as url:
            bench.run(upload("upload", f"upload-{name}", url, written, ALL))
        _remove([written])


def run_single(bench: Bench, sizes: Sizes) -> None:
    large, small = Study(101, sizes.many), Study(103, sizes.single_small, side=TINY)
    for name, study in (("large", large), ("small", small)):
        written = write_study(bench.root, study, served=False)
        with sink(study.pixels) as url:
            bench.run(_single(f"single-{name}", url, written))
        _remove([written])
    written = write_study(bench.root, Study(104, sizes.delayed, side=TINY), served=False)
    with sink(written.study.pixels) as near, delay_line(near, round_trip=DELAY) as url:
        case = _single("single-delay", url, written)
        bench.run(replace(case, title=f"{case.title}, 30 ms round trip"))
    _remove([written])
    at_once = Limits().parallel_stores
    bench.figures["stores-a-second"] = at_once / DELAY
    bench.note("single", f"{at_once} stores at once over 30 ms are {at_once / DELAY:.0f} instances/s")


def _single(name: str, url: str, written: Written) -> Case:
    case = upload("single", name, url, written, (OURS, REQUESTS))
    return replace(case, task=replace(case.task, user=USER, password=PASSWORD, dialect="postdicom"))


# --- without asyncio --------------------------------------------------------------------------------------------------


def run_synchronous(bench: Bench, sizes: Sizes) -> None:
    """Run one program, written for dicomweb-client, with either client."""
    section, sides = "synchronous", (SYNC, SYNC_WHOLE, PEER)
    bench.note(
        section, f"down from {static_server_name()}, each instance saved as a file; up into a sink, eight threads"
    )
    for name, study in (("many", Study(101, sizes.many)), ("tiny", Study(103, sizes.tiny, side=TINY))):
        written = write_study(bench.root, study)
        with static_server(bench.root) as url:
            bench.run(download(section, f"synchronous-{name}", url, study, sides, f"{size_of(study)}, down"))
        with sink(study.pixels) as url:
            case = upload(section, f"synchronous-{name}-up", url, written, sides)
            bench.run(replace(case, title=f"{case.title}, up"))
        _remove([written])


# --- Orthanc ----------------------------------------------------------------------------------------------------------


def run_orthanc_download(bench: Bench, sizes: Sizes) -> None:
    if not orthanc_here(bench, "orthanc-download"):
        return
    written = write_study(bench.root, Study(101, sizes.many))
    with orthanc(bench.root, preload=written) as url:
        bench.run(with_credentials(download("orthanc-download", "orthanc-download", url, written.study, ALL)))
    _remove([written])


def run_orthanc_upload(bench: Bench, sizes: Sizes) -> None:
    if not orthanc_here(bench, "orthanc-upload"):
        return
    written = write_study(bench.root, Study(101, sizes.many))
    case = with_credentials(upload("orthanc-upload", "orthanc-upload", "", written, ALL))
    bench.run(replace(case, serve=partial(orthanc, bench.root), confirm=partial(_confirm, written)))
    bench.note("orthanc-upload", "into a new one each time; what it then holds is compared by its digests")
    _remove([written])


def _confirm(written: Written, url: str) -> None:
    wanted = {path.stem: hashlib.md5(path.read_bytes()).hexdigest() for path in written.files.glob("*/*")}
    if held_by_orthanc(url) != wanted:
        raise WrongBytes("what Orthanc holds is not what was sent")


def orthanc_here(bench: Bench, section: str) -> bool:
    """Say whether there is an Orthanc; where not, a note says so."""
    if not orthanc_installed():
        bench.note(section, "left out: Orthanc with its DICOMweb plugin is not installed")
    return orthanc_installed()


def with_credentials(case: Case) -> Case:
    return replace(case, task=replace(case.task, user=USER, password=PASSWORD))


def _remove(written: Sequence[Written]) -> None:
    for one in written:
        one.remove()
