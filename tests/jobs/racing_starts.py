"""Starts many processes that open, or make, one ledger at the same moment; the winner keeps it until its input ends."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from postdicom_async.errors import LedgerLocked
from postdicom_async.jobs.ledger.ledger import Ledger


def tell(what: str) -> None:
    """Say what became of this process, in one write."""
    os.write(1, json.dumps([what, os.getpid()]).encode() + b"\n")


async def race(path: Path, how: str) -> None:
    """Try to get the ledger."""
    try:
        ledger = await (Ledger.create(path, {}) if how == "create" else Ledger.open(path))
    except LedgerLocked:
        tell("locked")
        return
    async with ledger:
        tell("runs")
        await asyncio.to_thread(sys.stdin.readline)


def main() -> None:
    """Fork, wait for all to be there, and let them go."""
    path, how, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    gate, opens = os.pipe()
    there_are, there_is = os.pipe()
    pids = []
    for _ in range(number):
        pid = os.fork()
        if not pid:
            os.close(opens)
            os.write(there_is, b".")
            os.read(gate, 1)  # returns when the last writer has closed it
            asyncio.run(race(path, how))
            os._exit(0)
        pids.append(pid)
    seen = 0
    while seen < number:
        seen += len(os.read(there_are, number))
    os.close(opens)
    for pid in pids:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
