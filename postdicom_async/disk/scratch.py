"""What must be remembered of every instance, in bounded memory: the latest entries in a dict, the rest on disk.

A `Scratch` is one private database, opened when the first of its maps outgrows its dict: a small transfer never has
one. SQLite creates its file in the folder for temporary files when the pages no longer fit the cache, and unlinks it at
once: nobody else can open it, and it is gone when it is closed or the process ends. Nothing is ever committed, so it
has no journal and costs no fsync. It may be used from any one thread at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from postdicom_async.errors import LocalFileError
from postdicom_async.face import translated

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Sequence

ScratchKey: TypeAlias = tuple[int, str | bytes]
"""A number and a text; entries with the same number are stored together on disk."""

_V = TypeVar("_V", int, str, bytes)
_T = TypeVar("_T")

_CACHE_KIB = 8 << 10  # KiB of pages; more go to the file
_RECENT = 1024  # entries written at a time: some milliseconds
_SLICE = 1000
_FILTER_FROM = 4096  # keys; with fewer the database answers as quickly
# at a million keys one in seventy is a false positive; with more the database is queried more often
_FILTER_BYTES = 1 << 21
_LAST, _SHIFT = _FILTER_BYTES - 1, 32


class Scratch:
    """A database that is opened when it is needed."""

    def __init__(self) -> None:
        self._database: sqlite3.Connection | None = None
        self._tables = 0

    def rows(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        """Return the rows of a query.

        Raises:
            LocalFileError: the folder for temporary files is full or cannot be written to.
        """
        return self._run(lambda database: database.execute(query, values).fetchall())

    def write(self, command: str, rows: Iterable[Sequence[object]]) -> None:
        """Run a command once for each row.

        Raises:
            LocalFileError: the folder for temporary files is full or cannot be written to.
        """
        self._run(lambda database: database.executemany(command, rows))

    def _run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        from sqlite3 import Error  # imported here: most transfers are small and never need it

        with translated(Error, lambda error: LocalFileError(f"the folder for temporary files: {error}")):
            if self._database is None:
                self._database = _new_database()
            return work(self._database)

    def new_table(self) -> str:
        """Create a table of keys and values and return its name."""
        self._tables += 1
        name = f"t{self._tables}"
        self.rows(f"CREATE TABLE {name} (a, b, value, PRIMARY KEY (a, b)) WITHOUT ROWID")
        return name

    def close(self) -> None:
        """Forget everything."""
        if self._database is not None:
            self._database.close()
            self._database = None


def _new_database() -> sqlite3.Connection:
    import sqlite3

    database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    for setting in (f"cache_size=-{_CACHE_KIB}", "journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE"):
        database.execute(f"PRAGMA {setting}")
    return database


class ScratchMap(Generic[_V]):
    """Values by key; nothing is ever taken out.

    Before a large table is queried, a bit filter rules out most keys that are not in it.

    Args:
        scratch: where it is kept.
        held: how many entries are in memory before they are written.
    """

    def __init__(self, scratch: Scratch, *, held: int | None = None) -> None:
        self._scratch = scratch
        self._held = _RECENT if held is None else held
        self._recent: dict[ScratchKey, _V] = {}
        self._table = ""
        self._filter = bytearray()  # of the keys in the table, once it is large and queried
        self._written = 0

    def get(self, key: ScratchKey) -> _V | None:
        """Return the value of a key, None where there is none."""
        found = self._recent.get(key)
        if found is not None or not self._table:
            return found
        if self._written >= _FILTER_FROM and not self._filter:
            self._filter = bytearray(_FILTER_BYTES)
            self._admit(self.keys())
        number, bits = hash(key), self._filter
        if bits and not (
            bits[number >> _SHIFT & _LAST] >> (number & 7) & 1 and bits[number >> 3 & _LAST] >> (number & 7) & 1
        ):
            return None
        query = f"SELECT value FROM {self._table} WHERE a = ? AND b = ?"  # noqa: S608 - our own names
        rows = self._scratch.rows(query, key)
        return rows[0][0] if rows else None

    def put(self, key: ScratchKey, value: _V) -> None:
        """Set the value of a key."""
        self._recent[key] = value
        if len(self._recent) >= self._held:
            self.table()

    def keys(self) -> Iterator[ScratchKey]:
        """Yield every key in order, a slice in memory at a time. Nothing may be put in meanwhile."""
        if not self._table:
            yield from sorted(self._recent)
            return
        query = f"SELECT a, b FROM {self.table()} WHERE (a, b) > (?, ?) ORDER BY a, b LIMIT {_SLICE}"  # noqa: S608
        after: ScratchKey = (-1, "")
        while rows := self._scratch.rows(query, after):
            yield from rows
            after = rows[-1]

    def table(self) -> str:
        """Write pending entries; return the name of the table (columns a, b, value), which then holds everything."""
        if not self._table:
            self._table = self._scratch.new_table()
        rows = sorted((a, b, value) for (a, b), value in self._recent.items())
        command = f"INSERT OR REPLACE INTO {self._table} VALUES (?, ?, ?)"  # noqa: S608
        self._scratch.write(command, rows)
        self._written += len(rows)
        if self._filter:
            self._admit(self._recent)
        self._recent.clear()
        return self._table

    def _admit(self, keys: Iterable[ScratchKey]) -> None:
        bits = self._filter
        for number in map(hash, keys):
            bits[number >> _SHIFT & _LAST] |= 1 << (number & 7)
            bits[number >> 3 & _LAST] |= 1 << (number & 7)

    def drop(self) -> None:
        """Forget everything in it."""
        if self._table:
            self._scratch.rows(f"DROP TABLE {self._table}")
        self._recent.clear()
        self._filter, self._table, self._written = bytearray(), "", 0


class Marks:
    """Short marks (digests) of items seen, each with the number it was first added with. Close it.

    Attributes:
        size: how many there are.
    """

    def __init__(self) -> None:
        self.size: int = 0
        self._scratch = Scratch()
        self._numbers: ScratchMap[int] = ScratchMap(self._scratch)

    def number_of(self, mark: bytes) -> int | None:
        """Return the number of a mark, None where it was not added."""
        return self._numbers.get((0, mark))

    def add(self, mark: bytes, number: int = 0) -> bool:
        """Add a mark; return whether it is new."""
        if self._numbers.get((0, mark)) is not None:
            return False
        self._numbers.put((0, mark), number)
        self.size += 1
        return True

    def close(self) -> None:
        """Forget them."""
        self._scratch.close()
        self._numbers = ScratchMap(self._scratch)
        self.size = 0
