"""STOW-RS: take instances from a request as it arrives (PS3.18 section 10.5).

The event loop only collects chunks; every megabyte, and each end of a part, is one call to a thread. Parts are finished
(read, renamed, indexed) while the next ones arrive, a few at a time, and reported in order.
"""

from __future__ import annotations

import asyncio
import errno
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from multipart import MultipartError, MultipartSegment, PushMultipartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from postdicom_async.emulator.answers import DICOM_JSON, DICOM_XML, Refusal, accepted, base_url, dicom_json, native_xml
from postdicom_async.emulator.context import ArchiveContext
from postdicom_async.emulator.dicomweb.accept import LONGEST, MediaRange, parse_media_type, wants_only
from postdicom_async.emulator.store.archive import Parsed, parse_instance
from postdicom_async.emulator.store.attributes import is_uid
from postdicom_async.emulator.store.files import TooLarge, UnreadableHeader, opener
from postdicom_async.emulator.store.header import Json

PIECE = 1024 * 1024
FINISHING_AT_ONCE = 4
DRAINED_AT_MOST = 64 * 1024 * 1024

PROCESSING_FAILURE = 0x0110
SOP_CLASS_NOT_SUPPORTED = 0x0122
OUT_OF_RESOURCES = 0xA700
DATA_SET_MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000


@dataclass(frozen=True)
class StoreResult:
    """What became of one part; ``failure`` is a Failure Reason (PS3.18 section 10.5.3), None when stored."""

    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    retrieve_url: str = ""
    failure: int | None = None


class _RelatedParser(PushMultipartParser):  # type: ignore[misc] # multipart has no types
    """multipart/related: parts have no Content-Disposition, and none of their headers is needed."""

    def _create_segment(self, _headers: list[tuple[str, str]]) -> MultipartSegment:
        return MultipartSegment([])


class _PartFile:
    """One part on its way to disk; the file is only open while a piece is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._discarded = False

    def append(self, pieces: list[bytes]) -> None:
        """Write pieces at the end."""
        with self._lock:
            if not self._discarded:
                with open(self.path, "ab", opener=opener) as file:
                    file.writelines(pieces)

    def discard(self) -> None:
        """Remove the file; a write that a cancelled request left behind comes before this or not at all."""
        with self._lock:
            self._discarded = True
            self.path.unlink(missing_ok=True)


class Stow:
    """The store transaction."""

    def __init__(self, context: ArchiveContext) -> None:
        self._context = context

    async def store(self, request: Request) -> Response:
        """Handle ``POST /``, ``/studies`` and ``/studies/{study}``."""
        study = request.path_params.get("study", "")
        try:
            if study and not is_uid(study):
                raise Refusal(400, "the Study Instance UID in the path is not a UID")
            accept = accepted(request)
            boundary = _boundary(request.headers.get("content-type", ""))
            outcomes = await _Upload(self._context, study, base_url(request)).receive(request, boundary)
        except Refusal:
            await _drain(request)
            raise
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        if not outcomes:
            raise Refusal(400, "the request holds no part")
        return store_answer(outcomes, accept, base_url(request))


class _Upload:
    """One request: its parts, and those that are being finished in threads.

    The event loop holds at most a megabyte of the part that is arriving, and appends it to the part's file in a thread.
    Whatever ends the request, `receive` waits for what the threads still do, and leaves no file behind.
    """

    def __init__(self, context: ArchiveContext, study: str, base: str) -> None:
        self._context = context
        self._study = study
        self._base = base
        self._results: list[asyncio.Future[StoreResult]] = []
        self._pieces: list[bytes] = []
        self._collected = 0
        self._part: _PartFile | None = None

    async def receive(self, request: Request, boundary: str) -> list[StoreResult]:
        """Take the body apart and store each part; return what became of them, in order."""
        try:
            with _RelatedParser(boundary, max_header_size=16 * 1024, max_header_count=32) as parser:
                async for chunk in request.stream():
                    for event in parser.parse(chunk) if chunk and not parser.closed else ():
                        await self._on_event(event)
            return [await result for result in self._results]
        except MultipartError as error:
            raise Refusal(400, f"the multipart body is broken: {error}") from None
        finally:
            await asyncio.gather(*self._results, return_exceptions=True)
            if self._part:
                await self._context.run(self._part.discard)

    async def _on_event(self, event: MultipartSegment | bytes | bytearray | None) -> None:
        """Begin a part, take some of it, or end it."""
        part = self._part
        if isinstance(event, MultipartSegment):
            most = self._context.options.limits.max_parts
            if len(self._results) >= most:
                raise Refusal(413, f"at most {most} instances may come in one request; those before are dealt with")
            self._part = _PartFile(self._context.store.new_incoming())
        elif event is not None:
            self._pieces.append(bytes(event))
            self._collected += len(event)
            if self._collected >= PIECE and part:
                await self._context.run(part.append, self._take_pieces())
        elif part:
            # Backpressure: otherwise a fast client would flood the threads' queue.
            if len(self._results) >= FINISHING_AT_ONCE:
                await self._results[-FINISHING_AT_ONCE]
            self._part = None
            finishing = self._context.run(self._finish, part, self._take_pieces())
            self._results.append(asyncio.ensure_future(finishing))

    def _take_pieces(self) -> list[bytes]:
        pieces, self._pieces, self._collected = self._pieces, [], 0
        return pieces

    def _finish(self, part: _PartFile, pieces: list[bytes]) -> StoreResult:
        """In a thread: write the rest, read the header, take the file into the archive."""
        try:
            part.append(pieces)
            parsed = parse_instance(part.path)
            uid, failure = parsed.uids.sop_instance_uid, self._refused(parsed)
            uids = parsed.sop_class_uid, uid if is_uid(uid) else "", parsed.uids.study_instance_uid
            if failure is not None:
                return StoreResult(*uids, failure=failure)
            self._context.store.add(part.path, parsed)
            study, series, instance = parsed.uids
            return StoreResult(*uids, f"{self._base}/studies/{study}/series/{series}/instances/{instance}")
        except TooLarge:
            return StoreResult(failure=OUT_OF_RESOURCES)
        except UnreadableHeader:
            return StoreResult(failure=CANNOT_UNDERSTAND)
        except OSError as error:
            is_full = error.errno in {errno.ENOSPC, errno.EDQUOT}
            return StoreResult(failure=OUT_OF_RESOURCES if is_full else PROCESSING_FAILURE)
        finally:
            part.discard()

    def _refused(self, parsed: Parsed) -> int | None:
        if not all(is_uid(uid) for uid in parsed.uids):
            return CANNOT_UNDERSTAND
        if self._study and parsed.uids.study_instance_uid != self._study:
            return DATA_SET_MISMATCH
        refused = parsed.sop_class_uid in self._context.options.refused_sop_classes
        return SOP_CLASS_NOT_SUPPORTED if refused else None


def _boundary(content_type: str) -> str:
    """Return the boundary of a multipart/related body of DICOM files.

    Raises:
        Refusal: 400 when it cannot be taken apart, 415 when it is something else.
    """
    if len(content_type) > LONGEST:
        raise Refusal(431, f"Content-Type must be at most {LONGEST} characters")
    media = parse_media_type(content_type)
    if not media.name:
        raise Refusal(400, "Content-Type is missing")
    if media.name != "multipart/related":
        raise Refusal(415, 'Content-Type must be multipart/related; type="application/dicom"')
    if media.parameters.get("type", "application/dicom").lower() != "application/dicom":
        raise Refusal(415, "only parts of type application/dicom are stored")
    boundary = media.parameters.get("boundary", "")
    if not boundary or len(boundary) > 200 or not boundary.isascii() or not boundary.isprintable():
        raise Refusal(400, "the boundary parameter is missing or malformed")
    return boundary


async def _drain(request: Request) -> None:
    """Read what is left of a refused body, within bounds, so that the client gets to read the refusal."""
    # Who waits to be told to send has sent nothing.
    if "100-continue" in request.headers.get("expect", "").lower():
        return
    left = DRAINED_AT_MOST
    with suppress(ClientDisconnect, RuntimeError):  # RuntimeError: the stream has been read already
        async for chunk in request.stream():
            left -= len(chunk)
            if left < 0:
                return


def store_answer(outcomes: list[StoreResult], accept: list[MediaRange], base: str) -> Response:
    """Return the Store Instances Response: 200 all stored, 202 some, 409 none."""
    stored = [outcome for outcome in outcomes if outcome.failure is None]
    failed = [outcome for outcome in outcomes if outcome.failure is not None]
    dataset: Json = {}
    studies = {outcome.study_instance_uid for outcome in stored}
    if len(studies) == 1:
        dataset["00081190"] = {"vr": "UR", "Value": [f"{base}/studies/{studies.pop()}"]}
    if failed:
        dataset["00081198"] = {"vr": "SQ", "Value": [_reference(outcome) for outcome in failed]}
    if stored:
        dataset["00081199"] = {"vr": "SQ", "Value": [_reference(outcome) for outcome in stored]}
    status = 200 if not failed else 202 if stored else 409
    if wants_only(accept, DICOM_XML, DICOM_JSON, "application/json"):
        return Response(native_xml(dataset), status, media_type=DICOM_XML)
    return dicom_json(dataset, status, {"X-Error-Reason": "no instance was stored"} if status == 409 else None)


def _reference(outcome: StoreResult) -> Json:
    """Return one item of a sequence; a part that could not be read has nothing to refer to."""
    values = {
        "00081150": ("UI", outcome.sop_class_uid),
        "00081155": ("UI", outcome.sop_instance_uid),
        "00081190": ("UR", outcome.retrieve_url),
        "00081197": ("US", outcome.failure),
    }
    return {tag: {"vr": vr, "Value": [value]} for tag, (vr, value) in values.items() if value or value == 0}
