"""Deflated data sets (PS3.5 section A.5) as a stream that can be read by offset, and back again, in bounded memory.

A small file may inflate to terabytes, so only what is needed is inflated, and only the last part of it is kept.
Deflating gives the same bytes each time, so that the length is known before anything is sent.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator

from postdicom_async.dicom.elements import DicomProblem

_IN = 64 * 1024
_OUT = 256 * 1024
# bytes kept behind the current position, so that re-reading an element does not restart from the beginning
_BEHIND = 64 * 1024


class Inflated:
    """The inflated bytes of what ``read`` returns from ``start``. Reading on is cheap, going back starts over."""

    def __init__(self, read: Callable[[int, int], bytes], start: int) -> None:
        self._source = read
        self._source_start = start
        self._rewind()

    def _rewind(self) -> None:
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._source_at = self._source_start
        self._start = 0
        self._data = bytearray()

    def read(self, at: int, size: int) -> bytes:
        """Return ``size`` bytes from ``at``, fewer only at the end.

        Raises:
            DicomProblem: it is damaged or ends early.
        """
        if at < self._start:
            self._rewind()
        while self._start + len(self._data) < at + size and not self._inflater.eof:
            self._data += self._more()
            behind = min(at - _BEHIND - self._start, len(self._data))
            if behind > 0:
                del self._data[:behind]
                self._start += behind
        offset = at - self._start
        return bytes(self._data[offset : offset + size])

    def size(self) -> int:
        """Return how many bytes there are, by reading them all."""
        while not self._inflater.eof:
            self.read(self._start + len(self._data), _OUT)
        return self._start + len(self._data)

    def _more(self) -> bytes:
        packed = self._inflater.unconsumed_tail
        if not packed:
            packed = self._source(self._source_at, _IN)
            self._source_at += len(packed)
        try:
            data = self._inflater.decompress(packed, _OUT)
        except zlib.error:
            data = None
        if data is None:
            raise DicomProblem("its deflated data set is damaged")
        # The input may be used up while zlib still holds output: then more comes without input, or the end.
        if not (packed or data or self._inflater.eof):
            raise DicomProblem("its deflated data set ends early")
        return data


def deflate(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces deflated, of even length in all; the same pieces always give the same bytes."""
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    length = 0
    for piece in pieces:
        packed = deflater.compress(piece)
        length += len(packed)
        yield packed
    rest = deflater.flush()
    yield rest + b"\0" * ((length + len(rest)) % 2)
