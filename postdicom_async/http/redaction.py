"""What may be shown of a request: nothing private in a log line or an error text.

A URL of a search holds patient names, a header may hold a share password, and a server may repeat either in its error
text. So the HTTP libraries' own log lines are replaced while a request of ours runs, and of a server's words only those
of a vocabulary are shown.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Self
from urllib.parse import quote, quote_plus, urlsplit

from postdicom_async.http.words import mask_words

__all__ = ["ServerWords", "origin_of", "quiet_http_logs", "safe_reason"]

_LONGEST_REASON = 240
_MOST_READ = 1024  # characters, of which more would cost milliseconds
_SHORTEST_SECRET = 3
_SENT = "\ue000"  # not printable, so in no server's words; and no space, so that an address around it stays one word

# Order matters: addresses before numbers, so that a port or a path is not shown half masked.
_PRIVATE_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\b[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE), "[address]"),
    (re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), "[e-mail]"),
    (re.compile(r"(?:[^\W\d_][\w'.\- ]*)?\^[\w'.\-^=]*"), "[name]"),
    (re.compile(r"(?:\b[A-Z]:\\|\\\\)(?:[^\\]*\\)*\S*", re.IGNORECASE), "[path]"),
    (re.compile(r"(?<![\d.])\d{4}-\d{2}-\d{2}(?!\.?\d)"), "[date]"),
    (re.compile(r"(?<![\d.A-Za-z])(?=(?:\d ?){6})\d+(?: \d+)*(?!\.?\d)"), "[number]"),  # in groups too
    (re.compile(r"(?:\.{0,2}/[\w.%~+-]+){2,}/?"), "[path]"),
)

_WARNING = re.compile(r'\d{3} \S+ (".*")(?: ".*")?')  # a Warning header, RFC 9111 section 5.5


class ServerWords(str):
    """What of a server's words may be shown.

    Attributes:
        whole: all that it said. It may name a patient: nothing here shows, logs, copies or pickles it.
    """

    __slots__ = ("whole",)
    whole: str

    def __new__(cls, shown: str, whole: str) -> Self:
        """Keep the whole text beside what may be shown of it."""
        words = super().__new__(cls, shown)
        words.whole = whole
        return words

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (str(self),)


def safe_reason(text: str | None, sent: Iterable[str] = ()) -> ServerWords | None:
    """Return a server's words as one short line without what was sent to it and what may be private.

    ``sent`` are values of the request (filters, credentials) that the server may repeat. Of the rest only known words,
    UIDs and short numbers stay (see ``words.py``): they say which instance and which limit.
    """
    if not text:
        return None
    line = " ".join("".join(char if char.isprintable() else " " for char in text[:_MOST_READ]).split())
    line = _unquoted(line)
    spellings = {spelling for value in sent for spelling in _spellings(value.strip("*? "))}
    for spelling in sorted(spellings, key=len, reverse=True):
        if len(spelling) >= _SHORTEST_SECRET:
            line = re.sub(re.escape(spelling), _SENT, line, flags=re.IGNORECASE)
    for shape, mask in _PRIVATE_SHAPES:
        line = shape.sub(mask, line)
    line = mask_words(line.replace(_SENT, "[sent value]"))
    shown = line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 1] + "…"
    return ServerWords(shown, text) if shown else None


def _unquoted(line: str) -> str:
    """Return the text that a whole line quotes; what is quoted within a line is somebody's name for something."""
    warning = _WARNING.fullmatch(line)
    line = line if warning is None else f"{line[:3]} {warning[1][1:-1]}"
    inside = line[1:-1]
    return inside if len(line) > 1 and line[0] == line[-1] == '"' and '"' not in inside else line


def _spellings(value: str) -> Iterator[str]:
    """Yield a value as text, and as it stands in a query that a server may repeat undecoded."""
    yield " ".join(value.split())
    yield quote_plus(value, errors="replace")
    for safe in ("", "/", "*?-,:^"):
        yield quote(value, safe=safe, errors="replace")


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL: all of it that may be shown."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}"


_ours: ContextVar[bool] = ContextVar("postdicom_async_request", default=False)

_HTTP_LOGGERS = (
    "httpx",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
    "aiohttp.client",
    "aiohttp.internal",
)


def _not_ours(_record: logging.LogRecord) -> bool:
    return not _ours.get()


@cache
def _install_filters() -> None:
    for name in _HTTP_LOGGERS:
        logging.getLogger(name).addFilter(_not_ours)


@contextmanager
def quiet_http_logs() -> Iterator[None]:
    """Drop what httpx, httpcore and aiohttp log in this context: URLs, and headers of answers.

    Only requests made inside are affected; an application's own use of httpx logs as before.
    """
    _install_filters()
    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)
