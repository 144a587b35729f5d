"""STOW-RS (PS3.18 section 10.5): one request, its body, and what became of each instance in it.

The body has the instances byte for byte, as the parts of one multipart message. Its length is exact and its headers are
constant, so that nothing of a file's content or name leaks into them; it can be opened again for a repeat.

A batch is delivered in as many requests as it takes. State of a delivery, all of it in the event loop:

* ``_open``: instances without a verdict. `_Delivery._settle` removes each exactly once: for what an answer says, for
  what checking the archive shows, or, when the delivery ends early, for what is known then.
* ``_left``: those with bytes that left in a request nobody has answered: the archive may have them. All others have
  certainly not arrived.
* ``_lost``: those sent in a request whose answer was lost: they may be there whatever is said of them later.

The risk is calling an instance stored that is not, or failed that is stored: so an answer is believed only about the
instances it names, and not even about those where the archive may hold another instance with their UID.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeAlias

import anyio
import anyio.to_thread

from postdicom_async.bodies import BytesBody
from postdicom_async.dicomweb import confirm
from postdicom_async.dicomweb.confirm import MAY_CHANGE, Confirmation, Holding, OnePatient
from postdicom_async.dicomweb.dialects import DICOM_JSON, Route
from postdicom_async.dicomweb.store_answer import KEPT_WHAT_IT_HAD, StoreVerdict, verdicts_of
from postdicom_async.disk.files import HeldFile
from postdicom_async.errors import ConnectionFailed, LocalFileError, PostdicomError, ProtocolError, ServerError
from postdicom_async.http.exchange import Call
from postdicom_async.http.problems import server_reason
from postdicom_async.http.retry import Repeat
from postdicom_async.results import Status
from postdicom_async.transfer.at_once import UnderWay, back_off

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from postdicom_async.dicomweb.retrieve import Retrieval
    from postdicom_async.disk.sources import Usable
    from postdicom_async.http.answer import Answer
    from postdicom_async.http.session import Session

_SMALL = 64 * 1024  # bytes: a part up to this size that is in memory is sent together with others
_GATHERED = 128 * 1024

Reached: TypeAlias = "Callable[[Usable, int], None]"
"""Called with an instance and how many of its bytes have been sent; a repeat starts over."""


@dataclass(slots=True)
class RelatedBody:
    """A multipart/related body over instances, opened anew for every attempt.

    Attributes:
        parts: the instances, sent byte for byte.
        reached: called as instance bytes are sent.
        broken: the part whose source could not be read, after ``open`` raised for it.
        begun: whether a piece was requested, which happens once there is a connection to send it on.
        length: the exact Content-Length.
    """

    parts: Sequence[Usable]
    reached: Reached
    boundary: str = field(default_factory=lambda: secrets.token_hex(16))
    broken: Usable | None = None
    begun: bool = False
    length: int = field(init=False)

    def __post_init__(self) -> None:
        """Compute the length once; it is asked for several times."""
        framing = part_framing(self.boundary, len(self.parts))
        self.length = sum(map(len, framing)) + sum(part.body.length for part in self.parts)

    @property
    def content_type(self) -> str:
        """The request's Content-Type. ``type`` is quoted for .NET servers, ``boundary`` is not for old Orthanc."""
        return f'multipart/related; type="application/dicom"; boundary={self.boundary}'

    async def open(self) -> AsyncGenerator[bytes, None]:
        """Yield the body from its first byte."""
        *heads, tail = part_framing(self.boundary, len(self.parts))
        self.broken = None
        self.begun = True
        for part in self.parts:
            # it was read into memory when it was identified; the file may have changed since
            if isinstance(part.body, HeldFile):
                with self._breaking(part):
                    await part.body.look()
        gathered: list[bytes] = []  # small parts are sent together: a write for each costs more than its bytes
        small: list[Usable] = []
        size = 0
        for head, part in zip(heads, self.parts, strict=True):
            gathered.append(head)
            body = part.body
            data = body.data if isinstance(body, HeldFile | BytesBody) and body.length <= _SMALL else None
            if data is not None:
                gathered.append(data)
                small.append(part)
                size += body.length
                if size < _GATHERED:
                    continue
            yield b"".join(gathered)
            self._are_out(small)
            gathered, small, size = [], [], 0
            if data is None:
                async with aclosing(self._pieces(part)) as pieces:
                    async for piece in pieces:
                        yield piece
                        del piece  # not kept alive while the next is read
        yield b"".join((*gathered, tail))
        self._are_out(small)

    def _are_out(self, parts: list[Usable]) -> None:
        for part in parts:
            self.reached(part, part.body.length)

    async def _pieces(self, part: Usable) -> AsyncGenerator[bytes, None]:
        sent = 0
        with self._breaking(part):
            async for piece in part.body.open():
                sent += len(piece)
                yield piece
                del piece
                self.reached(part, sent)

    @contextmanager
    def _breaking(self, part: Usable) -> Iterator[None]:
        """Note the part whose source could not be read."""
        try:
            yield
        except LocalFileError:
            self.broken = part
            raise


def part_framing(boundary: str, count: int) -> Sequence[bytes]:
    """Return ``count + 1`` pieces: one to precede each part, and one to follow the last.

    The headers are constant: nothing of a file's content or name goes into them.
    """
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode("ascii")
    following = b"\r\n" + head
    return [head, *[following] * (count - 1), f"\r\n--{boundary}--\r\n".encode("ascii")]


def multipart_of(instances: Sequence[bytes]) -> tuple[BytesBody, str]:
    """Return a multipart/related body over instances in memory, and its Content-Type, as `RelatedBody` makes them."""
    boundary = secrets.token_hex(16)
    *heads, tail = part_framing(boundary, len(instances))
    pieces = [piece for pair in zip(heads, instances, strict=True) for piece in pair]
    body = BytesBody(b"".join((*pieces, tail)))
    return body, f'multipart/related; type="application/dicom"; boundary={boundary}'


OPERATION = "store instances"
# Statuses whose answer may still name single instances, or that a smaller request may avoid.
_READ_STATUSES = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE})
_NOT_NOW = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_IN_ARCHIVE = frozenset({Status.STORED, Status.WARNED})
_READ_ASIDE = 64 << 10  # bytes; a larger answer is parsed in a thread, so that the event loop continues


@dataclass(frozen=True, slots=True)
class _Exchange:
    """The result of one request.

    Attributes:
        verdicts: what the answer says, by SOP Instance UID.
        status: the HTTP status, None if no answer came.
        reason: the server's words about the whole request.
        lost: the request left and no answer came: what the archive holds is unknown.
    """

    verdicts: dict[str, StoreVerdict]
    status: int | None = None
    reason: str | None = None
    lost: bool = False

    @property
    def refused_whole(self) -> bool:
        """Whether the archive refused the request itself, so that a smaller one might pass."""
        return self.status in _READ_STATUSES


class Storing:
    """Sends batches and finds out what became of each instance.

    Args:
        retrieval: of the archive; instances that an answer leaves open are retrieved.
        study_instance_uid: the study of all instances; it goes into the path if the dialect has a route for it.
        not_taken: called for each request that the archive temporarily refuses, does not answer in time or cuts off.
        under_way: the store requests in flight at this archive, including those of other uploads.
        one_patient: asked about the studies that something was stored into; None to ask nothing.
    """

    def __init__(
        self,
        retrieval: Retrieval,
        study_instance_uid: str | None,
        not_taken: Callable[[], None] | None = None,
        under_way: UnderWay | None = None,
        one_patient: OnePatient | None = None,
    ) -> None:
        self.session: Session = retrieval.session
        self.under_way: UnderWay = under_way or UnderWay()
        self.confirmation: Confirmation = Confirmation(retrieval)
        self.not_taken: Callable[[], None] | None = not_taken
        self.one_patient: OnePatient | None = one_patient
        in_study = study_instance_uid is not None and Route.STORE_IN_STUDY in retrieval.dialect.routes
        route = Route.STORE_IN_STUDY if in_study else Route.STORE
        self.path: str = retrieval.dialect.path(route, study=study_instance_uid or "")

    async def deliver(
        self, batch: Sequence[Usable], reached: Reached, settle: Callable[[Usable, StoreVerdict], None]
    ) -> None:
        """Send a batch until each of its instances has a verdict; ``settle`` is called once for each of them.

        Raises:
            PostdicomError: the archive cannot be worked with at all (connection, credentials, address).
        """
        delivery = _Delivery(self, batch, reached, settle)
        try:
            await delivery.run()
        except BaseException as error:
            delivery.abandon(error)
            raise


class _Delivery:
    """One batch on its way; its state is explained at the top of this file. Use it once."""

    def __init__(
        self,
        storing: Storing,
        batch: Sequence[Usable],
        reached: Reached,
        settle: Callable[[Usable, StoreVerdict], None],
    ) -> None:
        self._storing = storing
        self._session = storing.session
        self._tell = settle
        self._reached = reached
        self._open = {_uid(one): one for one in batch}
        self._left: set[str] = set()
        self._lost: set[str] = set()

    async def run(self) -> None:
        """Send; check the archive for what an answer leaves open, and send again what the archive does not hold.

        A batch refused as a whole is split, so that one bad instance does not keep the others out. The archive is not
        checked in that case: what was just refused is not there, unless an earlier answer was lost.
        """
        # with the number of its round: the pieces of a split batch count their own
        parts = [(list(self._open.values()), 1)]
        while parts:
            part, round_ = parts.pop()
            exchange = await self._exchange(part)
            undecided = await self._take_verdicts(part, exchange)
            if exchange.refused_whole and len(part) > 1:
                parts.extend(([one], round_) for one in undecided)
                continue
            if exchange.refused_whole:
                reason = exchange.reason or f"the archive refused it (status {exchange.status})"
                await self._settle_refused(undecided, StoreVerdict(Status.FAILED, reason=reason))
                continue
            findings = await self._storing.confirmation.findings(undecided) if undecided else {}
            is_last = round_ >= self._session.settings.retry.max_attempts
            again: list[Usable] = []
            for one in undecided:
                finding = findings[_uid(one)]
                if finding is Holding.SAME:
                    verdict = StoreVerdict(Status.STORED, reason=confirm.CONFIRMED)
                    is_out = await self._is_out_of_reach(one, verdict)
                    self._settle(one, confirm.stored_twofold(verdict, one) if is_out else verdict)
                elif is_last or not (exchange.lost or finding in MAY_CHANGE):
                    self._settle(one, confirm.never_confirmed(finding, lost=exchange.lost))
                else:
                    again.append(one)
            if again:
                parts.append((again, round_ + 1))
                await back_off(self._session.settings.retry, round_ - 1)

    async def _take_verdicts(self, part: list[Usable], exchange: _Exchange) -> list[Usable]:
        """Settle what the answer decides; return what it leaves open.

        If the archive may hold another instance with that UID, its word is not enough: it says "already there" of
        whatever it has, and it may have kept the original of an anonymised copy and report success. Nor is its refusal
        enough after a lost answer: it may refuse what it has stored by then.
        """
        undecided: list[Usable] = []
        doubtful: list[tuple[Usable, StoreVerdict]] = []
        for one in part:
            verdict = exchange.verdicts.get(_uid(one))
            if _uid(one) not in self._open:  # already settled: its source could not be read
                continue
            if verdict is None or verdict.status is Status.UNCONFIRMED:
                undecided.append(one)
            elif await self._is_out_of_reach(one, verdict):
                self._settle(one, confirm.stored_twofold(verdict, one))
            elif verdict.reason_code in KEPT_WHAT_IT_HAD or (
                _uid(one) in self._lost if verdict.status is Status.FAILED else one.keeps_uid
            ):
                doubtful.append((one, verdict))
            else:
                self._settle(one, verdict)
        await self._settle_by_looking(doubtful)
        return undecided

    async def _exchange(self, part: list[Usable]) -> _Exchange:
        """Make one request; a source that cannot be read is settled and the rest is sent without it."""
        while part:
            body = RelatedBody(part, self._reached)
            broken: LocalFileError | None = None
            try:
                return await self._attempt(body)
            except LocalFileError as error:
                broken = error
            if body.broken is None:
                raise broken
            # A source that comes from another archive and broke on its way may arrive whole another time.
            status = Status.FAILED if broken.temporary else Status.UNREADABLE
            self._settle(body.broken, StoreVerdict(status, reason=broken.message, temporary=broken.temporary))
            part.remove(body.broken)
        return _Exchange({})

    async def _attempt(self, body: RelatedBody) -> _Exchange:
        sent = {_uid(part) for part in body.parts}
        arrived_before = sent & self._left
        self._left |= sent  # assumed until the opposite is known: if this is cancelled, nobody will find out
        lost: PostdicomError | None = None
        try:
            answer = await self._answer(body)
        except PostdicomError as error:
            if not _may_have_arrived(error):
                self._left -= sent - arrived_before
                raise
            lost = error
        finally:
            if not body.begun:  # cancelled before any byte left: then it has certainly not arrived
                self._left -= sent - arrived_before
        if lost is not None:
            self._lost |= sent
            return _Exchange(verdicts_of("", b"", sent), lost.status, lost.reason, lost=True)
        words = answer.body[: self._session.settings.limits.error_bytes]
        reason = None if 200 <= answer.status < 300 else server_reason(answer.headers, words, self._session.secrets)
        read = partial(verdicts_of, answer.content_type, answer.body, sent)
        verdicts = await anyio.to_thread.run_sync(read) if len(answer.body) > _READ_ASIDE else read()
        return _Exchange(verdicts, answer.status, reason)

    async def _answer(self, body: RelatedBody) -> Answer:
        """Return the answer to one request. One refused while others are accepted waits for its turn, however long."""
        under_way = self._storing.under_way
        call = Call(
            OPERATION,
            "POST",
            self._storing.path,
            Repeat.STORE,
            headers={"Content-Type": body.content_type, "Accept": DICOM_JSON},
            body=body,
            accepted=_READ_STATUSES,
            not_taken=self._storing.not_taken,
        )
        while True:
            taken = False
            refusal: PostdicomError | None = None
            under_way.begins()
            try:
                answer = await self._session.fetch(call, cap=self._session.settings.limits.json_bytes)
                taken = True
            except PostdicomError as error:
                refusal = error
            finally:
                under_way.ends(taken=taken)
            if refusal is None:
                return answer
            if refusal.status not in _NOT_NOW:
                raise refusal
            body.begun = False  # if cancelled while it waits, it has certainly not arrived
            if not await under_way.another_was_taken():
                raise refusal

    # --- the end of an instance -------------------------------------------------------------------------------------

    def _settle(self, one: Usable, verdict: StoreVerdict) -> None:
        del self._open[_uid(one)]
        self._tell(one, verdict)

    async def _is_out_of_reach(self, one: Usable, verdict: StoreVerdict) -> bool:
        """Whether an instance is stored in a study that the archive may return no more."""
        one_patient = self._storing.one_patient
        return one_patient is not None and verdict.status in _IN_ARCHIVE and await one_patient.is_broken(one, sent=True)

    async def _settle_refused(self, instances: list[Usable], verdict: StoreVerdict) -> None:
        """Settle instances refused as a whole; an earlier request without an answer may still have stored them."""
        for one in instances:
            if _uid(one) not in self._lost:
                self._settle(one, verdict)
        await self._settle_by_looking([(one, verdict) for one in instances if _uid(one) in self._lost])

    async def _settle_by_looking(self, doubtful: list[tuple[Usable, StoreVerdict]]) -> None:
        if doubtful:
            findings = await self._storing.confirmation.findings([one for one, _ in doubtful])
            for one, verdict in doubtful:
                self._settle(one, confirm.told_apart(one, verdict, findings[_uid(one)]))

    def abandon(self, error: BaseException) -> None:
        """Settle what is still open when the delivery ends early."""
        words = error.message if isinstance(error, PostdicomError) else "the upload was ended"
        temporary = not isinstance(error, PostdicomError) or error.temporary
        refused = isinstance(error, PostdicomError) and error.status is not None
        what = "refused" if refused else "not sent"
        not_there = StoreVerdict(Status.FAILED, reason=f"{what}: {words}", temporary=temporary)
        maybe_there = StoreVerdict(Status.UNCONFIRMED, reason=f"sent and not confirmed: {words}", temporary=True)
        for uid, one in list(self._open.items()):
            self._settle(one, maybe_there if uid in self._left else not_there)


def _uid(instance: Usable) -> str:
    return instance.header.uids.sop_instance_uid


def _may_have_arrived(error: PostdicomError) -> bool:
    if isinstance(error, ConnectionFailed):
        return error.may_have_arrived
    if isinstance(error, ProtocolError):
        return True  # there was an answer, but it cannot be read
    is_server_failure = isinstance(error, ServerError) and error.temporary
    return is_server_failure and error.status != HTTPStatus.SERVICE_UNAVAILABLE
