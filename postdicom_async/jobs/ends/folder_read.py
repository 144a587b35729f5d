"""Instances out of a folder: each file is looked at when it is opened, for it may not be what it was when listed."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from postdicom_async.dicom.header import read_header
from postdicom_async.disk.files import FileBody, HeldFile, Unusable, local_file_error, read_beginning
from postdicom_async.disk.sources import Usable
from postdicom_async.disk.threads import in_background, outlasting
from postdicom_async.errors import LocalFileError, UsageError
from postdicom_async.face import translated
from postdicom_async.results import InstanceUids, Status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from postdicom_async.jobs.ends.end import Identified, ListedInstance, Wanted

__all__ = ["FolderReader"]

_FILES_AT_ONCE: Final = 32  # read in one visit to a thread, and held if they are small
_PIECE: Final = 512 * 1024


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

    async def open(self, wanted: Wanted) -> AsyncGenerator[Identified, None]:
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
