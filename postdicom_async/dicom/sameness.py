"""Whether two files hold one instance: the same data set, whatever file meta information stands before it. Pure.

An archive may write the preamble and the file meta information (PS3.10 section 7.1) anew, drop padding and group
lengths, or write the length of a sequence in its other form. None of that changes the instance.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from postdicom_async.dicom.header import NotingBytes, data_set_start
from postdicom_async.dicom.silence import in_silence

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Sameness", "compare_files"]

_DEFLATED = "1.2.840.10008.1.2.1.99"
_DATA_SET_TRAILING_PADDING = 0xFFFCFFFC


class Sameness(Enum):
    """What a comparison of two files came to."""

    SAME = auto()
    DIFFERENT = auto()
    UNCLEAR = auto()
    """They are written in different transfer syntaxes, or one of them cannot be read."""


def compare_files(sent: bytes, received: bytes) -> Sameness:
    """Return whether two whole files hold the same data set.

    Bytes are compared first; only where they differ are both read by pydicom and compared element by element.
    """
    if sent == received:
        return Sameness.SAME
    one, other = data_set_start(sent), data_set_start(received)
    if one is None or other is None:
        return Sameness.UNCLEAR
    (syntax, start), (other_syntax, other_start) = one, other
    if syntax == other_syntax and memoryview(sent)[start:] == memoryview(received)[other_start:]:
        return Sameness.SAME
    # pydicom would inflate without a bound what an archive sends.
    equal = None if _DEFLATED in (syntax, other_syntax) else _equal_elements(sent, received)
    if equal:
        return Sameness.SAME
    # Another transfer syntax changes values that mean the same: compressed pixels, the order of bytes.
    return Sameness.UNCLEAR if equal is None or syntax != other_syntax else Sameness.DIFFERENT


def _equal_elements(sent: bytes, received: bytes) -> bool | None:
    import pydicom  # it takes long to import, and is seldom needed here

    try:
        with in_silence():
            sources = NotingBytes(sent), NotingBytes(received)
            one, other = (_elements(pydicom.dcmread(source)) for source in sources)
            return None if any(source.ran_short for source in sources) else one == other
    except Exception:  # noqa: BLE001 - a parser on foreign bytes may raise anything
        return None


def _elements(dataset: Dataset) -> dict[int, object]:
    """Return what counts: no group lengths, no padding at the end."""
    return {
        int(element.tag): element
        for element in dataset
        if element.tag.element != 0 and element.tag != _DATA_SET_TRAILING_PADDING
    }
