"""``python -m benchmarks.jobs``: one archive copied into another, beside our own halves and beside another mover.

Two Orthancs on loopback. Ours: every study downloaded into a folder, the folder uploaded, and `jobs.copy` from one to
the other without a folder in between, verified and not. The other: OrthancCloner of orthanc-tools (pip), 18 threads
as its makers use it, over Orthanc's own REST interface; its time ends when the target counts all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.data import Study, write_study
from benchmarks.names import PASSWORD, USER
from benchmarks.servers import orthanc
from postdicom_async import DicomWeb, jobs

_CLONER = """
import sys
from orthanc_api_client import OrthancApiClient
from orthanc_tools import OrthancCloner

source, target, user, password, status = sys.argv[1:]
OrthancCloner(
    source=OrthancApiClient(source, user=user, pwd=password),
    destination=OrthancApiClient(target, user=user, pwd=password),
    worker_threads_count=18,
    persist_status_path=status,
    polling_interval=0.2,
).execute()
"""


def rest(url: str, path: str, method: str = "GET") -> Any:
    """Ask Orthanc's own interface."""
    token = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    request = urllib.request.Request(
        f"{url.removesuffix('/dicom-web')}{path}", method=method, headers={"Authorization": f"Basic {token}"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def wipe(url: str) -> None:
    for study in rest(url, "/studies"):
        rest(url, f"/studies/{study}", "DELETE")


def instances(url: str) -> int:
    return int(rest(url, "/statistics")["CountInstances"])


@contextmanager
def timed(into: list[float]) -> Iterator[None]:
    started = time.monotonic()
    yield
    into.append(time.monotonic() - started)


async def ours(source: str, target: str, files: Path, out: Path, seconds: dict[str, list[float]]) -> None:
    """Measure each of our ways once."""
    auth = (USER, PASSWORD)
    wipe(target)
    async with DicomWeb(source, auth=auth) as one, DicomWeb(target, auth=auth) as other:
        with timed(seconds["upload"]):
            (await other.upload(files)).raise_for_failures()
        with timed(seconds["download"]):
            async for study in one.search_for_studies():
                await one.download_study(study.StudyInstanceUID, to=out)
    for name, level in (("copy", "none"), ("copy and verify", "listed")):
        wipe(target)
        with timed(seconds[name]):
            ends = DicomWeb(source, auth=auth), DicomWeb(target, auth=auth)
            job = await jobs.copy(*ends, verify=level, job=out / f"{time.monotonic_ns()}.ledger")  # type: ignore[arg-type]
            await job.wait()
        assert instances(target) == instances(source)
    with timed(seconds["copy again"]):
        await (await jobs.copy(DicomWeb(source, auth=auth), DicomWeb(target, auth=auth), job=out / "again")).wait()


def theirs(source: str, target: str, folder: Path, seconds: list[float]) -> None:
    """Measure OrthancCloner once, from its start to the last instance at the target."""
    wipe(target)
    wanted = instances(source)
    plain = [url.removesuffix("/dicom-web") for url in (source, target)]
    command = [sys.executable, "-c", _CLONER, *plain, USER, PASSWORD, str(folder / f"{time.monotonic_ns()}.status")]
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as cloner:
        try:
            while instances(target) < wanted and time.monotonic() - started < 600:
                time.sleep(0.05)
        finally:
            cloner.send_signal(signal.SIGKILL)
    seconds.append(time.monotonic() - started if instances(target) == wanted else float("nan"))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--studies", type=int, default=20)
    options.add_argument("--instances", type=int, default=50)
    options.add_argument("--side", type=int, default=512, help="rows and columns of each")
    options.add_argument("--repeat", type=int, default=3)
    given = options.parse_args()
    names = ("download", "upload", "copy", "copy and verify", "copy again", "OrthancCloner")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with (
        TemporaryDirectory(prefix="dicomweb-bench-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place,
        ExitStack() as stack,
    ):
        root = Path(place)
        os.environ["POSTDICOM_STATE"] = str(root / "state")
        for name in ("source", "target", "files"):
            (root / name).mkdir()
        for number in range(given.studies):
            write_study(root / "files", Study(300 + number, given.instances, side=given.side))
        source = stack.enter_context(orthanc(root / "source"))
        target = stack.enter_context(orthanc(root / "target"))

        async def fill() -> None:
            async with DicomWeb(source, auth=(USER, PASSWORD)) as archive:
                (await archive.upload(root / "files")).raise_for_failures()

        asyncio.run(fill())
        size = int(rest(source, "/statistics")["TotalDiskSize"])
        for number in range(given.repeat):
            out = root / f"out{number}"
            out.mkdir()
            asyncio.run(ours(source, target, root / "files", out, seconds))
            theirs(source, target, root, seconds["OrthancCloner"])
        print(f"{instances(source)} instances, {size / 1e6:.0f} MB; median of {given.repeat}")
    total = given.studies * given.instances
    slower = max(statistics.median(seconds["download"]), statistics.median(seconds["upload"]))
    for name, found in seconds.items():
        middle = statistics.median(found)
        hourly = f"{total / middle * 3600:10,.0f} instances/h  {size / middle * 3.6e-6:8,.0f} GB/h"
        print(f"{name:16} {middle:7.2f} s  {hourly}  {slower / middle:5.2f}x the slower half")


if __name__ == "__main__":
    main()
