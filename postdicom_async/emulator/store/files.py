"""Private files, files that are read only in pieces of known size, and deflated data sets unpacked within bounds."""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path
from typing import BinaryIO

INFLATED_LIMIT = 128 * 1024 * 1024
"""A deflated data set that unpacks to more bytes is not read: nothing in it has a place in the file, so that all of it
would be in memory, and a thousand bytes can come of one."""

_PIECE = 256 * 1024
_FILE, _FOLDER = 0o600, 0o700  # a umask can only take more away


def opener(path: str, flags: int) -> int:
    """Open a file for `open`; one that it creates gets mode 0600."""
    return os.open(path, flags, _FILE)


def make_file(path: Path) -> None:
    """Make an empty file unless it is there; private in any case."""
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, _FILE))
    only_mine(path)


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing; existing ones stay as they are."""
    if not path.is_dir():
        make_folder(path.parent)  # `Path.mkdir` would give those above the usual mode
        path.mkdir(_FOLDER, exist_ok=True)


def only_mine(path: Path) -> None:
    """Deny all other users an existing file or folder."""
    path.chmod(_FOLDER if path.is_dir() else _FILE)


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
    """A file that is only read in pieces of known size."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read so many bytes, less only at the end.

        Raises:
            IsDeflated: all that is left was asked for.
        """
        if size is None or size < 0:
            raise IsDeflated(self.tell())
        return super().read(size)


def inflate(file: BinaryIO, start: int) -> bytes:
    """Unpack what is behind an offset (PS3.5 section A.5).

    Raises:
        UnreadableHeader: it is damaged or ends early; `TooLarge` when it is more than `INFLATED_LIMIT`.
    """
    file.seek(start)
    inflater, inflated = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
    while not inflater.eof:
        packed = inflater.unconsumed_tail or file.read(_PIECE)
        try:
            piece = inflater.decompress(packed, _PIECE)
        except zlib.error:
            raise UnreadableHeader("its deflated data set is damaged") from None
        # The input may be used up while some output is held back: then there is more without input, or the end.
        if not (packed or piece or inflater.eof):
            raise UnreadableHeader("its deflated data set ends early")
        inflated += piece
        if len(inflated) > INFLATED_LIMIT:
            raise TooLarge(f"its deflated data set unpacks to more than {INFLATED_LIMIT} bytes")
    return bytes(inflated)
