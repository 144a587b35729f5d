"""Ledgers that are cut, changed, swapped or of something else: refused as found, or read as they were written."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import resource
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from postdicom_async.errors import LedgerUnusable, LocalFileError, PostdicomError
from postdicom_async.jobs.ends.end import ListedStudy
from postdicom_async.jobs.ledger.file import examine
from postdicom_async.jobs.ledger.ledger import Ledger
from postdicom_async.jobs.ledger.reader import LedgerReader
from postdicom_async.jobs.ledger.schema import APPLICATION_ID, VERSION, ItemRow, Stage
from postdicom_async.jobs.plan import ItemEnd
from postdicom_async.jobs.states import State
from tests.jobs.ledgers import FACTS, assert_adds_up, filled, reader
from tests.support.large import large

Content = list[list[tuple[Any, ...]]]
TABLES = ("fact", "study", "series", "item", "tally", "total", "calendar")


def content_of(path: Path) -> Content:
    """Return what is believed: everything that decides what is done and what is said of it."""
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return [sorted(database.execute(f"SELECT * FROM {table}"), key=repr) for table in TABLES]
    finally:
        database.close()


async def with_everything(path: Path) -> None:
    """Make a small ledger in which every state occurs; closed."""
    async with await filled(path, studies=3, items=6) as ledger:
        for study in await ledger.studies(Stage.PLANNED):
            keys = [(item.series, item.uid) for item in await ledger.items(study.id)]
            ledger.run_items(study.id, keys[:4])
            states = (State.DONE, State.FAILED, State.UNCONFIRMED, State.PENDING)
            ledger.settle(study.id, [ItemEnd(*key, state, 7) for key, state in zip(keys, states, strict=False)])
        await ledger.note_studies([ListedStudy("1.50", "20240101", 9)], at_target=False, run=1)
        equal = await ledger.study("1.50")
        assert equal is not None
        ledger.set_stage(equal.id, Stage.EQUAL, planned=9)
        ledger.note("a line")


def there(path: Path) -> dict[str, bytes]:
    """Return everything in the folder of a ledger."""
    return {name.name: name.read_bytes() for name in path.parent.iterdir() if name.is_file()}


async def opened(path: Path) -> str:
    """Return whether a ledger could be opened; if not, it must be as it was, and nothing else be there."""
    before = there(path)
    problem: LedgerUnusable | None = None
    try:
        async with await Ledger.open(path):
            pass
    except LedgerUnusable as error:
        problem = error
    if problem is None:
        return "opened"
    assert there(path) == before
    assert str(path.parent) not in str(problem)
    return "refused"


def looked_at(path: Path) -> str:
    """Return the same without opening it, which takes longer."""
    try:
        examine(path)
    except LedgerUnusable:
        return "refused"
    return "opened"


async def test_cut_at_every_byte_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs" / "one.ledger"
    await with_everything(path)
    whole = path.read_bytes()
    ends = [*range(200), *range(200, len(whole), 97), *range(len(whole) - 200, len(whole))]
    for end in ends:
        path.write_bytes(whole[:end])
        assert await opened(path) == "refused", end
    path.write_bytes(whole)
    assert await opened(path) == "opened"


async def test_cut_anywhere_its_log_gives_an_earlier_state(tmp_path: Path) -> None:
    path = tmp_path / "jobs" / "one.ledger"
    ledger = await filled(path, studies=2)
    study = (await ledger.studies(Stage.PLANNED))[0]
    keys = [(item.series, item.uid) for item in await ledger.items(study.id)]
    for key in keys:
        ledger.run_items(study.id, [key])
        ledger.settle(study.id, [ItemEnd(*key, State.DONE)])
        await ledger.commit()
    log = path.with_name("one.ledger-wal").read_bytes()
    whole = path.read_bytes()
    await ledger.__aexit__(None, None, None)
    other = tmp_path / "other" / "one.ledger"
    other.parent.mkdir()
    seen = set()
    for end in (*range(0, len(log), 1009), len(log)):
        shutil.rmtree(other.parent)
        other.parent.mkdir()
        other.write_bytes(whole)
        other.with_name("one.ledger-wal").write_bytes(log[:end])
        assert await opened(other) == "opened"
        assert_adds_up(other)
        with reader(other) as one:
            seen.add(one.summary().of(State.DONE).instances)
    assert seen == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("changes", [500, large(2000)])
async def test_changed_bits_are_noticed_or_change_nothing(changes: int, tmp_path: Path) -> None:
    path = tmp_path / "jobs" / "one.ledger"
    await with_everything(path)
    whole = path.read_bytes()
    true = content_of(path)
    chance = random.Random(7)
    used = [at for at in range(len(whole)) if whole[at]]
    told = {"refused": 0, "opened": 0}
    for _ in range(changes):
        at, bit = chance.choice(used if chance.random() < 0.7 else range(len(whole))), chance.randrange(8)
        changed = bytearray(whole)
        changed[at] ^= 1 << bit
        path.write_bytes(changed)
        what = await opened(path) if chance.random() < 0.1 else looked_at(path)
        told[what] += 1
        if what == "opened":
            assert content_of(path) == true, (at, bit)
    assert told["refused"] > changes // 2


async def test_swapped_and_blank_pages_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "jobs" / "one.ledger"
    await with_everything(path)
    whole = path.read_bytes()
    pages = [whole[at : at + 4096] for at in range(0, len(whole), 4096)]
    for one in range(len(pages)):
        for other in (*range(one), None):
            changed = list(pages)
            changed[one] = bytes(4096) if other is None else pages[other]
            if other is not None:
                changed[other] = pages[one]
            if changed != pages:
                path.write_bytes(b"".join(changed))
                assert looked_at(path) == "refused", (one, other)


async def test_swapped_lines_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "jobs" / "one.ledger"
    await with_everything(path)
    whole = path.read_bytes()
    swaps = [
        "UPDATE item SET state = 2 WHERE state = 0",
        "UPDATE item SET size = 101 WHERE state = 2",
        "UPDATE item SET series = series % 2 + 1 WHERE series <= 2",
        "UPDATE series SET study = 9 - study",
        "UPDATE series SET uid = uid || '.1' WHERE id = 1",
        "UPDATE study SET stage = 4 WHERE stage = 2",
        "UPDATE study SET uid = '1.77' WHERE id = 2",
        "UPDATE fact SET value = '\"complete\"' WHERE name = 'phase'",
        "UPDATE total SET instances = instances + 1 WHERE state = 2",
        "UPDATE tally SET study = 99 WHERE study = 2",
        "UPDATE calendar SET studies = studies + 1",
        "DELETE FROM item WHERE state = 0",
        "DELETE FROM study WHERE id = 3",
        "DROP INDEX study_by_stage",
        "PRAGMA user_version = 0",
        "PRAGMA writable_schema=ON; UPDATE sqlite_master SET sql = replace(sql, 'attempts', 'attempt')",
    ]
    for swap in swaps:
        path.write_bytes(whole)
        database = sqlite3.connect(path)
        database.executescript(swap)
        database.commit()
        database.close()
        assert await opened(path) == "refused", swap


async def test_a_large_ledger_notices_a_changed_line_when_it_is_read(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("postdicom_async.jobs.ledger.file.SMALL", 0)
    path = tmp_path / "jobs" / "one.ledger"
    await with_everything(path)
    database = sqlite3.connect(path)
    number, uid = database.execute(
        "SELECT study, item.uid FROM item JOIN series ON series.id = series WHERE state = 0"
    ).fetchone()
    database.execute("UPDATE item SET state = 2 WHERE uid = ?", (uid,))
    database.commit()
    database.close()
    async with await Ledger.open(path) as ledger:
        with pytest.raises(LedgerUnusable, match="damaged"):
            await ledger.items(number)
        with pytest.raises(LedgerUnusable, match="damaged"):
            await ledger.items(number, states=[State.PENDING])
    with reader(path) as one, pytest.raises(LedgerUnusable, match="damaged"):
        list(one.items())


def put(what: str, path: Path, real: Path) -> None:
    """Put something else where a ledger is looked for."""
    ids = {"foreign": f"application_id = {APPLICATION_ID + 1}", "newer": f"user_version = {VERSION + 1}"}
    if what in ids or what == "other job":
        shutil.copy(real, path)
        database = sqlite3.connect(path)
        database.execute(f"PRAGMA {ids.get(what, 'user_version')}")
        database.commit()
        database.close()
        return
    ways: dict[str, Callable[[], object]] = {
        "nothing": lambda: None,
        "folder": path.mkdir,
        "link": lambda: path.symlink_to(real),
        "pipe": lambda: os.mkfifo(path),
        "text": lambda: path.write_text("a letter\n" * 100),
        "empty": path.touch,
    }
    ways[what]()


WORDS = {
    "nothing": "no such", "folder": "no ledger", "link": "no ledger", "pipe": "no ledger", "text": "no ledger",
    "empty": "no ledger", "foreign": "no ledger", "newer": "newer version", "other job": "another job",
}  # fmt: skip


@pytest.mark.parametrize("what", WORDS)
async def test_what_is_no_ledger_of_this_job_is_left_alone(tmp_path: Path, what: str) -> None:
    path = tmp_path / "jobs" / "one.ledger"
    path.parent.mkdir()
    real = tmp_path / "real.ledger"
    await with_everything(real)
    put(what, path, real)
    before, names = there(path), sorted(path.parent.iterdir())
    with pytest.raises(LedgerUnusable, match=WORDS[what]):
        await Ledger.open(path, identity="4567" if what == "other job" else None)
    if what != "other job":
        with pytest.raises(LedgerUnusable, match=WORDS[what]):
            LedgerReader(path)
    assert (there(path), sorted(path.parent.iterdir())) == (before, names)
    if what != "nothing":
        with pytest.raises(LedgerUnusable, match="a file of that name"):
            await Ledger.create(path, FACTS)
    assert (there(path), sorted(path.parent.iterdir())) == (before, names)


async def test_a_full_disk_keeps_what_is_gathered(tmp_path: Path) -> None:
    path = tmp_path / "one.ledger"
    async with await filled(path) as ledger:
        study = (await ledger.studies(Stage.PLANNED))[0]

        def limit(size: int) -> None:
            ledger._writer.book.database.execute(f"PRAGMA max_page_count={size}")

        await ledger._writer.in_thread(lambda: limit(1))
        rows = [ItemRow("7", f"7.{n}", State.PENDING) for n in range(5000)]
        ledger.plan(study.id, rows)
        for _ in range(2):
            with pytest.raises(LocalFileError, match="the disk is full") as caught:
                await ledger.commit()
            assert caught.value.disk_full
            assert caught.value.temporary
        ledger.put("later", 1)
        await asyncio.sleep(0.3)
        with reader(path) as one:
            assert one.summary().discovered == 12
        await ledger._writer.in_thread(lambda: limit(1 << 30))
        await ledger.commit()
        assert not ledger.problem
        assert_adds_up(path)
        with reader(path) as one:
            assert one.summary().discovered == 5012
            assert one.facts()["later"] == 1


async def test_a_ledger_that_could_not_be_closed_says_so(tmp_path: Path) -> None:
    path = tmp_path / "one.ledger"
    ledger = await filled(path)
    await ledger._writer.in_thread(lambda: ledger._writer.book.database.execute("PRAGMA max_page_count=1"))
    ledger.plan(2, [ItemRow("7", f"7.{n}", State.PENDING) for n in range(5000)])
    with pytest.raises(LocalFileError, match="the disk is full"):
        await ledger.__aexit__(None, None, None)
    async with await Ledger.open(path) as ledger:
        assert await ledger.counts() == {State.PENDING: (12, 1200)}


async def test_what_could_not_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fails)
        with pytest.raises(LocalFileError, match="the disk is full") as caught:
            await Ledger.create(tmp_path / "one.ledger", FACTS)
        assert caught.value.disk_full
    assert list(tmp_path.iterdir()) == []
    async with await Ledger.create(tmp_path / "one.ledger", FACTS):
        pass


@pytest.mark.skipif(os.name == "nt", reason="locks of POSIX")
async def test_a_file_system_without_locks_is_not_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def fails(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", fails)
    with pytest.raises(LocalFileError, match="no locks available"):
        await Ledger.create(tmp_path / "one.ledger", FACTS)


class Failing:
    """A connection whose statements fail from one on: that one alone, or all after it."""

    def __init__(self, database: sqlite3.Connection, at: int, *, only_once: bool, code: int) -> None:
        self._database = database
        self._left = at
        self._only_once = only_once
        self._code = code
        self.failed = False

    def execute(self, *command: Any) -> Any:
        self._left -= 1
        if self._left == 0 or (self._left < 0 and not self._only_once):
            self.failed = True
            error = sqlite3.OperationalError("as the disk says")
            error.sqlite_errorcode = self._code
            raise error
        return self._database.execute(*command)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


@pytest.mark.parametrize(
    ("code", "is_full"),
    [(sqlite3.SQLITE_FULL, True), (sqlite3.SQLITE_IOERR_SHMSIZE, True), (sqlite3.SQLITE_IOERR_FSYNC, False)],
)
async def test_a_full_disk_is_told_from_a_broken_one(tmp_path: Path, code: int, is_full: bool) -> None:
    ledger = await filled(tmp_path / "one.ledger", studies=1, items=2)
    real = ledger._writer.book.database
    ledger._writer.book.database = Failing(real, 1, only_once=False, code=code)  # type: ignore[assignment]
    ledger.put("phase", "verifying")
    with pytest.raises(LocalFileError) as caught:
        await ledger.commit()
    assert caught.value.disk_full is is_full
    assert ("the disk is full" in str(caught.value)) is is_full
    ledger._writer.book.database = real
    await ledger.__aexit__(None, None, None)


@pytest.mark.parametrize("only_once", [True, False])
@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_FSYNC])
async def test_any_statement_may_fail_and_nothing_is_lost(tmp_path: Path, only_once: bool, code: int) -> None:
    at = 0
    while True:
        at += 1
        path = tmp_path / f"{at}.ledger"
        ledger = await filled(path, studies=1, items=2)
        (study,) = await ledger.studies(Stage.PLANNED)
        keys = [(item.series, item.uid) for item in await ledger.items(study.id)]
        book = ledger._writer.book
        real, failing = book.database, Failing(book.database, at, only_once=only_once, code=code)
        book.database = failing  # type: ignore[assignment]
        ledger.run_items(study.id, keys)
        ledger.settle(study.id, [ItemEnd(*keys[0], State.DONE), ItemEnd(*keys[1], State.FAILED, 8)])
        ledger.plan(study.id, [ItemRow("1.7", "1.7.1", State.PENDING, size=3)])
        ledger.set_stage(study.id, Stage.MOVED)
        ledger.put("phase", "verifying")
        with suppress(LocalFileError):
            await ledger.commit()
        book.database = real
        await ledger.commit()
        counts = await ledger.counts()
        await ledger.__aexit__(None, None, None)
        assert counts == {State.DONE: (1, 100), State.FAILED: (1, 100), State.PENDING: (1, 3)}
        assert_adds_up(path)
        if not failing.failed:
            break
    assert at > 20, "it failed nowhere"


LIMITED = """
import asyncio, resource, signal, sys
from pathlib import Path
from postdicom_async.errors import PostdicomError
from postdicom_async.jobs.ledger.ledger import ItemRow, Ledger
from postdicom_async.jobs.states import State

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

async def main():
    async with await Ledger.open(Path(sys.argv[1])) as ledger:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
        ledger.plan(2, [ItemRow("7", f"7.{n}", State.PENDING) for n in range(5000)])
        try:
            await ledger.commit()
        except PostdicomError as error:
            print(type(error).__name__, error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await ledger.commit()
        print(sum(number for number, _ in (await ledger.counts()).values()))

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="limits of POSIX")
@pytest.mark.parametrize("most", [100, 5_000, 33_000, 150_000])
async def test_writing_that_fails_anywhere_can_be_done_again(tmp_path: Path, most: int) -> None:
    path = tmp_path / "one.ledger"
    async with await filled(path):
        pass
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LIMITED, path, str(most), stdout=asyncio.subprocess.PIPE
    )
    told = (await process.communicate())[0].decode().splitlines()
    assert process.returncode == 0
    assert told[0].startswith("LocalFileError the ledger: ")
    assert told[1] == "5012"
    assert_adds_up(path)


async def test_nothing_private_is_kept_or_said(tmp_path: Path) -> None:
    path = tmp_path / "a-patient" / "one.ledger"
    async with await filled(path):
        pass
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(PostdicomError) as opened:
        await Ledger.open(path)
    with pytest.raises(PostdicomError) as made:
        await Ledger.create(path, FACTS)
    for error in (opened.value, made.value):
        assert "a-patient" not in str(error)
        assert error.__context__ is None
