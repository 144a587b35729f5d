"""What to upload: files, folders, data sets, bytes and streams, each as a body that can be opened again.

DICOM is recognised by content, never by name. Sources are drawn one after the other, as there is room for them: an
iterable is never collected into a list, and a stream is read when its turn comes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import aclosing, closing, suppress
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeGuard, TypeVar

import anyio.to_thread

from postdicom_async.bodies import Body, BytesBody
from postdicom_async.dicom.header import HeaderGap, InstanceHeader, read_header
from postdicom_async.dicom.silence import unlogged
from postdicom_async.dicom.wholeness import what_is_missing
from postdicom_async.disk.files import (
    FileBody,
    HeldFile,
    Unusable,
    explain_os_error,
    explained,
    look_into,
    read_beginning,
    unusable,
)
from postdicom_async.disk.scratch import Scratch, ScratchMap
from postdicom_async.disk.spool import SpooledBytes, SpooledFile, Stream, is_reader, is_stream, spooled
from postdicom_async.errors import UsageError
from postdicom_async.face import translated
from postdicom_async.results import Status

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_T = TypeVar("_T")

Source: TypeAlias = "str | os.PathLike[str] | bytes | Dataset | Stream"
"""A file, a folder (searched recursively), a whole DICOM file in memory, a pydicom data set, or a stream of the bytes
of a DICOM file: an object with ``async read(n)``, a `Part`, or, among others, an async iterable of bytes."""

Sources: TypeAlias = "Source | Iterable[Source] | AsyncIterable[Source] | AsyncIterable[IdentifiedSource]"
"""One or more sources. An async iterable outside a list yields sources; it is not a stream of bytes.

What another end of a job yields has been identified there, and is passed on as it is.
"""

_FILES_A_HOP = 32  # files read in one call to a thread: a call costs as much as several small reads
_BYTES_A_HOP = 4 << 20  # bytes in memory drawn from the caller's iterator in one call to a thread
_MOST_NAMES = 20_000  # names of one folder held in memory; more are sorted on disk
_OPEN_FILE = "an open file: give its path, or open it with aiofiles"
_TABLE = 'a table: give its column of paths, such as frame["path"]'
_PATHS_ONLY = "give paths, or an iterable of them"


@dataclass(frozen=True, slots=True)
class Usable:
    """A source that is DICOM: its label, header and body.

    ``keeps_uid``: it is anonymised, but still has the SOP Instance UID of the original, which an archive may hold.
    ``patient_id``: of an anonymised one, the bytes of its Patient ID, to tell two apart; None of any other.
    """

    label: str = field(repr=False)
    header: InstanceHeader
    body: Body
    keeps_uid: bool = False
    patient_id: bytes | None = field(default=None, repr=False)


IdentifiedSource: TypeAlias = Usable | Unusable


async def read_sources(
    sources: Sources, *, piece: int, send_truncated: bool = False
) -> AsyncGenerator[list[IdentifiedSource], None]:
    """Yield identified sources, in order, a few at a time; only paths and headers are held.

    A file that is cut off is `Unusable`, unless ``send_truncated`` is set.

    Raises:
        UsageError: an argument is of a kind that cannot be sent.
        LocalFileError: a path that was named does not exist.
    """
    number = 0
    async with aclosing(_groups(sources)) as groups:
        async for group in groups:
            if isinstance(group, Usable | Unusable):  # from another archive of a job: already identified
                number += 1
                yield [group]
                continue
            if isinstance(group, list | tuple):
                await anyio.to_thread.run_sync(_require_paths, group)
            found = _identified(group, piece, start=number, whole=not send_truncated)
            number += 1
            while batch := await anyio.to_thread.run_sync(_take, found):
                if known := [one for one in batch if not isinstance(one, _Waiting)]:
                    yield known
                for one in batch:
                    if isinstance(one, _Waiting):
                        yield [await one.identified(piece, whole=not send_truncated)]


async def read_paths(sources: Sources, look: Callable[[Path], _T]) -> AsyncIterator[list[_T | Unusable]]:
    """Yield ``look(path)`` for each file, in order, a few at a time; it is called in a thread.

    Raises:
        UsageError: an argument is not a path.
        LocalFileError: a path that was named does not exist.
    """
    if not isinstance(sources, os.PathLike | Iterable | AsyncIterable):
        raise UsageError(_PATHS_ONLY, argument="sources")
    async for group in _groups(sources):
        if isinstance(group, list | tuple):
            await anyio.to_thread.run_sync(_require_paths, group)
        looks = _looked_at([] if isinstance(group, Usable | Unusable) else group, look)
        while batch := await anyio.to_thread.run_sync(_next_of, looks, _FILES_A_HOP):
            yield batch


def _next_of(items: Iterator[_T], most: int) -> list[_T]:
    return list(islice(items, most))


def _looked_at(sources: Iterable[Source], look: Callable[[Path], _T]) -> Iterator[_T | Unusable]:
    for source in sources:
        if not isinstance(source, str | os.PathLike):
            raise UsageError(_PATHS_ONLY, argument="sources")
        yield from (one if isinstance(one, Unusable) else look(one) for one in files_at(path_of(source)))


async def _groups(sources: Sources) -> AsyncGenerator[Iterable[Source] | IdentifiedSource, None]:
    """Yield a collection of sources as it is, but each item of a lazy iterable as a group of its own."""
    if isinstance(sources, AsyncIterable) and not _is_single(sources):
        each: AsyncIterator[Source | IdentifiedSource] = aiter(sources)
        try:
            async for source in each:
                yield source if isinstance(source, Usable | Unusable) else iter([source])
        finally:  # an error in the caller's generator is raised when it is closed
            if isinstance(each, AsyncGenerator):
                await each.aclose()
        return
    given = _as_iterable(sources)
    if isinstance(given, Collection):
        yield given
        return
    items = iter(given)
    # Sources drawn so far are sent while the caller's iterator takes its time; at the end, nobody waits for it.
    while one := await anyio.to_thread.run_sync(_next_of, items, 1, abandon_on_cancel=True):
        yield iter(one)


def _take(found: Iterator[IdentifiedSource | _Waiting]) -> list[IdentifiedSource | _Waiting]:
    """Return the next sources, up to a stream: that is read in the event loop, after all sources before it."""
    taken: list[IdentifiedSource | _Waiting] = []
    held = 0
    for one in islice(found, _FILES_A_HOP):
        taken.append(one)
        if isinstance(one, _Waiting):
            break
        if isinstance(one, Usable) and isinstance(one.body, BytesBody):
            held += one.body.length
        if held > _BYTES_A_HOP:
            break
    return taken


def _as_iterable(sources: object) -> Iterable[Source]:
    if _is_single(sources):
        return [sources]
    if hasattr(sources, "read"):
        raise UsageError(_OPEN_FILE, argument="sources")
    if _is_table(sources):
        raise UsageError(_TABLE, argument="sources")
    if not isinstance(sources, Iterable):
        raise UsageError("give paths, bytes, data sets, streams, or an iterable of them", argument="sources")
    return sources


def _is_table(sources: object) -> bool:
    """Return whether iterating would give the names of columns: a data frame, or a mapping with keys of text."""
    named = isinstance(sources, Mapping) and any(isinstance(key, str) for key in sources)
    return named or hasattr(sources, "columns")


def _is_single(source: object) -> TypeGuard[Source]:
    # A Dataset is iterable (over its elements), and so are open files (over lines); both are recognised by their
    # attributes.
    is_known = isinstance(source, str | os.PathLike | bytes | bytearray | memoryview)
    return is_known or _is_data_set(source) or is_reader(source)


def _is_data_set(source: object) -> TypeGuard[Dataset]:
    return hasattr(source, "save_as")  # so that pydicom need not be imported


def _require_paths(sources: Iterable[Source]) -> None:
    for source in sources:
        if isinstance(source, str | os.PathLike):
            path = path_of(source)
            with explained(f"sources: {path}"), translated(ValueError, _holds_nul):
                path.stat()


def _holds_nul(_: ValueError) -> UsageError:
    return UsageError("a path holds a NUL character", argument="sources")


def _identified(
    sources: Iterable[Source], piece: int, *, start: int, whole: bool
) -> Iterator[IdentifiedSource | _Waiting]:
    for number, source in enumerate(sources, start + 1):
        if isinstance(source, bytes | bytearray | memoryview):
            yield _identify_bytes(BytesBody(bytes(source)), f"bytes {number}", whole=whole)
        elif isinstance(source, str | os.PathLike):
            for one in files_at(path_of(source)):
                yield one if isinstance(one, Unusable) else _identify_file(one, piece, whole=whole)
        elif _is_data_set(source):
            yield _identify_dataset(source, f"data set {number}")
        elif is_stream(source):
            yield _Waiting(source, number)
        elif hasattr(source, "read"):
            raise UsageError(f"item {number} is {_OPEN_FILE}", argument="sources")
        else:
            raise UsageError(
                f"item {number} is neither a path, bytes, a data set nor a stream of bytes", argument="sources"
            )


async def measure(sources: Sources) -> tuple[int, int] | None:
    """Return the number of sources and their bytes, without reading them; None if unknown.

    Only paths and bytes, alone or in a list, can be measured before they are read.
    """
    given = [sources] if _is_single(sources) else sources
    if not isinstance(given, list | tuple):
        return None
    return await anyio.to_thread.run_sync(_measure, given)


def _measure(given: Iterable[object]) -> tuple[int, int] | None:
    instances = size = 0
    for one in given:
        if isinstance(one, bytes):
            sizes = iter([len(one)])
        elif isinstance(one, str | os.PathLike):
            try:
                sizes = sizes_at(path_of(one))
            except UsageError:  # raised where the sources are read
                return None
        else:
            return None
        for more in sizes:
            instances += 1
            size += more
    return instances, size


def require_anonymization(anonymization: object) -> None:
    """Raise `UsageError` for an argument that is neither an `Anonymization` nor None."""
    if anonymization is None:
        return
    from postdicom_async.dicom.anonymize import Anonymization  # loaded already where there is one

    if not isinstance(anonymization, Anonymization):
        raise UsageError("give an Anonymization, or None", argument="anonymize")


# --- files and folders ------------------------------------------------------------------------------------------------


def path_of(source: str | os.PathLike[str]) -> Path:
    """Return an argument as a path; refuse an empty one, which would be the current folder."""
    text: object = None
    with suppress(TypeError):
        text = os.fspath(source)
    if not isinstance(text, str):
        raise UsageError("a path must be text", argument="sources")
    if not text:
        raise UsageError("an empty path", argument="sources")
    return Path(text)


def is_folder(path: Path) -> bool:
    """Do what `Path.is_dir` does, without raising for paths that cannot be examined."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def files_at(path: Path) -> Iterator[Path | Unusable]:
    """Yield a file itself, or every file below a folder in a stable order; report folders that cannot be searched.

    However many files there are and however deep they lie (`os.walk` is recursive), memory holds the names of one
    folder per level, and only some names of a very large folder.
    """
    if not is_folder(path):
        yield path
        return
    levels = [(path, _entries(path))]
    while levels:
        folder, entries = levels[-1]
        problem: OSError | None = None
        try:
            kind, name = next(entries, (_END, ""))
        except OSError as error:
            problem, kind = error, _END
        if problem is not None:
            yield Unusable(str(folder), Status.UNREADABLE, f"folder: {explain_os_error(problem)}")
        if kind == _END:
            levels.pop()
        elif kind == _LINK:
            reason = "a link to a folder is not followed; name the folder"
            yield Unusable(str(folder / name), Status.UNREADABLE, reason)
        elif kind == _FILE:
            yield folder / name
        else:
            levels.append((folder / name, _entries(folder / name)))


_LINK, _FILE, _FOLDER, _END = range(4)  # a folder's entries come in this order, those of a kind by name


def _entries(folder: Path) -> Iterator[tuple[int, str]]:
    """Yield a folder's entries: links to folders, then everything that is not a folder, then folders, by name.

    Raises:
        OSError: it cannot be searched; nothing has been yielded then.
        LocalFileError: there are very many, and the folder for temporary files has no room for their names.
    """
    with closing(Scratch()) as scratch:
        names: ScratchMap[int] = ScratchMap(scratch, held=_MOST_NAMES)
        with os.scandir(folder) as entries:
            for entry in entries:
                kind = _FILE if not _is_folder_entry(entry) else _LINK if entry.is_symlink() else _FOLDER
                names.put((kind, os.fsencode(entry.name)), 0)
        for kind, name in names.keys():  # noqa: SIM118 - no dict
            yield kind, os.fsdecode(name)


def sizes_at(path: Path) -> Iterator[int]:
    """Yield the size of every file that `files_at` yields, in any order; 0 if unknown."""
    if not is_folder(path):
        yield _size(path)
        return
    waiting = [str(path)]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if not _is_folder_entry(entry):
                    yield _size(entry)
                elif entry.is_symlink():
                    yield 0
                else:
                    waiting.append(entry.path)


def _size(file: Path | os.DirEntry[str]) -> int:
    try:
        return file.stat().st_size
    except (OSError, ValueError):
        return 0


def _is_folder_entry(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


# --- in memory ------------------------------------------------------------------------------------------------------


def _identify_bytes(body: BytesBody, label: str, *, whole: bool) -> IdentifiedSource:
    data = body.data
    header = read_header(data, complete=True)
    if header is HeaderGap.UNCLEAR or (whole and not isinstance(header, HeaderGap)):
        missing = what_is_missing(data, len(data), lambda at, size: data[at : at + size])
        if missing is not None:
            return Unusable(label, Status.UNREADABLE, missing, len(data))
    if isinstance(header, HeaderGap):
        return unusable(label, header, len(data), data)
    return Usable(label, header, body)


def _identify_dataset(dataset: Dataset, label: str) -> IdentifiedSource:
    """Encode a data set once."""
    buffer = BytesIO()
    try:
        with unlogged():
            dataset.save_as(buffer, enforce_file_format=True)
    except Exception as error:  # noqa: BLE001 - pydicom may raise anything; its text may hold values
        return Unusable(label, Status.UNREADABLE, f"pydicom cannot write it ({type(error).__name__})")
    return _identify_bytes(BytesBody(buffer.getvalue()), label, whole=False)  # what pydicom has just written is whole


# --- streams --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A stream whose turn has not come yet; ``number`` says which of the sources it is."""

    source: Stream = field(repr=False)
    number: int

    async def identified(self, piece: int, *, whole: bool) -> IdentifiedSource:
        """Read it to its end and identify it."""
        label = next(filter(None, map(self._text, ("filename", "name"))), f"stream {self.number}")
        body = await spooled(self.source, label, piece)
        if isinstance(body, Unusable):
            return body
        if body.length == 0:
            return Unusable(label, Status.NOT_DICOM, "empty stream")
        return await anyio.to_thread.run_sync(lambda: identify_kept(body, label, whole=whole))

    def _text(self, name: str) -> str:
        value = getattr(self.source, name, None)  # upload forms have ``filename``, open files ``name``
        return value if isinstance(value, str) else ""


def identify_kept(body: SpooledBytes | SpooledFile, label: str, *, whole: bool) -> IdentifiedSource:
    """Identify a spooled stream. Blocking: it reads a file."""
    if isinstance(body, SpooledBytes):
        return _identify_bytes(body, label, whole=whole)
    try:
        data, header, missing = body.file.looked_at(lambda file: look_into(file, read_header, body.length, whole=whole))
    except OSError as error:
        return Unusable(label, Status.UNREADABLE, explain_os_error(error), body.length)
    if missing is not None:
        return Unusable(label, Status.UNREADABLE, missing, body.length)
    if isinstance(header, HeaderGap):
        return unusable(label, header, body.length, data)
    return Usable(label, header, body)


# --- on disk --------------------------------------------------------------------------------------------------------


def _identify_file(path: Path, piece: int, *, whole: bool) -> IdentifiedSource:
    found = read_beginning(path, read_header, whole=whole)
    if isinstance(found, Unusable):
        return found
    body = FileBody.of(path, found.status, piece)
    return Usable(str(path), found.told, HeldFile(body, found.content) if 0 < len(found.content) <= piece else body)
