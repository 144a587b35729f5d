"""One way out to the network: session, transport, retry, redaction. Knows nothing of DICOM."""

from __future__ import annotations

import sys


def _load_httpx() -> None:
    """Import httpx without its command, which is not used here and is more than half of the time that it takes.

    httpx imports its command, and so click, rich and Pygments, wherever they are installed, as the extra ``cli`` does.
    A module that is None in ``sys.modules`` cannot be imported (Python's reference, section 5.3.1), and httpx goes on
    without its command (``httpx.main``), as it does where they are not installed.
    """
    command = "httpx._main"
    sys.modules.setdefault(command, None)  # type: ignore[arg-type]  # typeshed knows of no None
    try:
        import httpx  # noqa: F401
    finally:
        if sys.modules[command] is None:
            del sys.modules[command]


_load_httpx()
