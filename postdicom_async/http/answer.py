"""An answer while it arrives: bounded, watched for silence, never longer or shorter than it announced."""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import httpx

from postdicom_async.errors import ProtocolError
from postdicom_async.face import translated
from postdicom_async.http.exchange import Clock, ReadWatchdog, quiet_http_logs
from postdicom_async.http.problems import Problem, connection_failed, problem_of_exception
from postdicom_async.http.repeat import CallPatience, deadline_passed, least_rate_of
from postdicom_async.http.retry import Failure
from postdicom_async.settings import Limits, Timeouts

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from postdicom_async.errors import PostdicomError

_CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. Header names are looked up in any case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def content_type(self) -> str:
        """The Content-Type header, empty when there is none."""
        return self.headers.get("content-type", "")


class StreamedAnswer:
    """The head of an answer, and its body as it arrives.

    It holds a slot and a connection until it is closed, and gives each back exactly once. Its body is read once, by one
    task.

    Attributes:
        status: the HTTP status.
        headers: looked up in any case.
        length: Content-Length, None if the server gave none.
        received: bytes of the body so far, as transferred (still encoded).

    ``patience`` is that of the call, and ``in_vain`` is called when a wait for the answer ended in a time-out.
    ``ended`` is called once, when it is closed, with status, bytes received, and what its body failed with.
    """

    def __init__(
        self,
        response: httpx.Response,
        *,
        operation: str,
        kind: str,
        limits: Limits,
        timeouts: Timeouts,
        clock: Clock,
        patience: CallPatience,
        in_vain: Callable[[], None],
        release: Callable[[], None],
        ended: Callable[[int, int, PostdicomError | None], None] | None = None,
    ) -> None:
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.length: int | None = _length(response.headers.get("content-length"))
        self.received: int = 0
        self._response = response
        self._operation = operation
        self._kind = kind
        self._limits = limits
        self._timeouts = timeouts
        self._patience = patience
        self._note_silence = in_vain
        self._watch = ReadWatchdog(clock, timeouts.idle_read)
        self._rate = least_rate_of(timeouts, timeouts.idle_read)
        self._release: Callable[[], None] | None = release
        self._ended = ended
        self._failed: PostdicomError | None = None

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def content_type(self) -> str:
        """The Content-Type header, empty when there is none."""
        return self.headers.get("content-type", "")

    @property
    def end_is_marked(self) -> bool:
        """Whether the end of the body can be told from a broken connection: by a length, by chunks, or by HTTP/2."""
        # Only as the last coding, and in exactly this spelling: otherwise parsers read until the connection ends.
        chunked = self.headers.get("transfer-encoding", "").lower().rpartition(",")[2].strip(" ") == "chunked"
        return self.length is not None or chunked or self._response.http_version.startswith("HTTP/2")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Give the connection back, or drop it when the body was not read to its end; and free the slot.

        A separate task does it: a cancellation in the middle would leave the connection in the pool for good, and no
        shield holds off asyncio's own. The slot is freed when it is done.
        """
        release, self._release = self._release, None
        if release is None:
            return
        if self._ended is not None:
            self._ended(self.status, self.received, self._failed)
            self._ended = self._failed = None
        close_at_once = getattr(self._response.stream, "close_at_once", None)  # our own transport has it
        if close_at_once is not None and close_at_once():
            release()
            return
        closing = start(self._close())
        closing.add_done_callback(lambda _: release())
        await asyncio.shield(closing)

    async def _close(self) -> None:
        # Errors do not matter here: the answer has been read or is not wanted.
        with suppress(Exception), quiet_http_logs():
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._response.aclose()

    def keep_deadline(self) -> None:
        """Apply the call's deadline to the waits in `chunks`; time that the caller spends in between does not count."""
        self._watch.patience = self._patience

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives.

        Raises:
            ConnectionFailed: it broke, stalled, was too slow, or ended before its announced length.
            ProtocolError: its Content-Encoding was not requested, or it decompresses to far too much.
        """
        with translated(Problem, lambda problem: problem.final(attempts=1)):
            async for chunk in self.pieces():
                yield chunk

    async def read_all(self, cap: int) -> Answer:
        """Read the whole body. Raises `Problem`, so that the retry loop sees it."""
        pieces: list[bytes] = []
        size = 0
        async for chunk in self.pieces():
            size += len(chunk)
            if size > cap:
                message = f"the answer is larger than the limit of {cap} bytes; narrow the request or raise the limit"
                raise self._refused(message)
            pieces.append(chunk)
        return Answer(self.status, self.headers, b"".join(pieces))

    async def read_some(self, cap: int) -> bytes:
        """Read up to ``cap`` bytes of an error's body; if reading fails, return what came before."""
        found = b""
        try:
            async for chunk in self.pieces():
                found += chunk
                if len(found) >= cap:
                    break
        except Problem:
            pass
        return found[:cap]

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield as `chunks` does, but raise `Problem`, so that the retry loop sees it."""
        decode = self._decoder()
        # The stream itself: aiter_raw() refuses answers that a mock transport created in one piece.
        raw = aiter(cast("AsyncIterable[bytes]", self._response.stream))
        # httpx's transport lets errors of TLS through.
        failing = translated((TimeoutError, httpx.HTTPError, ssl.SSLError), self._problem_of)
        while True:
            with failing, self._watch:
                chunk = await anext(raw, None)
            if chunk is None:
                break
            self.received += len(chunk)
            if self._rate.is_too_slow(len(chunk), self._watch.waited) and self.received != self.length:
                raise self._in_vain(f"the archive sends less than {self._timeouts.least_rate:g} bytes a second")
            data = decode(chunk)
            if data:
                yield data
            # the rest of what the chunk decompresses to, giving other tasks turns in between
            while data := decode(b""):
                await asyncio.sleep(0)
                yield data
        self._patience.heard(self._kind)
        if self.length is not None and self.received < self.length:
            raise self._broken("the answer ended before its announced length")
        decode(None)

    def _problem_of(self, error: Exception) -> Problem:
        if isinstance(error, TimeoutError):
            if self._watch.by_deadline:
                late = deadline_passed(self._operation, self._timeouts.deadline, sent=True)
                return self._noted(Problem(Failure.LOST, late))
            return self._in_vain("the archive stopped sending")
        if isinstance(error, httpx.HTTPError):
            return self._noted(problem_of_exception(self._operation, error))
        return self._broken("the connection broke")

    def _decoder(self) -> Callable[[bytes | None], bytes]:
        """Return the function that undoes Content-Encoding; call it with ``b""`` for pending output, last with None.

        Only gzip is requested, and only for JSON, but some proxies compress whatever they like. Only encodings that
        zlib knows are undone, and only up to a ratio.
        """
        encoding = self.headers.get("content-encoding", "identity").strip().lower()
        if encoding in {"identity", ""}:
            return lambda chunk: chunk or b""
        if encoding not in {"gzip", "x-gzip", "deflate"}:
            raise self._refused("the archive packed its answer unasked")
        may_be_empty = self.end_is_marked or self.status == HTTPStatus.NO_CONTENT
        return _Inflater(self._limits.expansion, self._broken, self._refused, may_be_empty=may_be_empty)

    def _in_vain(self, message: str) -> Problem:
        self._note_silence()
        return self._broken(message)

    def _broken(self, message: str) -> Problem:
        return self._noted(Problem(Failure.LOST, connection_failed(self._operation, message, sent=True)))

    def _refused(self, message: str) -> Problem:
        return self._noted(Problem(Failure.FINAL, ProtocolError(message, operation=self._operation)))

    def _noted(self, problem: Problem) -> Problem:
        self._failed = problem.error
        return problem


_FREE_EXPANSION = 1 << 20  # bytes; small texts may compress extremely well
_UNPACKED_AT_ONCE = 1 << 20  # bytes: some milliseconds of work


class _Inflater:
    """Decompresses zlib or gzip piecewise, with a bound on the total output.

    Call it with compressed bytes, then with ``b""`` until nothing more comes, and with None at the end.
    """

    def __init__(
        self, ratio: int, broken: Callable[[str], Problem], refused: Callable[[str], Problem], *, may_be_empty: bool
    ) -> None:
        self._zlib = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        self._ratio = ratio
        self._broken = broken
        self._refused = refused
        self._may_be_empty = may_be_empty
        self._in = 0
        self._out = 0

    def __call__(self, chunk: bytes | None) -> bytes:
        if chunk is None:
            if not self._zlib.eof and (self._in or not self._may_be_empty):
                raise self._broken("the packed answer ended early")
            return b""
        self._in += len(chunk)
        allowed = _FREE_EXPANSION + self._in * self._ratio
        wanted = min(_UNPACKED_AT_ONCE, allowed - self._out + 1)
        try:
            data = self._zlib.decompress(self._zlib.unconsumed_tail + chunk, wanted)
        except zlib.error:
            raise self._refused("the packed answer is damaged") from None
        self._out += len(data)
        if self._zlib.unused_data:  # a second gzip member: no server sends one, and nothing may be dropped silently
            raise self._refused("the packed answer is damaged")
        if self._out > allowed:
            raise self._refused("the packed answer unpacks to far more than it should")
        return data


def _length(value: str | None) -> int | None:
    return int(value) if value and value.isascii() and value.isdigit() and len(value) < 19 else None


# --- tasks ------------------------------------------------------------------------------------------------------------


_running: set[asyncio.Task[None]] = set()  # an event loop holds only weak references to its tasks


def start(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Start the work in a task of its own, which is kept alive until it is done."""
    task = asyncio.get_running_loop().create_task(work)
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task
