"""Instances to disk: compared with the archive's own list, each file whole or absent, only the missing asked again."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import anyio

from postdicom_async.dicom.layout import Layout, RelativeName, known_folder, relative_names
from postdicom_async.dicomweb.at_once import for_each
from postdicom_async.dicomweb.listing import count_instances, list_instances, verdict
from postdicom_async.dicomweb.progress import Meter
from postdicom_async.dicomweb.receive import Receiver
from postdicom_async.dicomweb.retrieve import Retrieval, Target
from postdicom_async.disk.background import in_background
from postdicom_async.disk.folder import Folder
from postdicom_async.disk.pool import shared_pool
from postdicom_async.errors import (
    AuthenticationFailed,
    IncompleteDownload,
    LocalFileError,
    NotFound,
    PostdicomError,
    RateLimited,
    UsageError,
)
from postdicom_async.http.clocks import deadline_passed, within
from postdicom_async.results import DownloadReport, InstanceUids, OnProgress, SavedInstance
from postdicom_async.transfer.folder_sink import FolderSink

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from pathlib import Path

__all__ = ["Download", "plan"]

_COUNT_SECONDS = 10.0
_MANY = 32  # instances from which on the first 64 KiB are little of an answer
_ENDS_THE_JOB = (AuthenticationFailed, LocalFileError, RateLimited, UsageError)


@dataclass(slots=True)
class _State:
    """What is known while a download runs."""

    listed: set[InstanceUids] | None = None  # empty where the archive lists nothing, None where it cannot be asked
    present: set[InstanceUids] = field(default_factory=set)
    saved: dict[InstanceUids, SavedInstance] = field(default_factory=dict)
    refused: int = 0
    last_error: PostdicomError | None = None
    whole: bool = False  # the target itself came to its end without damage

    @property
    def arrived(self) -> set[InstanceUids]:
        return self.present | self.saved.keys()

    @property
    def missing(self) -> set[InstanceUids]:
        return (self.listed or set()) - self.arrived


def plan(target: Target, listed: set[InstanceUids], missing: set[InstanceUids], finest: int) -> list[Target]:
    """Return what to ask for: the largest resources of which everything is missing. Pure.

    ``finest`` bounds the size: 0 allows the target itself, 1 series, 2 only instances. A server may fail at a large
    resource and still give the small ones.
    """
    if finest == 0 and missing == listed:
        return [target]
    by_series: dict[tuple[str, str], set[InstanceUids]] = {}
    for uids in sorted(missing):
        by_series.setdefault(uids[:2], set()).add(uids)
    targets: list[Target] = []
    sizes = Counter(uids[:2] for uids in listed)
    for (study, series), wanted in by_series.items():
        everything = len(wanted) == sizes[study, series]
        if finest <= 1 and everything and target.instance is None:
            targets.append(Target(study, series))
        else:
            targets.extend(Target(*uids) for uids in sorted(wanted))
    return targets


class Download:
    """One download into a folder. Use it once."""

    def __init__(
        self, retrieval: Retrieval, target: Target, to: Path, *, layout: Layout, on_progress: OnProgress | None
    ) -> None:
        self._session = retrieval.session.one_call(at_once=True)
        self._retrieval = retrieval.over(self._session)
        self._target = target
        self._to = to
        self._name = _one_name_each(relative_names(layout))
        self._meter = Meter(on_progress)
        self._state = _State()
        self._asked = False
        self._known_folder = known_folder(layout, target.study, target.series)
        self._not_found: NotFound | None = None
        self._count: int | None = None

    async def run(self, *, compare: bool) -> DownloadReport:
        """Fetch what is not there yet.

        Raises:
            IncompleteDownload: instances are missing in the end.
            NotFound: the archive does not hold the target.
            LocalFileError: the disk is full, or the folder cannot be written to.
            PostdicomError: the archive cannot be worked with.
        """
        started = time.monotonic()
        folder = Folder(self._to, fsync=self._session.settings.fsync)
        problem: PostdicomError | None = None
        deadline = self._session.settings.timeouts.deadline

        def late() -> PostdicomError:
            return deadline_passed(f"retrieve {self._target.route}", deadline, sent=True)

        try:
            await in_background(folder.open)
            with shared_pool() as pool:
                self._sink = FolderSink(folder, self._name, pool, piece=self._session.settings.limits.piece)
                await within(deadline, self._fetch(folder, compare=compare), late)
        except PostdicomError as error:
            problem = error
        finally:
            folder.close()
        report = self._report(time.monotonic() - started)
        problem = problem or self._shortfall(report)
        if problem is None:
            return report
        problem.report = replace(report, failed=True)
        raise problem

    async def _fetch(self, folder: Folder, *, compare: bool) -> None:
        await self._ask_count(compare=compare)
        if await in_background(lambda: folder.is_bare(self._known_folder)):
            await self._fetch_everything(compare=compare)
            await self._fetch_rounds(finest=1)
        else:
            await self._list(compare=compare)
            await self._find_present(folder)
            await self._fetch_rounds(finest=0)
        if self._state.listed is not None and not self._state.arrived <= self._state.listed:
            # Stored meanwhile, or a list that does not tell: by now another way may give a better one.
            await self._list(compare=compare)
            await self._find_present(folder)
            await self._fetch_rounds(finest=1)

    async def _fetch_everything(self, *, compare: bool) -> None:
        """Ask for everything and compare afterwards: nothing of it can be there yet."""
        if self._count is None:
            await self._fetch_while_listing(compare=compare)
        else:
            await self._fetch_all([self._target])
            if not self._state.whole or len(self._state.saved) != self._count:
                await self._list(compare=compare)
        if self._not_found is not None and not self._state.listed:
            raise self._not_found

    async def _fetch_while_listing(self, *, compare: bool) -> None:
        listing = asyncio.ensure_future(self._list(compare=compare))
        try:
            await self._fetch_all([self._target])
            await listing
        finally:
            listing.cancel()
            await asyncio.wait([listing])

    async def _ask_count(self, *, compare: bool) -> None:
        if compare and self._target.instance is None:
            with suppress(TimeoutError):  # it saves time, or it is not worth it
                async with asyncio.timeout(_COUNT_SECONDS):
                    self._count = await count_instances(self._retrieval, self._target)
        if self._count is not None:
            self._asked = True
            self._meter.expect(self._count, None)

    async def _list(self, *, compare: bool) -> None:
        target = self._target
        if target.series is not None and target.instance is not None:
            self._state.listed = {InstanceUids(target.study, target.series, target.instance)}
        elif compare:
            self._state.listed = await list_instances(self._retrieval, target, self._state.arrived)
            self._asked = True
        if self._state.listed:
            self._meter.expect(len(self._state.listed), None)

    async def _find_present(self, folder: Folder) -> None:
        for some in _slices(sorted(self._state.missing), 256):
            self._state.present.update(await in_background(partial(_held, folder, self._name, some)))

    # --- rounds ----------------------------------------------------------------------------------------------------

    async def _fetch_rounds(self, *, finest: int) -> None:
        """Look what is missing and ask for that, each round in smaller resources; end when nothing more comes."""
        idle_rounds = 0
        retry = self._session.settings.retry
        while not self._is_done() and not self._session.has_given_up:
            had = len(self._state.saved)
            await self._fetch_all(self._targets(finest))
            idle_rounds = 0 if len(self._state.saved) > had else idle_rounds + 1
            if self._is_done() or self._gives_up(finest, idle_rounds):
                return
            if idle_rounds:
                await anyio.sleep(random.random() * min(retry.cap, retry.base * 2.0**idle_rounds))  # noqa: S311
            finest = min(2, finest + 1)

    def _is_done(self) -> bool:
        return not self._state.missing if self._state.listed else self._state.whole

    def _targets(self, finest: int) -> list[Target]:
        if not self._state.listed:
            return [self._target]
        return plan(self._target, self._state.listed, self._state.missing, finest)

    def _gives_up(self, finest: int, idle_rounds: int) -> bool:
        error = self._state.last_error
        may_pass = error is not None and error.temporary
        if self._state.listed and finest < 2 and self._target.instance is None:
            return False  # smaller resources are still to be tried
        return idle_rounds >= (self._session.settings.retry.max_attempts if may_pass else 1)

    async def _fetch_all(self, targets: Iterable[Target]) -> None:
        async def each() -> AsyncIterator[Target]:
            for target in targets:
                yield target

        async def fetch(target: Target) -> None:
            await self._fetch_one(target)

        self._state.last_error = None
        await for_each(each(), fetch, at_once=self._session.settings.limits.parallel_retrieves)

    async def _fetch_one(self, target: Target) -> None:
        """Receive one resource; what goes wrong with it is noted, unless it ends the whole download."""
        if self._session.has_given_up:
            return
        had = len(self._state.saved)
        receiver = Receiver(self._sink, target, self._state.saved, meter=self._meter)
        try:
            many = target == self._target and (self._count or 0) >= _MANY
            async with self._retrieval.open(target, read_ahead=many) as answer:
                await receiver.receive(answer, self._session.settings.limits.parts)
            self._state.whole = self._state.whole or target == self._target
        except _ENDS_THE_JOB:
            raise
        except PostdicomError as error:
            self._state.last_error = error
            if isinstance(error, NotFound) and target == self._target:
                self._not_found = error
        finally:
            self._state.refused += receiver.refused
            if len(self._state.saved) > had:
                self._session.has_moved()

    # --- the end ---------------------------------------------------------------------------------------------------

    def _report(self, seconds: float) -> DownloadReport:
        state = self._state
        listing, contradicted = verdict(state.arrived, state.listed, self._count, whole=state.whole)
        return DownloadReport(
            saved=tuple(state.saved.values()),
            already_present=tuple(sorted(state.present)),
            missing=tuple(sorted(state.missing)),
            refused=state.refused,
            bytes_received=sum(one.size for one in state.saved.values()),
            seconds=seconds,
            listing=listing if self._asked else "not asked",
            transfer_syntax_as_stored=self._retrieval.as_stored,
            contradicted=contradicted,
        )

    def _shortfall(self, report: DownloadReport) -> PostdicomError | None:
        """Return the error that this is not all; None where it is."""
        if self._is_done():
            return self._count_shortfall(report)
        if self._not_found is not None and (not self._state.listed or self._target.instance is not None):
            return self._not_found
        cause = self._state.last_error
        words = f": {cause}" if cause else ""
        if report.refused and not cause:
            words = f"; {report.refused} parts came that are not DICOM, or not what was asked for"
        if report.missing:
            total = len(self._state.listed or ())
            message = f"{len(report.missing)} of {total} instances did not arrive{words}"
        else:
            here = len(report.saved) + len(report.already_present)
            arrived = f"{here} instances arrived" if here else "no instance arrived"
            message = f"{arrived}, and there is no list to tell what is missing{words}"
        return IncompleteDownload(message, report=report, temporary=bool(cause and cause.temporary))

    def _count_shortfall(self, report: DownloadReport) -> IncompleteDownload | None:
        """Believe neither a list nor an answer that brings less than the archive counts."""
        here = len(report.saved) + len(report.already_present)
        if self._count is None or here >= self._count:
            return None
        message = f"{here} instances are here, the archive counts {self._count} and does not name the others"
        return IncompleteDownload(message, report=report)


def _one_name_each(name: Callable[[InstanceUids], RelativeName]) -> Callable[[InstanceUids], RelativeName]:
    """Return the same naming, which refuses to give two instances one name: one of them would be lost."""
    owners: dict[RelativeName, InstanceUids] = {}

    def checked(uids: InstanceUids) -> RelativeName:
        given = name(uids)
        if owners.setdefault(given, uids) != uids:
            raise UsageError("layout: it gives two instances the same name")
        return given

    return checked


def _held(folder: Folder, name: Callable[[InstanceUids], RelativeName], some: list[InstanceUids]) -> list[InstanceUids]:
    return [uids for uids in some if folder.holds(name(uids), uids)]


def _slices(items: list[InstanceUids], size: int) -> Iterable[list[InstanceUids]]:
    return (items[start : start + size] for start in range(0, len(items), size))
