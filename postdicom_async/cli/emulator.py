"""The way to the embedded archive, which needs the extra ``server``."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from postdicom_async import UsageError

if TYPE_CHECKING:
    from postdicom_async.emulator import EmbeddedArchive

__all__ = ["embedded_archive"]

_NEEDED = ("starlette", "uvicorn")


def embedded_archive() -> type[EmbeddedArchive]:
    """Return the class of the embedded archive.

    Raises:
        UsageError: the extra ``server`` is not installed.
    """
    if not all(map(find_spec, _NEEDED)):
        raise UsageError('this needs the embedded archive: pip install "postdicom-async[cli,server]"')
    from postdicom_async.emulator import EmbeddedArchive

    return EmbeddedArchive
