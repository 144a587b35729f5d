"""pyreqwest is imported where it can stay: in a thread that does not end before the process does.

What it makes on its import belongs to the thread that did it; once that has ended, the next use from any other thread
is a segmentation fault (pyreqwest 0.15.1). Web frameworks' test clients and worker pools have just such threads.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import cache

__all__ = ["load_pyreqwest"]


@cache
def load_pyreqwest() -> None:
    """Import pyreqwest, if it is installed, in the main thread or else in one that waits for ever."""
    if threading.current_thread() is threading.main_thread():
        _import()
        return
    is_loaded = threading.Event()

    def stay() -> None:
        _import()
        is_loaded.set()
        threading.Event().wait()

    threading.Thread(target=stay, name="pyreqwest", daemon=True).start()
    is_loaded.wait()


def _import() -> None:
    with suppress(ImportError):
        import pyreqwest.client
        import pyreqwest.exceptions
        import pyreqwest.proxy
        import pyreqwest.response  # noqa: F401
