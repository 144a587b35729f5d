"""What workers of the tests do with a chunk: they write down what they did, in a folder that all share."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from postdicom_async.errors import UsageError
from postdicom_async.jobs.ends.end import ListedInstance, Selection
from postdicom_async.jobs.machines.worker import Parcel, WorkerAnswer, carry_with
from postdicom_async.jobs.plan import Chunk, ChunkEnd, ItemEnd
from postdicom_async.jobs.states import State

__all__ = ["POISON", "SECRET", "FakeSpec", "chunks_of", "fails_at_poison", "lines", "raises", "refused", "work"]

POISON = "9.9.9"
SECRET = "Doe^Jane/canary"


def write(name: str, line: str) -> None:
    """Append a line; short ones are written whole, whoever else writes."""
    path = Path(os.environ["SHARED_FOLDER"]) / name
    with path.open("ab", buffering=0) as file:
        file.write(f"{line}\n".encode())


def lines(folder: Path, name: str) -> list[str]:
    path = folder / name
    return path.read_text().splitlines() if path.exists() else []


@dataclass(frozen=True)
class FakeSpec:
    """An end that says when it is opened and closed."""

    name: str
    private: str = SECRET

    def open(self) -> Any:
        if self.name == "no secret here":
            raise UsageError("profile here: it has no password on this machine")
        if self.name == "broken":
            raise RuntimeError(SECRET)
        return FakeEnd(self.name)


class FakeEnd:
    def __init__(self, name: str) -> None:
        self.name = name

    async def __aenter__(self) -> Self:
        write("ends", f"{os.getpid()} {self.name} opened")
        return self

    async def __aexit__(self, *_: object) -> None:
        write("ends", f"{os.getpid()} {self.name} closed")


def chunks_of(count: int, *, size: int = 5, poison: int = 0) -> list[Chunk]:
    """Return chunks; the one with that number has a poisonous instance amid it."""
    made = []
    for number in range(1, count + 1):
        uids = [f"1.2.{number}.{place}" for place in range(size)]
        if number == poison:
            uids[size // 2] = POISON
        instances = [ListedInstance(f"1.{number}", uid, 100) for uid in uids]
        made.append(Chunk(number, 1, number, Selection(f"1.{number}", f"1.{number}", instances, whole=True)))
    return made


async def _moved(source: Any, target: Any, parcel: Parcel) -> AsyncGenerator[ItemEnd | ChunkEnd, None]:
    chunk, (pause, workers) = parcel.chunk, parcel.options
    write("begun", f"{os.getpid()} {chunk.number} {chunk.attempt} {1 / workers:.2f} {pause}")
    for one in chunk.wanted.instances:
        if one.uid == POISON:
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(pause)
        yield ItemEnd(one.series, one.uid, State.DONE, size=one.size, digest=b"d" * 16)
    write("done", f"{os.getpid()} {chunk.number} {chunk.attempt}")
    yield ChunkEnd()


def work(parcel: Parcel) -> WorkerAnswer:
    return carry_with(_moved, parcel)


async def _fails(source: Any, target: Any, parcel: Parcel) -> AsyncGenerator[ItemEnd | ChunkEnd, None]:
    for one in parcel.chunk.wanted.instances:
        if one.uid == POISON:
            raise RuntimeError(SECRET)
        yield ItemEnd(one.series, one.uid, State.DONE)
    yield ChunkEnd()


def fails_at_poison(parcel: Parcel) -> WorkerAnswer:
    return carry_with(_fails, parcel)


async def _refused(source: Any, target: Any, parcel: Parcel) -> AsyncGenerator[ItemEnd | ChunkEnd, None]:
    yield ChunkEnd("target", "AuthenticationFailed", message="401")


def refused(parcel: Parcel) -> WorkerAnswer:
    return carry_with(_refused, parcel)


def raises(parcel: Parcel) -> WorkerAnswer:
    raise ImportError(SECRET)
