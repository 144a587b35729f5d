"""An embedded DICOMweb archive: a test double and a demonstration server (extra ``server``).

It speaks the URL shapes of PS3.18 and PostDICOM's on one base address, keeps files in a folder and an SQLite index
beside them, and hands out exactly the bytes it was given. Of PostDICOM's own operations it knows all thirteen: every
study is a patient order, folders hold orders, and a share is a page that opens without the account.
"""

from __future__ import annotations

try:
    from postdicom_async.emulator.app import create_app
    from postdicom_async.emulator.context import ArchiveLimits, ArchiveOptions
    from postdicom_async.emulator.server import EmbeddedArchive, archive_in_thread, serve
except ModuleNotFoundError as _missing:
    if (_missing.name or "").partition(".")[0] not in ("multipart", "starlette", "uvicorn"):
        raise
    # Of this kind, so that tests can skip what needs it (pytest.importorskip).
    _HINT = 'the embedded archive needs the extra "server": pip install "postdicom-async[server]"'
    raise ModuleNotFoundError(_HINT, name=_missing.name) from None

__all__ = ["ArchiveLimits", "ArchiveOptions", "EmbeddedArchive", "archive_in_thread", "create_app", "serve"]
