"""The index of a folder: a private SQLite file that records what each file is, so that each is read only once.

Paths may hold patients' names, and so may filter values: the file is readable for this user alone, lies beside the job
and never in the folder, and its content goes nowhere else. It is a cache: it may be deleted at any time and is rebuilt
by another scan; only the digests that stand for files that are not instances (see `FolderIndex.mark`) change then.

Files with equal study and series attributes share a row of ``groups``. A file has a group, or a flaw, or both (when
another file with the same SOP Instance UID precedes it by path). One process uses an index at a time; the methods
block, and threads take turns.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import threading
from functools import partial
from hashlib import blake2b
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from postdicom_async.disk.files import explain_os_error, in_background
from postdicom_async.errors import LedgerUnusable, LocalFileError
from postdicom_async.face import translated
from postdicom_async.jobs.ends.end import ListedInstance, ListedStudy
from postdicom_async.jobs.states import Reason

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from postdicom_async.disk.files import FileIdentity
    from postdicom_async.jobs.ends.folder_match import StudyFilter


_T = TypeVar("_T")
_Key = TypeVar("_Key", str, int, "tuple[str, bytes]")

_APPLICATION: Final = 0x50444649
_VERSION: Final = 1
_SCHEMA: Final = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    # texts: the attributes that filters use, as JSON.
    """CREATE TABLE groups (
        id INTEGER PRIMARY KEY, study TEXT NOT NULL, series TEXT NOT NULL, date TEXT NOT NULL, texts TEXT NOT NULL,
        UNIQUE (study, series, date, texts))""",
    # path: relative, in the file system's bytes. flaw: a `states.Reason`. digest: of the content, where it was needed.
    """CREATE TABLE files (
        id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, size INTEGER NOT NULL, mtime INTEGER NOT NULL,
        inode INTEGER NOT NULL, ctime INTEGER NOT NULL, flaw INTEGER NOT NULL, group_id INTEGER, uid TEXT, digest BLOB,
        scan INTEGER NOT NULL)""",
    "CREATE INDEX files_of_group ON files (group_id, flaw)",
    "CREATE INDEX files_of_uid ON files (uid, flaw) WHERE uid IS NOT NULL",
    "CREATE INDEX files_with_flaw ON files (flaw) WHERE flaw <> 0",
)
_CACHE_KIB: Final = 16 << 10
_STUDIES: Final = 500  # in a page
_FILES_A_PAGE: Final = 1000
_NEVER: Final = -1  # an inode that no file has, so that an unreadable file is read again next time


class SeriesGroup(NamedTuple):
    """The study and series attributes of a file."""

    study: str
    series: str
    date: str
    texts: str


class FoundFile(NamedTuple):
    """A file as a scan found it.

    Attributes:
        path: relative to the folder, in the file system's bytes.
        identity: from its status (`stat`); None if it could not be read, so that it is tried again.
        flaw: why it is not an instance, a `states.Reason`; 0 if it is one.
    """

    path: bytes
    size: int
    identity: FileIdentity | None
    flaw: int
    group: SeriesGroup | None = None
    uid: str | None = None


class IndexedFile(NamedTuple):
    """What the index has of a file to tell whether it has changed."""

    id: int
    identity: FileIdentity


class FileRow(NamedTuple):
    """A file in the index."""

    id: int
    path: bytes
    size: int
    flaw: int
    series: str
    uid: str
    identity: FileIdentity

    @property
    def place(self) -> str:
        """Its path in the folder as text, with slashes."""
        return os.fsdecode(self.path).replace(os.sep, "/")


class FolderIndex:
    """An open index. Close it.

    Attributes:
        scan: the number of the latest scan.
    """

    def __init__(self, path: Path | None, *, root: str, texts: Collection[str]) -> None:
        """Open or create an index; with path None, a temporary one in this process.

        Args:
            path: its file.
            root: the folder it describes; an index of another folder, or with other ``texts``, is emptied.
            texts: the attributes to keep in groups.

        Raises:
            LedgerUnusable: the file is not an index, or damaged; it was not touched.
            LocalFileError: it cannot be opened or created.
        """
        self._lock = threading.RLock()
        self._database = _opened(path)
        try:
            self._run(lambda: self._prepare(root, sorted(texts)))
            self._key: bytes = self.fact("key")
            self.scan: int = self.fact("scan") or 0
        except BaseException:
            self._database.close()
            raise

    def _prepare(self, root: str, texts: list[str]) -> None:
        database = self._database
        application, version = (
            database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        empty = not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not empty and (application, version) != (_APPLICATION, _VERSION):
            raise LedgerUnusable("the index of a folder: this file is none, or of another version; name another file")
        for setting in (f"cache_size=-{_CACHE_KIB}", "journal_mode=WAL", "synchronous=NORMAL"):
            database.execute(f"PRAGMA {setting}")
        about = json.dumps([root, texts])

        def fill() -> None:
            if empty:
                for command in _SCHEMA:
                    database.execute(command)
                database.execute(f"PRAGMA application_id={_APPLICATION}")
                database.execute(f"PRAGMA user_version={_VERSION}")
                self._put("key", secrets.token_bytes(32))
            if self._fact("about") != about:
                database.execute("DELETE FROM files")
                database.execute("DELETE FROM groups")
                self._put("about", about)

        self._write(fill)

    def close(self) -> None:
        """Close it."""
        with self._lock:
            self._database.close()

    def _run(self, work: Callable[[], _T]) -> _T:
        # A damaged file may yield values of another type, or text that is not UTF-8.
        with self._lock, translated((sqlite3.Error, ValueError, TypeError), _problem):
            return work()

    def _write(self, work: Callable[[], _T]) -> _T:
        """Run ``work`` in one transaction."""

        def inside() -> _T:
            self._database.execute("BEGIN IMMEDIATE")
            with self._database:
                return work()

        return self._run(inside)

    def _fact(self, name: str) -> Any:
        row = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row and row[0]

    def _put(self, name: str, value: object) -> None:
        self._database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def fact(self, name: str) -> Any:
        """Return the value stored under a name, or None."""
        return self._run(lambda: self._fact(name))

    def mark(self, path: bytes) -> str:
        """Return a keyed digest that stands for a non-instance file.

        16 hexadecimal digits that do not reveal its path.
        """
        return blake2b(path, key=self._key, digest_size=8).hexdigest()

    # --- scanning ----------------------------------------------------------------------------------------------------

    def begin_scan(self) -> None:
        """Begin a scan: `end_scan` will remove the files that it has not seen."""
        number = self.scan + 1
        self._write(lambda: self._put("scan", number))
        self.scan = number

    def known(self, paths: Sequence[bytes]) -> dict[bytes, IndexedFile]:
        """Return those of the given files that the index has."""
        marks = ",".join("?" * len(paths))
        query = f"SELECT path, id, size, mtime, inode, ctime FROM files WHERE path IN ({marks})"  # noqa: S608 - marks
        rows = self._run(lambda: self._database.execute(query, paths).fetchall())
        asked = frozenset(paths)  # a damaged index may return other files
        return {path: IndexedFile(id_, tuple(identity)) for path, id_, *identity in rows if path in asked}

    def note(self, seen: Iterable[FoundFile], unchanged: Iterable[int] = ()) -> None:
        """Record the files found and those unchanged, in one transaction."""

        def note() -> None:
            scan = self.scan
            self._database.executemany("UPDATE files SET scan = ? WHERE id = ?", [(scan, id_) for id_ in unchanged])
            groups: dict[SeriesGroup, int] = {}
            for one in seen:
                if one.group is not None and one.group not in groups:
                    groups[one.group] = self._group(one.group)
                group = None if one.group is None else groups[one.group]
                identity = one.identity or (one.size, 0, _NEVER, 0)
                self._database.execute(
                    "INSERT OR REPLACE INTO files (path, size, mtime, inode, ctime, flaw, group_id, uid, scan) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (one.path, *identity, one.flaw, group, one.uid, scan),
                )

        self._write(note)

    def _group(self, group: SeriesGroup) -> int:
        self._database.execute("INSERT OR IGNORE INTO groups (study, series, date, texts) VALUES (?, ?, ?, ?)", group)
        query = "SELECT id FROM groups WHERE study = ? AND series = ? AND date = ? AND texts = ?"
        return int(self._database.execute(query, group).fetchone()[0])

    def end_scan(self) -> None:
        """Remove files that the scan has not seen, and groups without files."""

        def end() -> None:
            self._database.execute("DELETE FROM files WHERE scan <> ?", (self.scan,))
            unused = "NOT EXISTS (SELECT 1 FROM files WHERE files.group_id = groups.id)"
            self._database.execute(f"DELETE FROM groups WHERE {unused}")  # noqa: S608 - our own words

        self._write(end)

    def forget(self, ids: Iterable[int]) -> None:
        """Remove files that are gone."""
        self._write(lambda: self._database.executemany("DELETE FROM files WHERE id = ?", [(id_,) for id_ in ids]))

    # --- files of one UID --------------------------------------------------------------------------------------------

    def shared_uids(self, after: str, limit: int) -> list[str]:
        """Return the SOP Instance UIDs that several files share, or whose file is marked as a copy."""
        query = (
            "SELECT uid FROM files WHERE uid > ? GROUP BY uid HAVING count(*) > 1 OR max(flaw) <> 0 "
            "ORDER BY uid LIMIT ?"
        )
        rows = self._run(lambda: self._database.execute(query, (after, limit)).fetchall())
        return _onward(after, [row[0] for row in rows])

    def files_of_uid(self, uid: str) -> list[tuple[FileRow, bytes | None]]:
        """Return the files of a SOP Instance UID by path, with the digest of their content if known."""
        query = f"{_FILES}, f.digest FROM files f JOIN groups g ON g.id = f.group_id WHERE f.uid = ? ORDER BY f.path"
        rows = self._run(lambda: self._database.execute(query, (uid,)).fetchall())
        return [(_row(row[:-1]), row[-1]) for row in rows]

    def set_flaws(self, rows: Iterable[tuple[int, int, bytes | None]]) -> None:
        """Set the flaw and digest of files, by id."""
        values = [(flaw, digest, id_) for id_, flaw, digest in rows]
        self._write(lambda: self._database.executemany("UPDATE files SET flaw = ?, digest = ? WHERE id = ?", values))

    # --- listing -----------------------------------------------------------------------------------------------------

    def studies(self, after: str, limit: int) -> list[str]:
        """Return a page of Study Instance UIDs in order."""
        query = "SELECT DISTINCT study FROM groups WHERE study > ? ORDER BY study LIMIT ?"
        rows = self._run(lambda: self._database.execute(query, (after, limit)).fetchall())
        return _onward(after, [row[0] for row in rows])

    def groups(self, first: str, last: str) -> list[tuple[SeriesGroup, int]]:
        """Return the groups of the studies from UID ``first`` to ``last``, with the number of instances in each."""
        query = (
            "SELECT study, series, date, texts, (SELECT count(*) FROM files WHERE group_id = groups.id AND flaw = 0) "
            "FROM groups WHERE study BETWEEN ? AND ? ORDER BY study"
        )
        rows = self._run(lambda: self._database.execute(query, (first, last)).fetchall())
        return [(SeriesGroup(*row[:-1]), row[-1]) for row in rows]

    def files(self, study: str, after: tuple[str, bytes], limit: int) -> list[FileRow]:
        """Return a page of a study's files, flawed ones too, by series and path, after the given pair."""
        query = (
            f"{_FILES} FROM groups g JOIN files f ON f.group_id = g.id WHERE g.study = ? "
            "AND (g.series, f.path) > (?, ?) ORDER BY g.series, f.path LIMIT ?"
        )
        rows = self._run(lambda: self._database.execute(query, (study, *after, limit)).fetchall())
        found = [_row(row) for row in rows]
        _onward(after, [(row.series, row.path) for row in found])
        return found

    def flawed(self, after: int, limit: int) -> list[tuple[FileRow, str | None]]:
        """Return a page of flawed files by id, with their study if they have one."""
        query = (
            f"{_FILES}, g.study FROM files f LEFT JOIN groups g ON g.id = f.group_id "
            "WHERE f.flaw <> 0 AND f.id > ? ORDER BY f.id LIMIT ?"
        )
        rows = self._run(lambda: self._database.execute(query, (after, limit)).fetchall())
        _onward(after, [row[0] for row in rows])
        return [(_row(row[:-1]), row[-1]) for row in rows]

    def find(self, study: str, series: str, uid: str) -> FileRow | None:
        """Return the file of an instance."""
        query = (
            f"{_FILES} FROM files f JOIN groups g ON g.id = f.group_id "
            "WHERE f.uid = ? AND f.flaw = 0 AND g.study = ? AND g.series = ?"
        )
        row = self._run(lambda: self._database.execute(query, (uid, study, series)).fetchone())
        return None if row is None else _row(row)


_FILES: Final = "SELECT f.id, f.path, f.size, f.flaw, g.series, f.uid, f.size, f.mtime, f.inode, f.ctime"


def _onward(after: _Key, keys: list[_Key]) -> list[_Key]:
    """Require that a page's keys follow those of the page before: in a damaged index paging could loop for ever."""
    with translated(TypeError, lambda _: damaged()):
        for key in keys:
            if key <= after:
                raise damaged()
            after = key
    return keys


def _row(row: Sequence[Any]) -> FileRow:
    id_, path, size, flaw, series, uid, *identity = row
    return FileRow(id_, path, size, flaw, series or "", uid or "", tuple(identity))


def _opened(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        with translated(OSError, lambda error: LocalFileError(f"the index of a folder: {explain_os_error(error)}")):
            # Created with mode 0600; SQLite's side files get the same mode.
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0), 0o600))
    with translated(sqlite3.Error, _problem):
        return sqlite3.connect("" if path is None else path, isolation_level=None, check_same_thread=False)


def damaged() -> LedgerUnusable:
    """Return the error for an index with invalid content."""
    return LedgerUnusable("the index of a folder, beside the ledger, is damaged or none: delete it; it is made anew")


_WORDS: Final = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk failed",
    sqlite3.SQLITE_BUSY: "another process uses it",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_READONLY: "it cannot be written to",
    sqlite3.SQLITE_PERM: "permission denied",
}


def _problem(error: Exception) -> LocalFileError | LedgerUnusable:
    """Translate an SQLite error into ours; SQLite's own text may quote the content."""
    code = getattr(error, "sqlite_errorcode", 0)
    code = sqlite3.SQLITE_FULL if code == sqlite3.SQLITE_IOERR_SHMSIZE else code & 0xFF
    if code not in _WORDS:
        return damaged()
    problem = LocalFileError(f"the index of a folder: {_WORDS[code]}")
    problem.disk_full = code == sqlite3.SQLITE_FULL
    problem.temporary = code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY}
    return problem


# --- what is listed of it --------------------------------------------------------------------------------------------


class FolderListing:
    """The studies, instances and other files of a folder that match a filter, in pages."""

    def __init__(self, chosen: StudyFilter) -> None:
        self._filter = chosen

    async def listed_index(self) -> FolderIndex:
        """Return the index to read from, after the folder was scanned and stored files were added."""
        raise NotImplementedError

    async def studies(self, *, since: str = "", until: str = "") -> AsyncGenerator[list[ListedStudy], None]:
        """Yield the studies that match the filter. A study's date is the first one found in its files.

        Raises:
            UsageError, LocalFileError, LedgerUnusable: as `refresh`.
        """
        index, last = await self.listed_index(), ""
        while uids := await in_background(partial(index.studies, last, _STUDIES)):
            last = uids[-1]
            found = self._studies_of(await in_background(partial(index.groups, uids[0], last)))
            if listed := [study for study in found if not study.date or _within(study.date, since, until)]:
                yield listed

    async def study(self, study: str) -> ListedStudy | None:
        """Return the folder's entry for a study, None if it has none, or the filter excludes the study."""
        index = await self.listed_index()
        found = self._studies_of(await in_background(partial(index.groups, study, study)))
        return found[0] if found else None

    def _studies_of(self, groups: Sequence[tuple[SeriesGroup, int]]) -> list[ListedStudy]:
        """Return the studies of some groups, which are ordered by study."""
        listed: list[ListedStudy] = []
        for uid, some in groupby(groups, key=lambda one: one[0].study):
            of_study = list(some)
            instances = sum(count for _, count in of_study)
            if instances and self._filter.matches(uid, [_said(group) for group, _ in of_study]):
                dates = [group.date for group, _ in of_study if group.date]
                listed.append(ListedStudy(uid, min(dates, default=""), instances))
        return listed

    async def instances(self, study: str) -> AsyncGenerator[list[ListedInstance], None]:
        """Yield the instances of a study, each with its place in the folder. See `excluded` for other files."""
        index = await self.listed_index()
        if await self.is_chosen(index, study):
            async for rows in files_of(index, study):
                if listed := [ListedInstance(row.series, row.uid, row.size, row.place) for row in rows if not row.flaw]:
                    yield listed

    async def excluded(self) -> AsyncGenerator[list[ListedInstance], None]:
        """Yield every other file: not DICOM, unreadable, a duplicate, or outside the filter.

        ``flaw`` says which; ``uid`` is a keyed digest of the path that only this index can compute; ``series`` is
        empty. Together with `instances` of all studies, every file found is yielded exactly once.
        """
        index = await self.listed_index()

        def as_listed(row: FileRow, flaw: int) -> ListedInstance:
            return ListedInstance("", index.mark(row.path), row.size, row.place, int(flaw))

        after = 0
        while flawed := await in_background(partial(index.flawed, after, _FILES_A_PAGE)):
            after = flawed[-1][0].id
            chosen = {study: await self.is_chosen(index, study) for study in {study for _, study in flawed if study}}
            yield [as_listed(row, row.flaw if not study or chosen[study] else Reason.FILTER) for row, study in flawed]
        last = ""
        while self._filter and (uids := await in_background(partial(index.studies, last, _STUDIES))):
            last = uids[-1]
            for study in uids:
                if await self.is_chosen(index, study):
                    continue
                async for rows in files_of(index, study):
                    if some := [as_listed(row, Reason.FILTER) for row in rows if not row.flaw]:
                        yield some

    async def is_chosen(self, index: FolderIndex, study: str) -> bool:
        """Whether a study matches the filter."""
        if not self._filter:
            return True
        groups = await in_background(partial(index.groups, study, study))
        return self._filter.matches(study, [_said(group) for group, _ in groups])


async def files_of(index: FolderIndex, study: str) -> AsyncGenerator[list[FileRow], None]:
    """Yield all files of a study in pages, regardless of the filter."""
    after = ("", b"")
    while rows := await in_background(partial(index.files, study, after, _FILES_A_PAGE)):
        after = (rows[-1].series, rows[-1].path)
        yield rows


def _within(date: str, since: str, until: str) -> bool:
    return (not since or since <= date) and (not until or date <= until)


def _said(group: SeriesGroup) -> Mapping[str, str]:
    with translated(ValueError, lambda _: damaged()):
        texts: dict[str, str] = json.loads(group.texts) if group.texts else {}
    return {**texts, "study_date": group.date}
