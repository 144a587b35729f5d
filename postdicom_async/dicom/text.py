"""Text of a data set by its Specific Character Set (0008,0005): PS3.3 section C.12.1.1.2, PS3.5 section 6.1.2.

Decoding never fails: bytes that cannot be decoded become U+FFFD. And numbers as text: IS and DS of PS3.5 section 6.2.
"""

from __future__ import annotations

import re
from functools import lru_cache

# The default repertoire. Bytes beyond ASCII are wrong in it, and mostly meant as Latin-1. The codec has another name
# than that of ISO_IR 100 below, where they are right, so that the two can be distinguished.
_ASCII = "iso8859-1"

# Defined terms of PS3.3 tables C.12-2 to C.12-5; the same repertoires with code extensions begin with ISO 2022.
_REGISTERED = {
    "6": _ASCII, "13": "shift_jis", "100": "latin-1", "101": "iso8859-2", "109": "iso8859-3", "110": "iso8859-4",
    "126": "iso8859-7", "127": "iso8859-6", "138": "iso8859-8", "144": "iso8859-5", "148": "iso8859-9",
    "166": "tis-620", "203": "iso8859-15", "87": "iso2022_jp", "159": "iso2022_jp_2", "149": "euc_kr", "58": "gb2312",
    "192": "utf-8",
}  # fmt: skip
_ALONE = {"GB18030": "gb18030", "GBK": "gbk", "ISO2022GBK": "gbk", "ISO202258": "gb2312", "UTF8": "utf-8"}
_NEVER_EXTENDED = frozenset({"gb18030", "gbk", "utf-8"})

# Escape sequences of the same tables. ASCII (also JIS X 0201's) comes back into the lower half, where the first
# repertoire has it too.
_FIRST = ""
_ESCAPES = {
    b"\x1b(B": _FIRST, b"\x1b(J": "shift_jis", b"\x1b)I": "shift_jis", b"\x1b-A": "latin-1", b"\x1b-B": "iso8859-2",
    b"\x1b-C": "iso8859-3", b"\x1b-D": "iso8859-4", b"\x1b-F": "iso8859-7", b"\x1b-G": "iso8859-6",
    b"\x1b-H": "iso8859-8", b"\x1b-L": "iso8859-5", b"\x1b-M": "iso8859-9", b"\x1b-T": "tis-620",
    b"\x1b-b": "iso8859-15", b"\x1b$B": "iso2022_jp", b"\x1b$(D": "iso2022_jp_2", b"\x1b$)C": "euc_kr",
    b"\x1b$)A": "gb2312",
}  # fmt: skip
_IN_LOWER_HALF = frozenset({"iso2022_jp", "iso2022_jp_2"})  # these codecs read the escape sequence themselves

_RUNS = re.compile(rb"\x1b[^\x1b]*|[^\x1b]+")
_DELIMITERS = re.compile(rb"[\\^=\r\n\f\t]")


def decode_text(value: bytes, character_set: bytes = b"") -> str:
    """Return the text of a value, without the padding around it; values of a list stay joined by backslashes."""
    first = _first_codec(character_set)
    if b"\x1b" not in value or first in _NEVER_EXTENDED:
        text = value.decode(first, "replace")
    else:
        text = "".join(_decode_run(run, first) for run in _RUNS.findall(value))
    return text.strip("\0 \t\r\n\f")


def integer_text(digits: int) -> re.Pattern[str]:
    """Return what an integer is written as; Python's ``int`` reads more: underscores, digits of other scripts."""
    return re.compile(rf"[+-]?\d{{1,{digits}}}", re.ASCII)


def number_text(digits: int, of_exponent: int) -> re.Pattern[str]:
    """Return what a number is written as, with so many digits before the point and after it; ``float`` reads more."""
    before, after, exponent = rf"\d{{1,{digits}}}", rf"\d{{0,{digits}}}", rf"[eE][+-]?\d{{1,{of_exponent}}}"
    return re.compile(rf"[+-]?(?:{before}(?:\.{after})?|\.{before})(?:{exponent})?", re.ASCII)


@lru_cache(maxsize=64)
def _first_codec(character_set: bytes) -> str:
    """Return the codec of the first repertoire named; spelling is taken loosely, as files have it."""
    term = re.sub(r"[^A-Z0-9]", "", character_set.partition(b"\\")[0].decode("latin-1").upper())
    if term in _ALONE:
        return _ALONE[term]
    number = re.fullmatch(r"ISO(?:2022)?IR(\d+)", term)
    codec = _REGISTERED.get(number[1], _ASCII) if number else _ASCII
    return _ASCII if codec in _IN_LOWER_HALF else codec


def _decode_run(run: bytes, first: str) -> str:
    """Decode what lies between two escape sequences, the one before it included."""
    escape = next((sequence for sequence in (run[:4], run[:3]) if sequence in _ESCAPES), b"")
    codec = _ESCAPES.get(escape, _FIRST) or first
    if codec in _IN_LOWER_HALF:
        return run.decode(codec, "replace")
    run = run[len(escape) :]
    end = _DELIMITERS.search(run)
    # A delimiter brings the first repertoire back. Where that is ASCII, what follows goes on as it was: files do that.
    at = end.start() if end and first != _ASCII else len(run)
    return run[:at].decode(codec, "replace") + run[at:].decode(first, "replace")
