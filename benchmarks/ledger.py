"""The ledger of a job at full size, with synthetic ends: ``python -m benchmarks.ledger [rows] [folder]``."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from postdicom_async.jobs.ends.end import ListedStudy
from postdicom_async.jobs.ledger.ledger import Ledger
from postdicom_async.jobs.ledger.reader import LedgerReader
from postdicom_async.jobs.ledger.schema import ItemRow, Stage
from postdicom_async.jobs.plan import ItemEnd
from postdicom_async.jobs.states import State

ROWS = 10_000_000
IN_A_STUDY, IN_A_SERIES = 200, 50
ROOT = "1.2.826.0.1.3680043.8.498."  # with 34 digits below it: 60 characters, as most have


def uid(*numbers: int) -> str:
    """Return a UID of 60 characters that these numbers make."""
    text = "".join(str(number) for number in numbers)
    return ROOT + str(hash((text, 7)) % 10**9 + 10**9) + text.rjust(24, "1")


async def fill(path: Path, rows: int) -> dict[str, float]:
    """Make a job of that many rows: listed, planned, and moved but for the last tenth."""
    facts = {"verb": "copy", "source": "a", "target": "b", "verify": "listed", "phase": "moving", "run": 1}
    studies = rows // IN_A_STUDY
    async with await Ledger.create(path, facts) as ledger:
        started = time.monotonic()
        for start in range(0, studies, 1000):
            listed = [
                ListedStudy(uid(number), f"{2000 + number % 25}{number % 12 + 1:02}15", IN_A_STUDY)
                for number in range(start, min(studies, start + 1000))
            ]
            await ledger.note_studies(listed, at_target=False, run=1)
        listing = time.monotonic() - started
        started = time.monotonic()
        after = (-(1 << 62), 0)
        while found := await ledger.studies(Stage.FOUND, after=after):
            after = found[-1].position, found[-1].id
            for study in found:
                items = [
                    ItemRow(uid(study.id, n // IN_A_SERIES), uid(study.id, n, 9), State.PENDING, size=530_000)
                    for n in range(IN_A_STUDY)
                ]
                ledger.plan(study.id, items)
                ledger.set_stage(study.id, Stage.PLANNED, planned=IN_A_STUDY)
                await ledger.commit()
        planning = time.monotonic() - started
        started = time.monotonic()
        after, moved = (-(1 << 62), 0), 0
        while moved < rows * 9 // 10 and (found := await ledger.studies(Stage.PLANNED, after=after)):
            after = found[-1].position, found[-1].id
            for study in found:
                keys = [(item.series, item.uid) for item in await ledger.items(study.id)]
                ledger.run_items(study.id, keys)
                for at in range(0, len(keys), 20):
                    ends = [ItemEnd(*key, State.DONE, size=530_000) for key in keys[at : at + 20]]
                    ledger.settle(study.id, ends)
                    await asyncio.sleep(0)
                ledger.set_stage(study.id, Stage.MOVED)
                await ledger.commit()
                moved += len(keys)
                if moved >= rows * 9 // 10:
                    break
        moving = time.monotonic() - started
        more = (await ledger.studies(Stage.PLANNED, limit=3))[:3]
        for study in more:
            ledger.run_items(study.id, [(item.series, item.uid) for item in await ledger.items(study.id)])
    return {
        "studies listed/s": studies / listing,
        "items planned/s": rows / planning,
        "items run and settled/s": moved / moving,
        "bytes a row": path.stat().st_size / rows,
    }


async def resume(path: Path) -> None:
    """Open it, and have the first chunk's items."""
    async with await Ledger.open(path) as ledger:
        study = (await ledger.studies(Stage.PLANNED, limit=1))[0]
        await ledger.items(study.id, states=[State.PENDING])
        os.write(1, b"ready\n")


def read(path: Path) -> None:
    """Read everything as a report does; tell seconds and memory."""
    before = peak()
    started = time.monotonic()
    reader = LedgerReader(path)
    reader.summary()
    summed = time.monotonic() - started
    started = time.monotonic()
    number = sum(1 for _ in reader.items())
    told = {
        "open and summary, s": summed,
        "report lines/s": number / (time.monotonic() - started),
        "memory over start, MiB": (peak() - before) / 1024,
    }
    reader.close()
    print(json.dumps(told))


def peak() -> int:
    """Return the peak of memory so far, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def apart(what: str, path: Path) -> tuple[float, str]:
    """Run a part in a process of its own; return seconds from its start to its first line, and that line."""
    started = time.monotonic()
    with subprocess.Popen([sys.executable, "-m", __spec__.name, what, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        return time.monotonic() - started, line


def main() -> None:
    """Run all of it."""
    if sys.argv[1:2] == ["resume"]:
        asyncio.run(resume(Path(sys.argv[2])))
        return
    if sys.argv[1:2] == ["read"]:
        read(Path(sys.argv[2]))
        return
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as folder:
        path = Path(folder) / "ten.ledger"
        told = asyncio.run(fill(path, rows))
        told["memory of who wrote, MiB"] = peak() / 1024
        told["start of a process to the first chunk, s"] = apart("resume", path)[0]
        told |= json.loads(apart("read", path)[1])
    print(json.dumps({name: round(value, 2) for name, value in told.items()}, indent=1))


if __name__ == "__main__":
    main()
