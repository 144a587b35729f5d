"""What the doctor knows so far, how it asks, and what it keeps of an answer.

An `Examination` holds UIDs and a data set for the next requests; none of that goes into the report. Findings are filed
by `Examination.note`, under the key of a check, in our own words: never text from a server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import uuid4

from anyio import to_thread

from postdicom_async.dicom.json_reading import DicomJson, NotDicomJson, first_value, objects_in
from postdicom_async.dicomweb.dialects import DICOM_JSON, Dialect, parse_media_type
from postdicom_async.dicomweb.json_answer import refuse_cut_json
from postdicom_async.errors import PostdicomError
from postdicom_async.http.exchange import Call
from postdicom_async.http.retry import Repeat
from postdicom_async.http.session import Session
from postdicom_async.settings import Retry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postdicom_async.http.answer import StreamedAnswer

ANY_STATUS: Final = frozenset(range(300, 600))
_PATIENCE = 60.0
_KNOWN_TYPES: Final = frozenset({
    "application/dicom", "application/dicom+json", "application/dicom+xml", "application/json",
    "application/octet-stream", "application/problem+json", "application/xml", "multipart/related", "text/html",
    "text/plain", "text/xml",
})  # fmt: skip


class Verdict(StrEnum):
    """How a finding compares with the assumption."""

    AS_ASSUMED = "ok"
    OTHERWISE = "differs"
    NOTE = "note"
    """Nothing is assumed about it."""
    UNKNOWN = "unknown"
    """It was not tried, or could not be determined."""


class Probe(NamedTuple):
    """Requests that belong together; an archive that breaks the connection during an essential probe is unusable."""

    ask: Callable[[], Awaitable[None]]
    essential: bool = False


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """The kept part of an answer: numbers, our own words, and data sets for the next request.

    Attributes:
        status: the HTTP status.
        type: its media type, if known.
        has_reason: whether ``X-Error-Reason`` was there.
        has_warning: whether ``Warning`` was there.
        items: the data sets of a search's answer, None if it was not one.
    """

    status: int
    type: str
    has_reason: bool
    has_warning: bool
    items: list[DicomJson] | None = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return self.status < HTTPStatus.MULTIPLE_CHOICES

    def first(self, tag: str) -> object:
        """Return an element's value in the first data set, None where there is none."""
        return first_value(next(iter(self.items or ()), {}), tag)

    @property
    def text(self) -> str:
        """The answer in words."""
        words = [str(self.status), *([self.type] if self.status != HTTPStatus.NO_CONTENT else [])]
        if self.ok:
            words.append("not DICOM JSON" if self.items is None else results_text(len(self.items)))
        if self.has_reason:
            words.append("with X-Error-Reason")
        return ", ".join(words)


def results_text(count: int) -> str:
    """Return how many results there are."""
    return "1 result" if count == 1 else f"{count} results"


def known_type(content_type: str | None) -> str:
    """Return a media type if it is known, else words that say it is not."""
    essence = parse_media_type(content_type).essence
    return essence if essence in _KNOWN_TYPES else ("another type" if essence else "no type")


def made_up_uid() -> str:
    """Return a new UID that no archive holds."""
    return f"2.25.{uuid4().int}"


class Examination:
    """The knowledge so far, and the means to ask; the probes add to it one after the other.

    Attributes:
        found: verdict and words by the key of a check.
        uids: a study, one of its series and one of its instances, by ``study``, ``series`` and ``instance``.
        study: that study, as the archive lists it.
        problem: why the archive is unusable.
        dialect: the family it is taken for.
        other: another family, whose shapes are tried as well.
        page_size: results in a page.
        session: the session with all the repeats that the caller allows.
        once: the session without repeats, where the archive's first answer counts.
    """

    def __init__(self, session: Session, dialect: Dialect, other: Dialect) -> None:
        settings = session.settings
        timeouts = replace(settings.timeouts, answer=min(_PATIENCE, settings.timeouts.answer))
        self.found: dict[str, tuple[Verdict, str]] = {}
        self.uids: dict[str, str] = {}
        self.study: DicomJson = {}
        self.problem: PostdicomError | None = None
        self.dialect: Dialect = dialect
        self.other: Dialect = other
        self.page_size: int = settings.limits.page_size
        self.session: Session = session
        self.once: Session = session.with_settings(replace(settings, retry=Retry(max_attempts=1), timeouts=timeouts))

    def note(self, key: str, verdict: Verdict | bool, found: str) -> None:
        """File a finding; True means as assumed, False otherwise."""
        if isinstance(verdict, bool):
            verdict = Verdict.AS_ASSUMED if verdict else Verdict.OTHERWISE
        self.found[key] = (verdict, found)

    async def ask(
        self,
        path: str,
        session: Session | None = None,
        operation: str = "doctor",
        accepted: frozenset[int] = ANY_STATUS,
    ) -> KeptAnswer:
        """Search, or ask for metadata; any status is an answer, unless ``accepted`` says otherwise."""
        call = Call(operation, "GET", path, Repeat.READ, headers={"Accept": DICOM_JSON}, accepted=accepted)
        cap = self.session.settings.limits.json_bytes
        answer = await (session or self.once).fetch(call, cap=cap, check=refuse_cut_json(operation))
        return await to_thread.run_sync(_kept, answer.status, answer.headers, answer.body)

    async def stream(self, path: str, accept: str) -> StreamedAnswer:
        """Ask for an instance; any status is an answer."""
        call = Call("doctor", "GET", path, Repeat.READ, headers={"Accept": accept}, accepted=ANY_STATUS)
        return await self.once.stream(call)


def _kept(status: int, headers: Mapping[str, str], body: bytes) -> KeptAnswer:
    items: list[DicomJson] | None = None
    if status < HTTPStatus.MULTIPLE_CHOICES:
        with suppress(NotDicomJson):
            items = objects_in(body)
    has_reason, has_warning = bool(headers.get("x-error-reason")), bool(headers.get("warning"))
    return KeptAnswer(status, known_type(headers.get("content-type")), has_reason, has_warning, items)
