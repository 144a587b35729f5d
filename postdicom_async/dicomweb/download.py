"""Instances to disk: compared with the archive's own list, each file whole or absent, only missing ones fetched again.

Requests come in rounds, each for smaller resources than the one before: a server may fail at a large one and still
return the small ones.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from postdicom_async.dicom.layout import (
    HeaderValues,
    Layout,
    Naming,
    RelativeName,
    known_folder,
    naming_of,
    patterns_of,
    tells_apart,
)
from postdicom_async.dicomweb.lanes import MANY, DownloadLanes, TakeOver
from postdicom_async.dicomweb.listing import list_instances
from postdicom_async.dicomweb.retrieve import Retrieval, Target
from postdicom_async.dicomweb.search import count_instances
from postdicom_async.disk.files import in_background, outlasting
from postdicom_async.disk.folder import SafeFolder
from postdicom_async.errors import LocalFileError, PostdicomError, UsageError
from postdicom_async.http.repeat import deadline_passed, within
from postdicom_async.results import DownloadReport, IncompleteDownload, InstanceUids, OnProgress, Outcome, Status
from postdicom_async.transfer.arrivals import Arrivals, listing_check
from postdicom_async.transfer.at_once import back_off
from postdicom_async.transfer.outcomes import Gathered, Meter
from postdicom_async.transfer.sinks import Arriving, FolderSink

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

_COUNT_SECONDS = 10.0
_SLICE = 1000
_NAMED, _FOUND = 0, 1  # keys of names that were given, and of instances whose files may be there
_MOST_FILES = 16  # of one instance


class Download:
    """One download into a folder. Use it once."""

    def __init__(
        self,
        retrieval: Retrieval,
        target: Target,
        to: str | os.PathLike[str],
        *,
        layout: Layout,
        on_progress: OnProgress | None,
        gathered: Gathered | None = None,
    ) -> None:
        self._session = retrieval.session.one_call(at_once=True)
        self._retrieval = replace(retrieval, session=self._session)
        self._target = target
        self._layout = layout
        self._folder = SafeFolder(_path_of(to), fsync=self._session.settings.fsync)
        self._meter = Meter(on_progress)
        self._gathered = gathered or Gathered(keeps_all=True)
        self._arrivals = Arrivals(target.study, self._gathered)
        self._naming = _one_name_each(layout, target, self._arrivals)
        self._folder.has_private_names = bool(self._naming.wanted)
        self._sink = FolderSink(self._folder, self._name_of, piece=self._session.settings.limits.piece)
        self._lanes = DownloadLanes(
            self._retrieval, target, self._sink, self._arrivals, self._meter, wanted=self._naming.wanted
        )
        self._whole = False  # the answer for the target itself was complete and undamaged
        self._asked = False
        self._known_folder = known_folder(layout, target.study, target.series)
        self._count: int | None = None
        self._has_looked = False

    def _name_of(self, arriving: Arriving) -> RelativeName:
        return self._naming.name(arriving.header.uids, arriving.values)

    async def run(self, *, compare: bool) -> DownloadReport:
        """Fetch the instances that are not there yet.

        Raises:
            IncompleteDownload: instances are still missing at the end.
            NotFound: the archive does not hold the target.
            LocalFileError: the disk is full, or the folder cannot be written to.
            PostdicomError: the archive cannot be worked with.
        """
        started = time.monotonic()
        problem: PostdicomError | None = None
        deadline = self._session.settings.timeouts.deadline
        late = partial(deadline_passed, f"retrieve {self._target.route}", deadline, sent=True)
        try:
            try:
                await in_background(self._folder.open)
                with self._sink:
                    await within(deadline, self._fetch(compare=compare), late)
            except PostdicomError as error:
                problem = error
            finally:
                self._folder.close()
            report = await self._report(started)
        finally:
            self._arrivals.close()
        problem = problem or self._shortfall(report)
        if problem is None:
            return report
        problem.report = replace(report, failed=True)
        raise problem

    async def _fetch(self, *, compare: bool) -> None:
        if compare and self._target.instance is None:
            with suppress(TimeoutError):  # a count saves time only if it comes quickly
                async with asyncio.timeout(_COUNT_SECONDS):
                    self._count = await count_instances(self._retrieval, self._target)
        if self._count is not None:
            self._asked = True
            self._meter.expect(self._count, None)
        if await in_background(lambda: self._folder.is_bare(self._known_folder)):
            await self._fetch_everything(compare=compare)
            await self._fetch_rounds(finest=1)
        else:
            await self._list(compare=compare)
            await self._find_present()
            await self._fetch_rounds(finest=0)
        if self._arrivals.outside:
            # Something is here that was not listed: it was stored meanwhile, or the list is wrong. Listing in another
            # way may show more by now.
            await self._list(compare=compare)
            await self._find_present()
            await self._fetch_rounds(finest=1)

    async def _fetch_everything(self, *, compare: bool) -> None:
        """Request everything and compare afterwards: the folder cannot hold any of it yet.

        If the number of instances is not known, list them meanwhile; otherwise only when parts are taken over, since an
        answer abandoned as soon as the archive's count had arrived proves less than one that ended.
        """
        listing: list[asyncio.Future[None]] = []

        def list_meanwhile() -> None:
            if not listing:
                listing.append(asyncio.ensure_future(self._list(compare=compare)))

        count = self._count
        if count is None:
            list_meanwhile()
        try:
            targets = plan(self._target, self._arrivals, 0)
            self._whole = await self._lanes.fetch(targets, self._take_over(count, list_meanwhile))
            if listing and count is None:
                await listing[0]
            elif listing and not self._whole:
                with suppress(PostdicomError):  # the next request for a list will report it
                    await listing[0]
        finally:
            for one in listing:
                one.cancel()
                await outlasting(one)
        if count is not None and (not self._whole or self._arrivals.here != count) and self._arrivals.listed is None:
            await self._list(compare=compare)
        if self._lanes.not_found is not None and not self._lists_something:
            raise self._lanes.not_found

    def _take_over(self, expected: int | None, begins: Callable[[], None] = lambda: None) -> TakeOver | None:
        """Return what may be requested besides the target, None if that is not worth it or not known."""
        parallel = self._session.settings.limits.parallel_retrieves > 1
        if self._target.instance is not None or (expected or 0) < MANY or not parallel:
            return None
        return TakeOver(self._retrieval, self._arrivals, self._target, expected or 0, begins)

    @property
    def _lists_something(self) -> bool:
        return self._arrivals.listed is not None and self._arrivals.listed.size > 0

    async def _list(self, *, compare: bool) -> None:
        target, arrivals = self._target, self._arrivals
        if target.series is not None and target.instance is not None:
            only = arrivals.new_list()
            only.update([InstanceUids(target.study, target.series, target.instance)])
            await arrivals.adopt(only)
        elif compare:
            await list_instances(self._retrieval, target, arrivals)
            self._asked = True
        if arrivals.listed is not None and arrivals.listed.size:
            self._meter.expect(arrivals.listed.size, None)

    async def _find_present(self) -> None:
        """Check which of the listed instances the folder holds."""
        folder, naming = self._folder, self._naming
        if naming.wanted:
            await self._find_files()
        async for some in self._arrivals.missing_slices():
            if naming.wanted:
                named = [(uids, name) for uids in some for name in self._found_files(uids)]
            else:
                named = [(uids, naming.name(uids, {})) for uids in some]
            held = await in_background(partial(_held, folder, named))
            for uids, name in held:
                self._arrivals.note_present(uids, str(folder.root.joinpath(*name)))
            await self._arrivals.room()

    async def _find_files(self) -> None:
        """Note the files that may be instances of the target, by their names: what else they are named by is not known.

        `SafeFolder.holds` then tells which instance each is.
        """
        if self._has_looked:
            return
        self._has_looked = True
        found = self._folder.find(patterns_of(str(self._layout), self._target.study, self._target.series))
        while some := await in_background(lambda: list(islice(found, _SLICE))):
            for name, instance in some:
                key = (_FOUND, instance)
                known = self._arrivals.names.get(key)
                self._arrivals.names.put(key, "\n".join(filter(None, (known, "/".join(name)))))

    def _found_files(self, uids: InstanceUids) -> list[RelativeName]:
        names = self._arrivals.names.get((_FOUND, uids.sop_instance_uid)) or ""
        return [tuple(name.split("/")) for name in names.split("\n")[:_MOST_FILES] if name]

    # --- rounds ----------------------------------------------------------------------------------------------------

    async def _fetch_rounds(self, *, finest: int) -> None:
        """Request what is missing, each round in smaller resources; stop when nothing more arrives."""
        idle_rounds = 0
        while not self._is_done() and not self._session.has_given_up:
            had = self._arrivals.saved
            expected = self._arrivals.listed.size if finest == 0 and self._arrivals.listed is not None else None
            targets = plan(self._target, self._arrivals, finest)
            is_whole = await self._lanes.fetch(targets, None if self._arrivals.here else self._take_over(expected))
            self._whole = self._whole or (is_whole and not self._lists_something)
            idle_rounds = 0 if self._arrivals.saved > had else idle_rounds + 1
            if self._is_done() or self._gives_up(finest, idle_rounds):
                return
            if idle_rounds:
                await back_off(self._session.settings.retry, idle_rounds)
            finest = min(2, finest + 1)

    def _is_done(self) -> bool:
        return not self._arrivals.missing if self._lists_something else self._whole

    def _gives_up(self, finest: int, idle_rounds: int) -> bool:
        error = self._lanes.last_error
        may_pass = error is not None and error.temporary
        if self._lists_something and finest < 2 and self._target.instance is None:
            return False  # smaller resources remain to be tried
        return idle_rounds >= (self._session.settings.retry.max_attempts if may_pass else 1)

    # --- the end ---------------------------------------------------------------------------------------------------

    async def _report(self, started: float) -> DownloadReport:
        arrivals = self._arrivals
        total = None if arrivals.listed is None else arrivals.listed.size
        listing, contradicted = listing_check(arrivals.here, total, arrivals.outside, self._count, whole=self._whole)
        if arrivals.missing:
            async for some in arrivals.missing_slices():
                for uids in some:
                    self._gathered.add(Outcome("", Status.MISSING, uids, reason="it did not arrive"))
                with suppress(LocalFileError):  # a report that cannot be written must not hide missing instances
                    await self._gathered.room()
        outcomes = self._gathered.outcomes
        return DownloadReport(
            saved=tuple(
                sorted((one for one in outcomes if one.status is Status.SAVED), key=lambda one: one.uids or ())
            ),
            counts=self._gathered.counts,
            already_present=tuple(sorted(arrivals.present)),
            missing=tuple(sorted(one.uids for one in outcomes if one.status is Status.MISSING and one.uids)),
            refused=arrivals.refused,
            bytes_received=arrivals.size,
            seconds=time.monotonic() - started,
            listing=listing if self._asked else "not asked",
            transfer_syntax_as_stored=self._retrieval.as_stored,
            contradicted=contradicted,
        )

    def _shortfall(self, report: DownloadReport) -> PostdicomError | None:
        """Return the error for an incomplete download; None if it is complete."""
        if self._is_done():
            return self._count_shortfall(report)
        if self._lanes.not_found is not None and (not self._lists_something or self._target.instance is not None):
            return self._lanes.not_found
        cause = self._lanes.last_error
        words = f": {cause}" if cause else ""
        if report.refused and not cause:
            why = "not DICOM, not what was asked for, or under the name of another instance's file"
            words = f"; {report.refused} parts that came were not kept: {why}"
        here = self._arrivals.here
        if self._arrivals.missing and self._arrivals.listed is not None:
            message = f"{self._arrivals.missing} of {self._arrivals.listed.size} instances did not arrive{words}"
        else:
            arrived = f"{here} instances arrived" if here else "no instance arrived"
            message = f"{arrived}, and there is no list to tell what is missing{words}"
        return IncompleteDownload(message, report=report, temporary=bool(cause and cause.temporary))

    def _count_shortfall(self, report: DownloadReport) -> IncompleteDownload | None:
        """Return an error if the archive counts more than arrived, even if a list or complete answer says otherwise."""
        here = self._arrivals.here
        if self._count is None or here >= self._count:
            return None
        message = f"{here} instances are here, the archive counts {self._count} and does not name the others"
        return IncompleteDownload(message, report=report)


def _one_name_each(layout: Layout, target: Target, arrivals: Arrivals) -> Naming:
    """Return how a layout names instances; it refuses to give two of them one name: one of them would be lost."""
    naming = naming_of(layout)
    if not naming.wanted and tells_apart(layout, one_series=target.series is not None):
        return naming
    owners = arrivals.names

    def checked(uids: InstanceUids, values: HeaderValues) -> RelativeName:
        given, owner = naming.name(uids, values), f"{uids.series_instance_uid} {uids.sop_instance_uid}"
        key = (_NAMED, "/".join(given))
        known = owners.get(key)
        if known is None:
            owners.put(key, owner)
        elif known != owner:
            raise UsageError("it gives two instances the same name", argument="layout")
        return given

    return Naming(naming.wanted, checked)


def _held(
    folder: SafeFolder, named: list[tuple[InstanceUids, RelativeName]]
) -> list[tuple[InstanceUids, RelativeName]]:
    return list({uids: (uids, name) for uids, name in named if folder.holds(name, uids)}.values())


def _path_of(to: object) -> Path:
    """Return the folder. An empty path would mean the current one, which nobody writes that way on purpose."""
    text = os.fspath(to) if isinstance(to, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise UsageError("give the path of a folder", argument="to")
    return Path(text)


async def plan(target: Target, arrivals: Arrivals, finest: int) -> AsyncGenerator[Target, None]:
    """Yield the resources to request, as far as they are still missing at that moment.

    ``finest`` bounds the size: 0 allows the target itself, 1 series, 2 only instances. A server may fail at a large
    resource and still return the small ones.
    """
    listed = arrivals.listed
    if listed is None or not listed.size:
        yield target
        return
    if target.instance is not None:
        if arrivals.missing:
            yield target
        return
    if finest == 0 and arrivals.missing == listed.size:
        yield target
        return
    series = sorted([one async for one in arrivals.series() if one.missing], key=lambda one: (-one.missing, one.uid))
    for one in series:
        if finest <= 1 and one.missing == one.listed:
            yield Target(target.study, one.uid)
            continue
        async for some in arrivals.missing_slices(one.uid):
            for target in (Target(*uids) for uids in some if not arrivals.has(uids)):
                yield target
