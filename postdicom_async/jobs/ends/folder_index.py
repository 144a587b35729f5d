"""The index of a folder: one private SQLite file that says of every file there what it is, so that it is read once.

Paths hold patients' names, and so may what a filter asks for: the file is for this user alone, lies beside the job and
never in the folder, and nothing of it goes anywhere else. It is a memory, not a truth: it may be deleted at any time,
and is made anew by another scan; only the names of what is no instance (see `FolderIndex.mark`) are others then.

Files that say the same of their study and series share a row of ``groups``. A file belongs to a group, or has a flaw,
or both: another one has its SOP Instance UID and came first in the order of paths. One process uses an index at a time;
the methods block, and threads take turns.
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

from postdicom_async.disk.files import explain_os_error
from postdicom_async.disk.threads import in_background
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
    # texts: what a filter asks for, as JSON.
    """CREATE TABLE groups (
        id INTEGER PRIMARY KEY, study TEXT NOT NULL, series TEXT NOT NULL, date TEXT NOT NULL, texts TEXT NOT NULL,
        UNIQUE (study, series, date, texts))""",
    # path: relative, as the system has its bytes. flaw: a `states.Reason`. digest: of the content, where it was wanted.
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
_NEVER: Final = -1  # an inode that no file has: what could not be read is read again next time


class SeriesGroup(NamedTuple):
    """What a file says of the study and series it belongs to."""

    study: str
    series: str
    date: str
    texts: str


class FoundFile(NamedTuple):
    """A file as it was found.

    Attributes:
        path: relative to the folder, as the system has its bytes.
        identity: of its status; None where it could not be read, so that it is tried again.
        flaw: why it is no instance, a `states.Reason`; 0 where it is one.
    """

    path: bytes
    size: int
    identity: FileIdentity | None
    flaw: int
    group: SeriesGroup | None = None
    uid: str | None = None


class IndexedFile(NamedTuple):
    """A file as the index has it: what tells that it has not changed."""

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
        scan: the number of the scan that has begun last.
    """

    def __init__(self, path: Path | None, *, root: str, texts: Collection[str]) -> None:
        """Open an index, or make it; None is one that only this process has, and is gone with it.

        Args:
            path: where it lies.
            root: the folder it is about; one of another folder, or with other ``texts``, is emptied.
            texts: the attributes that groups are to have.

        Raises:
            LedgerUnusable: that file is something else, or damaged; it was not touched.
            LocalFileError: it cannot be opened or made.
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
        # What it gives out of a damaged file may be no text, or of another type.
        with self._lock, translated((sqlite3.Error, ValueError, TypeError), _problem):
            return work()

    def _write(self, work: Callable[[], _T]) -> _T:
        """Do work in one transaction."""

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
        """Return what is kept under a name, None where nothing is."""
        return self._run(lambda: self._fact(name))

    def mark(self, path: bytes) -> str:
        """Return what stands for a file that is no instance: 16 hexadecimal digits that do not reveal its path."""
        return blake2b(path, key=self._key, digest_size=8).hexdigest()

    # --- scanning ----------------------------------------------------------------------------------------------------

    def begin_scan(self) -> None:
        """Note that a scan begins: what it does not meet will be forgotten in its end."""
        number = self.scan + 1
        self._write(lambda: self._put("scan", number))
        self.scan = number

    def known(self, paths: Sequence[bytes]) -> dict[bytes, IndexedFile]:
        """Return those of some files that the index has."""
        marks = ",".join("?" * len(paths))
        query = f"SELECT path, id, size, mtime, inode, ctime FROM files WHERE path IN ({marks})"  # noqa: S608 - marks
        rows = self._run(lambda: self._database.execute(query, paths).fetchall())
        asked = frozenset(paths)  # a damaged index may answer with others
        return {path: IndexedFile(id_, tuple(identity)) for path, id_, *identity in rows if path in asked}

    def note(self, seen: Iterable[FoundFile], unchanged: Iterable[int] = ()) -> None:
        """Note what was found, and what is as it was, in one transaction."""

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
        """Forget files that the scan has not met, and groups without files."""

        def end() -> None:
            self._database.execute("DELETE FROM files WHERE scan <> ?", (self.scan,))
            unused = "NOT EXISTS (SELECT 1 FROM files WHERE files.group_id = groups.id)"
            self._database.execute(f"DELETE FROM groups WHERE {unused}")  # noqa: S608 - our own words

        self._write(end)

    def forget(self, ids: Iterable[int]) -> None:
        """Forget files that are gone."""
        self._write(lambda: self._database.executemany("DELETE FROM files WHERE id = ?", [(id_,) for id_ in ids]))

    # --- files of one UID --------------------------------------------------------------------------------------------

    def shared_uids(self, after: str, limit: int) -> list[str]:
        """Return SOP Instance UIDs that several files have, or that a file has a flaw for."""
        query = (
            "SELECT uid FROM files WHERE uid > ? GROUP BY uid HAVING count(*) > 1 OR max(flaw) <> 0 "
            "ORDER BY uid LIMIT ?"
        )
        rows = self._run(lambda: self._database.execute(query, (after, limit)).fetchall())
        return _onward(after, [row[0] for row in rows])

    def files_of_uid(self, uid: str) -> list[tuple[FileRow, bytes | None]]:
        """Return the files of a SOP Instance UID by path, with the digest of their content where it is known."""
        query = f"{_FILES}, f.digest FROM files f JOIN groups g ON g.id = f.group_id WHERE f.uid = ? ORDER BY f.path"
        rows = self._run(lambda: self._database.execute(query, (uid,)).fetchall())
        return [(_row(row[:-1]), row[-1]) for row in rows]

    def set_flaws(self, rows: Iterable[tuple[int, int, bytes | None]]) -> None:
        """Set flaw and digest of files, by id."""
        values = [(flaw, digest, id_) for id_, flaw, digest in rows]
        self._write(lambda: self._database.executemany("UPDATE files SET flaw = ?, digest = ? WHERE id = ?", values))

    # --- listing -----------------------------------------------------------------------------------------------------

    def studies(self, after: str, limit: int) -> list[str]:
        """Return UIDs of studies in their order."""
        query = "SELECT DISTINCT study FROM groups WHERE study > ? ORDER BY study LIMIT ?"
        rows = self._run(lambda: self._database.execute(query, (after, limit)).fetchall())
        return _onward(after, [row[0] for row in rows])

    def groups(self, first: str, last: str) -> list[tuple[SeriesGroup, int]]:
        """Return the groups of studies, by their UIDs from ``first`` to ``last``, and how many instances each has."""
        query = (
            "SELECT study, series, date, texts, (SELECT count(*) FROM files WHERE group_id = groups.id AND flaw = 0) "
            "FROM groups WHERE study BETWEEN ? AND ? ORDER BY study"
        )
        rows = self._run(lambda: self._database.execute(query, (first, last)).fetchall())
        return [(SeriesGroup(*row[:-1]), row[-1]) for row in rows]

    def files(self, study: str, after: tuple[str, bytes], limit: int) -> list[FileRow]:
        """Return files of a study, those with a flaw too, by series and path after that pair."""
        query = (
            f"{_FILES} FROM groups g JOIN files f ON f.group_id = g.id WHERE g.study = ? "
            "AND (g.series, f.path) > (?, ?) ORDER BY g.series, f.path LIMIT ?"
        )
        rows = self._run(lambda: self._database.execute(query, (study, *after, limit)).fetchall())
        found = [_row(row) for row in rows]
        _onward(after, [(row.series, row.path) for row in found])
        return found

    def flawed(self, after: int, limit: int) -> list[tuple[FileRow, str | None]]:
        """Return files with a flaw by id, and the study of those that have one."""
        query = (
            f"{_FILES}, g.study FROM files f LEFT JOIN groups g ON g.id = f.group_id "
            "WHERE f.flaw <> 0 AND f.id > ? ORDER BY f.id LIMIT ?"
        )
        rows = self._run(lambda: self._database.execute(query, (after, limit)).fetchall())
        _onward(after, [row[0] for row in rows])
        return [(_row(row[:-1]), row[-1]) for row in rows]

    def find(self, study: str, series: str, uid: str) -> FileRow | None:
        """Return the file that is an instance."""
        query = (
            f"{_FILES} FROM files f JOIN groups g ON g.id = f.group_id "
            "WHERE f.uid = ? AND f.flaw = 0 AND g.study = ? AND g.series = ?"
        )
        row = self._run(lambda: self._database.execute(query, (uid, study, series)).fetchone())
        return None if row is None else _row(row)


_FILES: Final = "SELECT f.id, f.path, f.size, f.flaw, g.series, f.uid, f.size, f.mtime, f.inode, f.ctime"


def _onward(after: _Key, keys: list[_Key]) -> list[_Key]:
    """Return the keys of a page, which come behind the one before: in a damaged index they may go round for ever."""
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
            # Private from the first moment; what SQLite makes beside it has the same mode.
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0), 0o600))
    with translated(sqlite3.Error, _problem):
        return sqlite3.connect("" if path is None else path, isolation_level=None, check_same_thread=False)


def damaged() -> LedgerUnusable:
    """Return the error of an index that does not hold what it should."""
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
    """Return what is wrong with an index; SQLite's own words may quote what is in it."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code not in _WORDS:
        return damaged()
    problem = LocalFileError(f"the index of a folder: {_WORDS[code]}")
    problem.disk_full = code == sqlite3.SQLITE_FULL
    problem.temporary = code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY}
    return problem


# --- what is listed of it --------------------------------------------------------------------------------------------


class FolderListing:
    """The studies, instances and other files of a folder, as far as a filter means them; a page at a time."""

    def __init__(self, chosen: StudyFilter) -> None:
        self._filter = chosen

    async def listed_index(self) -> FolderIndex:
        """Return the index that is read from, when the folder has been searched, and all that was stored noted."""
        raise NotImplementedError

    async def studies(self, *, since: str = "", until: str = "") -> AsyncGenerator[list[ListedStudy], None]:
        """Yield the studies that the filter means. A study is dated by the first date that its files say.

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
        """Return what the folder has of a study, None where that is nothing, or the filter leaves it out."""
        index = await self.listed_index()
        found = self._studies_of(await in_background(partial(index.groups, study, study)))
        return found[0] if found else None

    def _studies_of(self, groups: Sequence[tuple[SeriesGroup, int]]) -> list[ListedStudy]:
        """Return the studies of some groups, which come study by study."""
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
        """Yield every other file: what is not DICOM, cannot be read, is there twice, or lies outside the filter.

        ``flaw`` says which; ``uid`` is a digest that only this index can make of the path, ``series`` empty. With
        what `instances` yields for each study, every file that was found comes once.
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
        """Whether the filter means a study."""
        if not self._filter:
            return True
        groups = await in_background(partial(index.groups, study, study))
        return self._filter.matches(study, [_said(group) for group, _ in groups])


async def files_of(index: FolderIndex, study: str) -> AsyncGenerator[list[FileRow], None]:
    """Yield all files of a study, some at a time, whatever a filter says."""
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
