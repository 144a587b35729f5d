"""multipart/related (RFC 2387) as DICOMweb uses it: a reader that is pushed bytes, and a writer of exact length. Pure.

The reader turns any damage, cut or excess into `MultipartDamage`; a part it has ended with `PartEnd` is whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

from multipart import MultipartError, MultipartSegment, PushMultipartParser

from postdicom_async.dicomweb.media_types import MediaType, parse_media_type

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["MultipartDamage", "PartEnd", "PartEvent", "PartReader", "PartStart", "part_framing", "reader_for"]

_HEADER_BYTES = 8 * 1024
_HEADERS = 32
_LONGEST_BOUNDARY = 256  # RFC 2046 says 70


class MultipartDamage(Exception):
    """The body is not what its Content-Type says, or ends early. Its text holds nothing of the body."""


@dataclass(frozen=True, slots=True)
class PartStart:
    """A part begins. Header names are lower case."""

    headers: dict[str, str] = field(repr=False)

    @property
    def media_type(self) -> MediaType:
        """The part's Content-Type."""
        return parse_media_type(self.headers.get("content-type"))


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The part that began last is whole."""


PartEvent: TypeAlias = PartStart | bytes | PartEnd


class PartReader(Protocol):
    """Takes a body apart as it arrives."""

    def feed(self, chunk: bytes) -> Iterator[PartEvent]:
        """Return the events in the next bytes; run the iterator to its end before feeding more."""
        ...

    def close(self) -> Iterator[PartEvent]:
        """Say that the body is over; raise `MultipartDamage` if it ended early."""
        ...


def reader_for(content_type: str, *, end_is_marked: bool, max_parts: int) -> PartReader:
    """Return the reader for a body.

    ``end_is_marked`` says whether HTTP itself tells the end of the body from a cut. A multipart body has its closing
    boundary for that; a single part has nothing else, and is refused without.

    Raises:
        MultipartDamage: the Content-Type cannot be read.
    """
    kind = parse_media_type(content_type)
    if not kind.is_multipart:
        return _SinglePart(content_type, end_is_marked=end_is_marked)
    boundary = kind.parameters.get("boundary")
    return _Related(boundary, max_parts) if boundary else _BoundaryFinder(max_parts)


class _RelatedParser(PushMultipartParser):  # type: ignore[misc]
    """The form-data parser at its documented extension point: parts of any kind, without a name."""

    def _create_segment(self, headerlist: list[tuple[str, str]]) -> MultipartSegment:
        return MultipartSegment(headerlist)


class _Related:
    def __init__(self, boundary: str, max_parts: int) -> None:
        if len(boundary) > _LONGEST_BOUNDARY:
            raise MultipartDamage("the boundary is far too long")
        try:
            self._parser = _RelatedParser(
                boundary.encode("latin-1", "replace"),
                max_header_size=_HEADER_BYTES,
                max_header_count=_HEADERS,
                max_segment_count=max_parts,
                header_charset="latin-1",
            )
        except MultipartError:
            raise MultipartDamage("the boundary cannot be used") from None

    def feed(self, chunk: bytes) -> Iterator[PartEvent]:
        damage: str | None = None
        try:
            for event in self._parser.parse(chunk):
                if isinstance(event, bytes):
                    yield event
                elif event is None:
                    yield PartEnd()
                else:
                    yield PartStart({name.lower(): value for name, value in event.headerlist})
        except MultipartError as error:
            damage = type(error).__name__
        if damage is not None:
            raise MultipartDamage(f"the multipart body is damaged or beyond its limits ({damage})")

    def close(self) -> Iterator[PartEvent]:
        damaged = False
        try:
            self._parser.close()
        except MultipartError:
            damaged = True
        if damaged:
            raise MultipartDamage("the answer ended before its closing boundary")
        return iter(())


class _BoundaryFinder:
    """For servers that forget the boundary parameter: the first line that looks like one is it."""

    def __init__(self, max_parts: int) -> None:
        self._max_parts = max_parts
        self._seen = b""
        self._reader: _Related | None = None

    def feed(self, chunk: bytes) -> Iterator[PartEvent]:
        if self._reader is not None:
            yield from self._reader.feed(chunk)
            return
        self._seen += chunk
        found = re.match(rb"(?:\r\n)*--([^\r\n]{1,%d}?)[ \t]*\r\n" % _LONGEST_BOUNDARY, self._seen)
        if found is not None:
            self._reader = _Related(found[1].decode("latin-1"), self._max_parts)
            seen, self._seen = self._seen, b""
            yield from self._reader.feed(seen)
        elif len(self._seen) > 2 * _LONGEST_BOUNDARY:
            raise MultipartDamage("a multipart answer without a boundary")

    def close(self) -> Iterator[PartEvent]:
        if self._reader is None:
            raise MultipartDamage("a multipart answer without a boundary")
        return self._reader.close()


class _SinglePart:
    """A body that is one instance by itself, as some servers answer for one."""

    def __init__(self, content_type: str, *, end_is_marked: bool) -> None:
        self._headers = {"content-type": content_type}
        self._end_is_marked = end_is_marked
        self._started = False

    def feed(self, chunk: bytes) -> Iterator[PartEvent]:
        if not self._started:
            self._started = True
            yield PartStart(self._headers)
        yield chunk

    def close(self) -> Iterator[PartEvent]:
        if not self._started:
            return iter(())
        if not self._end_is_marked:
            raise MultipartDamage("nothing marks the end of the answer, so that it cannot be told from a cut one")
        return iter((PartEnd(),))


# --- writing --------------------------------------------------------------------------------------------------------


def part_framing(boundary: str, count: int) -> Sequence[bytes]:
    """Return ``count + 1`` pieces: what stands before each part, and what stands after the last one.

    Constant headers: nothing of a file's content or name goes into them.
    """
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode("ascii")
    following = b"\r\n" + head
    return [head, *[following] * (count - 1), f"\r\n--{boundary}--\r\n".encode("ascii")]
