"""The requests that a scripted server received, and the replies of its script."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

__all__ = ["Headers", "Reply", "Request"]

Headers = Mapping[str, str] | Sequence[tuple[str, str]]
RequestFraming = Literal["none", "content-length", "chunked"]
ReplyFraming = Literal["content-length", "chunked", "until-close"]


@dataclass(frozen=True)
class Request:
    """One request as received.

    Attributes:
        target: the request target, exactly as sent.
        headers: names and values in the order they came; names keep their case.
        body: every body byte received, unchunked; empty if the server was told not to keep bodies.
        size: body bytes received, kept or not.
        sha256: of those bytes, in hex.
        complete: the body arrived whole.
        framing: how the request announced its body.
        connection: which accepted connection it came on, from 0.

    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    framing: RequestFraming
    connection: int
    body: bytes = b""
    size: int = 0
    sha256: str = hashlib.sha256().hexdigest()
    complete: bool = False

    @cached_property
    def path(self) -> str:
        """The target without its query, percent-decoded."""
        return unquote(urlsplit(self.target).path)

    @cached_property
    def query(self) -> list[tuple[str, str]]:
        """The query's names and values, decoded."""
        return parse_qsl(urlsplit(self.target).query, keep_blank_values=True)

    def all_headers(self, name: str) -> list[str]:
        """Every value of the header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str, default: str = "") -> str:
        """Return the header's first value."""
        return next(iter(self.all_headers(name)), default)


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, or one way to fail to answer.

    Attributes:
        body: the bytes, or an iterable of them for an answer too large to hold.
        framing: how the end of the body is marked.
        declared_length: Content-Length to claim instead of the body's.
        chunk_size: bytes in one write, and in one chunk when chunked.
        pause: seconds between two writes.
        delay_before: seconds between the end of the request and the answer.
        cut_after: close after so many body bytes; 0 closes after the headers.
        stall_after: send so many body bytes, then nothing, with the connection open.
        reset: end the connection with an RST instead of a FIN.
        answer_before_body: answer without reading the request's body, then close.
        lingering: after answering early, read and discard for a moment so that the answer can be seen.
        drop_after_request: read the whole request, then close without an answer.
        drop_mid_request_after: close after so many bytes of the request's body.
        stop_reading_after: read so many bytes of the request's body, then nothing, with the connection open.
        read_rate: bytes of the request's body read per second.
        keep_alive: leave the connection open afterwards.
        silent: read the request, then never answer.
        raw: write exactly these bytes in place of an answer.
        again: after ``raw``, write these bytes again and again, ``pause`` seconds apart, for ever.
        reason: reason phrase instead of the usual one.

    """

    status: int = 200
    headers: Headers = ()
    body: bytes | Iterable[bytes] = b""
    framing: ReplyFraming = "content-length"
    declared_length: int | None = None
    chunk_size: int = 65536
    pause: float = 0.0
    delay_before: float = 0.0
    cut_after: int | None = None
    stall_after: int | None = None
    reset: bool = False
    answer_before_body: bool = False
    lingering: bool = True
    drop_after_request: bool = False
    drop_mid_request_after: int | None = None
    stop_reading_after: int | None = None
    read_rate: int | None = None
    keep_alive: bool = True
    silent: bool = False
    raw: bytes | None = None
    again: bytes | None = None
    reason: str | None = None

    @property
    def acts_on_the_body(self) -> bool:
        """Whether the reply must be chosen before the request's body is read."""
        limits = (self.drop_mid_request_after, self.stop_reading_after, self.read_rate)
        return self.answer_before_body or any(limit is not None for limit in limits)

    @property
    def closes(self) -> bool:
        """Whether the connection is closed afterwards."""
        early = self.cut_after is not None or self.answer_before_body or self.raw is not None
        return early or self.framing == "until-close" or not self.keep_alive

    def head(self) -> bytes:
        """Status line and headers."""
        lines = [f"HTTP/1.1 {self.status} {_phrase(self.status) if self.reason is None else self.reason}"]
        lines += [f"{name}: {value}" for name, value in [*_pairs(self.headers), *self._framing_headers()]]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def _framing_headers(self) -> list[tuple[str, str]]:
        named = {name.lower() for name, _ in _pairs(self.headers)}
        added: list[tuple[str, str]] = []
        if self.framing == "chunked":
            added.append(("Transfer-Encoding", "chunked"))
        elif self.framing == "content-length" and self.status != HTTPStatus.NO_CONTENT:
            added.append(("Content-Length", str(self._length())))
        if self.closes and self.cut_after is None:
            added.append(("Connection", "close"))
        return [pair for pair in added if pair[0].lower() not in named]

    def _length(self) -> int:
        if self.declared_length is not None:
            return self.declared_length
        if not isinstance(self.body, bytes):
            raise TypeError("an answer from an iterable needs declared_length or chunked framing")
        return len(self.body)


def _pairs(headers: Headers) -> list[tuple[str, str]]:
    return list(headers.items() if isinstance(headers, Mapping) else headers)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
