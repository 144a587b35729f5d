"""Clients for the fault tests: quick to repeat, on a transport chosen by name."""

from __future__ import annotations

import ssl
from dataclasses import fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import httpx

from postdicom_async import Limits, Retry, Settings, Timeouts, Tls
from postdicom_async.http.aiohttp_transport import AiohttpTransport
from postdicom_async.http.tls import tls_context

if TYPE_CHECKING:
    from pathlib import Path

    from postdicom_async import DicomWeb

__all__ = ["FAST", "Connect", "files_below", "settings", "transport_of"]

FAST = Settings(
    timeouts=Timeouts(connect=5, idle_write=5, answer=5, idle_read=5),
    retry=Retry(max_attempts=3, base=0.01, cap=0.02),
    fsync=False,
)
_GROUPS: dict[str, type[Any]] = {"timeouts": Timeouts, "retry": Retry, "limits": Limits}


class Connect(Protocol):
    """Makes a client on the transport under test."""

    def __call__(self, url: str, settings: Settings = FAST, **arguments: Any) -> DicomWeb: ...


def transport_of(name: str, settings: Settings, *, proxy: str | None = None) -> httpx.AsyncBaseTransport:
    """Return the library's own transport, or httpx's as a caller would make it."""
    context = _system_certificates() if settings.tls == Tls() else tls_context(settings.tls)
    if name == "aiohttp":
        return AiohttpTransport(settings, proxy=proxy, context=context)
    limits = httpx.Limits(max_connections=None, keepalive_expiry=5)
    return httpx.AsyncHTTPTransport(verify=context, trust_env=False, proxy=proxy, limits=limits)


@cache
def _system_certificates() -> ssl.SSLContext:
    """Read them once: it takes longer than most tests."""
    return tls_context(Tls())


def settings(**values: Any) -> Settings:
    """Return the quick settings with some values changed, whichever group they belong to."""
    changed: dict[str, Any] = {}
    for name, kind in _GROUPS.items():
        own = {one.name: values.pop(one.name) for one in fields(kind) if one.name in values}
        changed[name] = replace(getattr(FAST, name), **own)
    return replace(FAST, **changed, **values)


def files_below(folder: Path) -> dict[str, bytes]:
    """Return relative names and contents of all there is below a folder, links and partial files included."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
        if not path.is_dir() or path.is_symlink()
    }
