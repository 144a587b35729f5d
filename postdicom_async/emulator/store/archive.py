"""Files on disk and an SQLite index of them: the archive without HTTP.

Every method blocks and may be called from any thread. A file is written under ``incoming/``, read, and renamed to
``studies/<study>/<series>/<instance>.dcm``; only then does the index name it. A file once named never changes: an
instance stored anew gets a file of its own, so that a download under way never mixes two versions. A file without an
index entry was left by a killed process; it is removed when the archive is opened again.
"""

from __future__ import annotations

import errno
import filecmp
import json
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from postdicom_async.emulator.store.attributes import INDEXED_TAGS, KEPT_BY_LEVEL, EntityLevel, is_uid
from postdicom_async.emulator.store.files import make_file, make_folder, only_mine
from postdicom_async.emulator.store.header import Json, read_header
from postdicom_async.emulator.store.schema import (
    PRUNE,
    PUT_INSTANCE,
    PUT_SERIES,
    PUT_STUDY,
    SCHEMA,
    UID_COLUMNS,
    VIEWS,
    add_vendor_tables,
)
from postdicom_async.errors import UsageError
from postdicom_async.results import InstanceUids

T = TypeVar("T")

_RESERVED = 256 * 1024
"""Bytes of the disk reserved for deletions."""

_WAIT_FOR_ANOTHER = 1.0
"""Seconds that another archive on the folder may take to end."""


@dataclass(frozen=True)
class Parsed:
    """What the index keeps of one file."""

    uids: InstanceUids
    sop_class_uid: str
    transfer_syntax: str
    attributes: Json


@dataclass(frozen=True)
class StoredInstance:
    """One file of the archive; ``path`` never changes its content."""

    uids: InstanceUids
    path: Path
    size: int
    transfer_syntax: str


@dataclass(frozen=True)
class IndexRow:
    """One entity of a search, with what the index knows about it and its parents."""

    uids: InstanceUids
    study: Json
    series: Json
    instance: Json
    series_in_study: int | None
    instances_in_study: int | None
    modalities_in_study: tuple[str, ...]
    instances_in_series: int | None
    path: Path | None


def parse_instance(path: Path) -> Parsed:
    """Read what the index needs from a file.

    Raises:
        UnreadableHeader: see `header.read_header`. Missing UIDs are left empty, for the caller to judge.
    """
    header = read_header(path, INDEXED_TAGS)
    uids = InstanceUids(header.text(0x0020000D), header.text(0x0020000E), header.text(0x00080018))
    return Parsed(uids, header.text(0x00080016), header.transfer_syntax, header.json())


class ArchiveStore:
    """An archive in a folder. Close it when done.

    Args:
        folder: where the files and their index are.
        durable: keep the index whole when the machine fails; a temporary archive need not wait for the disk.

    Raises:
        UsageError: another archive has the folder open.
    """

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self.folder = folder
        self._incoming = folder / "incoming"
        make_folder(folder)
        for old in ("studies", "documents", "reserve"):  # an older archive let others look
            if (folder / old).exists():
                only_mine(folder / old)
        self._lock = threading.Lock()
        index = folder / "index.sqlite"
        self.is_new: bool = not index.exists()
        for file in (index, *folder.glob("index.sqlite-*")):  # files beside the index get its mode when they are made
            make_file(file)
        self._database = _open_index(index, durable=durable)
        add_vendor_tables(self._database)
        shutil.rmtree(self._incoming, ignore_errors=True)  # nobody else's: the index is ours alone
        make_folder(self._incoming)
        if not self.is_new:  # beside an index that was lost nothing is known to be left over
            self._sweep()
        self._reserve = folder / "reserve"
        self._fill_reserve()

    def _sweep(self) -> None:
        """Remove the files that the index does not name."""
        for series in self.folder.glob("studies/*/*"):
            known = {instance.path for instance in self._select(self._database, series.parent.name, series.name)}
            for file in set(series.glob("*.dcm")) - known:
                self._remove_file(file)

    def close(self) -> None:
        """Close the index; nothing may be called afterwards."""
        with self._lock:
            self._database.close()

    def new_incoming(self) -> Path:
        """Return a fresh path to write a file to before `add` takes it."""
        return self._incoming / f"{uuid4().hex}.part"

    def add(self, incoming: Path, parsed: Parsed) -> StoredInstance:
        """Take a written file into the archive, in place of an instance of the same SOP Instance UID if there is one.

        Raises:
            ValueError: a UID is missing or not a UID.
            OSError: the disk refused.
        """
        if not all(is_uid(uid) for uid in parsed.uids):
            raise ValueError("a UID is missing or malformed")
        size = incoming.stat().st_size
        known = self.instance(parsed.uids.sop_instance_uid)
        # Sent again, as after a lost answer: nothing is written, so a download in progress is not disturbed.
        if known and known.uids == parsed.uids and _same_bytes(known, incoming, size):
            incoming.unlink()
            return known
        with self.placing(incoming, lambda: self._free_path(parsed.uids)) as (database, path):
            stored = StoredInstance(parsed.uids, path, size, parsed.transfer_syntax)
            replaced = self._select(database, instance_uid=parsed.uids.sop_instance_uid)
            self._index(database, stored, parsed.attributes)
            for old in replaced:
                self._prune(database, old.uids.study_instance_uid)
        for old in replaced:  # only now: had the transaction failed, the index would still name them
            self._remove_file(old.path)
        return stored

    def _free_path(self, uids: InstanceUids) -> Path:
        path = self.folder.joinpath("studies", *uids[:2], f"{uids.sop_instance_uid}.dcm")
        return path.with_stem(f"{path.stem}-{uuid4().hex[:8]}") if path.exists() else path

    def _index(self, database: sqlite3.Connection, stored: StoredInstance, attributes: Json) -> None:
        study, series, instance = stored.uids
        study_json, series_json, instance_json = (_kept(attributes, level) for level in EntityLevel)
        modality = "".join(attributes.get("00080060", {}).get("Value", [])[:1])
        path = stored.path.relative_to(self.folder).as_posix()
        database.execute(PUT_STUDY, (study, study_json))
        database.execute(PUT_SERIES, (series, study, modality, series_json))
        database.execute(
            PUT_INSTANCE, (instance, series, study, path, stored.size, stored.transfer_syntax, instance_json)
        )

    def instance(self, sop_instance_uid: str) -> StoredInstance | None:
        """Return one instance by its UID alone, None when unknown."""
        found = self.instances(sop_instance_uid=sop_instance_uid)
        return found[0] if found else None

    def instances(
        self, study_instance_uid: str = "", series_instance_uid: str = "", sop_instance_uid: str = ""
    ) -> list[StoredInstance]:
        """Return the instances under the given UIDs in the order they were first stored."""
        with self._lock:
            return self._select(self._database, study_instance_uid, series_instance_uid, sop_instance_uid)

    def _select(
        self, database: sqlite3.Connection, study_uid: str = "", series_uid: str = "", instance_uid: str = ""
    ) -> list[StoredInstance]:
        given = {"study_uid": study_uid, "series_uid": series_uid, "instance_uid": instance_uid}
        wanted = {column: uid for column, uid in given.items() if uid}
        where = " AND ".join(f"{column} = ?" for column in wanted) or "1"
        rows = database.execute(
            f"SELECT study_uid, series_uid, instance_uid, path, size, transfer_syntax FROM instances"  # noqa: S608
            f" WHERE {where} ORDER BY id",
            tuple(wanted.values()),
        )
        return [
            StoredInstance(InstanceUids(study, series, instance), self.folder / path, size, syntax)
            for study, series, instance, path, size, syntax in rows
        ]

    def delete(self, study_instance_uid: str, series_instance_uid: str = "", sop_instance_uid: str = "") -> int:
        """Delete everything under the given UIDs; return how many instances that were."""
        wanted = study_instance_uid, series_instance_uid, sop_instance_uid

        def forget(database: sqlite3.Connection) -> list[StoredInstance]:
            found = self._select(database, *wanted)
            uids = [(old.uids.sop_instance_uid,) for old in found]
            database.executemany("DELETE FROM instances WHERE instance_uid = ?", uids)
            self._prune(database, study_instance_uid)
            return found

        found = self.deleting(forget, [old.path for old in self.instances(*wanted)])
        for old in found:
            self._remove_file(old.path)
        return len(found)

    def _prune(self, database: sqlite3.Connection, study_uid: str) -> None:
        """Forget the series and the study that have lost their last instance."""
        for sql in PRUNE:
            database.execute(sql, (study_uid,))

    def _remove_file(self, path: Path) -> None:
        """Remove a file, and its series' and study's folders once they are empty."""
        path.unlink(missing_ok=True)
        with suppress(OSError):  # others are in it
            path.parent.rmdir()
            path.parent.parent.rmdir()

    def rows(
        self, level: EntityLevel, uids: Mapping[str, Sequence[str]], limit: int | None = None, offset: int = 0
    ) -> Iterator[IndexRow]:
        """Return the entities of a level under the given UIDs, in the order they were first stored.

        Args:
            level: what to return.
            uids: hexadecimal tag of a UID attribute to its allowed values.
            limit: at most so many.
            offset: skip so many.
        """
        clauses = [f"{UID_COLUMNS[tag]} IN ({', '.join('?' * len(values))})" for tag, values in uids.items()]
        where = f" WHERE {' AND '.join(clauses)}" if clauses else ""
        sql = f"SELECT * FROM {level}_rows{where} ORDER BY id LIMIT ? OFFSET ?"  # noqa: S608
        arguments = [uid for values in uids.values() for uid in values]
        with self._lock:
            found = self._database.execute(sql, [*arguments, -1 if limit is None else limit, offset]).fetchall()
        return map(self._row, found)

    def _row(self, columns: Sequence[Any]) -> IndexRow:
        """Return a row of a view of `schema.VIEWS`."""
        _, *uids, study, series, instance, series_count, instance_count, modalities, in_series, path = columns
        return IndexRow(
            InstanceUids(*uids),
            json.loads(study),
            json.loads(series),
            json.loads(instance),
            series_count,
            instance_count,
            tuple(sorted(filter(None, (modalities or "").split(",")))),
            in_series,
            self.folder / path if path else None,
        )

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the index's database to one thread at a time; what it did is undone when the block raises.

        Raises:
            OSError: ``ENOSPC`` when the disk is full.
        """
        try:
            with self._lock, self._database:
                yield self._database
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
        else:
            return
        raise OSError(errno.ENOSPC, "the disk is full")

    @contextmanager
    def placing(self, incoming: Path, choose: Callable[[], Path]) -> Iterator[tuple[sqlite3.Connection, Path]]:
        """Put a file where it stays and give the database, to name it there; when that fails, the file is gone."""
        path: Path | None = None
        try:
            with self.transaction() as database:
                path = choose()
                make_folder(path.parent)
                incoming.rename(path)
                yield database, path
        except BaseException:  # also a cancelled request: until the next start nobody would sweep the file
            if path:
                self._remove_file(path)
            raise

    def deleting(self, work: Callable[[sqlite3.Connection], T], files: Iterable[Path] = ()) -> T:
        """Let a function delete from the database, also where the disk is full, and return what it returns.

        Even a deletion needs space, for the journal: it comes from the reserve, or from the files that are to be
        deleted anyway.
        """

        def remove_files() -> None:
            for path in files:
                self._remove_file(path)

        ways: list[Callable[[], object]] = [lambda: self._reserve.unlink(missing_ok=True), remove_files]
        while True:
            try:
                with self.transaction() as database:
                    done = work(database)
            except OSError as error:
                if error.errno != errno.ENOSPC or not ways:
                    raise
                ways.pop(0)()
            else:
                self._fill_reserve()
                return done

    def _fill_reserve(self) -> None:
        """Reserve disk space for `deleting`, if there is any."""
        if self._reserve.exists():
            return
        make_file(self._reserve)
        try:
            self._reserve.write_bytes(bytes(_RESERVED))
        except OSError:
            self._reserve.unlink()


def _open_index(index: Path, *, durable: bool) -> sqlite3.Connection:
    """Open the index, for one archive at a time: another would sweep away what this one is about to store.

    Raises:
        UsageError: another archive has it open.
    """
    database = sqlite3.connect(index, check_same_thread=False, timeout=_WAIT_FOR_ANOTHER)
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")  # until it is closed, or its process is gone
        database.execute(f"PRAGMA synchronous = {'NORMAL' if durable else 'OFF'}")
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(f"BEGIN IMMEDIATE;{SCHEMA}{VIEWS}COMMIT;")
    except BaseException as error:
        database.close()
        if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_BUSY:
            raise
    else:
        return database
    raise UsageError(f"the folder {index.parent} is in use by another archive")


def _kept(attributes: Json, level: EntityLevel) -> str:
    return json.dumps({tag: attributes[tag] for tag in KEPT_BY_LEVEL[level] if tag in attributes})


def _same_bytes(known: StoredInstance, incoming: Path, size: int) -> bool:
    try:
        return known.size == size and filecmp.cmp(known.path, incoming, shallow=False)
    except OSError:
        return False
