"""Reading files to list the patients, studies and series in them; nothing is sent, and no archive is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import anyio.to_thread

from postdicom_async.dicom.scan import (
    FileFacts,
    Grouping,
    NoInstance,
    Scan,
    ScanProgress,
    ScanStatus,
    SkippedFile,
    read_facts,
)
from postdicom_async.disk.files import Beginning, Unusable, read_beginning
from postdicom_async.disk.sources import measure, read_paths
from postdicom_async.errors import UsageError
from postdicom_async.face import public_face

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterable, Iterable

Files: TypeAlias = "str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | AsyncIterable[str | os.PathLike[str]]"
"""Files, and folders to search."""

OnScanProgress: TypeAlias = Callable[[ScanProgress], None]
"""Called in the event loop after each file; keep it short."""


@public_face
async def read_files(sources: Files, *, progress: OnScanProgress | None = None) -> Scan:
    """Return the patients, studies, series and instances that lie in files and folders (searched recursively).

    DICOM is recognised by content; only the header of each file is read, and its lengths are checked against the file's
    size. Every file is listed once: as an instance, or in ``skipped`` as a duplicate (within its series), a DICOMDIR,
    not DICOM, or unreadable, such as one that is cut off. Unusable files never raise. Empty ``sources`` give an empty
    scan. ``await archive.upload(study.paths)`` sends one of the studies found.

    One patient is one Patient ID with its issuer; without an ID, one name with its birth date; with neither, each
    study is a patient of its own. A study belongs to the patient of its first file, whatever the others say;
    ``study.patient_conflicts`` counts those that disagree.

    Raises:
        UsageError: an argument is not a path.
        LocalFileError: a path that was named does not exist.
    """
    if progress is not None and not callable(progress):
        raise UsageError("give a function that takes a ScanProgress, or None", argument="progress")
    measured = await measure(sources) if progress is not None else None
    grouping = Grouping()
    async for batch in read_paths(sources, _look):
        for one in batch:
            _put(one, grouping)
            if progress is not None:
                total = max(measured[0], grouping.files) if measured else None
                progress(ScanProgress(grouping.files, total))
    return await anyio.to_thread.run_sync(grouping.scan)


@dataclass(frozen=True, slots=True)
class _Instance:
    path: Path = field(repr=False)
    size: int
    facts: FileFacts


def _look(path: Path) -> _Instance | SkippedFile | Unusable:
    """Read one file, in a thread."""
    found: Beginning[FileFacts | NoInstance] | Unusable = read_beginning(path, read_facts, whole=True)
    if isinstance(found, Unusable):
        return found
    facts, status = found.told, found.status
    if isinstance(facts, NoInstance):
        return SkippedFile(path, ScanStatus.DICOMDIR, "a directory of other files", status.st_size)
    return _Instance(path, status.st_size, facts)


def _put(one: _Instance | SkippedFile | Unusable, grouping: Grouping) -> None:
    if isinstance(one, _Instance):
        grouping.add(one.path, one.size, one.facts)
    elif isinstance(one, SkippedFile):
        grouping.skip(one)
    else:
        grouping.skip(SkippedFile(Path(one.label), ScanStatus(one.status.value), one.reason, one.size))
