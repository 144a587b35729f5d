"""What transports say about a connection that did not come about, and what is made of it."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postdicom_async.http.problems import explain, words_of

# As OpenSSL, rustls, hyper and the systems say it.
TEXTS: list[tuple[str, str, bool]] = [
    ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate", "not known here", False),
    ("certificate verify failed: unable to get local issuer certificate (_ssl.c:1006)", "not known here", False),
    ("invalid peer certificate: UnknownIssuer", "not known here", False),
    ("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))", "not known here", False),
    ("certificate verify failed: Hostname mismatch, certificate is not valid for 'dns'", "another host name", False),
    ("certificate verify failed: IP address mismatch", "another host name", False),
    ('certificate not valid for name "x"; certificate is only valid for DnsName("y")', "another host name", False),
    ('certificate not valid for name "x"; certificate is not valid for any names', "names no host", False),
    ("certificate verify failed: certificate has expired", "certificate has expired", False),
    ("invalid peer certificate: certificate expired: verification time 1796021768", "certificate has expired", False),
    ("certificate verify failed: certificate is not yet valid", "not valid yet", False),
    ("invalid peer certificate: certificate not valid yet: verification time", "not valid yet", False),
    ("certificate verify failed: CA md too weak", "could not be verified", False),
    ("invalid peer certificate: BadEncoding", "could not be verified", False),
    ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required", "wants a client", False),
    ("received fatal alert: CertificateRequired", "wants a client certificate", False),
    ("[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca", "does not accept the client", False),
    ("received fatal alert: UnknownCA", "does not accept the client certificate", False),
    ("received fatal alert: CertificateRevoked", "does not accept the client certificate", False),
    ("[SSL: SSLV3_ALERT_CERTIFICATE_EXPIRED] sslv3 alert certificate expired", "client certificate has expired", False),
    ("received fatal alert: CertificateExpired", "client certificate has expired", False),
    ("[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] sslv3 alert handshake failure", "broke off the handshake", False),
    ("received fatal alert: HandshakeFailure", "broke off the handshake", False),
    ("[SSL: TLSV1_ALERT_PROTOCOL_VERSION] tlsv1 alert protocol version", "no version of TLS", False),
    ("[SSL: UNSUPPORTED_PROTOCOL] unsupported protocol", "no version of TLS", False),
    ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "does not speak TLS", False),
    ("[SSL: RECORD_LAYER_FAILURE] record layer failure", "does not speak TLS", False),
    ("received corrupt message of type InvalidContentType", "does not speak TLS", False),
    ("tls handshake eof", "hung up", True),
    ("EndOfStream  SSLEOFError [SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation", "hung up", True),
    ("[SSL] unknown error (_ssl.c:1000)", "no secure connection could be agreed on", True),
    ("[Errno -2] Name or service not known", "host name is not known", True),
    ("[Errno 8] nodename nor servname provided, or not known", "host name is not known", True),
    ("[Errno 11001] getaddrinfo failed", "host name is not known", True),
    ("Temporary failure in name resolution", "host name is not known", True),
    ("All connection attempts failed ConnectionRefusedError [Errno 111]", "connection was refused", True),
    ("[Errno 113] No route to host", "cannot be reached", True),
    ("[Errno 101] Network is unreachable", "cannot be reached", True),
    ("tunnel error: proxy authorization required", "the proxy refused the credentials", False),
    ("tunnel error: unsuccessful", "the proxy did not open a way", True),
    ("tunnel error: failed to create underlying connection tcp connect error Connection refused", "refused", True),
    ("", "no connection could be made", True),
]


@pytest.mark.parametrize(("text", "words", "temporary"), TEXTS)
def test_a_text(text: str, words: str, temporary: bool) -> None:
    cause = explain(text)
    assert words in cause.message
    assert cause.temporary is temporary


def test_what_a_proxy_is_to_blame_for() -> None:
    for text, words in (
        ("Connection refused", "the proxy refused the connection"),
        ("Name or service not known", "the proxy's host name"),
        ("Network is unreachable", "the proxy cannot be reached"),
        ("anything", "no connection to the proxy"),
    ):
        cause = explain(text, proxied=True)
        assert words in cause.message
        assert cause.temporary
    assert "certificate has expired" in explain("certificate has expired", proxied=True).message


def test_a_proxy_s_own_words_do_not_count() -> None:
    assert words_of(httpx.ProxyError("503 certificate has expired")) == "tunnel error: 503"
    assert explain(words_of(httpx.ProxyError("407 Who are you?"))).credentials


@given(st.text(max_size=60))
def test_no_text_shows(text: str) -> None:
    assert explain(f"QUILL{text}FEATHER").message == explain(f"QUILL{text}FEATHER".lower()).message
    assert "QUILL" not in explain(f"QUILL{text}FEATHER").message
