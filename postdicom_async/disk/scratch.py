"""A private database for what a transfer must remember of every instance: in memory while small, on disk when large."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

__all__ = ["scratch_database"]

_CACHE_KIB = 8 << 10  # pages beyond that go to the file


def scratch_database() -> sqlite3.Connection:
    """Return an empty database that nobody else can open and that is gone when it is closed, or the process ends.

    SQLite makes its file in the folder for temporary files when the pages no longer fit the cache, and unlinks it at
    once. Nothing is ever committed: it has no journal and costs no fsync. It may be used from any one thread at a time.
    """
    import sqlite3  # here: most transfers are small and never need it

    database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    for setting in (f"cache_size=-{_CACHE_KIB}", "journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE"):
        database.execute(f"PRAGMA {setting}")
    return database
