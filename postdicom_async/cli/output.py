"""What the command writes: results on standard output, everything else on standard error.

Text from servers and file names may hold anything. Nothing of it that could control a terminal gets there, and none of
it is read as markup.

What is kept here is of the one command that the process runs, and `prepare` forgets it: the secrets that are never
written (`conceal`), how the command calls the library's arguments (`speak_of`), and whether its one JSON document was
begun, so that an error at its end does not write another. That nobody reads any more is no error: `write` says so, and
what a stream still holds goes nowhere.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import sys
from typing import TYPE_CHECKING, Any, TextIO

from postdicom_async import LocalFileError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import RenderableType
    from rich.table import Table


_SHORT = 12
"""A column of nothing longer is not broken, where the terminal leaves a choice."""
_WIDE = 10_000
"""Columns where no terminal has a say: nothing is cut or wrapped."""


# --- text -------------------------------------------------------------------------------------------------------------


def clean(text: object) -> str:
    """Return text as one line that is safe to show: no control, format or unpaired surrogate characters."""
    return "".join(_shown(char) for char in str(text))


def _shown(char: str) -> str:
    if char.isprintable():
        return char
    return " " if char.isspace() else "\ufffd"


_PARAMETERS = {
    "study_instance_uid": "study",
    "series_instance_uid": "series",
    "tls.ca_file": "ca_file",
    "tls.certificate": "client_cert",
    "tls.key": "client_key",
    "windows": "window",
}
"""Arguments of the library whose options have another name."""
_NO_OPTIONS = {
    "study_instance_uid": "UID of the study",
    "series_instance_uid": "UID of the series",
    "sop_instance_uid": "UID of the instance",
    "api_key": "the API key",
    "account_key": "the account key",
    "password": "the share's password",
    "tls.key_password": "POSTDICOM_KEY_PASSWORD",
}
"""Arguments of the library that come from elsewhere, where a command has no option for them."""
_IN_MESSAGES = {
    "auth=(user, password)": "--username and POSTDICOM_PASSWORD",
    "existing='send'": "--existing send",
    "remap_uids=True": "--anonymize-uids",
    "proxy=": "--proxy ",
    "allow_http_credentials": "--allow-http",
    "study_instance_uid": "--study",
    "series_instance_uid": "--series",
    "tls.ca_file": "--ca-file",
    "tls.certificate": "--client-cert",
    "tls.key": "--client-key",
}
"""What a message of the library may advise, as it is written in Python and as it is written here."""


def speak_of(options: Mapping[str, str]) -> None:
    """Name the options of the command that runs, by its parameters: messages call arguments by them."""
    _options.clear()
    _options.update(options)


def in_options(error: object) -> str:
    """Return what an error of the library says, or a text of its, with its arguments as options of this command."""
    if isinstance(error, UsageError) and error.argument:
        argument = error.argument
        name = _options.get(argument) or _options.get(_PARAMETERS.get(argument, "")) or _NO_OPTIONS.get(argument)
        error = UsageError(error.problem, argument=name or argument, operation=error.operation)
    text = str(error)
    for python, option in _IN_MESSAGES.items():
        text = text.replace(python, option)
    return text


def size_text(size: float) -> str:
    """Return bytes for people, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.95:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def rate_text(size: float, seconds: float) -> str:
    """Return bytes in a time as a rate for people."""
    return f"{size_text(size / seconds)}/s" if seconds > 0 else ""


def time_text(seconds: float) -> str:
    """Return a duration for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


# --- the two streams --------------------------------------------------------------------------------------------------

_concealed: set[str] = set()
_options: dict[str, str] = {}


def open_missing() -> None:
    """Give the process the streams it was started without, for good: what it opens next would take their place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def prepare() -> None:
    """Make both streams take any text, whatever the locale, and all of it; forget what an earlier command left."""
    _concealed.clear()
    _options.clear()
    _Told.document = False
    sys.stdout, sys.stderr = _buffered(sys.stdout), _buffered(sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _buffered(stream: TextIO) -> TextIO:
    """Return a stream with a buffer.

    Without one (``PYTHONUNBUFFERED``) the interpreter drops what a short write leaves over, and a write to a full pipe
    may be short: the kernel's own work for io_uring, which uvloop uses, interrupts it.
    """
    if not isinstance(getattr(stream, "buffer", None), io.FileIO):
        return stream
    return open(stream.fileno(), "w", 1, encoding=stream.encoding, closefd=False)


def conceal(*secrets: str) -> None:
    """From now on write three stars for each of these: what a service answers may repeat what it was sent."""
    _concealed.update(secret.strip() for secret in secrets)


def _without_secrets(text: str) -> str:
    for secret in _concealed:
        text = re.sub(re.escape(secret), "***", text, flags=re.IGNORECASE)
    return text


def write(text: str) -> bool:
    """Write a result and a line end; return False when nobody reads any more.

    Raises:
        LocalFileError: the results cannot be written where they were sent.
    """
    try:
        sys.stdout.write(_without_secrets(text) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _drop(sys.stdout)
        return False
    except OSError as error:
        problem = LocalFileError(f"standard output: {(error.strerror or 'cannot be written').lower()}", temporary=True)
        problem.disk_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        _drop(sys.stdout)
    else:
        return True
    raise problem


def note(text: str) -> None:
    """Write a line to standard error, if there is anyone to read it."""
    try:
        sys.stderr.write(clean(_without_secrets(text)) + "\n")
        sys.stderr.flush()
    except OSError:
        _drop(sys.stderr)


def error(text: str) -> None:
    """Write what went wrong, in one line, to standard error."""
    note(f"error: {text}")


def close() -> None:
    """Flush both streams, so that the interpreter finds nothing to complain about at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _drop(stream)


def _drop(stream: TextIO) -> None:
    """Send what a stream still holds to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


# --- documents for programs -------------------------------------------------------------------------------------------


class _Told:
    """Whether this command has written its document, so that an error at its end does not write another."""

    document = False


def was_document_written() -> bool:
    """Return whether a document was begun."""
    return _Told.document


def write_document(content: Mapping[str, Any] | None = None, *, error: object = None) -> None:
    """Write the one JSON object that ``--json`` gives: ``ok``, ``error`` and what the command has to say.

    It is ASCII: every program can read it, and no terminal is controlled by it.
    """
    _Told.document = True
    write(json.dumps({**_end(error), **(content or {})}, indent=2))


def _end(error: object) -> dict[str, object]:
    return {"ok": error is None, "error": None if error is None else clean(in_options(error))}


class JsonStream:
    """The same object for items that come one by one, however many: how it ended stands at its end."""

    def __init__(self) -> None:
        self._joint = '{"items": ['

    def add(self, item: object) -> bool:
        """Write an item; return False when nobody reads any more."""
        _Told.document = True
        written = write(self._joint + json.dumps(item))
        self._joint = ","
        return written

    def end(self, *, error: object, **content: object) -> None:
        """Write the end of the object."""
        _Told.document = True
        rest = json.dumps({**content, **_end(error)})
        write(f"{self._joint if self._joint != ',' else ''}], {rest[1:]}")


# --- tables -----------------------------------------------------------------------------------------------------------


def width() -> int:
    """Return the columns there are on standard output."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDE


def render(things: Iterable[RenderableType]) -> str:
    """Return rich renderables as text for standard output, in colour if that is a terminal that wants it."""
    from rich.console import Console

    sheet, is_terminal = _Sheet(), sys.stdout.isatty()
    console = Console(file=sheet, force_terminal=is_terminal, width=width(), highlight=False, markup=False, emoji=False)
    for thing in things:
        console.print(thing)
    text = sheet.getvalue().rstrip("\n")
    if is_terminal:
        return text
    return "\n".join(line.rstrip() for line in text.split("\n")).lstrip("\n")


class _Sheet(io.StringIO):
    """Memory that rich takes for standard output: it looks at the encoding before it draws lines."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Standard output's."""
        return sys.stdout.encoding or "utf-8"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: frozenset[str] = frozenset()) -> Table:
    """Return a table; columns named in ``numbers`` are aligned to the right, and nothing is cut."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    lines = [[clean(value) for value in row] for row in rows]
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, header_style="bold")
    for index, name in enumerate(columns):
        side: Any = "right" if name in numbers else "left"
        is_short = all(len(line[index]) <= _SHORT for line in lines)
        made.add_column(Text(clean(name), no_wrap=True), justify=side, overflow="fold", no_wrap=is_short)
    for line in lines:
        made.add_row(*map(Text, line))
    return made
