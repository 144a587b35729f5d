"""Starts a process that writes a ledger for each line that it reads, and waits until it has been killed."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from postdicom_async.jobs.ledger.ledger import Ledger
from postdicom_async.jobs.ledger.schema import Stage
from postdicom_async.jobs.plan import ItemEnd
from postdicom_async.jobs.states import State


def tell(what: object) -> None:
    """Say something, in one write."""
    os.write(1, f"{what}\n".encode())


async def write(path: Path) -> None:
    """Do the items of the job, one by one, and tell how many are durable."""
    done = 0
    async with await Ledger.open(path) as ledger:
        tell("open")
        for study in await ledger.studies(Stage.PLANNED, limit=100_000):
            keys = [(item.series, item.uid) for item in await ledger.items(study.id, states=[State.PENDING])]
            ledger.run_items(study.id, keys)
            for key in keys:
                ledger.settle(study.id, [ItemEnd(*key, State.DONE, size=100)])
                done += 1
                if done % 16 == 0:
                    await ledger.commit()
                    tell(done)
                await asyncio.sleep(0)
    tell("end")


def main() -> None:
    """Fork for each line."""
    for _ in iter(sys.stdin.buffer.readline, b""):
        pid = os.fork()
        if not pid:
            asyncio.run(write(Path(sys.argv[1])))
            os._exit(0)
        tell(pid)
        os.waitpid(pid, 0)
        tell("killed")


if __name__ == "__main__":
    main()
