"""Run as a program: a job in a process that ends itself by SIGKILL at a named point, the so-and-so-many-th time.

``python -m tests.jobs.killed POINT NUMBER VERB SOURCE TARGET``
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from postdicom_async import jobs

POINTS: dict[str, tuple[str, str]] = {
    "lock taken": ("disk.private_files:FileLock.take", "after"),
    "job created": ("jobs.ledger.ledger:Ledger.create", "after"),
    "ledger opened": ("jobs.ledger.ledger:Ledger.open", "after"),
    "ends noted": ("jobs.job_files:ResumeFile.write", "after"),
    "page listed": ("jobs.ledger.ledger:Ledger.note_studies", "before"),
    "page noted": ("jobs.ledger.ledger:Ledger.note_studies", "after"),
    "decided": ("jobs.ledger.ledger:Ledger.set_stage", "before"),
    "discovered": ("jobs.discovery:DiscoverPhase.run", "after"),
    "study listed": ("jobs.context:plan_study", "before"),
    "study planned": ("jobs.context:plan_study", "after"),
    "plan gathered": ("jobs.ledger.ledger:Ledger.plan", "after"),
    "item queued": ("jobs.ledger.ledger:Ledger.run_items", "before"),
    "item running": ("jobs.ledger.ledger:Ledger.run_items", "after"),
    "chunk begun": ("jobs.chunk_runner:run_chunk", "before"),
    "chunk ended": ("jobs.chunk_runner:run_chunk", "after"),
    "source opened": ("jobs.chunk_runner:_Moving.opened", "before"),
    "header read": ("dicomweb.receive:read_header", "after"),
    "part whole": ("dicomweb.receive:Receiver.part_ends", "after"),
    "body begun": ("dicomweb.store:RelatedBody.open", "before"),
    "body sent": ("dicomweb.store:RelatedBody.open", "after"),
    "before the answer": ("dicomweb.store:_Delivery._answer", "before"),
    "after the answer": ("dicomweb.store:_Delivery._answer", "after"),
    "answer read": ("dicomweb.store:verdicts_of", "after"),
    "item settled": ("jobs.ledger.ledger:Ledger.settle", "before"),
    "item done": ("jobs.ledger.ledger:Ledger.settle", "after"),
    "before the commit": ("jobs.ledger.book:Book.write", "before"),
    "inside the commit": ("jobs.ledger.book:Book.settle", "after"),
    "after the commit": ("jobs.ledger.book:Book.write", "after"),
    "temporary file made": ("disk.folder:SafeFolder.open_new", "after"),
    "bytes written": ("disk.folder:PartialFile.write", "after"),
    "before fsync": ("disk.folder:SafeFolder.make_file_durable", "before"),
    "after fsync": ("disk.folder:SafeFolder.make_file_durable", "after"),
    "before rename": ("disk.folder:SafeFolder.rename", "before"),
    "after rename": ("disk.folder:SafeFolder.rename", "after"),
    "folder durable": ("disk.folder:SafeFolder._make_durable", "after"),
    "verification begun": ("jobs.verifying:VerifyPhase._verify", "before"),
    "study verified": ("jobs.ledger.ledger:Ledger.note_verified", "after"),
    "delete planned": ("jobs.deleting:DeletePhase._delete", "before"),
    "before delete": ("jobs.ends.archive:ArchiveEnd.delete", "before"),
    "after delete": ("jobs.ends.archive:ArchiveEnd.delete", "after"),
    "job complete": ("jobs.run:Run.go", "after"),
    "lock released": ("disk.private_files:FileLock.let_go", "after"),
}
"""Named points: a function of the package, and whether the process ends before it or after it."""


def die_at(point: str, number: int) -> None:
    """Patch the function of a point."""
    place, when = POINTS[point]
    module_name, _, path = place.partition(":")
    owner: Any = importlib.import_module(f"postdicom_async.{module_name}")
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    member = inspect.getattr_static(owner, name)
    function = member.__func__ if isinstance(member, classmethod) else member
    left = [number]

    def count() -> None:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    made = _wrapped(function, count, before=when == "before")
    setattr(owner, name, classmethod(made) if isinstance(member, classmethod) else made)


def _wrapped(function: Callable[..., Any], count: Callable[[], None], *, before: bool) -> Callable[..., Any]:
    first, last = (count, _go_on) if before else (_go_on, count)
    if inspect.isasyncgenfunction(function):
        return _generator(function, first, last)
    if inspect.iscoroutinefunction(function):
        return _coroutine(function, first, last)

    @functools.wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        first()
        result = function(*args, **kwargs)
        last()
        return result

    return plain


def _go_on() -> None:
    return


def _generator(function: Callable[..., Any], first: Callable[[], None], last: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def generator(*args: Any, **kwargs: Any) -> Any:
        first()
        async for one in function(*args, **kwargs):
            yield one
        last()

    return generator


def _coroutine(function: Callable[..., Any], first: Callable[[], None], last: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        first()
        result = await function(*args, **kwargs)
        last()
        return result

    return coroutine


async def _main(point: str, number: str, verb: str, source: str, target: str) -> None:
    die_at(point, int(number))
    if verb == "sync":
        job = await jobs.sync(source, target, delete="copied", max_delete=1, pace=jobs.Pace(at_once=2))
    elif verb == "verify":
        job = await jobs.verify(source, target, level="bytes")
    else:
        job = await jobs.copy(source, target, pace=jobs.Pace(at_once=2))
    await job.wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
