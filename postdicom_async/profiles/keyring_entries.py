"""Entries of the user's keyring, through a process of its own: a backend may hang, print, or want to ask something."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from urllib.parse import urlsplit

__all__ = ["KEYRING_SERVICE", "entry_host", "forget", "keep", "stored"]

KEYRING_SERVICE = "postdicom-async"
_PATIENCE = 10.0
_USUAL_PORTS = {"http": 80, "https": 443}


def entry_host(url: str) -> str | None:
    """Return scheme, host and port as an entry names them, the usual port left out; None for what is no address."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        return None
    if parts.scheme not in _USUAL_PORTS or not host:
        return None
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + ("" if port in {None, _USUAL_PORTS[parts.scheme]} else f":{port}")


def stored(entry: str) -> str | None:
    """Return the secret of an entry; None where there is none, no keyring, or one that does not answer in time."""
    found = _keyring("get", entry)
    return found.removesuffix("\n").removesuffix("\r") or None if found else None


def keep(entry: str, secret: str) -> bool:
    """Put a secret into an entry, and read it back; return whether it is there: some backends keep nothing."""
    return _keyring("set", entry, secret) is not None and stored(entry) == secret


def forget(entry: str) -> bool:
    """Take an entry out; return whether it was there."""
    return stored(entry) is not None and _keyring("del", entry) is not None


def _keyring(operation: str, entry: str, secret: str = "") -> str | None:
    """Run keyring's own command; return what it wrote, None if it did not work. The secret goes through a pipe."""
    if find_spec("keyring") is None:
        return None
    # -P: a module that lies in the current folder is not taken for keyring.
    command = [sys.executable, "-P", "-X", "utf8", "-m", "keyring", operation, KEYRING_SERVICE, entry]
    try:
        answer = subprocess.run(  # noqa: S603 - this very interpreter
            command,
            input=secret.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE,
            start_new_session=True,
            check=False,
        )
        return answer.stdout.decode() if answer.returncode == 0 else None
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
