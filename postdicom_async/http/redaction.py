"""What may be shown of a server's words: those of a shipped vocabulary, UIDs, and numbers that say how many.

A server may repeat a filter with a patient's name, a share password from a header, or an address of a search; and it
may name a patient, an accession number or a path that was in no request of ours, so a list of secrets to remove is not
enough. Only what is known to be harmless stays, and everything else becomes a mark. Names of people that are English
words too ("Page not found") are shown in lower case only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple, Self
from urllib.parse import quote, quote_plus

_LONGEST_REASON = 240
_MOST_READ = 1024  # characters; more would cost milliseconds
_SHORTEST_SECRET = 3
# not printable, so not in a server's words; and not a space, so that an address around it stays one word
_SENT = "\ue000"

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
    """The part of a server's words that may be shown.

    Attributes:
        whole: all that it said. It may name a patient: nothing in this package shows, logs, copies or pickles it.
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

    ``sent`` are values of the request (filters, credentials) that the server may echo. Of the rest only known words,
    UIDs and short numbers stay (see `mask_words`): they tell which instance and which limit.
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
    """Yield a value as text, and percent-encoded as in a query that a server may echo undecoded."""
    yield " ".join(value.split())
    yield quote_plus(value, errors="replace")
    for safe in ("", "/", "*?-,:^"):
        yield quote(value, safe=safe, errors="replace")


# --- words ------------------------------------------------------------------------------------------------------------


MARK = "[…]"

_PLAIN = str.maketrans("\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb\u2013\u2014", '\'\'"""""--')
# Any non-ASCII character may be part of a name, a letter or not; except the one in our own mark.
_CHAR = r"(?:\w|[^\x00-\x7f…])"
_UID = r"(?:2\.25\.\d{6,39}|[0-2](?:\.\d{1,39}){4,})"  # with fewer parts it may be a date, a version or an IP address
_PHRASES = r"\bToo[ ]L(?:arge|ong)\b|\bFields\b(?=[ ]Too)"  # HTTP's own phrases that contain surnames
_PIECES = re.compile(
    rf"""
    (?P<phrase>{_PHRASES})
    | (?P<mark>\[(?:address|e-mail|name|path|date|number|sent\ value|…)\])
    | (?P<tag>\([0-9A-Fa-f]{{4}},\ ?[0-9A-Fa-f]{{4}}\))
    | (?P<uid>(?<![\w.]){_UID}(?!\.?\w))
    | (?P<word>{_CHAR}+(?:[-'.]{_CHAR}+)*)
    """,
    re.VERBOSE,
)
_QUOTED = re.compile(r"(?<!\w)(?:'[^']*'|\"[^\"]*\"|`[^`]*`)(?!\w)")
_MAY_BE_QUOTED = re.compile(rf"\W*(?:(?:\[[a-z -]+\]|{_UID})\W*)+")
_RUN = re.compile(r"\[…\](?:[\s,;:./\\|=+&#*~^@!?-]*\[…\])+")

_CODE = re.compile(r"0[xX][0-9A-Fa-f]{1,4}|[0-9A-F]{4}H")
_AMOUNT = re.compile(r"\d{1,4}(?:ms|s|[kmg]i?b)", re.IGNORECASE)
_NUMBER = re.compile(r"\d{1,5}|\d{1,3}\.\d{1,2}")
_VERSION = re.compile(r"\d{1,3}(?:\.\d{1,3}){1,3}")
_SHORT = 3
_HUMPS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")

_OF_SOMEBODY = frozenset({
    "accession", "birth", "birthdate", "born", "dob", "id", "identifier", "ids", "mrn", "name", "named", "number",
    "patient", "patients", "phone", "pid", "somebody", "user", "username",
})  # fmt: skip
"""A number after one of these words may identify a person."""
_OF_A_LIMIT = frozenset({
    "attempts", "byte", "bytes", "characters", "code", "column", "days", "entries", "error", "exceeds", "frames", "gb",
    "gib", "hours", "http", "instances", "items", "kb", "kib", "least", "length", "limit", "line", "max", "maximum",
    "mb", "mib", "milliseconds", "min", "minimum", "minutes", "most", "ms", "offset", "parts", "port", "reason",
    "requests", "results", "retries", "seconds", "size", "status", "studies", "than", "timeout", "times", "warning",
})  # fmt: skip
"""A number next to one of these words is a count or a code."""


class _Vocabulary(NamedTuple):
    words: frozenset[str]
    names: frozenset[str]
    beginnings: frozenset[str]


@cache
def _vocabulary() -> _Vocabulary:
    """Load the words that may be shown; takes 3 ms, only when a server gives a reason."""
    text = files(__package__).joinpath("vocabulary.txt").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    words, names, beginnings = re.split(r"^= \w+$", lines, flags=re.MULTILINE)
    return _Vocabulary(frozenset(words.split()), frozenset(names.split()), frozenset(beginnings.split()))


def mask_words(line: str) -> str:
    """Return a line with a mark in place of each run of words that are not known to be harmless."""
    line = _QUOTED.sub(_inside_quotes, line.translate(_PLAIN))
    pieces = list(_PIECES.finditer(line))
    shown: list[str] = []
    end = 0
    for at, piece in enumerate(pieces):
        shown.append(line[end : piece.start()])
        keep = piece.lastgroup != "word" or _may_show(line, pieces, at)
        shown.append(piece.group() if keep else MARK)
        end = piece.end()
    return _RUN.sub(MARK, "".join((*shown, line[end:])))


def _inside_quotes(quoted: re.Match[str]) -> str:
    text = quoted.group()
    return text if _MAY_BE_QUOTED.fullmatch(text[1:-1]) else f"{text[0]}{MARK}{text[-1]}"


def _may_show(line: str, pieces: list[re.Match[str]], at: int) -> bool:
    word = pieces[at].group()
    if word.lower() in _vocabulary().words:
        return True
    if any(char.isdigit() for char in word):
        return bool(_CODE.fullmatch(word) or _AMOUNT.fullmatch(word)) or _counts(word, pieces, at)
    before = line[: pieces[at].start()].rstrip()
    first = not before or before[-1] in ".!?:"
    parts = re.split(r"[-.'_]", word.removesuffix("'s"))
    return all(_is_known(part, first=first) for part in parts)


def _is_known(part: str, *, first: bool) -> bool:
    """Whether a word without digits may be shown; ``first`` in its sentence."""
    known = _vocabulary()
    low = part.lower()
    if not part or low in known.words:
        return True
    if low in known.names | known.beginnings:
        return part.islower() or (first and part.istitle() and low in known.beginnings)
    humps = _HUMPS.findall(part)
    lows = {hump.lower() for hump in humps}
    whole = len(humps) > 1 and "".join(humps) == part
    return whole and lows <= known.words | known.names | known.beginnings and bool(lows & known.words)


def _counts(word: str, pieces: list[re.Match[str]], at: int) -> bool:
    """Whether a number is a count or an error code, rather than something that identifies a person."""
    before = {hump.lower() for piece in pieces[max(0, at - 2) : at] for hump in _HUMPS.findall(piece.group())}
    after = pieces[at + 1].group().lower() if at + 1 < len(pieces) else ""
    if not _NUMBER.fullmatch(word) or before & _OF_SOMEBODY:
        return "version" in before and bool(_VERSION.fullmatch(word))
    return len(word.partition(".")[0]) <= _SHORT or bool((before | {after}) & _OF_A_LIMIT)
