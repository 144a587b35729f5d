"""Secrets and patient data that must never be written anywhere, and a watch that looks for them.

with canary_watch() as watch:
...                      # use CANARIES["password"] and so on as real values
watch.feed(error)
# leaving the block fails if one was logged, printed or fed
"""

from __future__ import annotations

import base64
import contextlib
import io
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

__all__ = ["CANARIES", "CanaryWatch", "canary_watch", "frames_that_left"]

TESTS = Path(__file__).parents[1]

CANARIES: Mapping[str, str] = {
    "username": "cnry-user-5a7f",
    "password": "cnry-Pass/w0rd+9d1e",
    "token": "cnry.eyJ0b2tlbiI6.7c3b",
    "patient_name": "CNRYNAME^QUILLFEATHER",
    "patient_id": "CNRYID-40417",
    "birth_date": "18991231",
    "accession": "CNRYACC-7731",
    "path": "cnry-folder-of-j-quillfeather",
    "query": "cnry-query-value-22",
    "header": "cnry-header-value-31",
    "server_reason": "CNRYREASON patient quillfeather unknown",
}

SHORTEST = 8
FIELDS_OF_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({})))


class CanaryWatch:
    """Collects all output and searches it for canaries."""

    def __init__(self, canaries: Mapping[str, str] = CANARIES) -> None:
        self._patterns = {name: sorted(_spellings(value)) for name, value in canaries.items()}
        if "username" in canaries:
            pair = f"{canaries['username']}:{canaries.get('password', '')}"
            self._patterns["basic credentials"] = [base64.b64encode(pair.encode()).decode().rstrip("=").lower()]
        self._texts: list[tuple[str, str]] = []

    def feed(self, thing: object, label: str = "") -> None:
        """Search an exception with everything attached to it, or any object's text and repr."""
        where = label or type(thing).__name__
        for text in _texts_of(thing):
            self.feed_text(text, where)
        if isinstance(thing, BaseException):
            self.feed_locals(thing)

    def feed_text(self, text: str | bytes, label: str = "text") -> None:
        """Search text, such as a subprocess's output or a report file."""
        self._texts.append((label, text if isinstance(text, str) else text.decode("latin-1")))

    def feed_locals(self, error: BaseException) -> None:
        """Search the local variables in the tracebacks of an exception and its causes, as crash reporters send them.

        The frames of the tests themselves are left out: they hold what the tests made up.
        """
        for one in _captured(traceback.TracebackException.from_exception(error, capture_locals=True)):
            for frame in one.stack:
                if not Path(frame.filename).is_relative_to(TESTS):
                    self.feed_text(repr(frame.locals), f"locals of {frame.name} in {Path(frame.filename).name}")

    def found(self) -> list[str]:
        """Return which canary was seen where, without repeating its text."""
        hits: dict[str, None] = {}
        for label, text in self._texts:
            low = text.lower()
            for name, spellings in self._patterns.items():
                if any(spelling in low for spelling in spellings):
                    hits[f"{name} in {label}"] = None
        return list(hits)

    def assert_clean(self) -> None:
        """Fail if a canary was seen."""
        hits = self.found()
        assert not hits, f"leaked: {', '.join(hits)}"


@contextlib.contextmanager
def canary_watch(canaries: Mapping[str, str] = CANARIES) -> Iterator[CanaryWatch]:
    """Watch every logger at DEBUG, stdout and stderr, and fail at the end if a canary was written."""
    watch = CanaryWatch(canaries)
    with _logged(watch), _printed(watch):
        yield watch
    watch.assert_clean()


class _Collector(logging.Handler):
    """Takes every record with its arguments, extras and traceback."""

    def __init__(self, watch: CanaryWatch) -> None:
        super().__init__(logging.DEBUG)
        self._watch = watch

    def emit(self, record: logging.LogRecord) -> None:
        label = f"log of {record.name}"
        self._watch.feed_text(self.format(record), label)
        self._watch.feed(record.args, label)
        extras = {key: value for key, value in vars(record).items() if key not in FIELDS_OF_EVERY_RECORD}
        self._watch.feed(extras, label)
        if record.exc_info and record.exc_info[1]:
            self._watch.feed(record.exc_info[1], label)


@contextlib.contextmanager
def _logged(watch: CanaryWatch) -> Iterator[None]:
    root, collector = logging.getLogger(), _Collector(watch)
    names = [*root.manager.loggerDict, "httpx", "httpcore", "asyncio", "postdicom_async"]
    loggers = [root, *map(logging.getLogger, names)]
    before = [(each, each.level, each.propagate, each.disabled) for each in loggers]
    # Of hundreds nearly all have no level of their own, and each that is set makes logging go through all of them.
    levels = [(each, level) for each, level, *_ in before if level not in (logging.NOTSET, logging.DEBUG)]
    for each, _ in levels:
        each.setLevel(logging.DEBUG)
    for each in loggers:
        each.propagate, each.disabled = True, False
    root.addHandler(collector)
    try:
        yield
    finally:
        root.removeHandler(collector)
        for each, level in levels:
            each.setLevel(level)
        for each, _, propagate, disabled in reversed(before):
            each.propagate, each.disabled = propagate, disabled


@contextlib.contextmanager
def _printed(watch: CanaryWatch) -> Iterator[None]:
    """Take both what Python prints and what native code writes to the descriptors."""
    out, err = _Tee(sys.stdout), _Tee(sys.stderr)
    with (
        _descriptor(1, watch, "stdout"),
        _descriptor(2, watch, "stderr"),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            yield
        finally:
            watch.feed_text(out.getvalue(), "stdout")
            watch.feed_text(err.getvalue(), "stderr")


class _Tee(io.StringIO):
    """Keeps what is written and passes it on."""

    def __init__(self, onward: Any) -> None:
        super().__init__()
        self._onward = onward

    def write(self, text: str, /) -> int:
        self._onward.write(text)
        return super().write(text)

    def flush(self) -> None:
        self._onward.flush()


@contextlib.contextmanager
def _descriptor(number: int, watch: CanaryWatch, label: str) -> Iterator[None]:
    saved = os.dup(number)
    try:
        with tempfile.TemporaryFile() as written:
            os.dup2(written.fileno(), number)
            try:
                yield
            finally:
                os.dup2(saved, number)
                written.seek(0)
                content = written.read()
                watch.feed_text(content, label)
                os.write(number, content)
    finally:
        os.close(saved)


def _spellings(value: str) -> set[str]:
    """All ways a value may be written: plain, percent-encoded, escaped, hex, and base64 at any offset."""
    raw = value.encode()
    spellings = {value, quote(value), quote(value, safe=""), quote_plus(value), repr(value)[1:-1], raw.hex()}
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw).decode().rstrip("=")
        # The outermost characters mix in bits of the neighbours.
        spellings.add(encoded[(0, 2, 3)[shift] : -1])
    return {spelling.lower() for spelling in spellings if len(spelling) >= SHORTEST}


def frames_that_left(error: BaseException) -> list[str]:
    """Return the frames of the package in the tracebacks of an exception and of all that hangs on it."""
    return [
        frame.f_code.co_qualname
        for one in _chain(error)
        for frame, _ in traceback.walk_tb(one.__traceback__)
        if str(frame.f_globals.get("__name__")).partition(".")[0] == "postdicom_async"
    ]


def _captured(error: traceback.TracebackException | None) -> Iterator[traceback.TracebackException]:
    if error is not None:
        yield error
        for other in (error.__cause__, error.__context__, *(error.exceptions or ())):
            yield from _captured(other)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the exception, its causes, contexts and members, each once."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
        waiting += [value for value in _attributes(one) if isinstance(value, BaseException)]


def _texts_of(thing: object) -> Iterator[str]:
    yield str(thing)
    yield repr(thing)
    if not isinstance(thing, BaseException):
        return
    yield "".join(traceback.format_exception(thing))
    for one in _chain(thing):
        yield from (str(one), repr(one), repr(one.args))
        yield from map(str, getattr(one, "__notes__", ()))
        yield from map(repr, _attributes(one))


def _attributes(thing: object) -> list[object]:
    """Values of ``__dict__`` and of every ``__slots__``."""
    slots = [name for kind in type(thing).__mro__ for name in _names(getattr(kind, "__slots__", ()))]
    values = [getattr(thing, name, None) for name in slots if not name.startswith("__")]
    return [*getattr(thing, "__dict__", {}).values(), *values]


def _names(slots: str | Iterable[str]) -> Iterable[str]:
    return (slots,) if isinstance(slots, str) else slots
