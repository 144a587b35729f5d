"""Files that pydicom may read only in pieces of known size, and deflated data sets unpacked within bounds."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from postdicom_async.dicom.deflated import Inflated
from postdicom_async.dicom.elements import DicomProblem

if TYPE_CHECKING:
    from typing import BinaryIO

__all__ = ["INFLATED_LIMIT", "IsDeflated", "SizedFile", "TooLarge", "UnreadableHeader", "inflate"]

INFLATED_LIMIT = 128 * 1024 * 1024
"""A deflated data set that unpacks to more bytes is not read: nothing in it has a place in the file, so that all of it
would be in memory, and a thousand bytes can come of one."""

_PIECE = 256 * 1024


class UnreadableHeader(ValueError):
    """The bytes are not a DICOM file that can be read as far as its pixel data."""


class TooLarge(UnreadableHeader):
    """A deflated data set would fill the memory."""


class IsDeflated(Exception):
    """pydicom wants everything from here on in one piece: a deflated data set, which it would unpack without bound."""

    def __init__(self, start: int) -> None:
        super().__init__(start)
        self.start = start


class SizedFile(io.BufferedReader):
    """A file that is only read by pieces of known size."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read so many bytes, less only at the end.

        Raises:
            IsDeflated: all that is left was asked for.
        """
        if size is None or size < 0:
            raise IsDeflated(self.tell())
        return super().read(size)


def inflate(file: BinaryIO, start: int) -> bytes:
    """Unpack what is behind an offset.

    Raises:
        TooLarge: it is more than `INFLATED_LIMIT`.
    """

    def read(at: int, size: int) -> bytes:
        file.seek(at)
        return file.read(size)

    inflated, pieces, length = Inflated(read, start), [], 0
    try:
        while piece := inflated.read(length, _PIECE):
            pieces.append(piece)
            length += len(piece)
            if length > INFLATED_LIMIT:
                raise TooLarge(f"its deflated data set unpacks to more than {INFLATED_LIMIT} bytes")
    except DicomProblem as problem:
        reason = problem.reason
    else:
        return b"".join(pieces)
    raise UnreadableHeader(reason)
