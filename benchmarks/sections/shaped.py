"""A study of 8 series over a long line, and from an archive that gets slower when it is asked for much at once."""

from __future__ import annotations

import time
from dataclasses import replace
from http.client import HTTPConnection
from statistics import median
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from benchmarks.data import Study, write_study
from benchmarks.measure import Task
from benchmarks.names import MIB, series_uid
from benchmarks.runner import Bench, Case, tell
from benchmarks.sections.moving import download, orthanc_here, size_of, with_credentials
from benchmarks.servers import delay_line, orthanc, static_server
from benchmarks.sides import CURL, OURS, OURS_ONE_STREAM, PEER

if TYPE_CHECKING:
    from benchmarks.sizes import Sizes

SERIES = 8
ROUND_TRIP, RATE = 0.03, 50e6
PINGS = 20
TOLERANCE = 0.05


def run_shaped(bench: Bench, sizes: Sizes) -> None:
    written = write_study(bench.root, Study(105, sizes.many, series=SERIES))
    study = written.study
    with static_server(bench.root) as near, delay_line(near, round_trip=ROUND_TRIP, rate=RATE) as url:
        bench.note("shaped", checked(url, f"/studies/{study.uid}"))
        bench.run(_by_series(url, study))
        bench.run(
            download(
                "shaped", "shaped-one", url, study, (OURS_ONE_STREAM, CURL, PEER), _titled(study, "one connection")
            )
        )
    ideal = study.volume / (SERIES * RATE) + 2 * ROUND_TRIP
    bench.note(
        "shaped",
        f"{SERIES} connections at their full rate would take {ideal:.2f} s; curl's are what this machine carries",
    )
    if orthanc_here(bench, "shaped"):
        with orthanc(bench.root, preload=written) as url:
            case = download("shaped", "shaped-orthanc", url, study, (OURS, OURS_ONE_STREAM))
            bench.run(replace(with_credentials(case), title=_titled(study, "Orthanc on loopback")))
    written.remove()


def _titled(study: Study, words: str) -> str:
    return f"{size_of(study)} in {study.series} series, {words}"


def _by_series(url: str, study: Study) -> Case:
    """Ours as it is; curl with one connection for each series."""
    paths = [f"/studies/{study.uid}/series/{series_uid(study.number, number)}" for number in range(study.series)]
    task = Task("download", url, studies=(study.uid,), bodies=tuple(paths))
    return Case("shaped", "shaped", _titled(study, "long line"), task, (study,), (OURS, CURL))


def checked(url: str, path: str) -> str:
    """Measure the line itself; say what it does."""
    tell("shaped: the line itself")
    delay, rate = _round_trip(url), _rate(url, path)
    off = max(abs(delay / ROUND_TRIP - 1), abs(rate / RATE - 1))
    verdict = "as they should be" if off <= TOLERANCE else f"**off by {off:.0%}**"
    return f"the line, measured: {delay * 1000:.1f} ms, {rate / 1e6:.1f} MB/s; {verdict}"


def _round_trip(url: str) -> float:
    """Return the median of small requests on one connection."""
    base, took = urlsplit(url), []
    connection = HTTPConnection(base.hostname or "", base.port, timeout=30)
    for _ in range(PINGS):
        started = time.perf_counter()
        connection.request("GET", "/nothing")
        connection.getresponse().read()
        took.append(time.perf_counter() - started)
    connection.close()
    return median(took[1:])


def _rate(url: str, path: str) -> float:
    """Return bytes a second between the first megabyte and the last one of a large answer on one connection."""
    base = urlsplit(url)
    connection = HTTPConnection(base.hostname or "", base.port, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read(MIB)
    started, got = time.perf_counter(), 0
    while piece := answer.read(MIB // 4):
        got += len(piece)
    took = time.perf_counter() - started
    connection.close()
    return got / took
