"""What the command writes: results on standard output, everything else on standard error.

Text from servers and file names may hold anything. Nothing of it that could control a terminal gets there, and none of
it is read as markup.
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

from postdicom_async import LocalFileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console, RenderableType
    from rich.table import Table

__all__ = [
    "Document",
    "clean",
    "close",
    "conceal",
    "error",
    "in_options",
    "note",
    "open_missing",
    "prepare",
    "rate_text",
    "render",
    "size_text",
    "table",
    "time_text",
    "was_document_written",
    "width",
    "write",
    "write_document",
]

_SHORT = 12
"""A column of nothing longer is not broken, where the terminal leaves a choice."""
_WIDE = 10_000
"""Columns where no terminal has a say: nothing is cut or wrapped."""


# --- text -----------------------------------------------------------------------------------------------------------


def clean(text: object) -> str:
    """Return text as one line that is safe to show: no control, format or unpaired surrogate characters."""
    return "".join(_shown(char) for char in str(text))


def _shown(char: str) -> str:
    if char.isprintable():
        return char
    return " " if char.isspace() else "\ufffd"


_ARGUMENTS = {
    "api_key:": "the API key:",
    "account_key:": "the account key:",
    "study_instance_uid:": "--study:",
    "series_instance_uid:": "--series:",
    "filters:": "--filter:",
    "fields:": "--field:",
    "limit:": "--limit:",
    "layout:": "--layout:",
    "proxy:": "--proxy:",
    "url:": "--url:",
    "tls.ca_file:": "--ca-file:",
    "tls.certificate:": "--client-cert:",
    "tls.key:": "--client-key:",
    "tls.key_password:": "POSTDICOM_KEY_PASSWORD:",
}
_PHRASES = (
    ("give the authority's certificate as tls.ca_file", "give the authority's certificate with --ca-file"),
    ("give another as tls.certificate", "give another with --client-cert"),
    ("give tls.certificate and tls.key", "give --client-cert and --client-key"),
    ("(tls.certificate and tls.key)", "(--client-cert and --client-key)"),
    ("(tls.certificate)", "(--client-cert)"),
    ("the certificate in tls.certificate", "the certificate in --client-cert"),
    ("the credentials or wants some: http", "the credentials or wants some: --proxy http"),
    ("set allow_http_credentials", "give --allow-http"),
    ("anonymise the UIDs too", "give --anonymize-uids too"),
    ("give existing='send'", "give --existing send"),
    ("give them as auth=(user, password)", "give the user with --username"),
    ("give tls.certificate too", "give --client-cert too"),
    (": password: ", ": the share's password: "),
    ("give study_instance_uid and series_instance_uid", "give --study and --series"),
    ("give study_instance_uid", "give --study"),
    ("give series_instance_uid", "give --study and --series"),
    ("accession_number (OrderAccessionNumber)", "the accession number (OrderAccessionNumber)"),
)


_OF_OPERATIONS = re.compile(
    r"^((?:[a-zA-Z -]+: )?)"
    r"(name|description|title|expires|email|modality|modalities|tags|user|sockets|[a-z]+(?:_[a-z]+)+): "
)
"""The argument that an operation of PostDICOM's complains about; its option has the same name."""


def in_options(message: str) -> str:
    """Return the library's message with the names of its arguments as this command's options."""
    first, space, rest = message.partition(" ")
    message = _ARGUMENTS.get(first, first) + space + rest
    message = _OF_OPERATIONS.sub(lambda found: f"{found[1]}--{found[2].replace('_', '-')}: ", message)
    for phrase, option in _PHRASES:
        message = message.replace(phrase, option)
    return message


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


# --- the two streams ------------------------------------------------------------------------------------------------

_concealed: set[str] = set()


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


# --- documents for programs -----------------------------------------------------------------------------------------


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
    return {"ok": error is None, "error": None if error is None else clean(in_options(str(error)))}


class Document:
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


# --- tables ---------------------------------------------------------------------------------------------------------


def width() -> int:
    """Return the columns there are on standard output."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDE


def render(things: Iterable[RenderableType]) -> str:
    """Return rich renderables as text for standard output, in colour if that is a terminal that wants it."""
    sheet = _Sheet()
    console = _console(sheet)
    for thing in things:
        console.print(thing)
    text = sheet.getvalue().rstrip("\n")
    if sys.stdout.isatty():
        return text
    return "\n".join(line.rstrip() for line in text.split("\n")).lstrip("\n")


class _Sheet(io.StringIO):
    """Memory that rich takes for standard output: it looks at the encoding before it draws lines."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Standard output's."""
        return sys.stdout.encoding or "utf-8"


def _console(sheet: _Sheet) -> Console:
    from rich.console import Console

    return Console(
        file=sheet,
        force_terminal=sys.stdout.isatty(),
        width=width(),
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
    )


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
