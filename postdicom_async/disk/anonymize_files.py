"""The two files of an anonymisation: a table of patients that is read, and a map of UIDs that is written.

The map is private and says which UIDs were replaced by which. It is CSV, one line per pair, appended and made durable
before the instance is sent, so that even after a kill every line in it is true. One process writes it at a time. A line
cut short by a crash of the machine or a full disk is removed by the next process that opens the file; its instance was
not sent. A pair may occur twice: only the latest are remembered, to save memory.
"""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Self

from postdicom_async.dicom.anonymize.identities import LONGEST_LINE, PatientRows
from postdicom_async.disk.files import explained, write_fully
from postdicom_async.disk.private_files import locked, make_folder_durable
from postdicom_async.disk.sources import path_of
from postdicom_async.errors import LocalFileError, UsageError
from postdicom_async.face import public_face

if TYPE_CHECKING:
    from types import TracebackType

    from postdicom_async.results import InstanceUids

_WHAT: Final = "the map of UIDs"
_HEADER: Final = b"kind,old,new\n"
_KINDS: Final = ("study", "series", "instance")
_REMEMBERED: Final = 10_000
_LONGEST_LINE: Final = 256
_FLAGS: Final = (
    os.O_RDWR | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
)
_open_here: Final[set[tuple[int, int, int]]] = set()
"""Process, device and inode of the maps that are open, for the words of an error alone; the lock is the file's."""


@public_face
class UidMap:
    """The map of replaced Study, Series and SOP Instance UIDs: a CSV file with the columns ``kind``, ``old``, ``new``.

    ::

        with UidMap("uids.csv") as uids:
            await client.upload(folder, anonymize=Anonymization(remap_uids=True, secret=secret, uid_map=uids))

    Whoever has it can reverse the replacement, so it is readable for its owner alone (0600). An existing one is
    continued.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the file, created if it does not exist.

        Raises:
            UsageError: it is not a path, others can read the file, or it is not such a map.
            LocalFileError: it cannot be opened, another process writes it, or this one has it open already.
        """
        self._lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._written = self._synced = 0
        self._recent: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._file = -1
        self._which: tuple[int, int, int] | None = None
        place = path_of(path)
        with explained(_WHAT):
            self._file = os.open(place, _FLAGS | os.O_CREAT, 0o600)
            try:
                self._begin()
                os.fsync(self._file)
                make_folder_durable(place.parent)
            except BaseException:
                self.close()
                raise

    def __repr__(self) -> str:
        """Show no path."""
        return "UidMap()"

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; every line in it is durable."""
        with self._sync_lock, self._lock:
            if self._file >= 0:
                if self._which is not None:
                    _open_here.discard(self._which)
                os.close(self._file)
            self._file = -1

    def record(self, old: InstanceUids, new: InstanceUids) -> None:
        """Record the new UIDs of an instance, and return when that is durable. Blocking; any thread may call.

        Raises:
            LocalFileError: it cannot be written; the file is as it was.
        """
        with explained(_WHAT):
            with self._lock:
                self._append(old, new)
                ticket = self._written
            with self._sync_lock:  # the first thread makes the lines of all waiting threads durable
                if self._synced < ticket:
                    self._synced = self._sync()

    def _sync(self) -> int:
        written = self._written
        try:
            os.fsync(self._file)
        except OSError:
            with self._lock:
                self._recent.clear()  # it is unknown what is in the file: pairs are written once more
            raise
        return written

    def _append(self, old: InstanceUids, new: InstanceUids) -> None:
        pairs = [pair for pair in zip(_KINDS, old, new, strict=True) if pair[1] != pair[2]]
        fresh = [pair for pair in pairs if (pair[0], pair[1]) not in self._recent]
        if self._file < 0:
            raise LocalFileError(f"{_WHAT} is closed")
        if not fresh:
            return
        lines = "".join(f"{kind},{before},{after}\n" for kind, before, after in fresh).encode("ascii")
        size = os.fstat(self._file).st_size
        try:
            write_fully(self._file, lines)
        except OSError:
            os.ftruncate(self._file, size)  # so that no half line precedes the next one
            raise
        self._written += 1
        for kind, before, _ in fresh:
            self._recent[kind, before] = None
        while len(self._recent) > _REMEMBERED:
            self._recent.popitem(last=False)

    def _begin(self) -> None:
        """Check that the file may be continued; remove an incomplete line at its end."""
        status = os.fstat(self._file)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{_WHAT}: give the path of a file")
        if os.name == "posix" and status.st_mode & 0o077:
            raise UsageError(f"{_WHAT}: others can read it; run chmod 600 on it")
        which = (os.getpid(), status.st_dev, status.st_ino)
        if not locked(self._file):
            here = "this process has it open already: close it, or use it in `with`"
            raise LocalFileError(f"{_WHAT}: {here if which in _open_here else 'another process writes it'}")
        self._which = which
        _open_here.add(which)
        end = os.fstat(self._file).st_size
        if self._read(0, len(_HEADER)) != _HEADER[:end]:
            raise UsageError(f"{_WHAT}: there is another file in its place")
        if end < len(_HEADER):
            os.ftruncate(self._file, 0)
            os.write(self._file, _HEADER)
            return
        start = max(0, end - _LONGEST_LINE)
        os.ftruncate(self._file, start + self._read(start, end - start).rindex(b"\n") + 1)

    def _read(self, at: int, size: int) -> bytes:
        os.lseek(self._file, at, os.SEEK_SET)
        return os.read(self._file, size)


# --- a table of patients ----------------------------------------------------------------------------------------------


@public_face
class PatientTable(PatientRows):
    """The new values of each patient's elements, from a CSV file.

    The first line names the columns, with ``,`` or ``;`` between them: ``PatientID``, and if wanted
    ``IssuerOfPatientID``, say who a patient is now; every other column is a keyword or tag, and its cells are the new
    values. New IDs are in a second column ``PatientID``. An empty value empties the element::

        PatientID,PatientID,PatientName,PatientBirthDate
        4711,S-001,STUDY^ONE,

    Without a column ``IssuerOfPatientID`` an ID is one patient, whoever issued it; with it, both must be as in the
    file. Spaces around a value do not count. Text is UTF-8.

    Attributes:
        columns: the tags of the elements that are set.
        by_issuer: whether patients are identified by Issuer of Patient ID too.
    """

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str]) -> PatientTable:
        """Read a file whole: 100,000 patients take one or two seconds and 20 MB.

        Raises:
            UsageError: it is not such a table, a value is not valid for its column, or a patient is in it twice. The
                message names line and column, and never a value.
            LocalFileError: it cannot be read.
        """
        with explained("the table of patients"), path_of(path).open("rb") as lines:
            return cls(iter(lambda: lines.readline(LONGEST_LINE + 1), b""))
