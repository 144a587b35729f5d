"""Certificates and keys: checked before anything is sent, each mistake with its own message, and never a prompt.

OpenSSL asks on the terminal for the password of a key unless it is given a callback. Here it always is.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from postdicom_async.errors import UsageError
from postdicom_async.face import translated
from postdicom_async.settings import Tls

if TYPE_CHECKING:
    from postdicom_async.settings import Settings

_CERTIFICATE = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----")
_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----")
_PLAIN_CERTIFICATES = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----")
_OF_ANOTHER = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"})


def tls_context(tls: Tls) -> ssl.SSLContext:
    """Return the context of these settings.

    Raises:
        UsageError: a file cannot be used; the message names the setting.
    """
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    if tls.accept_any_certificate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.ca_file is not None:
        # Certificates in this file are trusted directly: an intermediate authority or a server's own certificate
        # without its issuer, as curl does, and an authority made without the extensions that Python 3.13 began to
        # require.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        _require_pem("tls.ca_file", tls.ca_file, _CERTIFICATE, "certificate")
        damaged = UsageError(f"{tls.ca_file} is damaged, or is not a PEM file of certificates", argument="tls.ca_file")
        with translated((OSError, ValueError), lambda _: damaged):  # ssl.SSLError is an OSError
            context.load_verify_locations(tls.ca_file)
    _load_own(context, tls)
    return context


def _load_own(context: ssl.SSLContext, tls: Tls) -> None:
    """Load the client certificate and its key."""
    if tls.certificate is None:
        if tls.key is not None:
            raise UsageError("give tls.certificate too", argument="tls.key")
        return
    content = _require_pem("tls.certificate", tls.certificate, _CERTIFICATE, "certificate")
    key = tls.certificate if tls.key is None else tls.key
    if tls.key is not None:
        _require_pem("tls.key", tls.key, _KEY, "private key")
    elif not _KEY.search(content):
        raise UsageError(f"give the file of the private key; {tls.certificate} holds none", argument="tls.key")
    problem = _loaded(context, tls, key, content)
    if problem is not None:
        raise problem


def _loaded(context: ssl.SSLContext, tls: Tls, key: Path, content: bytes) -> UsageError | None:
    """Load certificate and key; return what is wrong with them, None if nothing is."""
    asked = False

    def password() -> bytes:
        nonlocal asked
        asked = True
        return (tls.key_password or "").encode(errors="replace")

    try:
        context.load_cert_chain(tls.certificate or key, tls.key, password)
    except (OSError, ValueError) as error:  # ssl.SSLError, or a password longer than OpenSSL takes
        reason = getattr(error, "reason", None)
    else:
        return None
    if reason in _OF_ANOTHER:
        return UsageError(f"{key} is not the key of the certificate in tls.certificate", argument="tls.key")
    if asked and tls.key_password is None:
        return UsageError(f"the key in {key} is encrypted; give its password", argument="tls.key_password")
    if asked:
        return UsageError(f"the password does not open the key in {key}", argument="tls.key_password")
    if not _can_be_read(content):
        return UsageError(f"{tls.certificate} is damaged", argument="tls.certificate")
    return UsageError(f"the key in {key} is damaged, or of a kind that cannot be used", argument="tls.key")


def _can_be_read(content: bytes) -> bool:
    """Whether the certificates of a file can be parsed."""
    blocks = b"\n".join(_PLAIN_CERTIFICATES.findall(content)).decode("ascii", "replace")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=blocks)
    except (OSError, ValueError):
        return False
    return True


def _require_pem(argument: str, path: Path, block: re.Pattern[bytes], what: str) -> bytes:
    """Return a file's content, which must contain a PEM block matching ``block``."""
    content: bytes | None = None
    words = "cannot be read"
    try:
        if path.exists() and not path.is_file():
            words = "is not a file"  # reading a pipe would block, and it is empty the second time
        else:
            content = path.read_bytes()
    except (OSError, ValueError) as error:
        words = f"cannot be read: {(getattr(error, 'strerror', None) or 'no such path').lower()}"
    if content is None:
        raise UsageError(f"{path} {words}", argument=argument)
    if not block.search(content):
        raise UsageError(f"{path} holds no {what} in PEM form", argument=argument)
    return content


# --- a handshake of our own -------------------------------------------------------------------------------------------


_HTTPS_PORT = 443
_DAY = 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """The result of a handshake.

    Attributes:
        version: for example ``"TLSv1.3"``.
        days_left: days until the server's certificate expires; None if it was not verified.
    """

    version: str
    days_left: int | None


async def tls_facts(url: str, settings: Settings) -> TlsFacts | None:
    """Do a TLS handshake with an https server and disconnect; return None if that fails."""
    parts = urlsplit(url)
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(settings.timeouts.connect):
            _, writer = await asyncio.open_connection(
                parts.hostname, parts.port or _HTTPS_PORT, ssl=tls_context(settings.tls)
            )
        return _facts(writer.get_extra_info("ssl_object"))
    except (OSError, ValueError):  # ssl.SSLError and TimeoutError are OSErrors
        return None
    finally:
        if writer is not None:
            writer.transport.abort()


def _facts(connection: ssl.SSLObject) -> TlsFacts:
    certificate: Any = connection.getpeercert()
    ends = certificate.get("notAfter") if certificate else None
    days = None if ends is None else int((ssl.cert_time_to_seconds(ends) - time.time()) // _DAY)
    return TlsFacts(connection.version() or "TLS", days)
