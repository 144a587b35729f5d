"""``postdicom orders create --from FILE.csv``: an order for each row, and none twice.

PostDICOM's ``createpatientorder`` has no key by which a repeat would be known, so what was done is kept in a file of
results: before an order is asked for, a line says that it was begun; after the answer, another says what came of it.
Both are durable before the next step. A row that was begun and has no end, or whose answer was lost, may have been
made: it is never made again by itself. If it has an accession number and a Patient ID, the next run searches for it;
else, or when nothing is found, it stays unknown until somebody has looked and gives ``--retry-unknown``.

The file holds no patient data: rows are told apart by a keyed digest of their content, and so is the account, since
what was made in one says nothing about another. Only its owner can read it, and one process at a time works with it.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import json
import os
import re
import secrets
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from postdicom_async import (
    AuthenticationFailed,
    ConnectionFailed,
    LocalFileError,
    NotFound,
    OutcomeUnknown,
    PostdicomError,
    RateLimited,
    ServerError,
    UsageError,
)
from postdicom_async.cli import output
from postdicom_async.cli.exits import Exit, Interrupted
from postdicom_async.cli.loop import run_async
from postdicom_async.cli.paths import words_of
from postdicom_async.disk.files import explained
from postdicom_async.disk.private_files import locked, make_folder_durable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from postdicom_async.cli.vendor import OperationCall

_STOPS_ALL = (AuthenticationFailed, ConnectionFailed, LocalFileError)
_LISTED = 20
_MOST_BYTES = 64 << 20
_LOCKED = 1 << 40
_MORE_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
BEGUN, MADE, FAILED, UNKNOWN, DUPLICATE = "begun", "made", "failed", "unknown", "duplicate"


# --- rows -------------------------------------------------------------------------------------------------------------


@dataclass
class OrderRow:
    """A row, and what became of it.

    Attributes:
        line: its number in the file, the heading being 1.
        values: the arguments of the operation.
        status: empty while nothing became of it.
        before: whether an earlier run made it.
    """

    line: int
    values: dict[str, Any] = field(repr=False)
    key: str = ""
    status: str = ""
    uuid: str | None = None
    reason: str | None = None
    before: bool = False
    temporary: bool = False

    def item(self) -> dict[str, object]:
        """Return it for programs, without what the row holds."""
        return {"line": self.line, "status": self.status, "patient_order_uuid": self.uuid, "reason": self.reason}


def rows_in(file: Path, arguments: Sequence[str], given: Mapping[str, Any]) -> list[OrderRow]:
    """Return the rows of a CSV file (UTF-8, with ``,`` or ``;``), each over the values given for all.

    A heading is the name of an argument, however it is written: ``patient_name``, ``Patient name``, ``PatientName``.

    Raises:
        UsageError: it cannot be read, or a heading is none. The message shows nothing of what is in it.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(_MOST_BYTES + 1)
        text = content.decode("utf-8-sig")
        problem = None if len(content) <= _MOST_BYTES else "is larger than 64 MiB"
    except OSError as error:
        problem = words_of(error)
    except UnicodeDecodeError:
        problem = "is not UTF-8"
    if problem is not None:
        raise UsageError(f"--from: {file}: {problem}")
    first = text.partition("\n")[0]
    lines = _Lines(text, ";" if first.count(";") > first.count(",") else ",")
    known = {_plain(name): name for name in arguments}
    columns = [known.get(_plain(heading)) for heading in next(lines, (1, []))[1]]
    if None in columns or not columns:
        names = ", ".join(arguments)
        raise UsageError(f"--from: column {columns.index(None) + 1 if columns else 1} has no heading of: {names}")
    if twice := [name for name, number in Counter(columns).items() if number > 1]:
        raise UsageError(f"--from: {twice[0]} is the heading of two columns")
    found = []
    for line, cells in lines:
        if any(cell.strip() for cell in cells):
            if len(cells) > len(columns):
                raise UsageError(f"--from: line {line} has more cells than there are headings")
            own = {str(name): cell.strip() for name, cell in zip(columns, cells, strict=False) if cell.strip()}
            found.append(OrderRow(line, {**given, **own}))
    return found


class _Lines:
    """The rows of CSV, each with the number of the line where it begins.

    Raises:
        UsageError: by ``next``: a quote is not closed, or a cell is larger than 128 KiB.
    """

    def __init__(self, text: str, delimiter: str) -> None:
        self._reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[int, list[str]]:
        line = self._reader.line_num + 1
        with suppress(csv.Error):
            return line, next(self._reader)
        raise UsageError(f"--from: line {line} cannot be read")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


# --- the file of results ----------------------------------------------------------------------------------------------


class ResultsFile:
    """What became of rows, in lines that are durable when `note` returns. Used as ``with``.

    Its first line has its key, and a digest of the account under that key: what was made in one account says nothing
    about another.
    """

    def __init__(self, path: Path, account: Sequence[str]) -> None:
        """Open it, made if it is not there, and read what it says.

        Args:
            path: of the file.
            account: what tells the account from others; it may be secret.

        Raises:
            UsageError: another process works with it, or it is something else, or of another account.
            LocalFileError: it cannot be opened.
        """
        self.known: dict[str, dict[str, Any]] = {}
        self._salt, self._account = b"", ""
        with explained(f"--results: {path}"):
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _MORE_FLAGS, 0o600)
        try:
            self._lock(path)
            self._read(path, account)
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._file)

    def _lock(self, path: Path) -> None:
        with explained(f"--results: {path}"):
            os.lseek(self._file, _LOCKED, os.SEEK_SET)  # on Windows one byte is locked, which nobody else can read
            is_free = locked(self._file)
            os.lseek(self._file, 0, os.SEEK_SET)
        if not is_free:
            raise UsageError(f"--results: another process works with {path}")

    def _read(self, path: Path, account: Sequence[str]) -> None:
        with open(self._file, "rb", closefd=False) as lines:
            content = lines.read()
        for line in content.split(b"\n"):
            try:
                told = json.loads(line) if line else {}
            except ValueError:
                told = {}  # cut short by a crash: the line before it says that the row was begun
            if isinstance(told, dict) and "salt" in told:
                self._salt, self._account = bytes.fromhex(told["salt"]), str(told.get("account"))
            elif isinstance(told, dict) and "row" in told:
                self.known[str(told["row"])] = told
        if content and not self._salt:
            raise UsageError(f"--results: {path} is not a file of results")
        if content and self._account != self._digest(account):
            raise UsageError(f"--results: {path} is of another account (address, user or key); name another file")
        if content and not content.endswith(b"\n"):
            os.write(self._file, b"\n")
        if not self._salt:
            self._salt = secrets.token_bytes(16)
            self._append({"salt": self._salt.hex(), "account": self._digest(account)})
            with explained(f"--results: {path}"):
                make_folder_durable(path.parent)  # were the file lost, all orders would be made again

    def key_of(self, values: Mapping[str, Any]) -> str:
        """Return what a row is known by: a digest of its content under this file's key."""
        return self._digest(sorted(values.items()))

    def _digest(self, content: object) -> str:
        text = json.dumps(content, ensure_ascii=True)
        return hashlib.blake2b(text.encode(), key=self._salt, digest_size=16).hexdigest()

    async def note(self, row: OrderRow, status: str) -> None:
        """Write what became of a row; it is durable afterwards."""
        line = {"row": row.key, **row.item(), "status": status}
        self.known[row.key] = line
        await asyncio.to_thread(self._append, line)

    def _append(self, line: Mapping[str, object]) -> None:
        try:
            data = json.dumps(line).encode() + b"\n"
            if os.write(self._file, data) == len(data):
                os.fsync(self._file)
                return
            problem = "the disk is full"
        except OSError as error:
            problem = words_of(error)
        raise LocalFileError(f"--results: {problem}", temporary=True)


# --- making them ------------------------------------------------------------------------------------------------------


def create_orders(call: OperationCall, file: Path, results: Path | None, *, retry_unknown: bool) -> int:
    """Make an order for each row of a file; write what became of each.

    Raises:
        UsageError: the file, or that of the results, cannot be used; nothing was sent.
        PostdicomError: the service cannot be worked with; what was made before is in the file of results.
    """
    parameters = next(iter(call.operations.values())).parameters
    given = {name: value for name, value in call.given.items() if value is not None}
    rows = rows_in(file, [one.argument for one in parameters], given)
    must = [one.argument for one in parameters if one.must_be_given]
    path = results or file.with_name(f"{file.name}.results.jsonl")
    with ResultsFile(path, call.identity()) as kept:
        todo = _still_to_make(rows, kept, must, retry_unknown=retry_unknown)
        try:
            if todo:
                run_async(lambda: _make_all(call, todo, kept, retry_unknown=retry_unknown))
        except (PostdicomError, Interrupted) as error:
            _tell(call, rows, path, error=error)
            raise
    return _tell(call, rows, path)


def _still_to_make(
    rows: Iterable[OrderRow], kept: ResultsFile, must: Sequence[str], *, retry_unknown: bool
) -> list[OrderRow]:
    """Return the rows that something is to be done for; the others get their status here."""
    todo, seen = list[OrderRow](), dict[str, int]()
    for row in rows:
        row.key = kept.key_of(row.values)
        known = kept.known.get(row.key, {})
        missing = [name for name in must if name not in row.values]
        if row.key in seen:
            row.status, row.reason = DUPLICATE, f"the same as line {seen[row.key]}"
        elif known.get("status") == MADE:
            row.status, row.uuid, row.before = MADE, known.get("patient_order_uuid"), True
        elif missing:
            row.status, row.reason = FAILED, f"{missing[0]} is missing"
        else:
            if known.get("status") in (BEGUN, UNKNOWN):
                row.status, row.reason = UNKNOWN, "its answer was lost; search before it is made again"
            if not row.status or retry_unknown or _can_be_searched(row):
                todo.append(row)
        seen.setdefault(row.key, row.line)
    return todo


def _can_be_searched(row: OrderRow) -> bool:
    return {"accession_number", "patient_id"} <= row.values.keys()


async def _make_all(call: OperationCall, rows: Sequence[OrderRow], kept: ResultsFile, *, retry_unknown: bool) -> None:
    async with call.client as client:
        for row in rows:
            was_begun = row.status == UNKNOWN
            if was_begun and _can_be_searched(row) and (uuid := await _found(client, row)) is not None:
                row.status, row.uuid, row.reason = MADE, uuid, "found by a search"
                await kept.note(row, MADE)
            elif not was_begun or retry_unknown:
                await _make(client, row, kept)


async def _found(client: Any, row: OrderRow) -> str | None:
    """Return the order that the row has made, if a search shows exactly one.

    A search may find a part of what it is asked for, so what comes is compared: an order without an accession number
    of its own is not taken for this one.
    """
    wanted = {name: row.values[name] for name in ("accession_number", "patient_id")}
    orders = [
        one
        async for one in client.orders.search(**wanted)
        if (one.accession_number, one.patient_id) == (wanted["accession_number"], wanted["patient_id"])
    ]
    return orders[0].patient_order_uuid if len(orders) == 1 and orders[0].is_named else None


async def _make(client: Any, row: OrderRow, kept: ResultsFile) -> None:
    await kept.note(row, BEGUN)
    stops: PostdicomError | None = None
    row.status, row.reason = UNKNOWN, "interrupted before its answer came"
    try:
        made = await client.orders.create(**row.values)
        row.status, row.uuid, row.reason = MADE, made.patient_order_uuid, None
    except PostdicomError as error:
        row.status = FAILED if _is_certainly_unmade(error) else UNKNOWN
        row.reason, row.temporary = output.clean(output.in_options(error)), error.temporary
        stops = error if isinstance(error, _STOPS_ALL) and row.status == FAILED else None
    await kept.note(row, row.status)
    if stops is not None:
        raise stops


_REFUSED = (UsageError, AuthenticationFailed, NotFound, RateLimited)


def _is_certainly_unmade(error: PostdicomError) -> bool:
    """Whether an error shows that no order was made: it was refused, or never left."""
    if isinstance(error, ConnectionFailed):
        return not (isinstance(error, OutcomeUnknown) or error.may_have_arrived)
    if isinstance(error, ServerError):  # a "no" inside an answer is one too; a gateway's 502 tells nothing
        return error.status is None or error.status < 500 or error.status == 503
    return isinstance(error, _REFUSED)


# --- telling ----------------------------------------------------------------------------------------------------------


def _tell(call: OperationCall, rows: Sequence[OrderRow], path: Path, *, error: object = None) -> int:
    counts = Counter("made before" if row.before else row.status or "not begun" for row in rows)
    unmade = [row for row in rows if row.status in (FAILED, UNKNOWN)]
    words = ", ".join(f"{number} {status}" for status, number in counts.items()) or "no rows"
    failed = f"{len(unmade)} of {len(rows)} orders are not known to be made" if unmade else None
    if call.as_json:
        summary = {status.replace(" ", "_"): number for status, number in counts.items()}
        output.write_document({"summary": summary, "items": [row.item() for row in rows]}, error=error or failed)
    else:
        for row in [row for row in rows if row.reason and row.status != MADE][:_LISTED]:
            output.note(f"line {row.line}: {row.status}: {row.reason}")
        if not call.quiet:
            output.write(words)
    if error is not None:
        return Exit.ITEMS_FAILED
    if failed is not None:
        output.error(f"{failed}; {path} says which, and the same command again makes the failed ones")
        return Exit.TEMPORARY if all(row.temporary and row.status == FAILED for row in unmade) else Exit.ITEMS_FAILED
    return Exit.OK
