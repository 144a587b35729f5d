"""Values as their VR wants them: checked, encoded in a character set, padded (PS3.5 sections 6.1, 6.2)."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from datetime import date

from postdicom_async.dicom.elements import DicomProblem, Encoding

_PLAIN = r"[^\x00-\x1f\x7f-\x9f\\]"
_CONTROLLED = r"[^\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]"  # TAB, LF, FF and CR are allowed, ESC is added later
_DAY = r"(0[1-9]|[12]\d|3[01])"
_HOUR = r"([01]\d|2[0-3])"
_SECOND = r"([0-5]\d|60)(\.\d{1,6})?"

# VR -> the pattern of one value, and its description (PS3.5 table 6.2-1).
_FORMS: dict[str, tuple[re.Pattern[str], str]] = {
    vr: (re.compile(form, re.ASCII), words)
    for vr, form, words in (
        ("AE", r"[ -\[\]-~]{0,16}", "at most 16 characters of ASCII"),
        ("AS", r"(\d{3}[DWMY])?", "nnnD, nnnW, nnnM or nnnY"),
        ("CS", r"[A-Z0-9_ ]{0,16}", "at most 16 of A-Z, 0-9, space and underscore"),
        ("DA", rf"(\d{{4}}(0[1-9]|1[0-2]){_DAY})?", "YYYYMMDD"),
        (
            "DS",
            r"(?=.{0,16}$)( *[+-]?(\d+\.?\d*|\.\d+)([Ee][+-]?\d+)? *)?",
            "a decimal number of at most 16 characters",
        ),
        (
            "DT",
            rf"(\d{{4}}((0[1-9]|1[0-2])({_DAY}({_HOUR}([0-5]\d({_SECOND})?)?)?)?)?([+-]\d{{4}})?)?",
            "YYYYMMDDHHMMSS.FFFFFF&ZZXX",
        ),
        ("IS", r"(?=.{0,12}$)( *[+-]?\d+ *)?", "a whole number of at most 12 characters"),
        ("LO", rf"{_PLAIN}{{0,64}}", "at most 64 characters"),
        ("LT", rf"{_CONTROLLED}{{0,10240}}", "at most 10240 characters"),
        ("PN", rf"({_PLAIN}(?<!=)){{0,64}}(=({_PLAIN}(?<!=)){{0,64}}){{0,2}}", "at most 3 groups of 64 characters"),
        ("SH", rf"{_PLAIN}{{0,16}}", "at most 16 characters"),
        ("ST", rf"{_CONTROLLED}{{0,1024}}", "at most 1024 characters"),
        ("TM", rf"({_HOUR}([0-5]\d({_SECOND})?)?)?", "HHMMSS.FFFFFF"),
        ("UC", rf"{_PLAIN}*", "text"),
        ("UI", r"(?=.{0,64}$)((0|[1-9]\d*)(\.(0|[1-9]\d*))*)?", "digits and dots, at most 64 characters"),
        ("UR", r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*", "an address (RFC 3986)"),
        ("UT", rf"{_CONTROLLED}*", "text"),
        ("UN", rf"{_CONTROLLED}*", "text"),  # its true VR is unknown
    )
}
_SINGLE = frozenset({"LT", "ST", "UR", "UT", "UN"})  # a backslash is part of the value
_BY_CHARACTER_SET = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UN", "UT"})
_NUMBERS = {"FD": "d", "FL": "f", "SL": "i", "SS": "h", "SV": "q", "UL": "I", "US": "H", "UV": "Q"}

DUMMIES: dict[str, str] = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), "ANONYMIZED"),
    **dict.fromkeys(("DS", "IS", *_NUMBERS), "0"),
    "AS": "000Y",
    "DA": "19000101",
    "DT": "19000101000000",
    "TM": "000000",
    "UR": "http://anonymized.invalid",
}
"""VR -> a value that says nothing."""


def check_value(vr: str, text: str) -> str | None:
    """Return what a value of the VR must look like if ``text`` is not valid, else None."""
    if vr in _NUMBERS:
        return _check_numbers(vr, text)
    if vr not in _FORMS:
        return f"a value of VR {vr} cannot be given as text; it can be emptied or removed"
    form, words = _FORMS[vr]
    values = [text] if vr in _SINGLE else text.split("\\")
    holds = _HOLDS.get(vr, bool)
    good = all(form.fullmatch(value) and (not value or holds(value)) for value in values)
    try:
        text.encode()
    except UnicodeEncodeError:
        good = False
    return None if good else f"VR {vr}: {words}"


def _is_date(value: str) -> bool:
    try:
        return bool(date(int(value[:4]) or 4, int(value[4:6]), int(value[6:8])))
    except ValueError:
        return False


# VR -> whether a value that matches the pattern is valid.
_HOLDS: dict[str, Callable[[str], bool]] = {
    "DA": _is_date,
    "DT": lambda value: not value[:8].isdigit() or len(value) < len("YYYYMMDD") or _is_date(value),
    "IS": lambda value: -(1 << 31) <= int(value) < 1 << 31,
}


def _check_numbers(vr: str, text: str) -> str | None:
    try:
        if not re.fullmatch(r"[0-9+\-.eE \\]+", text):
            raise ValueError
        _packed(vr, text, "<")
    except (ValueError, struct.error, OverflowError):
        return f"VR {vr}: a number that fits"
    return None


def _packed(vr: str, text: str, order: str) -> bytes:
    kind = float if vr in ("FD", "FL") else int
    return b"".join(struct.pack(order + _NUMBERS[vr], kind(value)) for value in text.split("\\"))


def encode_value(vr: str, text: str, encoding: Encoding, character_sets: tuple[str, ...]) -> bytes:
    """Return the bytes of a value, of even length.

    Args:
        vr: the VR it will have.
        text: the value, checked.
        encoding: of the data set.
        character_sets: the values of Specific Character Set (0008,0005).

    Raises:
        DicomProblem: the character set lacks a character.
    """
    if vr in _NUMBERS:
        return _packed(vr, text, encoding.order)
    if text.isascii():
        data = text.encode("ascii")
    elif vr in _BY_CHARACTER_SET:
        data = _encoded(text, character_sets)
    else:
        raise DicomProblem("the value must be ASCII")
    return data + (b"\0" if vr == "UI" else b" ") * (len(data) % 2)


# As the only or first value of Specific Character Set (PS3.3 table C.12-5).
_NEVER_EXTENDED = {"ISO_IR 192": "utf-8", "GB18030": "gb18030", "GBK": "gbk"}
_TERM = re.compile(r"ISO(?:_| 2022 )IR (\d+)")
_ASCII = "6"
_ROMAJI = "13"
# Two-byte sets in G0, where they replace ASCII: codec and escape sequence.
_LOWER = {"87": ("iso2022_jp", b"\x1b$B"), "159": ("iso2022_jp_1", b"\x1b$(D")}
_TWO_BYTES = ("149", "58", *_LOWER)
_BACK_TO_ASCII = b"\x1b(B"
_BACK_TO_ROMAJI = b"\x1b(J"
_DELIMITERS = frozenset("\\^=\t\n\f\r")
_NOT_IN_IT = "its Specific Character Set (0008,0005) cannot hold the value"


def _encoded(text: str, character_sets: tuple[str, ...]) -> bytes:
    first = character_sets[0] if character_sets else ""
    if first in _NEVER_EXTENDED:
        return _strictly(text, _NEVER_EXTENDED[first])
    writer = _ExtendedWriter([_number(name) for name in character_sets or ("",)])
    for character in text:
        writer.write(character)
    writer.bring_first_back()
    return bytes(writer.data)


class _ExtendedWriter:
    """Writes text with code extensions, back in the first set before each delimiter (PS3.5 section 6.1.2.5.3)."""

    def __init__(self, numbers: list[str]) -> None:
        self._first = _ASCII if numbers[0] in _TWO_BYTES else numbers[0]
        self._sets = list(dict.fromkeys([self._first, *numbers]))
        self._back = _BACK_TO_ROMAJI if self._first == _ROMAJI else _BACK_TO_ASCII
        self._current = self._upper = self._first
        self.data = bytearray()

    def write(self, character: str) -> None:
        """Append a character, after the escape sequence of its character set if needed."""
        if not character.isascii():
            self._write_beyond_ascii(character)
            return
        if character in _DELIMITERS:
            self.bring_first_back()
        elif self._current in _LOWER:
            self.data += self._back
            self._current = _ASCII
        self.data += character.encode()

    def bring_first_back(self) -> None:
        if self._current in _LOWER:
            self.data += self._back
        if self._upper != self._first != _ASCII:
            self.data += _escape(self._first)
        self._current = self._upper = self._first

    def _write_beyond_ascii(self, character: str) -> None:
        number, data = _found(character, [self._current, *self._sets])
        if number != self._current:
            if number not in _LOWER:
                self.data += self._back if self._current in _LOWER else b""
                self._upper = number
            self.data += _escape(number)
            self._current = number
        self.data += data


def _found(character: str, sets: list[str]) -> tuple[str, bytes]:
    for number in sets:
        if data := _in_set(character, number):
            return number, data
    raise DicomProblem(_NOT_IN_IT)


def _in_set(character: str, number: str) -> bytes:
    """Return a character encoded in a character set, empty if the set lacks it."""
    if number in _LOWER:
        codec, escape = _LOWER[number]
        data = character.encode(codec, "ignore")
        return data[len(escape) : -len(_BACK_TO_ASCII)] if data.startswith(escape) else b""
    try:
        data = _strictly(character, _codec(number))
    except DicomProblem:
        return b""
    return data if len(data) == (2 if number in _TWO_BYTES else 1) else b""


def _strictly(text: str, codec: str) -> bytes:
    """Encode text that decodes to itself again; some codecs substitute similar characters."""
    data = text.encode(codec, "ignore")
    if data.decode(codec, "ignore") != text:
        raise DicomProblem(_NOT_IN_IT)
    return data


def _number(name: str) -> str:
    """Return the ISO registration number of a character set; ASCII's if it is unknown."""
    from pydicom.charset import python_encoding

    term = _TERM.fullmatch(name)
    return term[1] if term and f"ISO 2022 IR {term[1]}" in python_encoding else _ASCII


def _codec(number: str) -> str:
    from pydicom.charset import python_encoding

    return "ascii" if number == _ASCII else python_encoding[f"ISO 2022 IR {number}"]


def _escape(number: str) -> bytes:
    from pydicom.charset import ENCODINGS_TO_CODES

    return _LOWER[number][1] if number in _LOWER else ENCODINGS_TO_CODES[_codec(number)]
