"""STOW-RS (PS3.18 section 10.5): one request, its body, and what became of each instance in it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio

from postdicom_async.dicom.json_model import first_value
from postdicom_async.dicomweb.dialects import Dialect, Route
from postdicom_async.dicomweb.find import find
from postdicom_async.dicomweb.media_types import DICOM_JSON
from postdicom_async.dicomweb.multipart import part_framing
from postdicom_async.dicomweb.search import Search
from postdicom_async.dicomweb.store_answer import KEPT_WHAT_IT_HAD, Verdict, verdicts_of
from postdicom_async.errors import ConnectionFailed, LocalFileError, PostdicomError, ProtocolError, ServerError
from postdicom_async.http.problems import server_reason
from postdicom_async.http.retry import Repeat
from postdicom_async.http.session import Call, Session
from postdicom_async.results import StoreStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Container, Sequence

    from postdicom_async.disk.sources import Usable

__all__ = ["RelatedBody", "StoreRequest", "Storing", "Tally"]

_OPERATION = "store instances"

# Statuses that may still tell of single instances, or that a smaller request may pass.
_READ_STATUSES = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE})
_DOUBTED = frozenset({StoreStatus.STORED, StoreStatus.WARNED, StoreStatus.UNCONFIRMED})
_CONFIRM_AFTER = (0.0, 1.0, 3.0)  # archives index with a delay
_SOP_INSTANCE_UID = "00080018"


class Tally:
    """Instance bytes that were sent, each told of once however often it is sent."""

    def __init__(self, on_bytes: Callable[[int], None]) -> None:
        self._on_bytes = on_bytes
        self._told: dict[str, int] = {}

    def reached(self, instance: Usable, sent: int) -> None:
        """Note that the first ``sent`` bytes of an instance are out."""
        told = self._told.get(_uid(instance), 0)
        if sent > told:
            self._told[_uid(instance)] = sent
            self._on_bytes(sent - told)


@dataclass(slots=True)
class RelatedBody:
    """A multipart/related body over instances, opened anew for every attempt.

    Attributes:
        parts: the instances, sent byte for byte.
        tally: told of instance bytes as they are sent.
        broken: the part whose source could not be read, after ``open`` raised for it.
    """

    parts: Sequence[Usable]
    tally: Tally
    boundary: str = field(default_factory=lambda: secrets.token_hex(16))
    broken: Usable | None = None

    @property
    def content_type(self) -> str:
        """The request's Content-Type. ``type`` is quoted for .NET servers, ``boundary`` is not for old Orthanc."""
        return f'multipart/related; type="application/dicom"; boundary={self.boundary}'

    @property
    def length(self) -> int:
        """The exact Content-Length."""
        return sum(map(len, part_framing(self.boundary, len(self.parts)))) + sum(p.body.length for p in self.parts)

    async def open(self) -> AsyncIterator[bytes]:
        """Yield the body from its first byte."""
        *heads, tail = part_framing(self.boundary, len(self.parts))
        self.broken = None
        for head, part in zip(heads, self.parts, strict=True):
            yield head
            sent = 0
            try:
                async for piece in part.body.open():
                    yield piece
                    sent += len(piece)
                    self.tally.reached(part, sent)
            except LocalFileError:
                self.broken = part
                raise
        yield tail


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """What one request came to.

    Attributes:
        verdicts: by SOP Instance UID.
        status: the HTTP status, None when no answer came.
        reason: the server's words about the whole request.
        lost: the request left and no answer came: what the archive holds is unknown.
    """

    verdicts: dict[str, Verdict]
    status: int | None
    reason: str | None
    lost: bool

    @property
    def refused_whole(self) -> bool:
        """Whether the archive refused the request itself, so that a smaller one might pass."""
        return self.status in _READ_STATUSES


class Storing:
    """Sends batches and finds out what became of each instance."""

    def __init__(self, session: Session, dialect: Dialect, study_instance_uid: str | None) -> None:
        self._session = session
        self._dialect = dialect
        if study_instance_uid is not None and Route.STORE_IN_STUDY in dialect.routes:
            self._path = dialect.path(Route.STORE_IN_STUDY, study=study_instance_uid)
        else:
            self._path = dialect.path(Route.STORE)

    async def deliver(self, batch: Sequence[Usable], on_bytes: Callable[[int], None]) -> dict[str, Verdict]:
        """Send a batch until each of its instances has a verdict; return them by SOP Instance UID.

        A lost answer is resolved by a search and only what is missing is sent again. A batch refused whole is taken
        apart, so that one bad instance does not keep the others out; there a search would prove nothing, for it also
        finds an older copy of what was just refused. What was anonymised under its old UID is looked for beforehand as
        well: where the archive has that UID already, nothing it says afterwards tells the copy from the original.

        Raises:
            PostdicomError: the archive cannot be worked with at all (connection, credentials, address).
        """
        there = await self._listed([one for one in batch if one.keeps_uid]) or set()
        settled: dict[str, Verdict] = {}
        tally = Tally(on_bytes)
        pending = [list(batch)]
        rounds = 0
        while pending:
            part = pending.pop()
            request = await self._request(part, tally, settled)
            settled.update({uid: v for uid, v in request.verdicts.items() if v.status is not StoreStatus.UNCONFIRMED})
            open_ones = [one for one in part if _uid(one) not in settled]
            if open_ones and not request.refused_whole:
                settled.update(await self._found_by_search([one for one in open_ones if _uid(one) not in there]))
                open_ones = [one for one in open_ones if _uid(one) not in settled]
            if request.refused_whole and len(part) > 1:
                pending.extend([one] for one in open_ones)
            elif request.lost and open_ones and rounds + 1 < self._session.settings.retry.max_attempts:
                rounds += 1
                pending.append(open_ones)
            else:
                settled.update({_uid(one): _unsettled(request) for one in open_ones})
        return {_uid(one): _told_apart(one, settled[_uid(one)], there) for one in batch}

    async def _request(self, part: list[Usable], tally: Tally, settled: dict[str, Verdict]) -> StoreRequest:
        """Make one request; a source that cannot be read is settled and the rest is sent without it."""
        while part:
            body = RelatedBody(part, tally)
            broken: LocalFileError | None = None
            try:
                return await self._attempt(body)
            except LocalFileError as error:
                broken = error
            if body.broken is None:
                raise broken
            settled[_uid(body.broken)] = Verdict(StoreStatus.UNREADABLE, reason=broken.message)
            part.remove(body.broken)
        return StoreRequest({}, None, None, lost=False)

    async def _attempt(self, body: RelatedBody) -> StoreRequest:
        sent = [_uid(part) for part in body.parts]
        call = Call(
            _OPERATION,
            "POST",
            self._path,
            Repeat.STORE,
            headers={"Content-Type": body.content_type, "Accept": DICOM_JSON},
            body=body,
            accepted=_READ_STATUSES,
        )
        lost: PostdicomError | None = None
        try:
            answer = await self._session.fetch(call, cap=self._session.settings.limits.json_bytes)
        except (ConnectionFailed, ProtocolError, ServerError) as error:
            if not _may_have_arrived(error):
                raise
            lost = error
        if lost is not None:
            return StoreRequest(verdicts_of("", b"", sent), lost.status, lost.reason, lost=True)
        reason = (
            None if 200 <= answer.status < 300 else server_reason(answer.headers, answer.body, self._session.secrets)
        )
        return StoreRequest(verdicts_of(answer.content_type, answer.body, sent), answer.status, reason, lost=False)

    async def _found_by_search(self, instances: list[Usable]) -> dict[str, Verdict]:
        """Ask the archive which of these it lists; one search for each series they belong to."""
        found: dict[str, Verdict] = {}
        missing = list(instances)
        for wait in _CONFIRM_AFTER if missing else ():
            await anyio.sleep(wait)
            listed = await self._listed(missing)
            if listed is None:
                break
            confirmed = Verdict(StoreStatus.STORED, reason="confirmed by a search")
            found.update({_uid(one): confirmed for one in missing if _uid(one) in listed})
            missing = [one for one in missing if _uid(one) not in listed]
            if not missing:
                break
        return found

    async def _listed(self, instances: list[Usable]) -> set[str] | None:
        """Return the SOP Instance UIDs of the series concerned; None when the archive cannot be asked.

        One alone is asked for by its UID: stores of one instance each would otherwise list a series as often as it
        has instances.
        """
        listed: set[str] = set()
        wanted: dict[tuple[str, str], list[str]] = {}
        for one in instances:
            wanted.setdefault(one.header.uids[:2], []).append(_uid(one))
        for (study, series), uids in wanted.items():
            search = Search(
                "confirm stored instances",
                self._dialect.path(Route.SEARCH_INSTANCES_OF_SERIES, study=study, series=series),
                ((_SOP_INSTANCE_UID, uids[0]),) if len(uids) == 1 else (),
                key=_SOP_INSTANCE_UID,
                page=self._session.settings.limits.page_size if self._dialect.pages else None,
                dialect=self._dialect,
            )
            try:
                async for page in find(self._session, search, None, []):
                    listed.update(str(first_value(item, _SOP_INSTANCE_UID)) for item in page)
            except PostdicomError as error:
                if error.status != HTTPStatus.NOT_FOUND:
                    return None
        return listed


def _uid(instance: Usable) -> str:
    return instance.header.uids.sop_instance_uid


def _may_have_arrived(error: PostdicomError) -> bool:
    if isinstance(error, ConnectionFailed):
        return error.may_have_arrived
    if isinstance(error, ProtocolError):
        return True  # there was an answer, only it cannot be read
    return error.temporary and error.status != HTTPStatus.SERVICE_UNAVAILABLE


def _told_apart(instance: Usable, verdict: Verdict, there: Container[str]) -> Verdict:
    """Return a verdict that holds for an anonymised instance, where its original may be what the archive has."""
    was_there = _uid(instance) in there or verdict.reason_code in KEPT_WHAT_IT_HAD
    if not (instance.keeps_uid and was_there and verdict.status in _DOUBTED):
        return verdict
    reason = "the archive had an instance with this SOP Instance UID, perhaps the original, and may have kept that"
    return Verdict(StoreStatus.UNCONFIRMED, verdict.reason_code, f"{reason}; anonymise the UIDs too")


def _unsettled(request: StoreRequest) -> Verdict:
    """Return the verdict on an instance that neither the answer nor a search confirms."""
    if request.refused_whole:
        return Verdict(StoreStatus.FAILED, reason=request.reason or f"the archive refused it (status {request.status})")
    if request.lost:
        return Verdict(StoreStatus.UNCONFIRMED, reason="the answer was lost each time and a search does not find it")
    return Verdict(StoreStatus.UNCONFIRMED, reason="the answer does not name it and a search does not find it")
