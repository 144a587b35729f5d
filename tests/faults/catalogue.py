"""The catalogue of faults: what may go wrong between a client and an archive, and the required outcome.

Each fault is applied to an upload, a download and a search: to every request of that kind, and for verbs in ``mended``
also to the first request only, after which the operation must succeed. Expectations have the form ``outcome/exit
code``:

============  ========================================================================================================
stored        every instance is in the archive, byte for byte
failed        the outcome of every instance is FAILED: the archive does not have it, as far as it says
unconfirmed   the outcome of every instance is UNCONFIRMED
complete      every instance is on disk, byte for byte; with ``refused`` besides, the report is not ok
found         the search gives what the archive has
an error      the name of the exception; `IncompleteDownload` where some or all instances did not arrive
============  ========================================================================================================
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Literal

from tests.faults.archive import parts_sent, related, uids_of
from tests.support.bodies import multipart_related, stow_answer
from tests.support.dicom_files import small_dicom, study_files, uid
from tests.support.faulty_server import Reply, Request

__all__ = ["FAULTS", "FILES", "OLDER", "STUDY", "Fault", "Verb"]

STUDY = uid(1)
FILES = list(study_files(3).values())
OLDER = [small_dicom(*uids_of(file), pixel_bytes=1024) for file in FILES]
STRANGER = small_dicom(uid(7), uid(7, 1), uid(7, 1, 1), patient_id="ANOTHER")

Verb = Literal["upload", "download", "search"]
Right = Callable[[], Reply]
"""Does what the request asks for and gives the right answer to it."""
Answer = Callable[[Request, Right], Reply]
Way = Literal[
    "plain", "refused", "silent", "reset", "other name", "expired", "unknown authority", "reset in the handshake",
    "unknown at first",
]  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        what: its description.
        upload: the required outcome of an upload; empty if the fault does not apply.
        download: of a download.
        search: of a search.
        answer: makes the faulty answer to a request.
        head: the fault in reading a request.
        way: the fault that prevents a connection.
        silent: only a time-out can detect it, so time-outs are short.
        read_rate: bytes of a request's body that the archive reads a second.
        older: the archive holds other instances with the same UIDs.
        mended: the verbs that succeed if the fault happens only once.
    """

    what: str
    upload: str = ""
    download: str = ""
    search: str = ""
    answer: Answer | None = None
    head: Reply | None = None
    way: Way = "plain"
    silent: bool = False
    read_rate: int | None = None
    older: bool = False
    mended: str = ""

    def expected(self, verb: Verb) -> str:
        """Return the required outcome."""
        outcome: str = getattr(self, verb)
        return outcome


def always(reply: Reply) -> Answer:
    """Give this answer without doing anything."""
    return lambda _request, _right: reply


def having_done_it(reply: Reply) -> Answer:
    """Do what was asked, then give this answer."""

    def answer(_request: Request, right: Right) -> Reply:
        right()
        return reply

    return answer


def changed(change: Callable[[Reply], Reply]) -> Answer:
    """Give the right answer with one change."""
    return lambda _request, right: change(right())


def body(reply: Reply) -> bytes:
    """Return the body of a right answer."""
    assert isinstance(reply.body, bytes)
    return reply.body


def half(reply: Reply) -> int:
    """Return where its middle is."""
    return len(body(reply)) // 2


def parts(change: Callable[[list[bytes]], list[bytes]]) -> Answer:
    """Give a retrieve answer of other parts than the right ones."""

    def answer(request: Request, _right: Right) -> Reply:
        one = request.path.rpartition("/instances/")[2]
        asked = [file for file in FILES if uids_of(file).sop_instance_uid == one] or FILES
        return related(change(list(asked))).reply()

    return answer


def stow(**named: object) -> Answer:
    """Give a store answer that names these instead of those that were sent. Nothing is stored."""
    return always(Reply(200, JSON, stow_answer(**named)))  # type: ignore[arg-type]


def stow_of_those_sent(how: str, status: int = 200) -> Answer:
    """Give a store answer with this result for each instance sent; none is stored."""

    def answer(request: Request, _right: Right) -> Reply:
        uids = [uids_of(file).sop_instance_uid for file in parts_sent(request)]
        return Reply(status, JSON, stow_answer(**{how: uids}))  # type: ignore[arg-type]

    return answer


def by_kind(*, store: Answer, retrieve: Answer, search: Answer) -> Answer:
    """Answer each kind of request in its own way."""

    def answer(request: Request, right: Right) -> Reply:
        if request.method == "POST":
            return store(request, right)
        return (search if request.path.endswith("/instances") else retrieve)(request, right)

    return answer


JSON = {"Content-Type": "application/dicom+json"}
HTML = {"Content-Type": "text/html"}
PAGE = b"<html><head><title>502 Bad Gateway</title></head></html>"
ERROR = Reply(200, {"Content-Type": "application/json"}, b'{"error": "no such table: instances"}')
SOON = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
BOMB = gzip.compress(bytes(32 << 20))
DEEP = Reply(200, JSON, b"[" * 100_000 + b"]" * 100_000)
LONG_NUMBER = Reply(200, JSON, b'[{"00200013": {"vr": "IS", "Value": [' + b"9" * 2_000_000 + b"]}}]")


def long_boundary(reply: Reply) -> Reply:
    """Repeat an answer's parts with a boundary of 10 kB."""
    whole = multipart_related(FILES, boundary="b" * 10_000)
    return Reply(reply.status, {"Content-Type": whole.content_type}, whole.body)


# A read that goes on failing so may succeed later (exit code 5) or not (1).
LATER, NEVER = "IncompleteDownload/5", "IncompleteDownload/1"
CUT: dict[str, Any] = {
    "upload": "stored/0",
    "download": LATER,
    "search": "ConnectionFailed/5 or ProtocolError/5",
    "mended": "upload download search",
}
LOST: dict[str, Any] = {"upload": "unconfirmed/5", "download": LATER, "search": "ConnectionFailed/5"}
ALL = "upload download search"


def lasting(upload: str, download: str, search: str) -> dict[str, Any]:
    """Return the outcome of a fault that persists."""
    return {"upload": upload, "download": download, "search": search}


FAULTS: dict[str, Fault] = {
    # --- connect
    "F01": Fault(
        "the connection is refused",
        **lasting("ConnectionFailed/5", "ConnectionFailed/5", "ConnectionFailed/5"),
        way="refused",
    ),
    "F02": Fault(
        "every connection is reset as soon as it is accepted",
        **lasting("unconfirmed/5", "ConnectionFailed/5", "ConnectionFailed/5"),
        way="reset",
    ),
    "F03": Fault(
        "connections are accepted, and then there is silence",
        **lasting("ConnectionFailed/5", "ConnectionFailed/5", "ConnectionFailed/5"),
        way="silent", silent=True,
    ),
    "F04": Fault(
        "the certificate is for another host name",
        **lasting("ConnectionFailed/1", "ConnectionFailed/1", "ConnectionFailed/1"),
        way="other name",
    ),
    "F05": Fault(
        "the certificate has expired",
        **lasting("ConnectionFailed/1", "ConnectionFailed/1", "ConnectionFailed/1"),
        way="expired",
    ),
    "F06": Fault(
        "the certificate's authority is not known",
        **lasting("ConnectionFailed/1", "ConnectionFailed/1", "ConnectionFailed/1"),
        way="unknown authority",
    ),
    "F07": Fault(
        "the connection is reset in the TLS handshake",
        **lasting("ConnectionFailed/5", "ConnectionFailed/5", "ConnectionFailed/5"),
        way="reset in the handshake",
    ),
    "F08": Fault(
        "the host name is not known, at first", **lasting("stored/0", "complete/0", "found/0"), way="unknown at first"
    ),
    # --- request
    "F09": Fault(
        "the connection is reset in the middle of the request",
        **LOST, head=Reply(drop_mid_request_after=700, reset=True), mended=ALL,
    ),
    "F10": Fault(
        "the connection is closed in the middle of the request",
        **LOST, head=Reply(drop_mid_request_after=700), mended=ALL,
    ),
    "F11": Fault(
        "the archive stops reading in the middle of the request",
        **LOST, head=Reply(stop_reading_after=700), mended=ALL, silent=True,
    ),
    "F12": Fault(
        "the archive reads and answers slowly, but moves",
        **lasting("stored/0", "complete/0", "found/0"),
        read_rate=40_000,
        answer=changed(lambda right: replace(right, chunk_size=max(1, len(body(right)) // 8), pause=0.05)),
    ),
    "F13": Fault(
        "413 before the body is done",
        **lasting("failed/1", NEVER, "ServerError/1"),
        head=Reply(413, answer_before_body=True), mended="upload download",
    ),
    "F14": Fault(
        "417, as if 100-continue had been expected",
        **lasting("ServerError/1", NEVER, "ServerError/1"),
        head=Reply(417, answer_before_body=True), mended="download",
    ),
    # --- answer
    "F15": Fault(
        "it is done, and no answer comes",
        **CUT, answer=having_done_it(Reply(drop_after_request=True)),
    ),
    "F16": Fault(
        "it is not done, and no answer comes",
        **LOST, answer=always(Reply(drop_after_request=True)), mended=ALL,
    ),
    "F16 older": Fault(
        "it is not done, no answer comes, and the archive holds other instances with the same UIDs",
        upload="unconfirmed/5", answer=always(Reply(drop_after_request=True)), older=True,
    ),
    "F17": Fault(
        "the connection is reset in the headers of the answer",
        **CUT, answer=having_done_it(Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Len", reset=True)),
    ),
    "F18": Fault(
        "the connection is reset in the body of the answer",
        **CUT, answer=changed(lambda right: replace(right, cut_after=half(right), reset=True)),
    ),
    "F19": Fault(
        "an answer that only its end delimits is cut",
        **CUT, answer=changed(lambda right: replace(right, framing="until-close", cut_after=half(right))),
    ),
    "F20": Fault(
        "an answer is cut and its length fits what is left, as by a proxy",
        **CUT, answer=changed(lambda right: replace(right, body=body(right)[: half(right)])),
    ),
    "F21": Fault(
        "an answer trickles, byte by byte",
        **CUT, answer=changed(lambda right: replace(right, chunk_size=1, pause=0.05)), silent=True,
    ),
    "F22": Fault(
        "an answer stalls in the middle",
        **CUT, answer=changed(lambda right: replace(right, stall_after=half(right))), silent=True,
    ),
    # --- status
    "F23": Fault(
        "408: the request took too long",
        **lasting("unconfirmed/5", LATER, "ServerError/5"), answer=always(Reply(408)), mended=ALL,
    ),
    "F24 at once": Fault(
        "429 with Retry-After of no time",
        **lasting("RateLimited/5", "RateLimited/5", "RateLimited/5"),
        answer=always(Reply(429, {"Retry-After": "0"})), mended=ALL,
    ),
    "F24 whenever": Fault(
        "429 without Retry-After",
        **lasting("RateLimited/5", "RateLimited/5", "RateLimited/5"), answer=always(Reply(429)), mended=ALL,
    ),
    "F24 in an hour": Fault(
        "429 with a Retry-After that is too long",
        **lasting("RateLimited/5", "RateLimited/5", "RateLimited/5"),
        answer=always(Reply(429, {"Retry-After": "3600"})),
    ),
    "F25": Fault(
        "500", **lasting("unconfirmed/5", LATER, "ServerError/5"), answer=always(Reply(500)), mended=ALL
    ),
    "F26": Fault(
        "502 with a page of a gateway",
        **lasting("unconfirmed/5", LATER, "ServerError/5"), answer=always(Reply(502, HTML, PAGE)), mended=ALL,
    ),
    "F27": Fault(
        "503 with a date to come again",
        **lasting("RateLimited/5", "RateLimited/5", "RateLimited/5"),
        answer=always(Reply(503, {"Retry-After": SOON})), mended=ALL,
    ),
    "F28": Fault(
        "504 of a gateway, and it is done",
        **lasting("stored/0", LATER, "ServerError/5"), answer=having_done_it(Reply(504, HTML, PAGE)), mended=ALL,
    ),
    "F29": Fault(
        "401: the token has run out",
        **lasting("AuthenticationFailed/4", "AuthenticationFailed/4", "AuthenticationFailed/4"),
        answer=always(Reply(401)), mended=ALL,
    ),
    "F30 here": Fault(
        "a redirect within the host",
        **lasting("ServerError/1", NEVER, "ServerError/1"),
        answer=always(Reply(307, {"Location": "/login"})), mended="download",
    ),
    "F30 elsewhere": Fault(
        "a redirect to another host",
        **lasting("ServerError/1", NEVER, "ServerError/1"),
        answer=always(Reply(302, {"Location": "http://other.invalid/"})), mended="download",
    ),
    # --- content
    "F31": Fault(
        "200 with an error as JSON",
        **lasting("unconfirmed/1", NEVER, "ProtocolError/1"), answer=always(ERROR), mended="upload download",
    ),
    "F31 page": Fault(
        "200 with a login page",
        **lasting("unconfirmed/1", NEVER, "ProtocolError/1"),
        answer=always(Reply(200, HTML, b"<html>Sign in</html>")), mended="upload download",
    ),
    "F31 older": Fault(
        "200 with a login page, and the archive holds other instances with the same UIDs",
        upload="unconfirmed/1", answer=always(Reply(200, HTML, b"<html>Sign in</html>")), older=True,
    ),
    "F32 failed": Fault(
        "200, and each instance is named as failed",
        upload="failed/1", answer=stow_of_those_sent("failed"),
    ),
    "F32 failed, 202": Fault(
        "202, and each instance is named as failed",
        upload="failed/1", answer=stow_of_those_sent("failed", 202),
    ),
    "F32 missing": Fault(
        "200, and nothing is named or stored", upload="unconfirmed/1", answer=stow(), mended="upload",
    ),
    "F32 unknown": Fault(
        "200, and others are named than were sent",
        upload="unconfirmed/1", answer=stow(referenced=[uid(7, 1, 1)]), mended="upload",
    ),
    "F32 both": Fault(
        "200, and each instance is named as stored and as failed",
        upload="unconfirmed/1",
        answer=lambda request, _right: Reply(
            200,
            JSON,
            stow_answer(
                referenced=[uids_of(file).sop_instance_uid for file in parts_sent(request)],
                failed=[uids_of(file).sop_instance_uid for file in parts_sent(request)],
            ),
        ),
    ),
    "F33 boundary": Fault(
        "the boundary is another one than announced",
        download=LATER,
        answer=changed(lambda right: replace(right, body=body(right).replace(b"b0undary", b"other"))),
        mended="download",
    ),
    "F33 no end": Fault(
        "the closing boundary is missing",
        download=LATER,
        answer=changed(lambda right: replace(right, body=body(right).rpartition(b"\r\n--")[0])),
        mended="download",
    ),
    "F33 preamble": Fault(
        "there is text before the first boundary and after the last",
        download="complete/0",
        answer=changed(lambda right: replace(right, body=b"hello\r\n" + body(right) + b"\r\nbye")),
    ),
    "F33 fewer": Fault(
        "a part is missing, without a sign", download="complete/0", answer=parts(lambda files: files[:2]),
    ),
    "F33 twice": Fault(
        "every part comes twice", download="complete, 3 refused/1", answer=parts(lambda files: [*files, *files]),
    ),
    "F33 one more": Fault(
        "a part of another patient comes with the right ones",
        download="complete, one refused/1", answer=parts(lambda files: [*files, STRANGER]),
    ),
    "F33 another": Fault(
        "parts of another patient come instead", download=NEVER, answer=parts(lambda _: [STRANGER]),
        mended="download, but refused",
    ),
    "F34 type": Fault(
        "the content type is another one",
        **lasting("stored/0", NEVER, "found/0"),
        answer=changed(lambda right: replace(right, headers={"Content-Type": "application/octet-stream"})),
    ),
    "F34 no JSON": Fault(
        "the JSON is none",
        **lasting("unconfirmed/1", NEVER, "ProtocolError/1"),
        answer=always(Reply(200, JSON, b'[{"0020000D": {]')), mended="upload download",
    ),
    "F34 deep": Fault(
        "JSON of depth 100,000",
        **lasting("unconfirmed/1", NEVER, "ProtocolError/1"), answer=always(DEEP), mended="upload download",
    ),
    "F34 long": Fault(
        "a number of 2,000,000 digits",
        **lasting("unconfirmed/1", NEVER, "ProtocolError/1"), answer=always(LONG_NUMBER), mended="upload download",
    ),
    "F35": Fault(
        "a small answer that unpacks to a very large one",
        **lasting("unconfirmed/5", NEVER, "ProtocolError/1"),
        answer=always(Reply(200, {**JSON, "Content-Encoding": "gzip"}, BOMB)), mended="upload download",
    ),
    "F36 header": Fault(
        "a header of 1 MB",
        **lasting("unconfirmed/5", LATER, "ConnectionFailed/5"),
        answer=always(Reply(200, {"X-Long": "x" * 1_000_000}, b"[]")), mended="upload download search",
    ),
    "F36 headers": Fault(
        "100,000 headers",
        **lasting("unconfirmed/5", LATER, "ConnectionFailed/5"),
        answer=always(Reply(200, [(f"X-{n}", "y") for n in range(100_000)], b"[]")), mended="upload download search",
    ),
    "F36 boundary": Fault(
        "a boundary of 10 kB", download=LATER, answer=changed(long_boundary), mended="download",
    ),
}  # fmt: skip
