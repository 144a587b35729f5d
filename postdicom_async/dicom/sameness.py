"""Whether two files hold one instance: the same data set, whatever file meta information stands before it. Pure.

An archive may write the preamble and the file meta information (PS3.10 section 7.1) anew, drop padding and group
lengths, or write the length of a sequence in its other form. None of that changes the instance.
"""

from __future__ import annotations

import math
from collections.abc import MutableSequence
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from postdicom_async.dicom.header import NotingBytes, data_set_start
from postdicom_async.dicom.silence import in_silence

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

__all__ = ["Sameness", "compare_files"]

_DEFLATED = "1.2.840.10008.1.2.1.99"
_SAME_VALUES = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"})  # written with VRs or without, the same bytes
_DATA_SET_TRAILING_PADDING = 0xFFFCFFFC
_REPLACED = "\ufffd"  # what pydicom puts in the place of bytes that it cannot decode


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
    if syntax != other_syntax and not (equal and {syntax, other_syntax} <= _SAME_VALUES):
        # Another one changes values that mean the same: compressed pixels, the order of bytes. Where it did not,
        # one of the two is not written in what it names.
        return Sameness.UNCLEAR
    return Sameness.UNCLEAR if equal is None else Sameness.SAME if equal else Sameness.DIFFERENT


def _equal_elements(sent: bytes, received: bytes) -> bool | None:
    import pydicom  # it takes long to import, and is seldom needed here

    try:
        with in_silence():
            sources = NotingBytes(sent), NotingBytes(received)
            one, other = (pydicom.dcmread(source) for source in sources)
            return None if any(source.ran_short for source in sources) else _same(one, other)
    except Exception:  # noqa: BLE001 - a parser on foreign bytes may raise anything
        return None


def _same(one: Dataset, other: Dataset) -> bool:
    """Compare what counts: no group lengths, no padding at the end."""
    elements, others = _elements(one), _elements(other)
    return elements.keys() == others.keys() and all(
        element.VR == others[tag].VR and _same_value(element.value, others[tag].value)
        for tag, element in elements.items()
    )


def _same_value(one: Any, other: Any) -> bool:
    """Compare two values of one VR.

    Raises:
        ValueError: one of them was not decoded whole, so that others would look like it.
    """
    from pydicom.dataset import Dataset
    from pydicom.valuerep import PersonName

    if isinstance(one, Dataset) and isinstance(other, Dataset):
        return _same(one, other)
    if isinstance(one, MutableSequence) and isinstance(other, MutableSequence):  # items, or several values
        return len(one) == len(other) and all(map(_same_value, one, other))
    if isinstance(one, str | PersonName) and _REPLACED in str(one):
        raise ValueError("not decoded")
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return bool(one == other)


def _elements(dataset: Dataset) -> dict[int, DataElement]:
    return {
        int(element.tag): element
        for element in dataset
        if element.tag.element != 0 and element.tag != _DATA_SET_TRAILING_PADDING
    }
