"""Folders as ends of jobs, and what is asked of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from postdicom_async.bodies import BytesBody
from postdicom_async.dicom.header import InstanceHeader, read_header
from postdicom_async.disk.files import Unusable
from postdicom_async.disk.sources import IdentifiedSource, Usable
from postdicom_async.jobs.ends.end import ListedInstance, ListedStudy, Selection
from postdicom_async.jobs.ends.folder import FolderEnd
from postdicom_async.results import Outcome

__all__ = ["each", "excluded", "files_below", "instances", "opened", "stored", "studies", "usable", "written"]


def written(folder: Path, files: dict[str, bytes]) -> None:
    """Write files by their relative names."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def files_below(root: Path) -> dict[str, bytes]:
    """Return what lies in a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def usable(data: bytes) -> Usable:
    """Return an instance in memory, labelled with its UID."""
    header = read_header(data, complete=True)
    assert isinstance(header, InstanceHeader)
    return Usable(header.uids.sop_instance_uid, header, BytesBody(data))


async def each(sources: Iterable[IdentifiedSource]) -> AsyncIterator[IdentifiedSource]:
    """Yield sources."""
    for source in sources:
        yield source


async def studies(end: FolderEnd, **dates: str) -> list[ListedStudy]:
    """Return all that is listed."""
    return [study async for some in end.studies(**dates) for study in some]


async def instances(end: FolderEnd, study: str) -> list[ListedInstance]:
    """Return all instances of a study."""
    return [one async for some in end.instances(study) for one in some]


async def excluded(end: FolderEnd) -> list[ListedInstance]:
    """Return all files that are not listed."""
    return [one async for some in end.excluded() for one in some]


async def opened(end: FolderEnd, study: str, wanted: Iterable[ListedInstance]) -> dict[str, bytes | Unusable]:
    """Open instances and read each to its end."""
    found: dict[str, bytes | Unusable] = {}
    async for one in end.open(Selection(study, None, list(wanted))):
        if isinstance(one, Unusable):
            found[one.label] = one
        else:
            found[one.label] = b"".join([piece async for piece in one.body.open()])
    return found


async def stored(end: FolderEnd, files: Iterable[bytes]) -> list[Outcome]:
    """Store files; return what became of them."""
    return [outcome async for outcome in end.store(each(map(usable, files)))]
