"""pydicom without its warnings and its log: they may quote what is in a file, a patient's name among it.

Filters of warnings belong to the whole process, so that one thread at a time may change them; the filter of the log
looks at a mark of the thread, and stays.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_one_at_a_time = threading.Lock()  # filters of warnings are the whole process's
_here = threading.local()


def _is_not_ours(_record: object) -> bool:
    return not getattr(_here, "reading", False)


@contextmanager
def in_silence() -> Iterator[None]:
    """Keep pydicom from warning of values that are not valid and from logging them: they may be anything."""
    with _one_at_a_time, warnings.catch_warnings(), unlogged():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def unlogged() -> Iterator[None]:
    """Keep pydicom from logging values in this thread; Python's warnings, whose filters all threads share, go on."""
    from pydicom import config

    config.logger.addFilter(_is_not_ours)  # once, however often it is called
    _here.reading = True
    try:
        yield
    finally:
        _here.reading = False
