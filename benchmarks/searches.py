"""What data sets and data frames cost over DICOM JSON: ``python -m benchmarks.searches``.

Processor time of this process for all results of a search for instances, in pages of 1,000 with 26 attributes each: as
DICOM JSON (`raw`), as data sets of which nothing or two attributes are looked at, and as a data frame. The answers are
made beforehand, and no network is between.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

import httpx

from benchmarks.measure import cpu_seconds
from benchmarks.table import machine
from postdicom_async import DicomWeb

TARGET = 1.5
PAGE = 1000
_TEXTS = {
    "00080005": ("CS", "ISO_IR 100"), "00080016": ("UI", "1.2.840.10008.5.1.4.1.1.2"), "00080020": ("DA", "20240131"),
    "00080030": ("TM", "101112"), "00080050": ("SH", "A17"), "00080056": ("CS", "ONLINE"), "00080060": ("CS", "CT"),
    "00081190": ("UR", "https://archive.example/studies/1.2.3"), "00100020": ("LO", "P17"),
    "00100030": ("DA", "19700101"), "00100040": ("CS", "F"), "0020000D": ("UI", "1.2.3"), "0020000E": ("UI", "1.2.3.4"),
    "00200010": ("SH", "S1"),
}  # fmt: skip
_NUMBERS = {
    "00200011": ("IS", 3), "00201206": ("IS", 1), "00201208": ("IS", 10000), "00280010": ("US", 512),
    "00280011": ("US", 512), "00280100": ("US", 16),
}  # fmt: skip


def instance(number: int) -> dict[str, Any]:
    """Return a result as an archive gives it."""
    return {
        **{tag: {"vr": vr, "Value": [value]} for tag, (vr, value) in (_TEXTS | _NUMBERS).items()},
        "00080018": {"vr": "UI", "Value": [f"1.2.3.4.{number}"]},
        "00080061": {"vr": "CS", "Value": ["CT", "SR"]},
        "00080090": {"vr": "PN", "Value": [{"Alphabetic": "Roe^Jane"}]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": f"Doe^{number}"}]},
        "00200013": {"vr": "IS", "Value": [number]},
        "00280008": {"vr": "IS"},
    }


def archive_of(instances: int) -> DicomWeb:
    """Return an archive that has as many."""
    pages = {
        start: json.dumps([instance(number) for number in range(start, min(start + PAGE, instances))]).encode()
        for start in range(0, instances, PAGE)
    }

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=pages.get(int(request.url.params.get("offset", "0")), b"[]"))

    return DicomWeb("https://archive.example/dicom-web", transport=httpx.MockTransport(answer))


async def raw(archive: DicomWeb) -> int:
    return len([None async for _ in archive.search_for_instances().raw])


async def data_sets(archive: DicomWeb) -> int:
    return len([None async for _ in archive.search_for_instances()])


async def looked_at(archive: DicomWeb) -> int:
    return len([(one.SOPInstanceUID, one.InstanceNumber) async for one in archive.search_for_instances()])


async def frame(archive: DicomWeb) -> int:
    return len(await archive.search_for_instances().to_pandas())


WAYS: dict[str, Callable[[DicomWeb], Awaitable[int]]] = {
    "DICOM JSON": raw,
    "data sets": data_sets,
    "data sets, two attributes each": looked_at,
    "a data frame": frame,
}


async def measured(instances: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds that each way took, round by round, all of them in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    async with archive_of(instances) as archive:
        for _ in range(rounds):
            for name, way in WAYS.items():
                gc.collect()
                before = cpu_seconds()
                assert await way(archive) == instances
                seconds[name].append(cpu_seconds() - before)
    return seconds


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.searches", description=__doc__)
    parser.add_argument("--instances", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5, help="of all ways in turn (5)")
    options = parser.parse_args(arguments)
    seconds = asyncio.run(measured(options.instances, options.rounds))
    print(f"Processor seconds for {options.instances:,} instances: the least of {options.rounds} rounds; median ratio")
    ratios = {
        name: median(own / least for own, least in zip(taken, seconds["DICOM JSON"], strict=True))
        for name, taken in seconds.items()
    }
    for name, taken in seconds.items():
        print(f"{name:<32}{min(taken):>8.2f}{ratios[name]:>8.2f}x")
    reached = ratios["data sets"] <= TARGET
    print(f"\nTarget: data sets at most {TARGET}x. {'Reached.' if reached else 'Missed.'}\n\n{machine()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
