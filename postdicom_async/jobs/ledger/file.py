"""The file of a ledger: creating it, checking that it can be trusted, and explaining its errors. Blocks.

A ledger is checked before anything may change it: a file that is not a ledger, has a newer version or is damaged is
refused and left untouched. A new ledger is created under a temporary name and renamed when it is complete.

Damage. SQLite protects its write-ahead log with checksums, but not its pages. So every row that matters has a checksum
(``mark``) that is verified when the row is read, the items of a study are checked against its counts, and the sums of
all counts are compared with each other whenever a ledger is opened. Ledgers up to `SMALL` bytes are checked completely
on opening. In a larger one, a changed bit in a page is noticed only when that page is read.
"""

# ruff: noqa: S608 - SQL is made of question marks and names of this file alone

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from postdicom_async.disk.private_files import forget, make_private, put_in_place
from postdicom_async.errors import LedgerUnusable, LocalFileError, PostdicomError
from postdicom_async.face import translated
from postdicom_async.jobs.ledger.book import Book, items_of
from postdicom_async.jobs.ledger.schema import APPLICATION_ID, BEFORE_ALL, PAGE_SIZE, SCHEMA, VERSION
from postdicom_async.jobs.states import Reason, State

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


SMALL: Final = 16 << 20
"""Ledgers up to this size in bytes are checked completely when opened; that takes less than two seconds."""

_SLICE: Final = 1000

_NO_LEDGER: Final = "it is no ledger of a job; it was not touched"
_NEWER: Final = "the ledger was made by a newer version of this program: use that one; it was not touched"
_DAMAGED: Final = "the ledger is damaged; start afresh with another one: what was moved is found at the target again"

_SUMS: Final = (
    # the counts by study against those by month
    (
        "SELECT state, sum(instances), sum(bytes) FROM tally WHERE instances > 0 OR bytes > 0 GROUP BY state",
        "SELECT state, sum(instances), sum(bytes) FROM total WHERE instances > 0 OR bytes > 0 GROUP BY state",
    ),
    # the studies against the calendar
    (
        (
            "SELECT month, count(*), sum(stage = 1 OR unlisted > 0), sum(stage = 0), "
            "sum(CASE stage WHEN 0 THEN coalesce(at_source, 0) ELSE 0 END), sum(verified) "
            "FROM study NOT INDEXED WHERE seen > 0 AND uid <> '' GROUP BY month"
        ),
        "SELECT month, studies, equal, waiting, expected, verified FROM calendar WHERE studies > 0 ORDER BY month",
    ),
    # the table of studies against its indexes
    (
        "SELECT stage, count(*), sum(position) FROM study NOT INDEXED GROUP BY stage",
        "SELECT stage, count(*), sum(position) FROM study INDEXED BY study_by_stage GROUP BY stage",
    ),
    (
        "SELECT count(*), sum(position) FROM study NOT INDEXED",
        "SELECT count(*), sum(position) FROM study INDEXED BY study_by_position",
    ),
    ("SELECT count(*) FROM study NOT INDEXED", "SELECT count(*) FROM study INDEXED BY sqlite_autoindex_study_1"),
)
"""Pairs of queries that must have equal results; none scans the items."""


def explained_by_sqlite() -> translated[Exception]:
    """Return a context that translates SQLite's errors into ours, without SQLite's text.

    In a damaged file, even the error text may fail to decode.
    """
    return translated((sqlite3.Error, UnicodeDecodeError), _problem)


def _problem(error: Exception) -> PostdicomError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    kind = code & 0xFF
    if code in FULL:
        full = LocalFileError("the ledger: the disk is full", temporary=True)
        full.disk_full = True
        return full
    if kind in _LOCAL:
        return LocalFileError(f"the ledger: {_LOCAL[kind]}", temporary=kind == sqlite3.SQLITE_BUSY)
    return LedgerUnusable(_NO_LEDGER if kind == sqlite3.SQLITE_NOTADB else _DAMAGED)


FULL: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
"""SQLite's codes of a full disk; the second is that of a ``-shm`` file for which there is no room."""

_LOCAL: Final = {
    sqlite3.SQLITE_IOERR: "the disk failed, or its quota is used up",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_READONLY: "it cannot be written to",
    sqlite3.SQLITE_PERM: "permission denied",
    sqlite3.SQLITE_BUSY: "another program holds it",
    sqlite3.SQLITE_LOCKED: "another program holds it",
    sqlite3.SQLITE_NOMEM: "there is not enough memory",
}


def side_files(path: Path) -> tuple[Path, Path]:
    """Return the names of SQLite's ``-wal`` and ``-shm`` files, which lie beside a ledger in use."""
    return path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def connected(path: Path, mode: str) -> sqlite3.Connection:
    """Connect to a ledger: ``rw``, ``ro``, or ``immutable`` if nobody writes it."""
    how = "mode=ro&immutable=1" if mode == "immutable" else f"mode={mode}"
    where = f"{path.absolute().as_uri()}?{how}"
    database = sqlite3.connect(where, uri=True, isolation_level=None, timeout=10, check_same_thread=False)
    try:
        for setting in ("synchronous=FULL", "cell_size_check=ON", "temp_store=MEMORY", "cache_size=-16000"):
            database.execute(f"PRAGMA {setting}")
    except BaseException:
        database.close()
        raise
    return database


def make(path: Path, facts: Mapping[str, str]) -> None:
    """Create a ledger with some facts, as JSON. The caller holds the lock.

    Raises:
        LocalFileError: it cannot be made.
    """
    made = path.with_name(f"{path.name}.new")
    left = (made, *side_files(made))
    for one in left:
        forget(one)
    make_private(made)
    try:
        with closing(connected(made, "rw")) as database:
            # Before anything else: once a file has a table or is in WAL mode, its page size cannot change.
            database.execute(f"PRAGMA page_size={PAGE_SIZE}")
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("BEGIN IMMEDIATE")
            database.execute(f"PRAGMA application_id={APPLICATION_ID}")
            database.execute(f"PRAGMA user_version={VERSION}")
            for command in SCHEMA:
                database.execute(command)
            database.execute("COMMIT")
            puts = [partial(Book.put, name=name, value=value) for name, value in facts.items()]
            Book(database).write([Book.note_nothing, *puts])
        put_in_place(made, path)
    except BaseException:
        for one in left:
            forget(one)
        raise


def examine(path: Path, identity: object = None, *, to_merge: bool = False) -> None:
    """Check whether a ledger can be trusted, without changing it. The caller holds the lock.

    The ``identity`` of a part is checked only when it is merged: the machine that runs the part has another key.

    Raises:
        LedgerUnusable: it is not a ledger, of a newer version, damaged, or of another job than ``identity``; or its
            parts are not merged yet, unless ``to_merge``.
        LocalFileError: it cannot be read.
    """
    _refuse_what_is_no_file(path)
    settled = _is_settled(path)
    index = side_files(path)[1]
    had_index = index.exists()
    try:
        with explained_by_sqlite(), closing(connected(path, "immutable" if settled else "ro")) as database:
            facts = _checked(database)
            size = path.stat().st_size
            if settled and size != database.execute("PRAGMA page_count").fetchone()[0] * PAGE_SIZE:
                raise LedgerUnusable(_DAMAGED)
            if size <= SMALL:
                _look_at_everything(database)
        if facts.get("parts") and not to_merge:
            raise LedgerUnusable("the parts of this job are out: postdicom jobs merge joins them; it was not touched")
        if identity is not None and not facts.get("part") and facts.get("identity") != identity:
            raise LedgerUnusable("the ledger belongs to another job; it was not touched")
    except BaseException:
        if not had_index:
            forget(index)
        raise


def _refuse_what_is_no_file(path: Path) -> None:
    if path.is_symlink() or not path.is_file():
        raise LedgerUnusable(_NO_LEDGER if path.exists() or path.is_symlink() else "there is no such ledger")


def is_ledger(path: Path) -> bool:
    """Return whether a file claims to be a ledger, even a damaged one: a job that starts over may remove it."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(72)
    return head.startswith(b"SQLite format 3") and head[68:72] == APPLICATION_ID.to_bytes(4, "big")


def _is_settled(path: Path) -> bool:
    """Whether the file is complete, with nothing left in the write-ahead log."""
    log = side_files(path)[0]
    return not log.exists() or not log.stat().st_size


def _refuse_versions(database: sqlite3.Connection) -> None:
    ids = [database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    if ids[0] != APPLICATION_ID:
        raise LedgerUnusable(_NO_LEDGER)
    if ids[1] != VERSION:
        raise LedgerUnusable(_NEWER if ids[1] > VERSION else _DAMAGED)


def _checked(database: sqlite3.Connection) -> dict[str, Any]:
    """Check the schema and the sums; return the facts.

    Raises:
        LedgerUnusable: they are wrong.
    """
    _refuse_versions(database)
    found = [sql for (sql,) in database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")]
    if found != list(SCHEMA):
        raise LedgerUnusable(_DAMAGED)
    for one, other in _SUMS:
        if database.execute(one).fetchall() != database.execute(other).fetchall():
            raise LedgerUnusable(_DAMAGED)
    return Book(database).facts()


def checked_reader(path: Path) -> sqlite3.Connection:
    """Open a ledger to read it, also while another process writes it.

    Raises:
        LedgerUnusable: it is damaged, of a newer version, or not a ledger.
        LocalFileError: it cannot be read.
    """
    _refuse_what_is_no_file(path)
    with explained_by_sqlite():
        settled = _is_settled(path)
        if settled:  # refuse a foreign file before SQLite creates its side files
            with closing(connected(path, "immutable")) as database:
                _refuse_versions(database)
        mode = "ro"
        try:
            with closing(connected(path, mode)) as database:
                database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            if not settled:
                raise
            mode = "immutable"  # in a read-only folder, so nobody writes it
        database = connected(path, mode)
        try:  # the live page reads often, and the process that runs the job has checked the sums
            (_checked if settled else _refuse_versions)(database)
        except BaseException:
            database.close()
            raise
        return database


def tidy(path: Path) -> None:
    """Remove SQLite's side files of a ledger that was only read, unless it is still in use."""
    with suppress(sqlite3.Error), closing(connected(path, "rw")) as database:
        database.execute("SELECT count(*) FROM fact").fetchone()  # the last connection to close removes them


def _look_at_everything(database: sqlite3.Connection) -> None:
    """Check every row against its mark, and every count against the rows."""
    if database.execute("PRAGMA integrity_check(1)").fetchall() != [("ok",)]:
        raise LedgerUnusable(_DAMAGED)
    book = Book(database)
    total: Counter[tuple[int, ...]] = Counter()
    tally: Counter[tuple[int, ...]] = Counter()
    after = BEFORE_ALL
    while studies := book.studies(after, _SLICE):
        after = studies[-1].position, studies[-1].id
        for study in studies:
            total[study.month, State.PRESENT, Reason.EQUAL_BY_COUNT, 0] += study.unlisted
            tally[study.id, State.PRESENT, 0] += study.unlisted
            for item in items_of(database, study):
                for counts, key in ((total, (study.month, item.state, item.reason)), (tally, (study.id, item.state))):
                    counts[*key, 0] += 1
                    counts[*key, 1] += item.size
    for counts, table, keys in ((total, "total", "month, state, reason"), (tally, "tally", "study, state")):
        for *key, instances, size in database.execute(f"SELECT {keys}, instances, bytes FROM {table}"):
            if (counts.pop((*key, 0), 0), counts.pop((*key, 1), 0)) != (instances, size):
                raise LedgerUnusable(_DAMAGED)
        if any(counts.values()):
            raise LedgerUnusable(_DAMAGED)
