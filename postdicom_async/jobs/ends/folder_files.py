"""The files of a folder: scanned for its index, and opened as instances.

Unchanged files are not read again. A scan proceeds in steps of some hundred files; each step is one call to a thread
that reads several files at once, and one transaction. A cancelled scan finishes its step and keeps what was read by
then. Memory holds one step.

A file is checked again when it is opened, since it may have changed after it was listed. `FolderReader` remembers the
device and inode of the folder, to tell an unmounted folder from deleted files.
"""

from __future__ import annotations

import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from postdicom_async.dicom.header import read_header
from postdicom_async.dicom.scan import FileFacts, NoInstance, read_facts
from postdicom_async.disk.files import (
    Beginning,
    FileBody,
    HeldFile,
    Unusable,
    identity_of,
    in_background,
    local_file_error,
    outlasting,
    read_beginning,
)
from postdicom_async.disk.folder import is_partial
from postdicom_async.disk.sources import Usable, files_at
from postdicom_async.errors import LocalFileError, UsageError
from postdicom_async.face import translated
from postdicom_async.jobs.ends.folder_index import FoundFile, SeriesGroup
from postdicom_async.jobs.ends.folder_match import day_of
from postdicom_async.jobs.states import Reason
from postdicom_async.results import InstanceUids, Status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Sequence

    from postdicom_async.disk.files import FileIdentity
    from postdicom_async.jobs.ends.end import Identified, ListedInstance, Selection
    from postdicom_async.jobs.ends.folder_index import FileRow, FolderIndex


_FILES_A_STEP: Final = 512
_AT_ONCE: Final = 8
_PIECE: Final = 512 * 1024
_UIDS_A_STEP: Final = 64


async def scan_folder(
    root: str, index: FolderIndex, texts: Collection[str], told: Callable[[int], None] | None = None
) -> None:
    """Bring an index up to date with its folder.

    Args:
        root: the folder's real path.
        index: its index.
        texts: the attributes to keep of each file.
        told: called in the event loop with the number of files seen so far.

    Raises:
        LocalFileError: the folder cannot be scanned, or the disk of the index is full. A subfolder that cannot be
            scanned goes into the index as unreadable.
    """
    await in_background(index.begin_scan)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="postdicom-scan") as threads:
        scan = _Scan(root, index, frozenset(texts), threads)
        met = 0
        while some := await in_background(scan.step):
            met += some
            if told is not None:
                told(met)
    await in_background(index.end_scan)
    after = ""
    while uids := await in_background(partial(index.shared_uids, after, _UIDS_A_STEP)):
        for uid in uids:
            await in_background(partial(settle_uid, root, index, uid))
        after = uids[-1]


class Looked(NamedTuple):
    """A file to examine, and its path relative to the folder."""

    file: Path
    relative: bytes


def look(one: Looked, texts: Collection[str]) -> FoundFile:
    """Read and classify a file, in a thread; a bad file is a result, not an exception."""
    found: Beginning[FileFacts | NoInstance] | Unusable = read_beginning(one.file, read_facts, whole=True)
    if isinstance(found, Unusable):
        return _seen_unusable(one, found)
    facts, identity = found.told, identity_of(found.status)
    size = found.status.st_size
    if isinstance(facts, NoInstance):  # a directory of other files
        return FoundFile(one.relative, size, identity, Reason.NOT_DICOM)
    study, series, uid = facts.header.uids
    said = {name: facts.texts[name] for name in sorted(texts) if name in facts.texts}
    group = SeriesGroup(study, series, day_of(facts.texts.get("study_date", "")), json.dumps(said) if said else "")
    return FoundFile(one.relative, size, identity, Reason.NONE, group, uid)


def _seen_unusable(one: Looked, found: Unusable) -> FoundFile:
    flaw = Reason.NOT_DICOM if found.status is Status.NOT_DICOM else Reason.UNREADABLE
    # No size means that a system call failed: it may succeed next time although the file is unchanged.
    again = flaw is Reason.UNREADABLE and not found.size
    return FoundFile(one.relative, found.size, None if again else _identity(one.file), flaw)


def _identity(path: Path) -> FileIdentity | None:
    try:
        return identity_of(path.stat())
    except (OSError, ValueError):
        return None


class _Scan:
    """One scan of a folder."""

    def __init__(self, root: str, index: FolderIndex, texts: frozenset[str], threads: ThreadPoolExecutor) -> None:
        self._prefix = len(os.fsencode(os.path.join(root, "")))  # noqa: PTH118 - the separator at its end is wanted
        self._root = root
        self._index = index
        self._threads = threads
        self._look = partial(look, texts=texts)
        self._found = self._files()

    def _files(self) -> Iterator[Looked | FoundFile]:
        """Yield files in order, and folders that cannot be scanned."""
        for one in files_at(Path(self._root)):
            if isinstance(one, Unusable):
                if one.label == self._root:
                    raise LocalFileError(f"the {one.reason}")  # "folder: permission denied"
                yield FoundFile(os.fsencode(one.label)[self._prefix :], 0, None, Reason.UNREADABLE)
            elif not is_partial(one.name):
                yield Looked(one, os.fsencode(one)[self._prefix :])

    def step(self) -> int:
        """Examine the next files; return their number, 0 at the end."""
        some = list(islice(self._found, _FILES_A_STEP))
        if not some:
            return 0
        files = {one.relative: one for one in some if isinstance(one, Looked)}
        unchanged: list[int] = []
        for path, known in self._index.known(list(files)).items():
            if _identity(files[path].file) == known.identity:
                unchanged.append(known.id)
                del files[path]
        seen = [one for one in some if isinstance(one, FoundFile)]
        seen += self._threads.map(self._look, files.values())
        self._index.note(seen, unchanged)
        return len(some)


# --- several files of one UID ---------------------------------------------------------------------------------------


def settle_uid(root: str, index: FolderIndex, uid: str) -> None:
    """Of several files with one SOP Instance UID the first by path counts.

    Mark the others as copies or as conflicting.
    """
    rows = index.files_of_uid(uid)
    if len(rows) == 1:
        index.set_flaws([(rows[0][0].id, Reason.NONE, rows[0][1])])
        return
    settled: list[tuple[int, int, bytes | None]] = []
    first: bytes | None = None
    for row, known in rows:
        digest = known or _digest(root, row)
        flaw = Reason.UNREADABLE
        if not settled:
            first, flaw = digest, Reason.NONE  # an unreadable one is reported when it is opened
        elif digest is not None:
            flaw = Reason.DUPLICATE_FILE if digest == first else Reason.OTHER_CONTENT
        settled.append((row.id, flaw, digest))
    index.set_flaws(settled)


def _digest(root: str, row: FileRow) -> bytes | None:
    """Return the digest of a file's content, None if it cannot be read or has changed since it was indexed."""
    digest = blake2b(digest_size=16)
    body = FileBody(Path(root, os.fsdecode(row.path)), row.size, row.identity, _PIECE)
    try:
        with body.ranges() as read:
            for at in range(0, row.size, _PIECE):
                digest.update(read(at, _PIECE))
    except (OSError, LocalFileError):
        return None
    return digest.digest()


# --- opening instances -----------------------------------------------------------------------------------------------


_FILES_AT_ONCE: Final = 32  # files read in one call to a thread, and held in memory if small


class FolderReader:
    """Opens instances in one folder; several calls may be under way.

    It records the folder's device and inode at the first access, to tell an unmounted folder from deleted files.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._device: tuple[int, int] | None = None

    @property
    def has_looked(self) -> bool:
        """Whether the folder has been seen to exist."""
        return self._device is not None

    async def open(self, wanted: Selection) -> AsyncGenerator[Identified, None]:
        """Yield the wanted instances that exist, in order, while the next group is read ahead.

        Raises:
            LocalFileError: the folder itself is gone, or was replaced by another.
            UsageError: it does not exist.
        """
        groups = [
            wanted.instances[start : start + _FILES_AT_ONCE]
            for start in range(0, len(wanted.instances), _FILES_AT_ONCE)
        ]
        ahead: asyncio.Future[list[Identified]] | None = None
        try:
            for number in range(len(groups)):
                found = await (ahead or self._reading(wanted.study, groups[number]))
                ahead = self._reading(wanted.study, groups[number + 1]) if number + 1 < len(groups) else None
                for one in found:
                    yield one
        finally:
            if ahead is not None:
                await outlasting(ahead)

    def _reading(self, study: str, some: Sequence[ListedInstance]) -> asyncio.Future[list[Identified]]:
        return asyncio.ensure_future(in_background(partial(self._identify_all, study, some)))

    def require_folder(self) -> None:
        """Check that the folder exists and is the same as at the first access; blocks.

        Raises:
            UsageError: it never existed.
            LocalFileError: it is gone, or was replaced by another; it may come back.
        """
        missing = False
        with translated(OSError, partial(local_file_error, "the folder")):
            try:
                status = self._root.stat()
            except FileNotFoundError:
                missing = True
        if missing and self._device is None:
            raise UsageError("the folder does not exist")
        if missing or (self._device or (status.st_dev, status.st_ino)) != (status.st_dev, status.st_ino):
            raise LocalFileError("the folder is gone, or another one was put in its place", temporary=True)
        self._device = (status.st_dev, status.st_ino)

    # --- in a thread -------------------------------------------------------------------------------------------------

    def _identify_all(self, study: str, some: Sequence[ListedInstance]) -> list[Identified]:
        self.require_folder()
        inside: dict[Path, bool] = {}
        found = [self._identify(study, one, inside) for one in some]
        if any(one is None or isinstance(one, Unusable) for one in found):
            self.require_folder()
        return [one for one in found if one is not None]

    def _identify(self, study: str, one: ListedInstance, inside: dict[Path, bool]) -> Identified | None:
        """Identify a file as it is now; None if it is gone."""
        if not one.place:
            return None
        parts = one.place.split("/")
        if "\0" in one.place or any(part in {"", ".", ".."} for part in parts):
            return Unusable(one.uid, Status.UNREADABLE, "its place is not in the folder", one.size)
        path = self._root.joinpath(*parts)
        if path.parent not in inside:  # a parent folder that has become a symbolic link since
            inside[path.parent] = Path(os.path.realpath(path.parent)).is_relative_to(self._root)
        if not inside[path.parent]:
            return Unusable(one.uid, Status.UNREADABLE, "its place is not in the folder", one.size)
        found = read_beginning(path, read_header, whole=True)
        if isinstance(found, Unusable):
            is_gone = not found.size and not os.path.lexists(path)
            return None if is_gone else Unusable(one.uid, Status.UNREADABLE, found.reason, found.size)
        if found.told.uids != InstanceUids(study, one.series, one.uid):
            return Unusable(one.uid, Status.UNREADABLE, "the file is another instance by now", found.status.st_size)
        body = FileBody.of(path, found.status, _PIECE)
        return Usable(one.uid, found.told, HeldFile(body, found.content) if found.content else body)
