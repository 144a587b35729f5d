"""A JSON answer of data sets (QIDO-RS, retrieve metadata), parsed while it arrives.

Data sets are yielded in batches. A small answer is one batch: it is complete, and its connection free, before any of it
is yielded. A batch of a larger one is yielded while the rest is still arriving; if the answer breaks, or another
request needs its connection, the request is repeated, and data sets yielded before are skipped.

State: the answer being read, if any, and a mark of everything yielded before the last batch, so that memory holds one
batch and the marks. The risk is an answer that never ends: one that only repeats data sets is refused (`_endless`), and
nothing is read beyond the number wanted.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread

from postdicom_async.dicom.json_reading import (
    DicomJson,
    EndsEarly,
    JsonReader,
    NotDicomJson,
    NotJson,
    TooMuch,
    data_set_in,
    first_value,
    is_small,
    read_json,
)
from postdicom_async.dicom.tags import JSON_TAG
from postdicom_async.dicomweb.filters import INSTANCE_UID, SERIES_UID, STUDY_UID
from postdicom_async.disk.scratch import Marks
from postdicom_async.errors import ProtocolError
from postdicom_async.face import translated
from postdicom_async.http.problems import NOT_THE_ADDRESS, Problem, server_reason
from postdicom_async.http.retry import Failure
from postdicom_async.paging import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping

    from postdicom_async.http.answer import Answer, StreamedAnswer
    from postdicom_async.http.exchange import Call
    from postdicom_async.http.session import Session

_BATCH_BYTES = 1 << 20
_BATCH_ITEMS = 5000  # small items take twenty times their bytes once parsed
_IDENTITY = (STUDY_UID, SERIES_UID, INSTANCE_UID, JSON_TAG["PatientID"])
_MARK_BYTES = 15  # with Python's overhead, exactly a size that malloc allocates anyway
_READ_ASIDE = 64 << 10


class JsonAnswer:
    """The data sets in the answer to one call.

    Args:
        wanted: how many are wanted; anything beyond is not read.
        see_head: called with the headers of each answer.
        key: the tag of the UID that each should have.

    Attributes:
        was_left: whether more followed after the number wanted.
    """

    def __init__(
        self,
        session: Session,
        call: Call,
        *,
        wanted: int | None,
        key: str,
        see_head: Callable[[Mapping[str, str]], None] = lambda _headers: None,
    ) -> None:
        self._session, self._call, self._key, self._see_head = session, call, key, see_head
        self.was_left: bool = False
        self._left = wanted
        self._given = Marks()
        self._answer: StreamedAnswer | None = None
        self._pieces: AsyncGenerator[bytes, None] | None = None
        self._reader = self._new_reader()
        self._is_first = True  # it is the first answer, so nothing in it was yielded before
        self._skipped = 0  # data sets skipped in a later answer
        self._ended = False
        self._turns = Turns()

    async def batches(self) -> AsyncGenerator[list[DicomJson], None]:
        """Yield the data sets, some at a time.

        Raises:
            ProtocolError: the answer, or part of it, is not DICOM JSON.
            PostdicomError: the archive refused, or the connection failed, and repeats did not help.
        """
        try:
            while not self._ended:
                batch = await self._session.read(self._call, self._attempt)
                if not self._ended:
                    await self._note(batch)
                if self._answer is not None:
                    self._session.pause(self._answer)
                yield batch
        finally:
            self._given.close()
            await self._close()

    async def _note(self, batch: list[DicomJson]) -> None:
        known = self._given.size
        for item in batch:
            self._given.add(await mark_of(item, self._key, self._turns))
        if batch and self._given.size == known:
            raise self._endless().final(attempts=1)

    def _endless(self) -> Problem:
        message = "the archive's answer repeats itself and does not end"
        return Problem(Failure.FINAL, ProtocolError(message, operation=self._call.operation))

    async def _attempt(self, send: Callable[[], Awaitable[StreamedAnswer]]) -> list[DicomJson]:
        try:
            if self._answer is None or not self._session.resume(self._answer):
                await self._close()
                self._answer = await send()
                self._see_head(self._answer.headers)
                self._pieces = self._answer.pieces()
                self._reader = self._new_reader()
                self._is_first = not self._given.size
                self._skipped = 0
            return await self._batch()
        except BaseException:  # a half-read answer cannot be resumed: a repeat starts over
            await self._close()
            raise

    def _new_reader(self) -> JsonReader:
        return JsonReader(largest=self._session.settings.limits.json_item_bytes)

    async def _close(self) -> None:
        answer, pieces, self._answer, self._pieces = self._answer, self._pieces, None, None
        if answer is not None:
            self._session.resume(answer)
            if pieces is not None:
                await pieces.aclose()
            await answer.aclose()

    async def _batch(self) -> list[DicomJson]:
        """Read until a batch is full, enough data sets are there or the answer ends."""
        batch: list[DicomJson] = []
        size, is_over = 0, False
        while size < _BATCH_BYTES and len(batch) < _BATCH_ITEMS and not is_over:
            piece = await anext(self._pieces, None) if self._pieces is not None else None
            size += len(piece or b"")
            is_over = piece is None
            if piece is not None and not await self._take(self._reader.feed(piece), batch):
                is_over = self.was_left = True
        if is_over and (self._left is None or len(batch) < self._left):
            await self._take(self._reader.end(), batch)
        # Counted only now: a batch that breaks is read again.
        self._left = None if self._left is None else self._left - len(batch)
        if is_over:
            self._ended = True
            await self._close()
        return batch

    async def _take(self, found: Iterator[list[Any]], batch: list[DicomJson]) -> bool:
        """Add data sets to a batch; return False if more came than wanted."""
        with translated((NotJson, NotDicomJson), self._problem):
            for items in found:
                for item in items:
                    if self._left is not None and len(batch) >= self._left:
                        return False
                    data_set = data_set_in(item)
                    if self._is_first or await self._is_new(data_set):
                        batch.append(data_set)
                await self._turns()
        return self._left is None or len(batch) < self._left or not self._reader.is_amid

    async def _is_new(self, data_set: DicomJson) -> bool:
        """Return whether a data set of a repeated answer was not yielded before."""
        if self._given.number_of(await mark_of(data_set, self._key, self._turns)) is None:
            return True
        self._skipped += 1
        if self._skipped > 2 * self._given.size:
            raise self._endless()
        return False

    def _problem(self, error: NotJson | NotDicomJson) -> Problem:
        status = self._answer.status if self._answer is not None else None
        operation, private = self._call.operation, (*self._call.private, *self._session.secrets)
        if isinstance(error, TooMuch):
            limit = self._session.settings.limits.json_item_bytes
            message = f"a result is larger than the limit of {limit} bytes, or has too many values"
            return Problem(Failure.FINAL, ProtocolError(message, operation=operation, status=status))
        if isinstance(error, EndsEarly):
            return _ended_early(operation, status)
        return Problem(Failure.FINAL, not_dicom_json(error, operation=operation, status=status, sent=private))


def _ended_early(operation: str, status: int | None) -> Problem:
    message = "the archive's answer ends early"
    return Problem(Failure.LOST, ProtocolError(message, operation=operation, status=status, temporary=True))


NO_DICOM_JSON: Final = f"the archive's answer is not DICOM JSON, or {NOT_THE_ADDRESS}"
"""What is said of an answer that is not even JSON."""


def not_dicom_json(
    error: NotJson | NotDicomJson | None, *, operation: str, status: int | None, sent: tuple[str, ...]
) -> ProtocolError:
    """Return the error for an answer that is not DICOM JSON, with the archive's own words, masked, if there are any."""
    found = error.found if isinstance(error, NotDicomJson) else None
    members = found.items() if isinstance(found, dict) and len(found) < 100 else ()
    words = {key: value[:1024] for key, value in members if isinstance(value, str)}
    reason = server_reason({"content-type": "application/json"}, json.dumps(words).encode(), sent) if words else None
    if found is None:
        message = NO_DICOM_JSON
    else:
        message = f"the archive's answer is not DICOM JSON: what should be a result is {error}"
        message += "" if isinstance(found, dict) else f", or {NOT_THE_ADDRESS}"
    return ProtocolError(message, operation=operation, status=status, reason=reason)


def refuse_cut_json(operation: str) -> Callable[[Answer], Awaitable[Problem | None]]:
    """Return a check for `Session.fetch`: JSON that is cut off is not the whole answer."""

    async def check(answer: Answer) -> Problem | None:
        if answer.body.lstrip()[:1] not in (b"[", b"{") or not 200 <= answer.status < 300:
            return None
        aside = len(answer.body) > _READ_ASIDE
        is_cut = await anyio.to_thread.run_sync(_ends_early, answer.body) if aside else _ends_early(answer.body)
        return _ended_early(operation, answer.status) if is_cut else None

    return check


def _ends_early(body: bytes) -> bool:
    try:
        read_json(body)
    except NotJson as error:
        return isinstance(error, EndsEarly)
    return False


_as_text = json.JSONEncoder().iterencode


async def mark_of(item: DicomJson, key: str, turns: Turns, *, whole: bool = False) -> bytes:
    """Return a few bytes that identify a result (a digest).

    Its UID alone does not: an archive may have it under two patients. Without a UID, or if ``whole``, all attributes
    count.
    """
    await turns()
    digest = blake2b(digest_size=_MARK_BYTES)
    if not whole and first_value(item, key):
        for tag in _IDENTITY:
            value = first_value(item, tag)
            text = str(value)[:1024] if isinstance(value, str | int) else ""
            digest.update(text.encode("utf-8", "backslashreplace") + b"\n")
    elif is_small(item):
        digest.update(repr(item).encode())
    else:
        for piece in _as_text(item):
            digest.update(piece.encode())
            await turns()
    return digest.digest()
