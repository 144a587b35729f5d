"""A folder as an end of a job.

DICOM is recognised by content, and each file is an item or is listed with the reason why not.

State: the index (see `folder_index`) is opened when first needed, and the folder is scanned once, by the first task
that needs the result. The `SafeFolder` for writing is opened at the first store. Both are closed on exit. Stored files
are added to the index in batches of some hundred, and always before anything is listed.
"""

from __future__ import annotations

import asyncio
import os
import stat
from contextlib import ExitStack, aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from postdicom_async.dicom.layout import DEFAULT_LAYOUT, Layout, relative_names
from postdicom_async.disk.files import in_background, local_file_error, outlasting
from postdicom_async.disk.folder import SafeFolder, delete_file
from postdicom_async.disk.sources import require_anonymization
from postdicom_async.errors import LocalFileError, UsageError
from postdicom_async.face import translated
from postdicom_async.jobs.ends.end import Feature
from postdicom_async.jobs.ends.folder_files import FolderReader, Looked, look, scan_folder, settle_uid
from postdicom_async.jobs.ends.folder_index import FolderIndex, FolderListing, files_of
from postdicom_async.jobs.ends.folder_match import StudyFilter
from postdicom_async.jobs.ends.folder_store import FolderStore, of_the_folder
from postdicom_async.jobs.states import Reason
from postdicom_async.results import InstanceUids
from postdicom_async.transfer.outcomes import Gathered
from postdicom_async.transfer.sinks import FolderSink, by_uids

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence

    from postdicom_async.dicom.anonymize import Anonymization
    from postdicom_async.dicom.layout import RelativeName
    from postdicom_async.jobs.ends.end import Identified, ListedInstance, Selection
    from postdicom_async.jobs.ends.folder_index import FileRow
    from postdicom_async.results import Outcome


_NOTED: Final = 256  # stored files added to the index in one batch
_PIECE: Final = 512 * 1024
_LISTED: Final = frozenset({Reason.NONE, Reason.DUPLICATE_FILE})
_TRIED: Final = 1 << 20  # bytes written by `probe` to see whether the disk has room


class FolderEnd(FolderListing):
    """A folder as an end of a job. Use it inside ``async with``.

    Attributes:
        name: ``"folder"``.
        identity: its real path. Private.
        features: everything.
    """

    def __init__(
        self,
        path: Path,
        *,
        index: Path | None = None,
        filters: Mapping[str, Any] | None = None,
        layout: Layout = DEFAULT_LAYOUT,
        fsync: bool = True,
        target: bool = False,
        on_scan: Callable[[int], None] | None = None,
    ) -> None:
        """Take a folder; the disk is not touched yet.

        Args:
            path: the folder.
            index: the index file, which lies beside the job's ledger and never in the folder; None for a temporary one.
            filters: which studies belong, as for a search; only study-level attributes.
            layout: how stored files are named.
            fsync: make each stored file durable before its success is reported.
            target: a missing folder counts as empty; otherwise it is an error.
            on_scan: called in the event loop during a scan with the number of files seen so far.

        Raises:
            UsageError: an argument is wrong.
        """
        self.name: str = "folder"
        self.identity: str = os.path.realpath(path)
        self.features: Feature = ~Feature(0)
        self._root = Path(self.identity)
        self._index_path = index
        super().__init__(StudyFilter(filters))
        self._layout = relative_names(layout)
        self._fsync = fsync
        self._target = target
        self._on_scan = on_scan
        if index is not None and Path(os.path.realpath(index)).is_relative_to(self._root):
            raise UsageError("it must not lie in the folder that it is about", argument="index")
        self._index: FolderIndex | None = None
        self._indexing = asyncio.Lock()
        self._searched = False
        self._searching = asyncio.Lock()
        self._reader = FolderReader(self._root)
        self._writing = ExitStack()
        self._opening = asyncio.Lock()
        self._store: FolderStore | None = None
        self._unnoted: list[RelativeName] = []

    def __repr__(self) -> str:
        return "<FolderEnd>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the folder and its index, after stored files were added to the index."""
        self._store = None
        self._writing.close()
        index = self._index
        if index is not None:
            try:
                await self._note_stored()
            finally:
                self._index, self._searched = None, False
                await in_background(index.close)

    # --- what there is -----------------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Scan the folder again; only files that have changed are read.

        Raises:
            UsageError: it does not exist, or is no folder.
            LocalFileError: it cannot be scanned, or its index cannot be written.
            LedgerUnusable: the index is damaged, or the file is not an index.
        """
        async with self._searching:
            await self._search()

    async def listed_index(self) -> FolderIndex:
        """Return the index, scanning the folder if that has not been done, with all stored files added."""
        async with self._searching:
            if not self._searched:
                await self._search()
        await self._note_stored()
        return await self._opened_index()

    async def _search(self) -> None:
        index = await self._opened_index()
        if not await in_background(self._is_there):
            if await in_background(partial(index.studies, "", 1)):
                message = "the folder is gone: mount it, or make an empty one to begin anew"
                raise LocalFileError(message, temporary=True)
            self._searched = True
            return
        await in_background(self._reader.require_folder)
        await scan_folder(self.identity, index, self._filter.texts, self._on_scan)
        self._searched = True

    async def _opened_index(self) -> FolderIndex:
        async with self._indexing:
            return self._index if self._index is not None else await in_background(self._open_index)

    def _open_index(self) -> FolderIndex:
        # Assigned in the thread: the index must be found and closed even if the task that waits for it is cancelled.
        self._index = FolderIndex(self._index_path, root=self.identity, texts=self._filter.texts)
        return self._index

    def _is_there(self) -> bool:
        """Whether the folder exists; blocks."""
        with translated(OSError, partial(local_file_error, "the folder")):
            try:
                status = self._root.stat()
            except FileNotFoundError:
                status = None
        if status is None and not self._target:
            raise UsageError("the source folder does not exist")
        if status is not None and not stat.S_ISDIR(status.st_mode):
            raise UsageError("this is a file; name a folder")
        return status is not None

    # --- as a source -------------------------------------------------------------------------------------------------

    async def open(self, wanted: Selection) -> AsyncGenerator[Identified, None]:
        """Yield the files, the next ones read ahead.

        A file that is another instance by now, is truncated or missing, is yielded as `Unusable`. Instances with a
        ``place`` need no index: the folder is not scanned for them.

        Raises:
            LocalFileError: the folder itself is gone, or was replaced by another.
            UsageError: it never existed.
        """
        async with aclosing(self._reader.open(await self.placed(wanted))) as found:
            async for one in found:
                yield one

    async def placed(self, wanted: Selection) -> Selection:
        """Return the selection with the places that are known, for a worker that has no index.

        Files are looked for where the layout would put them; the folder is scanned only for those the index lacks.
        """
        if all(one.place for one in wanted.instances):
            return wanted
        index = await self._opened_index()
        # An index of an earlier run will do: each file is checked when it is opened.
        found = await in_background(partial(self._find, index, wanted))
        if not all(one.place for one in found.instances):
            await self.listed_index()
            found = await in_background(partial(self._find, index, found))
        return found

    def _find(self, index: FolderIndex, wanted: Selection) -> Selection:
        def place(one: ListedInstance) -> str:
            row = index.find(wanted.study, one.series, one.uid)
            if row is not None:
                return row.place
            name = self._layout(InstanceUids(wanted.study, one.series, one.uid))
            return "/".join(name) if os.path.lexists(self._root.joinpath(*name)) else ""

        return replace(
            wanted, instances=[one if one.place else one._replace(place=place(one)) for one in wanted.instances]
        )

    # --- as a target -------------------------------------------------------------------------------------------------

    async def store(
        self, sources: AsyncIterator[Identified], *, anonymize: Anonymization | None = None
    ) -> AsyncGenerator[Outcome, None]:
        """Write instances, each under a temporary name, made durable, and then given the name of the layout.

        A file that has that name is never replaced: the item is PRESENT if the file is the same instance (byte for
        byte, or the same data set), else FAILED. Only a truncated copy of the very same bytes is completed.

        Raises:
            LocalFileError: the disk is full, or the folder cannot be written to. Instances without an outcome were not
                stored.
        """
        require_anonymization(anonymize)
        store = await self._opened_store()
        gathered = Gathered(keeps_all=False, streams=True)
        running: asyncio.Future[Any] = asyncio.ensure_future(store.run(sources, anonymize, gathered))
        try:
            async with aclosing(gathered.taken(running)) as outcomes:
                async for outcome in outcomes:
                    yield outcome
                    if len(self._unnoted) >= _NOTED:
                        await self._note_stored()
            running.result()
        finally:
            running.cancel()
            await outlasting(running)

    async def _opened_store(self) -> FolderStore:
        async with self._opening:
            if self._store is None:
                # Only one process writes for a job, so temporary files that an earlier one left behind may be removed.
                owner = "" if self._index_path is None else (await self._opened_index()).mark(b"")
                folder = SafeFolder(self._root, fsync=self._fsync, owner=owner)
                self._writing.callback(folder.close)
                with translated(LocalFileError, of_the_folder):
                    await in_background(folder.open)
                await in_background(self._reader.require_folder)
                sink = self._writing.enter_context(FolderSink(folder, by_uids(self._layout), piece=_PIECE))
                self._store = FolderStore(sink, self._layout, self._unnoted.append)
        return self._store

    async def _note_stored(self) -> None:
        """Add stored files to the index, if there was a scan; otherwise the first scan will find them."""
        names = self._unnoted.copy()
        self._unnoted.clear()
        if names and self._searched:
            await in_background(partial(self._note_files, await self._opened_index(), names))

    def _note_files(self, index: FolderIndex, names: Sequence[RelativeName]) -> None:
        looked = [Looked(self._root.joinpath(*name), os.fsencode("/".join(name))) for name in names]
        seen = [look(one, self._filter.texts) for one in looked]
        index.note(seen)
        for one in seen:
            if one.uid is not None and len(index.files_of_uid(one.uid)) > 1:
                settle_uid(self.identity, index, one.uid)

    async def delete(self, study: str, instances: Sequence[InstanceUids] | None) -> None:
        """Delete the files of instances, including identical copies, and folders that become empty.

        Files that have changed are left alone, and so are files with other content under the same UID.

        Raises:
            UsageError: the filter leaves this study out.
            LocalFileError: some could not be deleted; the others are gone.
        """
        index = await self.listed_index()
        if not await self.is_chosen(index, study):
            raise UsageError("the study is outside the filter", argument="delete")
        wanted = None if instances is None else {(one.series_instance_uid, one.sop_instance_uid) for one in instances}
        problem: LocalFileError | None = None
        async for rows in files_of(index, study):
            chosen = [
                row for row in rows if row.flaw in _LISTED and (wanted is None or (row.series, row.uid) in wanted)
            ]
            problem = await in_background(partial(self._delete_files, index, chosen)) or problem
        if self._store is not None:
            self._store.sink.folder.look_again()
        if problem is not None:
            raise problem

    def _delete_files(self, index: FolderIndex, rows: Sequence[FileRow]) -> LocalFileError | None:
        gone: list[int] = []
        problem: LocalFileError | None = None
        for row in rows:
            try:
                if delete_file(self._root, row.place.split("/"), row.identity):
                    gone.append(row.id)
                else:
                    problem = LocalFileError("a file to be deleted has changed since the folder was searched")
            except OSError as error:
                problem = local_file_error("a file to be deleted", error)
        index.forget(gone)
        return problem

    # --- both --------------------------------------------------------------------------------------------------------

    async def probe(self) -> None:
        """Check that the folder can be listed and, once something was stored, that there is room to write.

        Raises:
            UsageError: it does not exist.
            LocalFileError: it cannot be listed or written to, or it is gone and may come back (an unmounted disk).
        """
        await in_background(self._probe)

    async def require_writable(self) -> None:
        """Check that instances could be stored here; nothing is written, and no folder made.

        Raises:
            LocalFileError: they could not.
        """
        await in_background(self._require_writable)

    def _require_writable(self) -> None:
        place = self._root
        while not os.path.lexists(place):  # the store makes what is missing
            place = place.parent
        if not os.access(place, os.W_OK | os.X_OK):
            raise LocalFileError("the folder cannot be written to: the permission is missing, or its disk is read-only")

    def _probe(self) -> None:
        if self._reader.has_looked:
            self._reader.require_folder()
        if self._is_there():
            with translated(OSError, partial(local_file_error, "the folder")):
                os.scandir(self._root).close()
        if self._store is not None:
            with translated(LocalFileError, of_the_folder):
                partial_file = self._store.sink.folder.create(("probe",))
                try:
                    partial_file.write([bytes(_TRIED)])
                finally:
                    partial_file.discard()
