"""STOW-RS (PS3.18 section 10.5): one request, its body, and what became of each instance in it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from postdicom_async.dicomweb.confirm import Confirmation, Holding
from postdicom_async.dicomweb.dialects import Route
from postdicom_async.dicomweb.media_types import DICOM_JSON
from postdicom_async.dicomweb.related_body import Reached, RelatedBody
from postdicom_async.dicomweb.store_answer import KEPT_WHAT_IT_HAD, Verdict, verdicts_of
from postdicom_async.errors import ConnectionFailed, LocalFileError, PostdicomError, ProtocolError, ServerError
from postdicom_async.http.problems import server_reason
from postdicom_async.http.retry import Repeat
from postdicom_async.http.session import Call
from postdicom_async.results import Status
from postdicom_async.transfer.at_once import UnderWay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postdicom_async.dicomweb.retrieve import Retrieval
    from postdicom_async.disk.sources import Usable
    from postdicom_async.http.answer import Answer
    from postdicom_async.http.session import Session

__all__ = ["CONFIRMED", "OPERATION", "Storing"]

OPERATION = "store instances"

# Statuses that may still tell of single instances, or that a smaller request may pass.
_READ_STATUSES = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE})
_NOT_NOW = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_LOOK_AFTER = (0.0, 1.0, 3.0)  # seconds between looks into the archive
_READ_ASIDE = 64 << 10  # a larger answer is read in a thread, so that the event loop goes on
_MAY_CHANGE = frozenset({Holding.ABSENT, Holding.DIFFERENT})
CONFIRMED: Final = "retrieved and found to be what was sent"
"""The reason of an instance that no answer vouched for."""


@dataclass(frozen=True, slots=True)
class _Exchange:
    """What one request came to.

    Attributes:
        verdicts: what the answer says, by SOP Instance UID.
        status: the HTTP status, None when no answer came.
        reason: the server's words about the whole request.
        lost: the request left and no answer came: what the archive holds is unknown.
    """

    verdicts: dict[str, Verdict]
    status: int | None = None
    reason: str | None = None
    lost: bool = False

    @property
    def refused_whole(self) -> bool:
        """Whether the archive refused the request itself, so that a smaller one might pass."""
        return self.status in _READ_STATUSES


class Storing:
    """Sends batches and finds out what became of each instance.

    ``not_taken`` is called for each request that the archive refuses for now, does not answer in time or cuts off.
    """

    def __init__(
        self,
        retrieval: Retrieval,
        study_instance_uid: str | None,
        not_taken: Callable[[], None] | None = None,
        under_way: UnderWay | None = None,
    ) -> None:
        self.session: Session = retrieval.session
        self._not_taken = not_taken
        self.under_way: UnderWay = under_way or UnderWay()
        self.confirmation: Confirmation = Confirmation(retrieval)
        dialect = retrieval.dialect
        if study_instance_uid is not None and Route.STORE_IN_STUDY in dialect.routes:
            self._path = dialect.path(Route.STORE_IN_STUDY, study=study_instance_uid)
        else:
            self._path = dialect.path(Route.STORE)

    async def deliver(
        self, batch: Sequence[Usable], reached: Reached, settle: Callable[[Usable, Verdict], None]
    ) -> None:
        """Send a batch until each of its instances has a verdict; ``settle`` is called once for each of them.

        Raises:
            PostdicomError: the archive cannot be worked with at all (connection, credentials, address).
        """
        await _Delivery(self, batch, reached, settle).run()

    def call(self, body: RelatedBody) -> Call:
        """Return the request that stores a body."""
        return Call(
            OPERATION,
            "POST",
            self._path,
            Repeat.STORE,
            headers={"Content-Type": body.content_type, "Accept": DICOM_JSON},
            body=body,
            accepted=_READ_STATUSES,
            not_taken=self._not_taken,
        )


class _Delivery:
    """One batch on its way. Use it once.

    Every instance is in ``_open`` until `_settle` takes it out, which happens exactly once: by an answer that names it,
    by a look into the archive, or, when the delivery ends early, by what is known then. ``_left`` are those of which
    bytes went out in a request that nobody answered: the archive may have them. All others certainly did not arrive.
    """

    def __init__(
        self,
        storing: Storing,
        batch: Sequence[Usable],
        reached: Reached,
        settle: Callable[[Usable, Verdict], None],
    ) -> None:
        self._storing = storing
        self._session = storing.session
        self._tell = settle
        self._reached = reached
        self._open = {_uid(one): one for one in batch}
        self._left: set[str] = set()
        self._lost: set[str] = set()  # of which a whole answer was lost: they may be there, whatever is said later

    async def run(self) -> None:
        """Send until everything is settled."""
        try:
            await self._send_all()
        except BaseException as error:
            self._abandon(error)
            raise

    async def _send_all(self) -> None:
        """Send; look for what an answer leaves open, and send again what the archive does not hold.

        A batch refused whole is taken apart, so that one bad instance does not keep the others out. There the archive
        is not looked into: what was just refused is not there, unless an earlier answer was lost.
        """
        parts = [(list(self._open.values()), 1)]  # with the number of the round: what is taken apart has its own
        while parts:
            part, round_ = parts.pop()
            exchange = await self._exchange(part)
            undecided = await self._take_verdicts(part, exchange)
            if exchange.refused_whole and len(part) > 1:
                parts.extend(([one], round_) for one in undecided)
                continue
            if exchange.refused_whole:
                reason = exchange.reason or f"the archive refused it (status {exchange.status})"
                await self._refuse(undecided, Verdict(Status.FAILED, reason=reason))
                continue
            findings = await self._findings(undecided)
            is_last = round_ >= self._session.settings.retry.max_attempts
            again: list[Usable] = []
            for one in undecided:
                if findings[_uid(one)] is Holding.SAME:
                    self._settle(one, Verdict(Status.STORED, reason=CONFIRMED))
                elif is_last or not (exchange.lost or findings[_uid(one)] in _MAY_CHANGE):
                    self._settle(one, _never_confirmed(exchange, findings[_uid(one)]))
                else:
                    again.append(one)
            if again:
                parts.append((again, round_ + 1))
                await anyio.sleep(self._back_off(round_))

    async def _refuse(self, instances: list[Usable], verdict: Verdict) -> None:
        """Settle what was refused whole; an earlier request of which no answer came may have stored it all the same."""
        doubtful = [one for one in instances if _uid(one) in self._lost]
        findings = await self._findings(doubtful)
        for one in instances:
            self._settle(one, _told_apart(one, verdict, findings[_uid(one)]) if one in doubtful else verdict)

    def _back_off(self, rounds: int) -> float:
        retry = self._session.settings.retry
        return random.random() * min(retry.cap, retry.base * 2.0 ** (rounds - 1))  # noqa: S311 - jitter

    async def _take_verdicts(self, part: list[Usable], exchange: _Exchange) -> list[Usable]:
        """Settle what the answer says; return what it leaves open.

        Where the archive may hold another instance with that UID, its word is not enough: it says "already there" of
        whatever it has, and it may have kept the original of an anonymised copy and say that all is well. Nor is its
        refusal enough after an answer was lost: it may refuse what it has by then.
        """
        undecided: list[Usable] = []
        doubtful: list[tuple[Usable, Verdict]] = []
        for one in part:
            verdict = exchange.verdicts.get(_uid(one))
            if _uid(one) not in self._open:  # its source could not be read
                continue
            if verdict is None or verdict.status is Status.UNCONFIRMED:
                undecided.append(one)
            elif verdict.reason_code in KEPT_WHAT_IT_HAD or (
                _uid(one) in self._lost if verdict.status is Status.FAILED else one.keeps_uid
            ):
                doubtful.append((one, verdict))
            else:
                self._settle(one, verdict)
        findings = await self._findings([one for one, _ in doubtful])
        for one, verdict in doubtful:
            self._settle(one, _told_apart(one, verdict, findings[_uid(one)]))
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
            # One that comes from another archive and broke on its way may come whole another time.
            status = Status.FAILED if broken.temporary else Status.UNREADABLE
            self._settle(body.broken, Verdict(status, reason=broken.message, temporary=broken.temporary))
            part.remove(body.broken)
        return _Exchange({})

    async def _attempt(self, body: RelatedBody) -> _Exchange:
        sent = {_uid(part) for part in body.parts}
        arrived_before = sent & self._left
        self._left |= sent  # until the opposite is known: whoever is cancelled here does not come to know
        lost: PostdicomError | None = None
        try:
            answer = await self._answer(body)
        except PostdicomError as error:
            if not _may_have_arrived(error):
                self._left -= sent - arrived_before
                raise
            lost = error
        finally:
            if not body.begun:  # cancelled before anything of it left
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
        """Return the answer to one request. What is refused while others are taken waits for its turn, however long."""
        under_way = self._storing.under_way
        while True:
            taken = False
            refusal: PostdicomError | None = None
            under_way.begins()
            try:
                answer = await self._session.fetch(
                    self._storing.call(body), cap=self._session.settings.limits.json_bytes
                )
                taken = True
            except PostdicomError as error:
                refusal = error
            finally:
                under_way.ends(taken=taken)
            if refusal is None:
                return answer
            if refusal.status not in _NOT_NOW:
                raise refusal
            body.begun = False  # whoever is cancelled while it waits knows that it was refused
            if not await under_way.another_was_taken():
                raise refusal

    async def _findings(self, instances: list[Usable]) -> dict[str, Holding]:
        """Look into the archive for these, and again for those that are not there yet: archives index with a delay."""
        findings = {_uid(one): Holding.UNREACHABLE for one in instances}
        missing = list(instances)
        for wait in _LOOK_AFTER if missing else ():
            await anyio.sleep(wait)
            for one in missing:
                findings[_uid(one)] = await self._storing.confirmation.look(one)
                if findings[_uid(one)] is Holding.UNREACHABLE:
                    return findings
            missing = [one for one in missing if findings[_uid(one)] in _MAY_CHANGE]
            if not missing:
                break
        return findings

    # --- the end of an instance -------------------------------------------------------------------------------------

    def _settle(self, one: Usable, verdict: Verdict) -> None:
        del self._open[_uid(one)]
        self._tell(one, verdict)

    def _abandon(self, error: BaseException) -> None:
        """Settle what is open when the delivery ends early."""
        words = error.message if isinstance(error, PostdicomError) else "the upload was ended"
        temporary = not isinstance(error, PostdicomError) or error.temporary
        refused = isinstance(error, PostdicomError) and error.status is not None
        what = "refused" if refused else "not sent"
        not_there = Verdict(Status.FAILED, reason=f"{what}: {words}", temporary=temporary)
        maybe_there = Verdict(Status.UNCONFIRMED, reason=f"sent and not confirmed: {words}", temporary=True)
        for uid, one in list(self._open.items()):
            self._settle(one, maybe_there if uid in self._left else not_there)


def _uid(instance: Usable) -> str:
    return instance.header.uids.sop_instance_uid


def _may_have_arrived(error: PostdicomError) -> bool:
    if isinstance(error, ConnectionFailed):
        return error.may_have_arrived
    if isinstance(error, ProtocolError):
        return True  # there was an answer, only it cannot be read
    is_server_failure = isinstance(error, ServerError) and error.temporary
    return is_server_failure and error.status != HTTPStatus.SERVICE_UNAVAILABLE


def _told_apart(instance: Usable, verdict: Verdict, finding: Holding) -> Verdict:
    """Return a verdict that holds where another instance with the same UID may be what the archive has."""
    if verdict.status is Status.FAILED:
        return _refused_after_a_lost_answer(verdict, finding)
    if finding is Holding.SAME:
        return replace(verdict, reason=CONFIRMED if verdict.reason is None else f"{verdict.reason}; {CONFIRMED}")
    hint = "; anonymise the UIDs too (remap_uids=True)" if instance.keeps_uid else ""
    if finding is Holding.DIFFERENT:
        perhaps = ", perhaps the original" if instance.keeps_uid else ""
        return Verdict(Status.FAILED, verdict.reason_code, f"the archive {finding.value}{perhaps}{hint}")
    said = verdict.reason or "stored"
    reason = f"the archive says {said!r} and {finding.value}, so that it may hold another one with its UID{hint}"
    return Verdict(Status.UNCONFIRMED, verdict.reason_code, reason)


def _refused_after_a_lost_answer(verdict: Verdict, finding: Holding) -> Verdict:
    """Return a verdict on what was refused, where an earlier request of unknown end may have stored it."""
    if finding is Holding.SAME:
        return Verdict(Status.STORED, reason=CONFIRMED)
    if finding in _MAY_CHANGE:
        return verdict
    reason = f"an answer was lost, then it was refused ({verdict.reason}), and the archive {finding.value}"
    return Verdict(Status.UNCONFIRMED, verdict.reason_code, reason, temporary=True)


def _never_confirmed(exchange: _Exchange, finding: Holding) -> Verdict:
    """Return the verdict on an instance that no answer named, after the last repeat."""
    said = "the answer was lost each time" if exchange.lost else "no answer names it"
    reason = f"{said}, and the archive {finding.value}"
    return Verdict(Status.UNCONFIRMED, reason=reason, temporary=exchange.lost)
