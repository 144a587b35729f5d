"""What went wrong with one attempt, and the exception a caller sees if no repeat helps.

Error texts of transports may contain the address, and each transport words them differently: one table maps them to the
reason why there was no connection, in words of our own. Another maps HTTP statuses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from http import HTTPStatus

import httpx

from postdicom_async.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    NotFound,
    OutcomeUnknown,
    PostdicomError,
    RateLimited,
    ServerError,
    UsageError,
)
from postdicom_async.http.redaction import safe_reason
from postdicom_async.http.retry import Failure, failure_of_status, parse_retry_after


class Problem(Exception):
    """One failed attempt.

    Attributes:
        failure: its kind, which decides about a repeat.
        error: the exception the caller sees if there is no repeat.
        retry_after: seconds the server asked to wait.
        rejected_header: the Authorization value that was answered with 401.
    """

    def __init__(
        self,
        failure: Failure,
        error: PostdicomError,
        *,
        retry_after: float | None = None,
        rejected_header: str | None = None,
    ) -> None:
        super().__init__(failure.name)
        self.failure = failure
        self.error = error
        self.retry_after = retry_after
        self.rejected_header = rejected_header

    def final(self, *, attempts: int) -> PostdicomError:
        """Return the caller's exception."""
        self.error.attempts = attempts
        self.error.retry_after = self.retry_after
        return self.error


def connection_failed(operation: str, message: str, *, sent: bool, temporary: bool = True) -> ConnectionFailed:
    """Return the error for a connection that failed before (``sent=False``) or after the request left."""
    error = ConnectionFailed(message, operation=operation, temporary=temporary)
    error.may_have_arrived = sent
    return error


def problem_of_credentials(error: AuthenticationFailed) -> Problem | None:
    """Return the problem of a request not made for lack of a token or a key; None if there will never be one."""
    return Problem(Failure.NOT_SENT, error, retry_after=error.retry_after) if error.temporary else None


def problem_of_timeout(operation: str, *, sending: bool) -> Problem:
    """Return the problem of silence, while sending or while waiting for the answer."""
    message = "the archive stopped taking data" if sending else "the archive did not answer in time"
    return Problem(Failure.LOST, connection_failed(operation, message, sent=True))


_NEVER_LEFT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
_OUR_MISTAKE = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)


def problem_of_exception(operation: str, error: httpx.HTTPError) -> Problem:
    """Return the problem behind a transport's exception, in our own words; its text may contain the URL."""
    if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        return Problem(Failure.NOT_SENT, connection_failed(operation, "no connection in time", sent=False))
    if isinstance(error, _NEVER_LEFT):
        cause = error.cause if isinstance(error, NeverConnected) else explain(words_of(error))
        return problem_of_cause(operation, cause)
    if isinstance(error, _OUR_MISTAKE):
        return Problem(Failure.FINAL, UsageError("the request cannot be sent as it is", operation=operation))
    if isinstance(error, httpx.TimeoutException):
        return problem_of_timeout(operation, sending=isinstance(error, httpx.WriteTimeout))
    message = "the connection broke"
    if isinstance(error, UnreadableHead):
        message = "the head of the answer is not HTTP, or larger than is read (64 KiB a field, 256 fields)"
    return Problem(Failure.LOST, connection_failed(operation, message, sent=True))


def problem_of_cause(operation: str, cause: Cause) -> Problem:
    """Return the problem of a connection that could not be made; the request has not left."""
    failure = Failure.NOT_SENT if cause.temporary else Failure.FINAL
    if cause.credentials:
        return Problem(failure, AuthenticationFailed(cause.message, operation=operation))
    error = connection_failed(operation, cause.message, sent=False, temporary=cause.temporary)
    error.host_unknown = cause.host_unknown
    return Problem(failure, error)


_PROXY_REFUSED = "the proxy refused the credentials or wants some: proxy=http://user:password@host:port"
NOT_THE_ADDRESS = "the address is not that of its DICOMweb service (often it ends in /dicom-web)"
"""What a user of another address than the DICOMweb service's is told."""
_BEHIND_THE_ADDRESS = ("studies", "series", "instances")
_MESSAGES: dict[int, tuple[type[PostdicomError], str]] = {
    HTTPStatus.UNAUTHORIZED: (AuthenticationFailed, "the archive refused the credentials"),
    HTTPStatus.FORBIDDEN: (AuthenticationFailed, "this account may not do that"),
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: (AuthenticationFailed, _PROXY_REFUSED),
    HTTPStatus.NOT_FOUND: (NotFound, f"the archive does not hold it, or {NOT_THE_ADDRESS}"),
    HTTPStatus.GONE: (NotFound, "the archive does not hold it any more"),
    HTTPStatus.TOO_MANY_REQUESTS: (RateLimited, "the archive asks to wait"),
    HTTPStatus.BAD_REQUEST: (ServerError, "the archive did not accept the request"),
    HTTPStatus.METHOD_NOT_ALLOWED: (ServerError, "the archive does not offer this"),
    HTTPStatus.NOT_ACCEPTABLE: (ServerError, "the archive cannot answer in any form asked for"),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (ServerError, "too much for one request; narrow it or make batches smaller"),
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: (ServerError, "the archive does not take this kind of body"),
    HTTPStatus.NOT_IMPLEMENTED: (ServerError, "the archive does not offer this"),
    HTTPStatus.BAD_GATEWAY: (ServerError, "what stands before the archive got no usable answer from it"),
    HTTPStatus.SERVICE_UNAVAILABLE: (ServerError, "the archive is not available at the moment"),
    HTTPStatus.GATEWAY_TIMEOUT: (ServerError, "what stands before the archive got no answer from it in time"),
}

# nginx says in the title of a page of status 400 what another server would say in the handshake.
_WANTS_CERTIFICATE = "the server wants a client certificate; give tls.certificate and tls.key"
_REFUSED_CERTIFICATE = "the server does not accept the client certificate (tls.certificate)"
_WANTS_TLS = "the server wants https:// at this port; check the address"
_TITLES: tuple[tuple[bytes, type[PostdicomError], str], ...] = (
    (b"No required SSL certificate was sent", AuthenticationFailed, _WANTS_CERTIFICATE),
    (b"The SSL certificate error", AuthenticationFailed, _REFUSED_CERTIFICATE),
    (b"The plain HTTP request was sent to HTTPS port", ServerError, _WANTS_TLS),
)


def problem_of_status(
    operation: str,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    sent: Iterable[str],
    now: datetime,
    authorization: str | None,
    address: str = "",
) -> Problem:
    """Return the problem behind an error status; ``body`` may be truncated, and ``address`` is the configured one."""
    failure = failure_of_status(status)
    retry_after = parse_retry_after(headers.get("retry-after"), now)
    titled = _titled(body) if status == HTTPStatus.BAD_REQUEST else None
    kind, message = titled or _message(status, has_retry_after=retry_after is not None)
    last = address.rstrip("/").rpartition("/")[2]
    if status in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND) and last in _BEHIND_THE_ADDRESS:
        message = f"the address ends in /{last}; give that of the DICOMweb service, without /{last}"
    error = kind(
        message,
        operation=operation,
        status=status,
        reason=None if titled else server_reason(headers, body, sent),
        temporary=failure is not Failure.FINAL,
    )
    rejected = authorization if status == HTTPStatus.UNAUTHORIZED else None
    return Problem(failure, error, retry_after=retry_after, rejected_header=rejected)


def _titled(body: bytes) -> tuple[type[PostdicomError], str] | None:
    title = re.search(rb"<title>([^<]*)</title>", body)
    return next(((kind, said) for words, kind, said in _TITLES if title and words in title[1]), None)


def _message(status: int, *, has_retry_after: bool) -> tuple[type[PostdicomError], str]:
    if status == HTTPStatus.SERVICE_UNAVAILABLE and has_retry_after:
        return RateLimited, "the archive asks to wait"
    if status in _MESSAGES:
        return _MESSAGES[status]
    if 300 <= status < 400:
        return ServerError, "the archive answered with a redirect, which is not followed; check the address"
    return ServerError, "the archive failed on it" if status >= 500 else "the archive refused it"


# --- the server's words -----------------------------------------------------------------------------------------

_REASON_HEADERS = ("x-error-reason", "warning")  # the first is PostDICOM's (C# sample)
_REASON_KEYS = ("message", "details", "detail", "errormessage", "error_description", "reason", "error", "title")


def server_reason(headers: Mapping[str, str], body: bytes, sent: Iterable[str]) -> str | None:
    """Return the server's reason, masked: from ``X-Error-Reason``, ``Warning``, or a JSON or plain text body."""
    for name in _REASON_HEADERS:
        if headers.get(name):
            return safe_reason(headers[name], sent)
    kind = headers.get("content-type", "").lower()
    if "json" in kind or (not kind and body[:1] == b"{"):
        return safe_reason(_reason_in_json(body), sent)
    if kind.startswith("text/plain") or not kind:
        return safe_reason(body.decode("utf-8", "replace"), sent)
    titled = _titled(body)  # anything else of a proxy's HTML page does not fit a line
    return None if titled is None else titled[1]


def _reason_in_json(body: bytes) -> str | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, str):
        return found
    if not isinstance(found, dict):
        return None
    texts = {key.lower(): value for key, value in found.items() if isinstance(value, str) and value}
    return next((texts[key] for key in _REASON_KEYS if key in texts), None)


def outcome_unknown(error: PostdicomError) -> OutcomeUnknown:
    """Return the error for a change that was sent and may have been made, from the error of its request."""
    unknown = OutcomeUnknown(
        f"outcome unknown: {error.message}; search for it before doing it again",
        operation=error.operation,
        status=error.status,
        reason=error.reason,
        attempts=error.attempts,
        temporary=False,
    )
    unknown.may_have_arrived = True
    return unknown


# --- no connection ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cause:
    """Why there was no connection.

    Attributes:
        message: one sentence saying what happened, and what to do about it.
        temporary: whether a repeat can help.
        credentials: whether credentials are missing: a client certificate, or a proxy's password.
        of_proxy: the sentence to use if the connection was to a proxy; None if it would not be the proxy's fault.
        host_unknown: whether a name could not be resolved.
    """

    message: str
    temporary: bool = True
    credentials: bool = False
    of_proxy: str | None = None
    host_unknown: bool = False


class NeverConnected(httpx.ConnectError):
    """No connection was made, with the reason; its text contains nothing of the request."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.message)
        self.cause = cause


class UnreadableHead(httpx.RemoteProtocolError):
    """The bytes received are not the head of an HTTP answer, or it is too large."""


def _final(message: str, *, credentials: bool = False) -> Cause:
    return Cause(message, temporary=False, credentials=credentials)


_UNKNOWN = Cause("no connection could be made", of_proxy="no connection to the proxy could be made")
_NO_TUNNEL = Cause("the proxy did not open a way to the archive")

# The first match counts, so more specific entries come first. Matched in lower case against the messages of OpenSSL, of
# the system, and of transports on rustls that a caller may pass, which write some words without spaces.
_CAUSES: tuple[tuple[Cause, str], ...] = (
    # The server refuses us with a TLS alert.
    (_final(_WANTS_CERTIFICATE, credentials=True), r"certificate ?required"),
    (
        _final("the server says the client certificate has expired; give another as tls.certificate", credentials=True),
        r"alert:? certificate ?expired",
    ),
    (
        _final(_REFUSED_CERTIFICATE, credentials=True),
        r"alert:? (unknown ?ca|bad ?certificate|certificate ?(unknown|revoked)|access ?denied)",
    ),
    (
        _final("the server and this machine have no version of TLS in common; TLS 1.2 or 1.3 is needed"),
        r"protocol ?version|unsupported[ _]protocol|no protocols available|tls12or13|tlsversion",
    ),
    (
        _final(
            "the server broke off the handshake; it may want a client certificate (tls.certificate and tls.key), "
            "or there is no cipher in common"
        ),
        r"handshake[ _]?failure|no shared cipher|peer is incompatible",
    ),
    # We refuse its certificate.
    (_final("the server's certificate names no host; it needs a subjectAltName"), r"not valid for any names"),
    (
        _final("the server's certificate is for another host name; use the name that it is made out for"),
        r"(hostname|address) mismatch|not valid for (name|')",
    ),
    (_final("the server's certificate has expired"), r"has expired|certificate expired"),
    (
        _final("the server's certificate is not valid yet; is the clock of this machine right?"),
        r"not (yet valid|valid yet)",
    ),
    (
        _final(
            "the server's certificate could not be verified, its authority is not known here; "
            "give the authority's certificate as tls.ca_file"
        ),
        r"local issuer|self[- ]signed|unknownissuer|causedasendentity|issuer certificate|verify the first certificate",
    ),
    (
        _final("the server's certificate could not be verified"),
        r"invalid peer certificate|certificate[ _]verify[ _]failed",
    ),
    # There was no TLS handshake.
    (
        _final("the server does not speak TLS at this port; is its address http:// or the port another one?"),
        (
            r"wrong[ _]version[ _]number|invalidcontenttype|corrupt message|unknown protocol|packet length|http request"
            r"|record layer failure"
        ),
    ),
    # A proxy in between.
    (
        _final(_PROXY_REFUSED, credentials=True),
        (
            r"tunnel error: 407|proxy authorization required|invalid username/password|acceptable auth"
            r"|authentication failure"
        ),
    ),
    (_NO_TUNNEL, r"tunnel error: (unsuccessful|unexpected)|serverdisconnected"),
    # The network.
    (
        Cause("the host name is not known", of_proxy="the proxy's host name is not known", host_unknown=True),
        r"dns|name or service|name resolution|nodename|getaddrinfo",
    ),
    (
        Cause(
            "the connection was refused; is the archive running at this address?",
            of_proxy="the proxy refused the connection; is it running at this address?",
        ),
        r"refused",
    ),
    (
        Cause("the network or host cannot be reached", of_proxy="the proxy cannot be reached"),
        r"unreachable|no route to host",
    ),
    (
        Cause(
            "the server hung up while the connection was made",
            of_proxy="the proxy, or the server behind it, hung up while the connection was made",
        ),
        r"(handshake |unexpected[ _])eof|eof occurred|reset by peer|connectionreset|brokenresourceerror",
    ),
    (Cause("no secure connection could be agreed on; is this an https:// server?"), r"tls|ssl"),
    (_NO_TUNNEL, r"tunnel error:"),
)


def explain(text: str, *, proxied: bool = False) -> Cause:
    """Return the cause behind a transport's text; ``proxied`` if the connection was to a proxy."""
    lowered = text.lower()
    found = next((cause for cause, words in _CAUSES if re.search(words, lowered)), _UNKNOWN)
    return replace(found, message=found.of_proxy) if proxied and found.of_proxy else found


def refused_by_alert(text: str) -> NeverConnected | None:
    """Return the error for a server that wants another client certificate, None if the text is about something else.

    With TLS 1.3 a server says so only once the request is already on its way; it has not read it.
    """
    cause = explain(text) if "alert" in text.lower() else None
    return NeverConnected(cause) if cause is not None and cause.credentials else None


def words_of(error: BaseException) -> str:
    """Return the texts and kinds of an exception and its causes: to be searched, never shown."""
    if isinstance(error, httpx.ProxyError):
        status = re.match(r"\d{3}\b", str(error))
        return f"tunnel error: {status[0] if status else error}"  # without the proxy's own words after the number
    behind = error.__cause__ or error.__context__
    return str(error) if behind is None else f"{error} {type(behind).__name__} {words_of(behind)}"
