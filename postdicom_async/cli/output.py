"""What the command writes: results on standard output, everything else on standard error.

Text from servers and file names is untrusted: control characters never reach a terminal, and nothing is read as markup.

The state here belongs to the one command of this process, and `prepare` resets it: the secrets that are never written
(`conceal`), the option names for the library's arguments (`speak_of`), and whether the JSON document was begun, so that
a late error does not write a second one. A closed output (a broken pipe) is not an error: `write` returns False, and
buffered output is discarded.
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
"""Columns up to this width are not wrapped if there is room."""
_WIDE = 10_000
"""The width without a terminal: nothing is cut or wrapped."""


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
    "tokens": "POSTDICOM_TOKEN",
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
"""Advice in the library's messages: as written in Python, and as written here."""


def speak_of(options: Mapping[str, str]) -> None:
    """Set the option names of the running command, which messages use for arguments."""
    _options.clear()
    _options.update(options)


def in_options(error: object) -> str:
    """Return a library error's text with its arguments named as this command's options."""
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
    """Open streams that the process was started without: otherwise the next file opened would get their descriptor."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def prepare() -> None:
    """Make both streams accept any text regardless of locale, and write all of it.

    Reset the state of an earlier command.
    """
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
    """From now on replace each of these by three stars: a service's answer may echo the request."""
    _concealed.update(secret.strip() for secret in secrets)


def _without_secrets(text: str) -> str:
    for secret in _concealed:
        text = re.sub(re.escape(secret), "***", text, flags=re.IGNORECASE)
    return text


def write(text: str) -> bool:
    """Write a result and a newline; return False if the output was closed.

    Raises:
        LocalFileError: standard output cannot be written, such as a full disk.
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
    """Write a line to standard error, if that is open."""
    try:
        sys.stderr.write(clean(_without_secrets(text)) + "\n")
        sys.stderr.flush()
    except OSError:
        _drop(sys.stderr)


def error(text: str) -> None:
    """Write what went wrong, in one line, to standard error."""
    note(f"error: {text}")


def close() -> None:
    """Flush both streams, so that the interpreter reports no error at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _drop(stream)


def _drop(stream: TextIO) -> None:
    """Discard what a stream has buffered."""
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
    """Write the one JSON object of ``--json``: ``ok``, ``error`` and the command's own fields.

    It is pure ASCII: every program can read it, and it cannot control a terminal.
    """
    _Told.document = True
    write(json.dumps({**_end(error), **(content or {})}, indent=2))


def _end(error: object) -> dict[str, object]:
    return {"ok": error is None, "error": None if error is None else clean(in_options(error))}


class JsonStream:
    """Writes the same object with a stream of items; the outcome is at its end."""

    def __init__(self) -> None:
        self._joint = '{"items": ['

    def add(self, item: object) -> bool:
        """Write an item; return False if the output was closed."""
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
    """Return the width of standard output in columns."""
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
    """A buffer that rich takes for standard output: rich checks the encoding before it draws lines."""

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
