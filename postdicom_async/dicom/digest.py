"""A digest of an instance: 16 bytes that tell its data set and how it is written from any other. Pure."""

from __future__ import annotations

import hashlib
from typing import Final

from postdicom_async.dicom.header import data_set_start

DIGEST_BYTES: Final = 16
_META_BYTES: Final = 64 * 1024  # the file meta information is far smaller
_FIRST_LOOK: Final = 1024


class DataSetDigest:
    """BLAKE2b over a transfer syntax and the data set in it, fed with the bytes of a file as they come.

    The preamble and the file meta information (group 0002) do not count: archives rewrite them. In data that is not a
    DICOM file, or whose data set starts after more than 64 KiB, every byte counts. How the bytes are split into pieces
    makes no difference, and at most 64 KiB of them are held.
    """

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._head: bytearray | None = bytearray()
        self._next_look = _FIRST_LOOK

    def update(self, data: bytes | memoryview) -> None:
        """Feed the next bytes of the file."""
        if self._head is not None:
            taken = _META_BYTES - len(self._head)
            self._head += data[:taken]
            data = memoryview(data)[taken:]
            if len(self._head) >= self._next_look:
                self._next_look = min(2 * len(self._head), _META_BYTES)
                self._look(at_end=False)
        self._hash.update(data)

    def digest(self) -> bytes:
        """Return the digest, after the last byte."""
        if self._head is not None:
            self._look(at_end=True)
        return self._hash.digest()

    def _look(self, *, at_end: bool) -> None:
        assert self._head is not None  # noqa: S101 - asked before
        found = data_set_start(bytes(self._head))
        if found is None and not at_end and len(self._head) < _META_BYTES:
            return
        syntax, start = found or ("", 0)
        self._hash.update(syntax.encode("latin-1", "replace") + b"\0")
        self._hash.update(self._head[start:])
        self._head = None
