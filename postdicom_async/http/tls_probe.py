"""How a server encrypts: a handshake of our own, as transports do not tell. No request is sent."""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from postdicom_async.http.tls import tls_context

if TYPE_CHECKING:
    from postdicom_async.settings import Settings

__all__ = ["TlsFacts", "tls_facts"]

_HTTPS_PORT = 443
_DAY = 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """What a handshake agreed on.

    Attributes:
        version: for example ``"TLSv1.3"``.
        days_left: until the server's certificate ends; None where it was not verified.
    """

    version: str
    days_left: int | None


async def tls_facts(url: str, settings: Settings) -> TlsFacts | None:
    """Shake hands with an https server and leave; None when that fails."""
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
