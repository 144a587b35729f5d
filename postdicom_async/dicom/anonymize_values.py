"""Values as their VR wants them: checked, encoded in a character set, padded (PS3.5 sections 6.1, 6.2)."""

from __future__ import annotations

import re
import struct
from datetime import date

from postdicom_async.dicom.elements import DicomProblem, Encoding

__all__ = ["DUMMIES", "check_value", "encode_value"]

_PLAIN = r"[^\x00-\x1f\x7f-\x9f\\]"
_CONTROLLED = r"[^\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f-\x9f]"  # TAB, LF, FF and CR are allowed, ESC is not written here
_DAY = r"(0[1-9]|[12]\d|3[01])"
_HOUR = r"([01]\d|2[0-3])"
_SECOND = r"([0-5]\d|60)(\.\d{1,6})?"

# VR -> what one value looks like, and in words (PS3.5 table 6.2-1).
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
        ("UR", r"([!-\[\]-~]*)", "an address in ASCII"),
        ("UT", rf"{_CONTROLLED}*", "text"),
        ("UN", rf"{_CONTROLLED}*", "text"),  # nobody knows what it should be
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
    """Return what a value of the VR must look like when ``text`` is none, else None."""
    if vr in _NUMBERS:
        return _check_numbers(vr, text)
    if vr not in _FORMS:
        return f"a value of VR {vr} cannot be given as text; it can be emptied or removed"
    form, words = _FORMS[vr]
    values = [text] if vr in _SINGLE else text.split("\\")
    good = all(form.fullmatch(value) and (vr != "DA" or _is_date(value)) for value in values)
    try:
        text.encode()
    except UnicodeEncodeError:
        good = False
    return None if good else f"VR {vr}: {words}"


def _is_date(value: str) -> bool:
    try:
        return not value or bool(date(int(value[:4]) or 4, int(value[4:6]), int(value[6:])))
    except ValueError:
        return False


def _check_numbers(vr: str, text: str) -> str | None:
    try:
        _packed(vr, text, "<")
    except (ValueError, struct.error, OverflowError):
        return f"VR {vr}: a number that fits"
    return None


def _packed(vr: str, text: str, order: str) -> bytes:
    kind = float if vr in ("FD", "FL") else int
    return b"".join(struct.pack(order + _NUMBERS[vr], kind(value)) for value in text.split("\\") if text)


def encode_value(vr: str, text: str, encoding: Encoding, character_sets: tuple[str, ...]) -> bytes:
    """Return the bytes of a value, of even length.

    Args:
        vr: the VR it will have.
        text: the value, checked.
        encoding: of the data set.
        character_sets: the values of Specific Character Set (0008,0005).

    Raises:
        DicomProblem: the character set has no such characters.
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


_BEYOND_ASCII = "its Specific Character Set (0008,0005) cannot hold the value"


def _encoded(text: str, character_sets: tuple[str, ...]) -> bytes:
    """Encode piece by piece: each delimiter goes back to the first character set (PS3.5 section 6.1.2.5)."""
    from pydicom.charset import python_encoding

    names = [python_encoding.get(name, "ascii") if name[-4:] != "IR 6" and name else "ascii" for name in character_sets]
    names = names or ["ascii"]
    if len(names) == 1:
        return _encoded_piece(text, names)
    return b"".join(_encoded_piece(piece, names) for piece in re.split(r"([\\^=\t\n\f\r])", text))


def _encoded_piece(piece: str, names: list[str]) -> bytes:
    from pydicom.charset import decode_bytes, encode_string

    for name in names:
        try:
            plain = piece.encode(name)
            if name == "shift_jis" and len(plain) != len(piece):
                continue  # only its one-byte characters are JIS X 0201
            data = plain if name == names[0] else encode_string(piece, [names[0], name])
        except UnicodeError:
            continue
        if decode_bytes(data, names, set()) == piece:  # never anything that reads as something else
            return data
    raise DicomProblem(_BEYOND_ASCII)
