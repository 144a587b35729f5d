"""The network layer: session, transport, retry, redaction. Knows nothing of DICOM."""

from __future__ import annotations

import sys


def _load_httpx() -> None:
    """Import httpx without its command line tool, which is unused here and takes more than half of the import time.

    httpx imports its command (``httpx.main``), and with it click, rich and Pygments, if they are installed, as with the
    extra ``cli``. A module that is None in ``sys.modules`` cannot be imported (Python's reference, section 5.3.1), and
    httpx then continues without its command, as it does where they are not installed.
    """
    command = "httpx._main"
    sys.modules.setdefault(command, None)  # type: ignore[arg-type]  # typeshed does not allow None
    try:
        import httpx  # noqa: F401
    finally:
        if sys.modules[command] is None:
            del sys.modules[command]


_load_httpx()
