"""``postdicom wait``: until an archive shows what was sent."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postdicom_async import NotFound, PostdicomError, UsageError
from postdicom_async.cli import output
from postdicom_async.cli.connection import ConnectionOptions
from postdicom_async.cli.exits import Exit
from postdicom_async.cli.loop import run_async
from postdicom_async.cli.options import AsJson, Common
from postdicom_async.cli.paths import given_path, words_of
from postdicom_async.cli.search import FilterArguments, parse_filters, refuse_what_was_not_asked_for

if TYPE_CHECKING:
    from postdicom_async import DicomWeb


@dataclass(frozen=True)
class WaitOptions:
    """What is waited for, and for how long."""

    study: Annotated[
        list[str] | None,
        typer.Option("--study", metavar="UID", help="A study that is to be there. May be repeated."),
    ] = None
    accession: Annotated[
        str | None, typer.Option("--accession", metavar="NUMBER", help="A study with this accession number.")
    ] = None
    filters: FilterArguments = None
    studies: Annotated[
        int | None, typer.Option("--studies", min=1, metavar="N", help="How many studies must be there; else one.")
    ] = None
    instances: Annotated[
        int | None,
        typer.Option("--instances", min=1, metavar="N", help="How many instances these must have, all together."),
    ] = None
    uploaded: Annotated[
        Path | None,
        typer.Option(
            "--uploaded",
            metavar="FILE",
            parser=given_path,
            help="What --report of an upload has written: every instance that was stored, or may be, is to be listed.",
        ),
    ] = None
    seconds: Annotated[
        float, typer.Option("--for", min=0.0, metavar="SECONDS", help="How long; then it ends with 8.")
    ] = 300.0
    every: Annotated[float, typer.Option("--every", min=0.05, metavar="SECONDS", help="How often it asks.")] = 5.0

    def expectation(self) -> StudiesShown | UploadedShown:
        """Return what must be seen.

        Raises:
            UsageError: nothing is given, or what does not fit together.
        """
        filters = parse_filters(self.filters or ())
        if self.uploaded is not None:
            if self.study or self.accession or filters or self.studies or self.instances:
                raise UsageError("--uploaded: it says all that is waited for; leave the other conditions out")
            return UploadedShown(_stored_in(self.uploaded))
        if not (self.study or self.accession or filters):
            raise UsageError("give --study, --accession, --filter or --uploaded")
        if self.study and self.studies:
            raise UsageError("--studies: not with --study, each of which must be there")
        uids = list(dict.fromkeys(self.study or ()))
        if not all(re.fullmatch(r"[0-9.]{1,64}", uid) for uid in uids):
            raise UsageError("--study: not a DICOM UID")
        wanted: dict[str, Any] = {**filters}
        if uids:
            wanted["StudyInstanceUID"] = uids
        if self.accession:
            wanted["AccessionNumber"] = self.accession
        return StudiesShown(wanted, len(uids) or self.studies or 1, self.instances)


def wait(options: WaitOptions, connection: ConnectionOptions, common: Common, as_json: AsJson = False) -> int:
    """Wait until an archive shows what was sent.

    Asks again and again, and ends with 0 as soon as everything is there, with 8 when the time is over. Failures that
    pass are waited out; an archive that ignores a filter is no answer, and ends it.
    """
    expected, archive = options.expectation(), connection.client()
    began = time.monotonic()
    seen = run_async(lambda: _poll(archive, expected, options, quiet=common.quiet))
    seconds = time.monotonic() - began
    shows = "has not answered yet" if seen is None else f"shows {expected.text}"
    failed = None if seen else f"after {output.time_text(seconds)} the archive {shows}"
    if as_json:
        output.write_document({"summary": {**expected.numbers, "seconds": round(seconds, 3)}}, error=failed)
    elif seen:
        output.write(f"{expected.text} after {output.time_text(seconds)}")
    if failed is not None:
        output.error(failed)
        return Exit.LIMIT
    return Exit.OK


_FIRST_LOOK = 10.0  # seconds that the first look may take, however short the wait: without it nothing is known


async def _poll(
    archive: DicomWeb, expected: StudiesShown | UploadedShown, options: WaitOptions, *, quiet: bool
) -> bool | None:
    """Ask until all is there or the time is over; return whether it is there, None if there was no answer at all."""
    end, told = time.monotonic() + options.seconds, ""
    seen: bool | None = None
    least = _FIRST_LOOK
    async with archive:
        while True:
            try:
                async with asyncio.timeout(max(least, end - time.monotonic())):
                    seen = await expected.look(archive)
                if seen:
                    return True
                least = options.every
            except TimeoutError:
                return seen
            except PostdicomError as error:
                if not error.temporary:
                    raise
                told = _note_once(told, str(error), quiet=quiet)
            left = end - time.monotonic()
            if left <= 0:
                return seen
            await asyncio.sleep(min(options.every, left))


def _note_once(told: str, text: str, *, quiet: bool) -> str:
    if not quiet and text != told:
        output.note(f"{text}; waiting")
    return text


@dataclass
class StudiesShown:
    """Studies that a search is to find, with at least so many instances.

    Attributes:
        found, counted: what the last look has shown.
    """

    filters: dict[str, Any]
    studies: int
    instances: int | None
    found: int = 0
    counted: int = 0

    async def look(self, archive: DicomWeb) -> bool:
        """Search once; return whether all is there."""
        results = archive.search_for_studies(self.filters)
        counts = {str(one.get("StudyInstanceUID")): one.get("NumberOfStudyRelatedInstances") async for one in results}
        refuse_what_was_not_asked_for(results.warnings)
        self.found, self.counted = len(counts), 0
        if self.instances is not None:
            for uid, count in counts.items():
                self.counted += int(count) if count is not None else await _number_in(archive, uid)
        return self.found >= self.studies and self.counted >= (self.instances or 0)

    @property
    def text(self) -> str:
        """What was seen, in words."""
        words = f"{self.found} of {self.studies} {'study' if self.studies == 1 else 'studies'}"
        return words if self.instances is None else f"{words}, {self.counted} of {self.instances} instances"

    @property
    def numbers(self) -> dict[str, int | None]:
        """What was seen, for programs."""
        return {"studies": self.found, "instances": None if self.instances is None else self.counted}


async def _number_in(archive: DicomWeb, study: str) -> int:
    return len(await _instances_in(archive, study))


async def _instances_in(archive: DicomWeb, study: str) -> set[str]:
    """Return the instances that are listed of a study; not every archive lists those of all its series at once."""
    try:
        results = archive.search_for_instances(study_instance_uid=study)
        return {str(one.get("SOPInstanceUID")) async for one in results}
    except NotFound:
        found: set[str] = set()
        async for series in archive.search_for_series(study_instance_uid=study):
            uid = str(series.get("SeriesInstanceUID"))
            results = archive.search_for_instances(study_instance_uid=study, series_instance_uid=uid)
            found |= {str(one.get("SOPInstanceUID")) async for one in results}
        return found


@dataclass
class UploadedShown:
    """Instances, by their studies, that are to be listed; what was seen is taken out."""

    missing: dict[str, set[str]]

    def __post_init__(self) -> None:
        self._all = sum(map(len, self.missing.values()))
        self._studies = len(self.missing)

    async def look(self, archive: DicomWeb) -> bool:
        """List the studies of which something is missing; return whether all is there."""
        for study in list(self.missing):
            self.missing[study] -= await _instances_in(archive, study)
            if not self.missing[study]:
                del self.missing[study]
        return not self.missing

    @property
    def text(self) -> str:
        """What was seen, in words."""
        return f"{self.numbers['instances']} of {self._all} instances"

    @property
    def numbers(self) -> dict[str, int | None]:
        """What was seen, for programs."""
        missing = sum(map(len, self.missing.values()))
        return {"studies": self._studies - len(self.missing), "instances": self._all - missing}


_STORED = frozenset({"stored", "warned", "present", "unconfirmed"})


def _stored_in(report: Path) -> dict[str, set[str]]:
    """Return the instances, by study, that a report of an upload says the archive should have."""
    found: dict[str, set[str]] = {}
    try:
        with report.open(encoding="utf-8") as lines:
            for line in lines:
                if not line.startswith("{") or not line.endswith("}\n"):
                    continue  # cut short when a machine crashed
                one = json.loads(line)
                if one.get("status") in _STORED and one.get("sop_instance_uid"):
                    found.setdefault(one["study_instance_uid"], set()).add(one["sop_instance_uid"])
        problem = None if found else "it names no instance that was stored; give what upload --report has written"
    except OSError as error:
        problem = words_of(error)
    except (ValueError, KeyError, AttributeError):
        problem = "is not what upload --report writes"
    if problem is not None:
        raise UsageError(f"--uploaded: {report}: {problem}")
    return found
