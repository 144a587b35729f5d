"""pydicom without its warnings and its log: they may quote values of a file, such as a patient's name.

Warning filters belong to the whole process, so only one thread at a time may change them; the log filter checks a mark
of the thread, and stays installed.
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
    """Keep pydicom from logging values in this thread; Python's warnings, whose filters all threads share, continue."""
    from pydicom import config

    config.logger.addFilter(_is_not_ours)  # once, however often it is called
    _here.reading = True
    try:
        yield
    finally:
        _here.reading = False
