"""Splits a job into parts that run on machines without a network between them, and merges them; the sums still add up.

A job is split by study once it has discovered the source's studies: part k of n gets those whose number modulo n is k,
with their items, under the same numbers. Files that are not instances stay with the job. Until all parts are merged the
job's own ledger stays unchanged and cannot be opened. Merging a part replaces, in one transaction, the job's rows of
its studies with the part's; each part can be merged once.

A part discovers no studies and deletes nothing, since it knows only a share of the source. It has the job's ends.
"""

# ruff: noqa: S608 - SQL is made of question marks and names of this file alone

from __future__ import annotations

import json
import secrets
import sqlite3
from collections import Counter
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, Final

from postdicom_async.disk.files import explained, in_background
from postdicom_async.disk.private_files import FileLock, make_folder, make_private
from postdicom_async.errors import LedgerLocked, LedgerUnusable, UsageError
from postdicom_async.face import public_face
from postdicom_async.jobs import job_files
from postdicom_async.jobs.ledger.book import Book
from postdicom_async.jobs.ledger.file import connected, examine, explained_by_sqlite, make
from postdicom_async.jobs.states import Reason, State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


MOST_PARTS: Final = 1000

_DISCOVERING: Final = (None, "", "discovering")
_PHASES: Final = ("moving", "verifying", "deleting", "complete")
_OF_PART: Final = "study.id <> 1 AND study.id % :of = :number"
_CALENDAR: Final = ("studies", "equal", "waiting", "expected", "verified")


@public_face
async def partition(path: Path, parts: int, folder: Path) -> list[Path]:
    """Split a job that is not running; return the ledgers of its parts.

    The files beside the ledger are copied for each part: the private options, and the index of a folder.

    Args:
        path: the ledger of the job.
        parts: the number of parts, at least 2.
        folder: where to put them; created with mode 0700 if missing.

    Raises:
        UsageError: it has fewer studies, or discovery is not complete; or a part's file exists already.
        LedgerLocked: it is running.
        LedgerUnusable: it cannot be used, or was split already.
        LocalFileError: the parts cannot be written; none is left behind.
    """
    return await in_background(lambda: _partition(path, parts, folder))


@public_face
async def merge(path: Path, parts: Sequence[Path]) -> int:
    """Merge parts into their job; return how many are still missing. With none missing the job can continue.

    The parts are not changed, except that items left running become pending.

    Args:
        path: the ledger of the job.
        parts: ledgers of some or all of its parts.

    Raises:
        LedgerUnusable: one cannot be used, is not a part of this job, was merged before, or is named twice. Those named
            before it have been merged.
        LedgerLocked: one is running.
    """
    return await in_background(lambda: _merge(path, parts))


# --- splitting ------------------------------------------------------------------------------------------------------


def _partition(path: Path, number: int, folder: Path) -> list[Path]:
    if isinstance(number, bool) or not isinstance(number, int) or not 2 <= number <= MOST_PARTS:
        raise UsageError(f"give a number from 2 to {MOST_PARTS}", argument="parts")
    token = secrets.token_hex(8)
    with explained("the ledger"), explained_by_sqlite(), _held(path) as job:
        book = Book(job)
        facts = book.facts()
        if facts.get("phase") in _DISCOVERING:
            raise UsageError("the job has not found all studies of its source yet: let it run until it moves some")
        studies = job.execute("SELECT count(*) FROM study WHERE id <> 1").fetchone()[0]
        if studies < number:
            raise UsageError(
                f"the job has {studies} studies, so that there cannot be {number} parts of it", argument="parts"
            )
        make_folder(folder)
        made = [folder / f"{path.stem}.part{k + 1}of{number}{path.suffix}" for k in range(number)]
        if any(part.exists() or part.is_symlink() for part in made):
            raise UsageError("there are files of the parts' names; give another folder", argument="folder")
        try:
            for k, part in enumerate(made):
                own = {"part": {"token": token, "number": k, "of": number}, "seconds": 0.0}
                _split_off(job, part, {**facts, **own}, {"of": number, "number": k})
                _copy_what_lies_beside(path, part)
            book.done(lambda book: book.put("parts", json.dumps({"token": token, "of": number, "back": []})))
        except BaseException:
            for part in made:
                job_files.remove_job(part)
            raise
    return made


def _split_off(job: sqlite3.Connection, part: Path, facts: Mapping[str, Any], which: Mapping[str, int]) -> None:
    """Create the ledger of a part."""
    make(part, {name: json.dumps(value) for name, value in facts.items()})
    _attach(job, part, "rw")
    try:
        job.execute("PRAGMA part.synchronous = FULL")
        job.execute("BEGIN IMMEDIATE")
        try:
            of_part = f"study IN (SELECT id FROM main.study WHERE {_OF_PART})"
            job.execute(f"INSERT INTO part.study SELECT * FROM main.study WHERE {_OF_PART} ORDER BY id", which)
            job.execute(f"INSERT INTO part.series SELECT * FROM main.series WHERE {of_part} ORDER BY id", which)
            job.execute(
                "INSERT INTO part.item SELECT item.* FROM part.series CROSS JOIN main.item ON item.series = series.id"
            )
            job.execute(f"INSERT INTO part.tally SELECT * FROM main.tally WHERE {of_part}", which)
            _require_all(job, "main", which)
            _add_sums(Book(job), "part", _sums(job, "part", which), 1)
            job.execute("COMMIT")
        except BaseException:
            job.execute("ROLLBACK")
            raise
    finally:
        job.execute("DETACH part")


def _copy_what_lies_beside(path: Path, part: Path) -> None:
    if job_files.beside(path, "private").exists():
        # A part deletes nothing: it knows only a share of the source, and everything else would seem to be gone from
        # it.
        kept = job_files.ResumeFile(path).read()
        job_files.ResumeFile(part).write({**kept, "delete": ""})
    for what in ("source", "target"):
        index = job_files.beside(path, what)
        if index.is_file():
            copy = job_files.beside(part, what)
            make_private(copy)
            with ExitStack() as stack:
                of_job = stack.enter_context(closing(sqlite3.connect(f"{index.absolute().as_uri()}?mode=ro", uri=True)))
                of_job.backup(stack.enter_context(closing(sqlite3.connect(copy))))


# --- joining --------------------------------------------------------------------------------------------------------


def _merge(path: Path, parts: Sequence[Path]) -> int:
    with explained("the ledger"), explained_by_sqlite(), _held(path, to_merge=True) as job:
        out = Book(job).facts().get("parts")
        if not out:
            raise LedgerUnusable("no part of this job is out")
        for part in parts:
            if not out:
                raise LedgerUnusable("every part of this job is back; one was named twice")
            out = _join(job, out, part)
        return out["of"] - len(out["back"]) if out else 0


def _join(job: sqlite3.Connection, out: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    """Merge one part; return the state of the missing parts, None if all are merged."""
    with _held(path) as part:
        facts = Book(part).facts()
        own = facts.get("part") or {}
        if own.get("token") != out["token"]:
            raise LedgerUnusable("it is no part of this job; nothing of it was joined")
        which = {"of": out["of"], "number": own["number"]}
        if own["number"] in out["back"]:
            raise LedgerUnusable(f"part {own['number'] + 1} is back already; nothing of it was joined")
        longest = max(float(out.get("longest") or 0), float(facts.get("seconds") or 0))
        still = {**out, "back": sorted([*out["back"], own["number"]]), "longest": longest}
        left = still if len(still["back"]) < out["of"] else None
        _attach(job, path, "ro")
        try:
            Book(job).write(
                [lambda book: _take_over(book, facts, which), lambda book: book.put("parts", json.dumps(left))]
            )
        finally:
            job.execute("DETACH part")
    return left


def _take_over(book: Book, facts: Mapping[str, Any], which: Mapping[str, int]) -> None:
    """Replace the job's rows of the part's studies with the part's rows."""
    job = book.database
    _require_the_same_studies(job, which)
    _require_all(job, "part", which)
    _add_sums(book, "main", _sums(job, "main", which), -1)
    of_part = f"study IN (SELECT id FROM main.study WHERE {_OF_PART})"
    old = job.execute(f"SELECT id FROM main.series WHERE {of_part}", which).fetchall()
    # In batches: in a single statement SQLite would hold millions of keys.
    job.executemany("DELETE FROM main.item WHERE series = ?", old)
    job.execute(f"DELETE FROM main.series WHERE {of_part}", which)
    job.execute(f"DELETE FROM main.tally WHERE {of_part}", which)
    job.execute("INSERT OR REPLACE INTO main.study SELECT * FROM part.study WHERE id <> 1")
    job.execute("INSERT INTO main.series (study, uid) SELECT study, uid FROM part.series WHERE study <> 1 ORDER BY id")
    job.execute(
        "INSERT INTO main.item SELECT mine.id, item.uid, state, reason, attempts, size, digest, item.mark "
        "FROM main.series AS mine CROSS JOIN part.series AS its ON its.study = mine.study AND its.uid = mine.uid "
        # CROSS JOIN fixes the loop order, so millions need not be sorted.
        "CROSS JOIN part.item ON item.series = its.id"
    )
    job.execute("INSERT INTO main.tally SELECT * FROM part.tally WHERE study <> 1")
    _require_all(job, "main", which)
    _add_sums(book, "main", _sums(job, "main", which), 1)
    for at, instances, size in job.execute("SELECT at, instances, bytes FROM part.moment").fetchall():
        book.add("moment", {"at": at}, {"instances": instances, "bytes": size})
    for tag, instances in job.execute("SELECT tag, instances FROM part.coerced").fetchall():
        book.add("coerced", {"tag": tag}, {"instances": instances})
    for at, text in job.execute("SELECT at, text FROM part.note ORDER BY id").fetchall():
        book.note(at, f"part {which['number'] + 1}: {text}")
    _go_on(book, facts)


def _go_on(book: Book, of_part: Mapping[str, Any]) -> None:
    """Set the phase of the job: that of the part that got least far; a sync still has to delete."""
    facts = book.facts()
    phases = [str(facts.get("phase")), str(of_part.get("phase"))] if facts["parts"]["back"] else [of_part.get("phase")]
    phase = min(phases, key=lambda one: _PHASES.index(one) if one in _PHASES else 0)
    if phase == "complete" and facts.get("verb") == "sync":
        phase = "deleting"
    book.put("phase", json.dumps(phase))
    longest = max(float(facts["parts"].get("longest") or 0), float(of_part.get("seconds") or 0))
    more = longest - float(facts["parts"].get("longest") or 0)  # the longest counts: parts run at the same time
    book.put("seconds", json.dumps(float(facts.get("seconds") or 0) + more))


# --- both -----------------------------------------------------------------------------------------------------------


@contextmanager
def _held(path: Path, *, to_merge: bool = False) -> Iterator[sqlite3.Connection]:
    """Open a ledger under its lock, for a job that is not running; items left running become pending."""
    lock = FileLock(job_files.beside(path, "lock"))
    if not path.parent.is_dir():
        raise LedgerUnusable("there is no such ledger")
    if not lock.take():
        raise LedgerLocked("this process or another runs this job already")
    try:
        examine(path, to_merge=to_merge)
        with closing(connected(path, "rw")) as database:
            database.execute("PRAGMA temp_store=FILE")  # the undo journal of a statement on millions of rows
            book = Book(database)
            if running := book.with_states([State.RUNNING]):
                book.done(lambda book: book.take_back(running))
            yield database
    finally:
        lock.let_go()


def _attach(job: sqlite3.Connection, part: Path, mode: str) -> None:
    job.execute("ATTACH ? AS part", (f"{part.absolute().as_uri()}?mode={mode}",))


def _require_the_same_studies(job: sqlite3.Connection, which: Mapping[str, int]) -> None:
    mine = job.execute(f"SELECT count(*) FROM main.study WHERE {_OF_PART}", which).fetchone()
    its = job.execute("SELECT count(*) FROM part.study WHERE id <> 1").fetchone()
    both = job.execute(
        f"SELECT count(*) FROM main.study JOIN part.study AS its ON its.id = study.id AND its.uid = study.uid "
        f"WHERE {_OF_PART}",
        which,
    ).fetchone()
    if not mine == its == both:
        raise LedgerUnusable("the part does not have the studies that were given to it; nothing of it was joined")


def _require_all(job: sqlite3.Connection, where: str, which: Mapping[str, int]) -> None:
    """Check the items of a part's studies against their counts."""
    counted = job.execute(
        f"SELECT state, sum(instances), sum(bytes) FROM {where}.tally WHERE study IN "
        f"(SELECT id FROM {where}.study WHERE {_OF_PART}) GROUP BY state",
        which,
    )
    there: Counter[tuple[int, int]] = Counter()
    for (name, key), number in _sums(job, where, which).items():
        if name in ("instances", "bytes"):
            there[key[1], name == "bytes"] += number
    for state, instances, size in counted:
        there[state, False] -= instances
        there[state, True] -= size
    if any(there.values()):
        raise LedgerUnusable("the ledger is damaged: its items are not those that it counts")


def _sums(job: sqlite3.Connection, where: str, which: Mapping[str, int]) -> Counter[tuple[str, tuple[int, ...]]]:
    """Count a part's studies and their items, by column and key of ``total`` and ``calendar``."""
    sums: Counter[tuple[str, tuple[int, ...]]] = Counter()
    for month, state, reason, instances, size in job.execute(
        f"SELECT month, state, reason, count(*), sum(size) FROM {where}.study CROSS JOIN {where}.series "
        f"ON series.study = study.id CROSS JOIN {where}.item ON item.series = series.id WHERE {_OF_PART} "
        f"GROUP BY month, state, reason UNION ALL SELECT month, {State.PRESENT:d}, {Reason.EQUAL_BY_COUNT:d}, "
        f"sum(unlisted), 0 FROM {where}.study WHERE unlisted > 0 AND {_OF_PART} GROUP BY month",
        which,
    ):
        sums["instances", (month, state, reason)] += instances
        sums["bytes", (month, state, reason)] += size
    for month, *shares in job.execute(
        f"SELECT month, count(*), sum(stage = 1 OR unlisted > 0), sum(stage = 0), "
        f"sum(CASE stage WHEN 0 THEN coalesce(at_source, 0) ELSE 0 END), sum(verified) "
        f"FROM {where}.study WHERE seen > 0 AND {_OF_PART} GROUP BY month",
        which,
    ):
        for name, share in zip(_CALENDAR, shares, strict=True):
            sums[name, (month,)] += share
    return sums


def _add_sums(book: Book, where: str, sums: Mapping[tuple[str, tuple[int, ...]], int], times: int) -> None:
    for name, key in sums:
        if name == "instances":
            more = {one: times * sums[one, key] for one in ("instances", "bytes")}
            book.add(f"{where}.total", dict(zip(("month", "state", "reason"), key, strict=True)), more)
        elif name == "studies":
            book.add(f"{where}.calendar", {"month": key[0]}, {one: times * sums[one, key] for one in _CALENDAR})
