"""Why there was no connection, from whatever a transport says, in words of ours.

Texts of transports may hold the address, and each names the same thing differently. One table knows them; the first
line that fits counts, so what is told more exactly stands above.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import httpx

__all__ = ["Cause", "NeverConnected", "UnreadableHead", "explain", "refused_by_alert", "words_of"]


@dataclass(frozen=True, slots=True)
class Cause:
    """Why there was no connection.

    Attributes:
        message: one sentence, and what to do about it.
        temporary: whether a repeat can help.
        credentials: whether somebody wants to know who asks: a client certificate, or a proxy's password.
        of_proxy: the sentence where it is a proxy that was to be reached; None where it would not be the proxy's fault.
    """

    message: str
    temporary: bool = True
    credentials: bool = False
    of_proxy: str | None = None


class NeverConnected(httpx.ConnectError):
    """No connection, and the reason; its text holds nothing of the request."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.message)
        self.cause = cause


class UnreadableHead(httpx.RemoteProtocolError):
    """What came is not the head of an HTTP answer, or a larger one than is read."""


def _final(message: str, *, credentials: bool = False) -> Cause:
    return Cause(message, temporary=False, credentials=credentials)


_UNKNOWN = Cause("no connection could be made", of_proxy="no connection to the proxy could be made")
_NO_TUNNEL = Cause("the proxy did not open a way to the archive")

_REFUSALS_OF_OURS = ("unknown ca", "bad certificate", "certificate unknown", "certificate revoked", "access denied")

# Words are looked for in lower case: OpenSSL's, the system's, and those of transports on rustls that a caller passes.
_CAUSES: tuple[tuple[Cause, tuple[str, ...]], ...] = (
    # The other side refuses us, and says so with an alert of TLS.
    (
        _final("the server wants a client certificate; give tls.certificate and tls.key", credentials=True),
        ("certificate required", "certificaterequired"),
    ),
    (
        _final("the server says the client certificate has expired; give another as tls.certificate", credentials=True),
        ("alert certificate expired", "alert: certificateexpired"),
    ),
    (
        _final("the server does not accept the client certificate (tls.certificate)", credentials=True),
        (
            *(f"alert {words}" for words in _REFUSALS_OF_OURS),
            *(f"alert: {words.replace(' ', '')}" for words in _REFUSALS_OF_OURS),
        ),
    ),
    (
        _final("the server and this machine have no version of TLS in common; TLS 1.2 or 1.3 is needed"),
        (
            *("protocol version", "protocolversion", "unsupported protocol", "unsupported_protocol"),
            *("no protocols available", "tls12or13", "tlsversion"),
        ),
    ),
    (
        _final(
            "the server broke off the handshake; it may want a client certificate (tls.certificate and tls.key), "
            "or there is no cipher in common"
        ),
        ("handshake failure", "handshakefailure", "handshake_failure", "no shared cipher", "peer is incompatible"),
    ),
    # We refuse its certificate.
    (
        _final("the server's certificate names no host; it needs a subjectAltName"),
        ("not valid for any names",),
    ),
    (
        _final("the server's certificate is for another host name; use the name that it is made out for"),
        ("hostname mismatch", "address mismatch", "not valid for name", "not valid for '"),
    ),
    (_final("the server's certificate has expired"), ("has expired", "certificate expired")),
    (
        _final("the server's certificate is not valid yet; is the clock of this machine right?"),
        ("not yet valid", "not valid yet"),
    ),
    (
        _final(
            "the server's certificate could not be verified, its authority is not known here; "
            "give the authority's certificate as tls.ca_file"
        ),
        (
            *("local issuer", "self-signed", "self signed", "unknownissuer", "causedasendentity"),
            *("issuer certificate", "verify the first certificate"),
        ),
    ),
    (
        _final("the server's certificate could not be verified"),
        ("invalid peer certificate", "certificate verify failed", "certificate_verify_failed"),
    ),
    # No TLS came about.
    (
        _final("the server does not speak TLS at this port; is its address http:// or the port another one?"),
        (
            *("wrong version number", "wrong_version_number", "invalidcontenttype", "corrupt message"),
            *("unknown protocol", "packet length", "http request", "record layer failure"),
        ),
    ),
    # A proxy in between.
    (
        _final(
            "the proxy refused the credentials or wants some: proxy=http://user:password@host:port", credentials=True
        ),
        (
            *("tunnel error: 407", "proxy authorization required", "invalid username/password"),
            *("acceptable auth", "authentication failure"),
        ),
    ),
    (_NO_TUNNEL, ("tunnel error: unsuccessful", "tunnel error: unexpected", "serverdisconnected")),
    # The network.
    (
        Cause("the host name is not known", of_proxy="the proxy's host name is not known"),
        ("dns", "name or service", "name resolution", "nodename", "getaddrinfo"),
    ),
    (
        Cause(
            "the connection was refused; is the archive running at this address?",
            of_proxy="the proxy refused the connection; is it running at this address?",
        ),
        ("refused",),
    ),
    (
        Cause("the network or host cannot be reached", of_proxy="the proxy cannot be reached"),
        ("unreachable", "no route to host"),
    ),
    (
        Cause(
            "the server hung up while the connection was made",
            of_proxy="the proxy, or the server behind it, hung up while the connection was made",
        ),
        (
            *("handshake eof", "eof occurred", "unexpected_eof", "unexpected eof", "reset by peer"),
            *("connectionreset", "brokenresourceerror"),
        ),
    ),
    (Cause("no secure connection could be agreed on; is this an https:// server?"), ("tls", "ssl")),
    (_NO_TUNNEL, ("tunnel error:",)),
)


def explain(text: str, *, proxied: bool = False) -> Cause:
    """Return the cause behind a transport's text; ``proxied`` if the connection was one to a proxy."""
    lowered = text.lower()
    found = next((cause for cause, words in _CAUSES if any(word in lowered for word in words)), _UNKNOWN)
    return Cause(found.of_proxy, found.temporary) if proxied and found.of_proxy else found


def refused_by_alert(text: str) -> NeverConnected | None:
    """Return the error for a server that wants another client certificate, None if a text says nothing of it.

    Since TLS 1.3 a server says so when the request is on its way already; it has not read it.
    """
    cause = explain(text) if "alert" in text.lower() else None
    return NeverConnected(cause) if cause is not None and cause.credentials else None


def words_of(error: BaseException) -> str:
    """Return the texts and kinds of an exception and its causes, for looking at only."""
    if isinstance(error, httpx.ProxyError):
        status = re.match(r"\d{3}\b", str(error))
        return f"tunnel error: {status[0] if status else error}"  # without the proxy's own words after the number
    behind = error.__cause__ or error.__context__
    return str(error) if behind is None else f"{error} {type(behind).__name__} {words_of(behind)}"
