"""What clients of plain HTTP take instead of the system's authorities."""

from __future__ import annotations

import ssl

NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For ``verify=`` of httpx: reading certifi's authorities takes 20 ms of the processor for each client."""
