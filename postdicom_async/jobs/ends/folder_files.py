"""The files of a folder: searched for its index, and opened as instances.

What has not changed since it was read is not read again. The search goes in steps of some hundred files. Each is one
visit to a thread that reads several files at once, and one transaction: a cancelled search waits for its step, and what
was read by then is kept. Memory holds one step.

A file is looked at again when it is opened, for it may not be what it was when it was listed. `FolderReader` remembers
which folder it saw first (device and inode), so that one that was unmounted is told from files that are gone.
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
    files_at,
    identity_of,
    local_file_error,
    read_beginning,
)
from postdicom_async.disk.folder import is_partial
from postdicom_async.disk.sources import Usable
from postdicom_async.disk.threads import in_background, outlasting
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
        texts: the attributes that are kept of each file.
        told: is called in the event loop with how many files were met so far.

    Raises:
        LocalFileError: the folder cannot be searched, or the disk of the index is full. A folder below it that cannot
            be searched is in the index as something that cannot be read.
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
    """A file that is to be looked at, and its path relative to the folder."""

    file: Path
    relative: bytes


def look(one: Looked, texts: Collection[str]) -> FoundFile:
    """Read what a file is, in a thread; never raises for what it is."""
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
    # Without a size, a system call failed: that may be otherwise next time, though the file is the same.
    again = flaw is Reason.UNREADABLE and not found.size
    return FoundFile(one.relative, found.size, None if again else _identity(one.file), flaw)


def _identity(path: Path) -> FileIdentity | None:
    try:
        return identity_of(path.stat())
    except (OSError, ValueError):
        return None


class _Scan:
    """One search of a folder."""

    def __init__(self, root: str, index: FolderIndex, texts: frozenset[str], threads: ThreadPoolExecutor) -> None:
        self._prefix = len(os.fsencode(os.path.join(root, "")))  # noqa: PTH118 - the separator at its end is wanted
        self._root = root
        self._index = index
        self._threads = threads
        self._look = partial(look, texts=texts)
        self._found = self._files()

    def _files(self) -> Iterator[Looked | FoundFile]:
        """Yield what there is, in order: files, and what cannot be searched."""
        for one in files_at(Path(self._root)):
            if isinstance(one, Unusable):
                if one.label == self._root:
                    raise LocalFileError(f"the {one.reason}")  # "folder: permission denied"
                yield FoundFile(os.fsencode(one.label)[self._prefix :], 0, None, Reason.UNREADABLE)
            elif not is_partial(one.name):
                yield Looked(one, os.fsencode(one)[self._prefix :])

    def step(self) -> int:
        """Look at the next files; return how many, 0 at the end."""
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
    """Decide which of the files of a SOP Instance UID counts: the first by its path; the others are told from it."""
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
            first, flaw = digest, Reason.NONE  # one that cannot be read now is told of when it is opened
        elif digest is not None:
            flaw = Reason.DUPLICATE_FILE if digest == first else Reason.OTHER_CONTENT
        settled.append((row.id, flaw, digest))
    index.set_flaws(settled)


def _digest(root: str, row: FileRow) -> bytes | None:
    """Return the digest of a file's content, None where it cannot be read or is not what the index says."""
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


_FILES_AT_ONCE: Final = 32  # read in one visit to a thread, and held if they are small


class FolderReader:
    """Opens instances in one folder; several calls may be under way.

    It notes which folder it is when it first looks, so that one that was unmounted meanwhile is told from files that
    are gone.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._device: tuple[int, int] | None = None

    @property
    def has_looked(self) -> bool:
        """Whether it was there before."""
        return self._device is not None

    async def open(self, wanted: Selection) -> AsyncGenerator[Identified, None]:
        """Yield what is wanted and there, in its order, the next group being read meanwhile.

        Raises:
            LocalFileError: the folder itself is gone, or another one is there.
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
        """See that the folder is there, the same as at first; blocks.

        Raises:
            UsageError: there never was one.
            LocalFileError: it is gone, or another one is in its place; it may come back.
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
        """Return a file as it is now, None where it is gone."""
        if not one.place:
            return None
        parts = one.place.split("/")
        if "\0" in one.place or any(part in {"", ".", ".."} for part in parts):
            return Unusable(one.uid, Status.UNREADABLE, "its place is not in the folder", one.size)
        path = self._root.joinpath(*parts)
        if path.parent not in inside:  # a folder that has become a link since
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
