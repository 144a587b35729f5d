"""A folder to receive into and to delete from: files appear whole or not at all, and nothing outside it is touched.

Every step below the folder goes through a directory's file descriptor without following links, so that nobody who can
write there can redirect a file elsewhere. Windows has no such calls; there the path is checked for links before each
file is created, which someone who swaps in a link at that moment could defeat.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from io import FileIO
from itertools import count
from pathlib import Path

from postdicom_async.dicom.header import InstanceHeader, read_header
from postdicom_async.dicom.layout import RelativeName
from postdicom_async.disk.files import FileIdentity, explained, identity_of, missing_in, told_by_file, write_fully
from postdicom_async.errors import LocalFileError
from postdicom_async.results import InstanceUids

_GUARDED = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
# may itself be a link: that is the caller's choice
_ROOT = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_DIRECTORY = _ROOT | getattr(os, "O_NOFOLLOW", 0)
_FILE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE | getattr(os, "O_CLOEXEC", 0)
_EXISTING_FILE = os.O_RDONLY | _FILE | getattr(os, "O_NONBLOCK", 0)  # opening a pipe must not block
_OPEN_DIRECTORIES = 64
_MOST_BUFFERS = 512  # below IOV_MAX of every system
_PARTIAL_PREFIX = ".postdicom-"
_PARTIAL_SUFFIX = ".part"
_ABANDONED_SECONDS = 3600.0
# Held while one looks at what has a name and replaces it. Chosen by the name: those of other files rarely wait.
_RENAMING = tuple(threading.Lock() for _ in range(64))


class NameTaken(LocalFileError):
    """A file holds another instance under the name that one was to get; it stays as it is."""


def is_partial(name: str) -> bool:
    """Return whether a name is that of a partial file: in progress, or left by a process that was killed."""
    return name.startswith(_PARTIAL_PREFIX) and name.endswith(_PARTIAL_SUFFIX)


class _Directory:
    """An open directory, shared by the files being written into it. Users are counted under the folder's lock.

    ``descriptor`` is -1 on systems without calls relative to a descriptor (see `_GUARDED`).
    """

    __slots__ = ("cleared", "descriptor", "left", "path", "users")

    def __init__(self, path: Path, parent: _Directory | None) -> None:
        """Open it; only the root, which has no parent, may be a link."""
        self.path: Path = path
        self.descriptor: int = -1
        self.users: int = 0
        self.left: bool = False  # whether the last user is to close it
        self.cleared: bool = False  # whether abandoned partial files were removed
        name, above = (path, None) if parent is None else parent.at(path.name)
        if _GUARDED:
            self.descriptor = os.open(name, _ROOT if parent is None else _DIRECTORY, dir_fd=above)
        elif parent is not None and not stat.S_ISDIR(path.lstat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "something that is not a folder is in the way")

    def at(self, name: str) -> tuple[str | Path, int | None]:
        """Return the arguments for system calls on a name in it: name and descriptor, or the whole path and None."""
        return (name, self.descriptor) if _GUARDED else (self.path / name, None)

    def entries(self) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
        """Return its entries."""
        return os.scandir(self.descriptor if _GUARDED else self.path)

    def holds_another(self, name: str, uids: InstanceUids) -> bool:
        """Return whether a regular file of that name exists and is, even if cut off, an instance other than ``uids``.

        Raises:
            OSError: it cannot be read.
        """
        path, above = self.at(name)
        try:
            if not stat.S_ISREG(os.stat(path, dir_fd=above, follow_symlinks=False).st_mode):
                return False
            header = _header_in(os.open(path, _EXISTING_FILE, dir_fd=above), whole=False)
        except FileNotFoundError:
            return False
        return header is not None and header.uids != uids

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        path, above = self.at(name)
        with suppress(OSError):
            os.unlink(path, dir_fd=above)

    def close(self) -> None:
        """Close it, ignoring errors."""
        descriptor, self.descriptor = self.descriptor, -1
        _close(descriptor)


class SafeFolder:
    """A folder written to by blocking calls; threads may share it, but a file belongs to one at a time.

    State: the open directories below it, by name, counted and closed under one lock. A `PartialFile` borrows one, so
        that it is not closed while in use. The root stays open until `close`.

    It is created if it does not exist. Folders are created with mode 0700 and files with 0600: they hold patient data.
    Partial files left by an earlier process with the same ``owner``, of which only one runs at a time, are removed at
    once; those of others after an hour.
    """

    def __init__(self, root: Path, *, fsync: bool, owner: str = "") -> None:
        self.root = root
        self.fsync: bool = fsync
        self.has_private_names: bool = False  # names below it hold patient data, so that no error shows one
        self._directories: dict[RelativeName, _Directory] = {}
        self._lock = threading.Lock()
        self._owned = f"{_PARTIAL_PREFIX}{owner}-" if owner else ""
        self._own = f"{owner}-{secrets.token_hex(8)}" if owner else secrets.token_hex(8)
        self._numbers = count()

    def open(self) -> None:
        """Create the folder if it does not exist, and keep it open.

        Raises:
            LocalFileError: it cannot be created or opened.
        """
        with explained(str(self.root)):
            _make_with_parents(self.root)
            self._directories[()] = _Directory(self.root, None)
        self._directory(())

    def close(self) -> None:
        """Close the folder and the directories below it."""
        with self._lock:
            self._forget()

    def create(self, name: RelativeName, uids: InstanceUids | None = None) -> PartialFile:
        """Open a new file that is given its ``name`` when it is whole.

        With ``uids``, those of the instance in it, it never replaces another instance.

        Raises:
            LocalFileError: it cannot be made.
        """
        with explained(self.shown(name)):
            return PartialFile(self, self.borrow(name[:-1]), name, uids)

    def shown(self, name: RelativeName) -> str:
        """Return what errors call a file."""
        return str(self.root) if self.has_private_names else "/".join(name)

    def find(self, patterns: Sequence[re.Pattern[str]]) -> Iterator[tuple[RelativeName, str]]:
        """Yield the files whose names match, component by component, and what the group ``instance`` of them is.

        Links are not followed. What cannot be read holds none.
        """
        yield from self._matching(self.root, (), patterns, "")

    def _matching(
        self, path: Path, above: RelativeName, patterns: Sequence[re.Pattern[str]], instance: str
    ) -> Iterator[tuple[RelativeName, str]]:
        first, *rest = patterns
        try:
            with os.scandir(path) as listed:
                entries = [one for one in listed if first.fullmatch(one.name)]
        except OSError:
            return
        for entry in entries:
            match = first.fullmatch(entry.name)
            found = (match and match.groupdict().get("instance")) or instance
            name = (*above, entry.name)
            if rest and entry.is_dir(follow_symlinks=False):
                yield from self._matching(path / entry.name, name, rest, found)
            elif not rest and entry.is_file(follow_symlinks=False):
                yield name, found

    def save(self, name: RelativeName, pieces: Sequence[bytes | memoryview]) -> None:
        """Write and commit a whole file.

        Raises:
            LocalFileError: it cannot be written; nothing of it is left.
        """
        partial = self.create(name)
        try:
            partial.write(pieces)
            partial.commit()
        finally:
            partial.discard()

    def holds(self, name: RelativeName, uids: InstanceUids) -> bool:
        """Return whether a regular file of that name exists, contains that instance, and is not cut off."""
        try:
            header = _header_in(self.open_existing(name), whole=True)
        except OSError:
            return False
        return header is not None and header.uids == uids

    def is_bare(self, parts: RelativeName) -> bool:
        """Return whether there is no folder of that name, or an empty one."""
        try:
            with self._lock, self._directory(parts, make=False).entries() as entries:
                return next(entries, None) is None
        except FileNotFoundError:
            return True
        except OSError:
            return False

    def open_existing(self, name: RelativeName) -> int:
        """Open a file for reading without following links; return its descriptor.

        Raises:
            OSError: it is not there, or is a link.
        """
        with self._lock:
            path, above = self._directory(name[:-1], make=False).at(name[-1])
            return os.open(path, _EXISTING_FILE, dir_fd=above)

    # --- directories -------------------------------------------------------------------------------------------------

    def borrow(self, parts: RelativeName) -> _Directory:
        """Return the open directory of a folder below the root, created if needed; give it back after use."""
        with self._lock:
            directory = self._directory(parts)
            directory.users += 1
            return directory

    def give_back(self, directory: _Directory) -> None:
        """Note that one user of the directory is done."""
        with self._lock:
            directory.users -= 1
            if directory.left and not directory.users:
                directory.close()

    def _directory(self, parts: RelativeName, *, make: bool = True) -> _Directory:
        """Return the directory of a folder below the root, creating it step by step."""
        if () not in self._directories:
            raise OSError(errno.EBADF, "the folder is closed")
        known = self._directories.get(parts)
        if known is None or (parts and not _GUARDED):  # without descriptors, the folder is checked each time
            if len(self._directories) > _OPEN_DIRECTORIES:
                self._forget(keep_root=True)
            parent = self._directory(parts[:-1], make=make)
            opened = self._step(parent, parts[-1], make=make)
            known = self._directories.setdefault(parts, opened)
        if make and not known.cleared:
            known.cleared = True
            self._clear_abandoned(known)
        return known

    def _step(self, parent: _Directory, name: str, *, make: bool) -> _Directory:
        if make:
            path, above = parent.at(name)
            with suppress(FileExistsError):
                os.mkdir(path, 0o700, dir_fd=above)
                try:
                    self._make_durable(parent)
                except OSError:  # the next file must not find it, and take it for durable
                    os.rmdir(path, dir_fd=above)
                    raise
        return _Directory(parent.path / name, parent)

    def _clear_abandoned(self, directory: _Directory) -> None:
        """Remove partial files left by a killed process: this owner's, and others not written to for an hour."""
        with suppress(OSError), directory.entries() as entries:
            for entry in entries:
                if is_partial(entry.name):
                    is_owned = self._owned and entry.name.startswith(self._owned) and self._own not in entry.name
                    status = entry.stat(follow_symlinks=False)
                    if is_owned or time.time() - status.st_mtime > _ABANDONED_SECONDS:
                        directory.remove(entry.name)

    def look_again(self) -> None:
        """Forget the open folders below the root: some were deleted."""
        with self._lock:
            self._forget(keep_root=True)

    def _forget(self, *, keep_root: bool = False) -> None:
        kept = self._directories.pop((), None) if keep_root else None
        for directory in self._directories.values():
            directory.left = True
            if not directory.users:
                directory.close()
        self._directories.clear()
        if kept is not None:
            self._directories[()] = kept

    # --- called by partial files --------------------------------------------------------------------------------------

    def partial_name(self) -> str:
        """Return a name nobody else uses: a random one for this object, with a number."""
        return f"{_PARTIAL_PREFIX}{self._own}-{next(self._numbers)}{_PARTIAL_SUFFIX}"

    def open_new(self, directory: _Directory, name: str) -> int:
        """Create a file that must not exist yet; return its descriptor."""
        path, above = directory.at(name)
        return os.open(path, _NEW_FILE, 0o600, dir_fd=above)

    def rename(self, directory: _Directory, old: str, new: str, uids: InstanceUids | None = None) -> bool:
        """Give a file its final name; an existing file or link is replaced, and a link never followed.

        Returns:
            False if a file of that name holds another instance than ``uids``: it was left alone.
        """
        (source, above), (target, _) = directory.at(old), directory.at(new)
        # A file system may take names for the same that differ in case, or in how they are composed.
        with _RENAMING[hash(unicodedata.normalize("NFKC", new.casefold()).casefold()) % len(_RENAMING)]:
            if uids is not None and directory.holds_another(new, uids):
                return False
            if not _GUARDED:
                os.replace(source, target)  # noqa: PTH105 - Windows renames over nothing
                return True
            os.rename(source, target, src_dir_fd=above, dst_dir_fd=above)
        try:
            self._make_durable(directory)
        except OSError:
            directory.remove(new)  # it would count as whole, but may not survive a crash
            raise
        return True

    def _make_durable(self, directory: _Directory) -> None:
        # Files that end at the same moment each call this: the file system's journal commits once for all of them.
        if self.fsync and directory.descriptor >= 0 and sys.platform != "win32":
            os.fsync(directory.descriptor)

    def make_file_durable(self, descriptor: int) -> None:
        """Flush a file to the disk, if ``fsync`` is set."""
        if self.fsync:
            os.fsync(descriptor)


class PartialFile:
    """A file being written, under a temporary name in the folder it will stay in.

    It borrows ``directory`` and gives it back in ``discard``.
    """

    def __init__(
        self, folder: SafeFolder, directory: _Directory, name: RelativeName, uids: InstanceUids | None
    ) -> None:
        self._folder = folder
        self._name = name[-1]
        self._uids = uids
        self._partial = folder.partial_name()
        self._explained = explained(folder.shown(name))
        self._directory = directory
        self._is_borrowed = True
        self._descriptor = -1
        try:
            self._descriptor = folder.open_new(directory, self._partial)
        except OSError:
            folder.give_back(directory)
            raise

    def write(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Append all of ``pieces``, without joining them.

        Raises:
            LocalFileError: the disk is full or failed.
        """
        with self._explained:
            for start in range(0, len(pieces), _MOST_BUFFERS):
                _write_all(self._descriptor, pieces[start : start + _MOST_BUFFERS])

    def commit(self) -> None:
        """Make the file durable, then give it its final name.

        Raises:
            NameTaken: a file of that name holds another instance.
            LocalFileError: that failed.
        """
        with self._explained:
            self._folder.make_file_durable(self._descriptor)
            descriptor, self._descriptor = self._descriptor, -1  # closed even where closing fails
            os.close(descriptor)
            is_named = self._folder.rename(self._directory, self._partial, self._name, self._uids)
        if not is_named:
            raise NameTaken("a file of its name holds another instance, and stays as it is")
        self._partial = ""

    def discard(self) -> None:
        """Remove what was not committed. Does nothing after ``commit``."""
        descriptor, self._descriptor = self._descriptor, -1
        _close(descriptor)
        if not self._is_borrowed:
            return
        self._is_borrowed = False
        if self._partial:
            self._directory.remove(self._partial)
            self._partial = ""
        self._folder.give_back(self._directory)


def _close(descriptor: int) -> None:
    """Close a descriptor, ignoring errors."""
    if descriptor >= 0:
        with suppress(OSError):
            os.close(descriptor)


def _make_with_parents(path: Path) -> None:
    """Create a folder and its parents with mode 0700: `Path.mkdir` gives parents the default mode."""
    try:
        path.mkdir(mode=0o700)
    except FileNotFoundError:
        if path.parent == path:
            raise
        _make_with_parents(path.parent)
        try:
            path.mkdir(mode=0o700, exist_ok=True)
        except FileNotFoundError:  # such as in /proc
            raise OSError(errno.ENOTSUP, "no folder can be made there") from None
    except OSError:
        if not path.is_dir():
            raise


def _header_in(descriptor: int, *, whole: bool) -> InstanceHeader | None:
    """Return the header of an open file, and close it; None if it is not a regular file, or not an instance.

    With ``whole``, also None if it is cut off.
    """
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        with FileIO(descriptor, closefd=False) as file:
            beginning, header = told_by_file(file, read_header)
            if not isinstance(header, InstanceHeader) or (whole and missing_in(file, beginning, status.st_size)):
                return None
            return header
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, pieces: Sequence[bytes | memoryview]) -> None:
    if not hasattr(os, "writev"):
        for piece in pieces:
            write_fully(descriptor, piece)
        return
    wanted = sum(map(len, pieces))
    written = os.writev(descriptor, pieces)
    if written < wanted:  # a short write: finish the rest plainly, it is rare
        write_fully(descriptor, b"".join(pieces)[written:])


# --- deleting ---------------------------------------------------------------------------------------------------------


def delete_file(root: Path, parts: Sequence[str], identity: FileIdentity) -> bool:
    """Delete a file, and the folders below the root that this leaves empty; blocks.

    Args:
        root: the folder; it may be a link itself, and stays.
        parts: the names of folders and the file below it.
        identity: that of the file when it was examined. A link is deleted, not its target.

    Returns:
        False if another file is there by now: it was left alone. True if the file is gone, now or before.

    Raises:
        OSError: it cannot be deleted, or a link is in the way.
    """
    if not parts or any(part in {"", ".", ".."} or "/" in part or os.sep in part for part in parts):
        raise NotADirectoryError(20, "this is no place in the folder")
    with ExitStack() as opened:
        folders: list[_Directory] = []
        try:
            for number in range(len(parts)):
                path = root.joinpath(*parts[:number])
                folders.append(_Directory(path, folders[-1] if folders else None))
                opened.callback(folders[-1].close)
            file, above = folders[-1].at(parts[-1])
            if identity_of(os.stat(file, dir_fd=above)) != identity:
                return False
            os.unlink(file, dir_fd=above)
        except FileNotFoundError:
            if not folders:  # even the root is missing: then nothing is known about its files
                raise
            return True
        for part, parent in zip(reversed(parts[:-1]), reversed(folders[:-1]), strict=True):
            name, above = parent.at(part)
            try:
                os.rmdir(name, dir_fd=above)
            except OSError:  # not empty
                break
    return True
