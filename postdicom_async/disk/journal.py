"""A file with one JSON line for each instance as it ends: even after the process was killed, every line in it is true.

Each line is appended in a single write, so that lines never mix and a killed process loses none that was reported. A
line cut short by a crash of the machine or a full disk is ended with a line break by the next run; readers skip it.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postdicom_async.disk.files import explained, local_file_error, write_fully
from postdicom_async.errors import LocalFileError, UsageError
from postdicom_async.face import translated

if TYPE_CHECKING:
    from postdicom_async.results import Outcome

_UNWRITABLE = "the report cannot be written"


class Journal:
    """The lines of one transfer, appended to a file that is made readable for its owner alone (0600).

    Attributes:
        problem: the first error of writing a line; nothing is written after it.
    """

    def __init__(self, path: str | os.PathLike[str], *, with_paths: bool = False) -> None:
        """Open the file.

        Raises:
            UsageError: it is not a path.
            LocalFileError: it cannot be opened for writing.
        """
        if not isinstance(path, str | os.PathLike) or "\0" in os.fsdecode(path):
            raise UsageError("give the path of a file", argument="report")
        self.problem: LocalFileError | None = None
        self._with_paths = with_paths
        with explained(_UNWRITABLE):
            self._file = _opened(path)
            self._close_torn_line()

    def _close_torn_line(self) -> None:
        status = os.fstat(self._file)
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return
        os.lseek(self._file, status.st_size - 1, os.SEEK_SET)
        if os.read(self._file, 1) != b"\n":
            os.write(self._file, b"\n")

    def write(self, outcome: Outcome) -> None:
        """Append the line of an outcome. An error is kept in ``problem``: it must not hide the outcomes of others."""
        if self.problem is not None:
            return
        line = json.dumps(line_of(outcome, with_path=self._with_paths), separators=(",", ":")).encode() + b"\n"
        try:
            write_fully(self._file, line)
        except OSError as error:
            self.problem = local_file_error(_UNWRITABLE, error)

    def close(self) -> None:
        """Make all lines durable and close the file."""
        try:
            if stat.S_ISREG(os.fstat(self._file).st_mode):  # a pipe or a terminal has nothing to make durable
                os.fsync(self._file)
        except OSError as error:
            self.problem = self.problem or local_file_error(_UNWRITABLE, error)
        finally:
            os.close(self._file)


def _opened(path: str | os.PathLike[str]) -> int:
    """Open the file for appending, created if it does not exist.

    A pipe is opened only for writing, and without blocking: held open for reading too, it would fill up and never show
    that its reader has gone, or that there is none.
    """
    flags = os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
    try:
        is_pipe = stat.S_ISFIFO(Path(os.fsdecode(path)).stat().st_mode)
    except FileNotFoundError:
        is_pipe = False
    if not is_pipe:
        return os.open(path, flags | os.O_RDWR, 0o600)
    with translated(OSError, _where_nobody_reads):
        file = os.open(path, flags | os.O_WRONLY | os.O_NONBLOCK)
    os.set_blocking(file, True)
    return file


def _where_nobody_reads(error: OSError) -> OSError | None:
    return OSError(errno.ENXIO, "nobody reads the pipe") if error.errno == errno.ENXIO else None


def line_of(outcome: Outcome, *, with_path: bool) -> dict[str, Any]:
    """Return the fields of an outcome's line. A path may contain a patient's name: it is included only on request."""
    study, series, instance = outcome.uids or (None, None, None)
    fields = {
        "status": outcome.status.value,
        "study_instance_uid": study,
        "series_instance_uid": series,
        "sop_instance_uid": instance,
        "bytes": outcome.size,
        "reason_code": outcome.reason_code,
        "reason": outcome.reason,
        "patient_order_uuid": outcome.patient_order_uuid,
        "temporary": outcome.temporary or None,
        "path": outcome.where if with_path else None,
    }
    return {name: value for name, value in fields.items() if value is not None}
