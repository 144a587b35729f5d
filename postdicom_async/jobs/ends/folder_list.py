"""What a folder has, read from its index a page at a time, as far as a filter means it."""

from __future__ import annotations

import json
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Final

from postdicom_async.disk.threads import in_background
from postdicom_async.face import translated
from postdicom_async.jobs.ends.end import ListedInstance, ListedStudy
from postdicom_async.jobs.ends.folder_index import damaged
from postdicom_async.jobs.states import Reason

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from postdicom_async.jobs.ends.folder_index import FileRow, FolderIndex, Group
    from postdicom_async.jobs.ends.folder_match import StudyFilter

__all__ = ["FolderListing"]

_STUDIES: Final = 500
_FILES: Final = 1000


class FolderListing:
    """The studies, instances and other files of a folder.

    Attributes:
        index: where they are read from.
    """

    def __init__(self, index: FolderIndex, chosen: StudyFilter) -> None:
        self.index: FolderIndex = index
        self._filter = chosen

    async def studies(self, since: str, until: str) -> AsyncGenerator[list[ListedStudy], None]:
        """Yield studies that are dated within, and undated ones."""
        last = ""
        while uids := await in_background(partial(self.index.studies, last, _STUDIES)):
            last = uids[-1]
            groups = await in_background(partial(self.index.groups, uids[0], last))
            listed = [study for study in self._listed(groups) if not study.date or _within(study.date, since, until)]
            if listed:
                yield listed

    async def study(self, study: str) -> ListedStudy | None:
        """Return one study."""
        found = self._listed(await in_background(partial(self.index.groups, study, study)))
        return found[0] if found else None

    def _listed(self, groups: Sequence[tuple[Group, int]]) -> list[ListedStudy]:
        """Return the studies of some groups, which come study by study."""
        listed: list[ListedStudy] = []
        for uid, some in groupby(groups, key=lambda one: one[0].study):
            of_study = list(some)
            instances = sum(count for _, count in of_study)
            if instances and self._filter.matches(uid, [_said(group) for group, _ in of_study]):
                dates = [group.date for group, _ in of_study if group.date]
                listed.append(ListedStudy(uid, min(dates, default=""), instances))
        return listed

    async def instances(self, study: str) -> AsyncGenerator[list[ListedInstance], None]:
        """Yield the instances of a study."""
        if not await self.is_chosen(study):
            return
        async for rows in self.files(study):
            if listed := [ListedInstance(row.series, row.uid, row.size, row.place) for row in rows if not row.flaw]:
                yield listed

    async def excluded(self) -> AsyncGenerator[list[ListedInstance], None]:
        """Yield every file that is not among the instances of a study that is listed."""
        after = 0
        while flawed := await in_background(partial(self.index.flawed, after, _FILES)):
            after = flawed[-1][0].id
            chosen = {study: await self.is_chosen(study) for study in {study for _, study in flawed if study}}
            yield [
                self._excluded(row, row.flaw if not study or chosen[study] else Reason.FILTER) for row, study in flawed
            ]
        last = ""
        while self._filter and (uids := await in_background(partial(self.index.studies, last, _STUDIES))):
            last = uids[-1]
            for study in uids:
                if await self.is_chosen(study):
                    continue
                async for rows in self.files(study):
                    if some := [self._excluded(row, Reason.FILTER) for row in rows if not row.flaw]:
                        yield some

    def _excluded(self, row: FileRow, flaw: int) -> ListedInstance:
        return ListedInstance("", self.index.mark(row.path), row.size, row.place, int(flaw))

    async def files(self, study: str) -> AsyncGenerator[list[FileRow], None]:
        """Yield all files of a study, whatever the filter."""
        after = ("", b"")
        while rows := await in_background(partial(self.index.files, study, after, _FILES)):
            after = (rows[-1].series, rows[-1].path)
            yield rows

    async def is_chosen(self, study: str) -> bool:
        """Whether the filter means a study."""
        if not self._filter:
            return True
        groups = await in_background(partial(self.index.groups, study, study))
        return self._filter.matches(study, [_said(group) for group, _ in groups])


def _within(date: str, since: str, until: str) -> bool:
    return (not since or since <= date) and (not until or date <= until)


def _said(group: Group) -> Mapping[str, str]:
    with translated(ValueError, lambda _: damaged()):
        texts: dict[str, str] = json.loads(group.texts) if group.texts else {}
    return {**texts, "study_date": group.date}
