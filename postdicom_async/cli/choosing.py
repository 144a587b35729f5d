"""What `postdicom download` is to fetch: UIDs that are given, or what a search finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postdicom_async import NotFound, PostdicomError, ProtocolError, UsageError
from postdicom_async.cli import output
from postdicom_async.cli.options import level_of
from postdicom_async.cli.search import NOTHING, FilterArguments, parse_filters, refuse_what_was_not_asked_for

if TYPE_CHECKING:
    from postdicom_async import DicomWeb


class RetrieveLevel(StrEnum):
    """What is downloaded."""

    PATIENT = "patient"
    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"


_NAMED_BY = {
    RetrieveLevel.STUDY: ("StudyInstanceUID",),
    RetrieveLevel.SERIES: ("StudyInstanceUID", "SeriesInstanceUID"),
    RetrieveLevel.INSTANCE: ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
}
_COUNTED_BY = {
    RetrieveLevel.STUDY: "NumberOfStudyRelatedInstances",
    RetrieveLevel.SERIES: "NumberOfSeriesRelatedInstances",
}
_PLURALS = {RetrieveLevel.STUDY: "studies", RetrieveLevel.SERIES: "series", RetrieveLevel.INSTANCE: "instances"}


@dataclass(frozen=True)
class ToDownload:
    """What is downloaded: what UIDs or Patient IDs name, or what a search finds."""

    level: Annotated[
        RetrieveLevel | None,
        typer.Argument(
            parser=level_of(RetrieveLevel), metavar="patient|study|series|instance", help="What to download."
        ),
    ] = None
    uids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="UID...",
            help="patient: one or more Patient IDs, of which all studies are downloaded. study: one or more Study "
            "Instance UIDs. series: the study's UID, then one or more Series Instance UIDs. instance: the study's and "
            "the series' UID, then one or more SOP Instance UIDs. None with --filter, but for a patient.",
        ),
    ] = None
    filters: FilterArguments = None

    def plan(self) -> DownloadPlan:
        """Return what is to be found and what is to be fetched.

        Raises:
            UsageError: they do not fit together, or there are too few.
        """
        level, uids, filters = self.level or RetrieveLevel.STUDY, self.uids or [], parse_filters(self.filters or ())
        if level is RetrieveLevel.PATIENT:
            if not uids:
                raise UsageError("download patient: give one or more Patient IDs")
            if {"patientid", "00100020"} & {key.lower() for key in filters}:
                raise UsageError("--filter: the Patient ID is given already")
            searches = [{**filters, "PatientID": _whole(one)} for one in dict.fromkeys(uids)]
            return DownloadPlan(RetrieveLevel.STUDY, [], searches, of_patients=True)
        if filters and uids:
            raise UsageError(f"download {level}: give UIDs or --filter, not both")
        if filters:
            return DownloadPlan(level, [], [filters])
        if self.level is None:
            raise UsageError("missing argument 'patient|study|series|instance'; or give --filter KEY=VALUE")
        return DownloadPlan(level, targets_of(level, uids), [])


def targets_of(level: RetrieveLevel, uids: list[str]) -> list[tuple[str, ...]]:
    """Return the UIDs that address each item: the parents once, then one or more of the level itself.

    Raises:
        UsageError: there are too few.
    """
    parents = len(_NAMED_BY[level]) - 1
    if len(uids) <= parents:
        if not parents:
            raise UsageError("download study: give one or more Study Instance UIDs")
        names = " and ".join(list(RetrieveLevel)[1 : parents + 2])
        raise UsageError(f"download {level}: give the UIDs of {names}, in this order")
    return [(*uids[:parents], uid) for uid in dict.fromkeys(uids[parents:])]


def _whole(patient_id: str) -> str:
    if not patient_id.strip() or {"*", "?", "\\"} & set(patient_id):
        raise UsageError("download patient: give whole Patient IDs; with * and ? give --filter PatientID=VALUE instead")
    return patient_id.strip()


@dataclass
class DownloadPlan:
    """What is fetched: ``targets``, and what ``searches`` find at a level.

    Attributes:
        of_patients: each search is for one patient, who must be there.
        unknown: the errors of patients who are not.
    """

    level: RetrieveLevel
    targets: list[tuple[str, ...]]
    searches: list[dict[str, str]]
    of_patients: bool = False
    unknown: list[PostdicomError] = field(default_factory=list)

    async def find(self, archive: DicomWeb, *, quiet: bool) -> None:
        """Find the targets, and say how many they are.

        Raises:
            NotFound: the one patient is not there; of several this is noted.
            ProtocolError: what was found is not what was asked for: nothing of it may be downloaded.
        """
        known: dict[tuple[str, ...], int | None] = dict.fromkeys(self.targets)
        for number, filters in enumerate(self.searches, 1):
            found = await self._found(archive, filters, quiet=quiet)
            if self.of_patients and not found:
                which = "" if len(self.searches) == 1 else f"patient {number} of {len(self.searches)}: "
                problem = NotFound(f"{which}the archive shows no study of that patient", operation="search")
                if not which:
                    raise problem
                output.error(str(problem))
                self.unknown.append(problem)
            known |= found
        self.targets = list(known)
        if not quiet and known:
            counts = [count for count in known.values() if count is not None]
            size = f", {_counted('instance', sum(counts))}" if len(counts) == len(known) else ""
            output.note(f"to download: {_counted(self.level, len(known))}{size}")
        elif not quiet and not self.unknown:
            output.note(NOTHING)

    async def _found(
        self, archive: DicomWeb, filters: dict[str, str], *, quiet: bool
    ) -> dict[tuple[str, ...], int | None]:
        results = getattr(archive, f"search_for_{_PLURALS[self.level]}")(filters)
        found: dict[tuple[str, ...], int | None] = {}
        async for one in results:
            target = tuple(str(one.get(keyword) or "") for keyword in _NAMED_BY[self.level])
            if not all(target):
                raise ProtocolError(f"a result names no {self.level}; nothing was downloaded", operation="search")
            if self.of_patients and str(one.get("PatientID") or "").strip() != filters["PatientID"]:
                raise ProtocolError("a study of another patient was found; nothing was downloaded", operation="search")
            found[target] = _count_in(one, self.level)
        refuse_what_was_not_asked_for(results.warnings, "; nothing was downloaded")
        for warning in () if quiet else results.warnings:
            output.note(f"warning: {warning}")
        return found


def _count_in(result: Any, level: RetrieveLevel) -> int | None:
    count = result.get(_COUNTED_BY[level]) if level in _COUNTED_BY else 1
    return None if count is None else int(count)


def _counted(level: str, count: int) -> str:
    return f"1 {level}" if count == 1 else f"{count} {_PLURALS[RetrieveLevel(level)]}"
