"""Whether two files contain the same instance: the same data set, whatever file meta information precedes it. Pure.

An archive may rewrite the preamble and the file meta information (PS3.10 section 7.1), drop padding and group lengths,
or write the length of a sequence in its other form. None of that changes the instance. Real changes are reported by tag
and never by value; changes that archives may make on their own are distinguished from the rest.
"""

from __future__ import annotations

import math
from collections.abc import MutableSequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

from postdicom_async.dicom import tags
from postdicom_async.dicom.header import NotingBytes, data_set_start
from postdicom_async.dicom.silence import in_silence
from postdicom_async.dicom.tags import TAG, tags_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Written with VRs or without, values are the same bytes.
_SAME_VALUES = frozenset({tags.IMPLICIT_VR_LITTLE_ENDIAN, tags.EXPLICIT_VR_LITTLE_ENDIAN})
_CHARACTER_SET = TAG["SpecificCharacterSet"]
_REPLACED = "\ufffd"  # what pydicom puts in the place of bytes that it cannot decode

_PATIENT_GROUP: Final = 0x0010
_COERCIBLE: Final = frozenset(
    tags_of(
        "SpecificCharacterSet"  # the text is compared decoded, so that it is the same text
        " InstanceCoercionDateTime StudyDate StudyTime AccessionNumber IssuerOfAccessionNumberSequence RetrieveAETitle"
        " InstanceAvailability RetrieveURL ReferringPhysicianName ReferringPhysicianIdentificationSequence"
        " StudyDescription ProcedureCodeSequence TimezoneOffsetFromUTC StudyID RequestAttributesSequence"
        " ModifiedAttributesSequence OriginalAttributesSequence"
    )
)


def is_coercible(tag: int) -> bool:
    """Return whether an archive may change (coerce) an element by itself, and report it (PS3.4 section B.4.1.3).

    These are attributes of patient and study, which archives reconcile with their own records (IHE PIR), the character
    set, and the record of such changes (Original Attributes Sequence, PS3.3 section C.12.1.1.9). UIDs, and everything
    that describes the image, are not.
    """
    return tag >> 16 == _PATIENT_GROUP or tag in _COERCIBLE


class Sameness(Enum):
    """The result of comparing two files."""

    SAME = auto()
    DIFFERENT = auto()
    UNCLEAR = auto()
    """They are written in different transfer syntaxes, or one of them cannot be read."""


class Difference(Enum):
    """How an archive changed an instance."""

    SAME = "same"
    COERCED = "coerced"
    """Only elements differ that it may change by itself; see `is_coercible`."""
    DIFFERENT = "different"
    CANNOT_COMPARE = "cannot compare"
    """They are written in different transfer syntaxes, or one of them cannot be read."""


@dataclass(frozen=True, slots=True)
class Differences:
    """How two data sets differ, by the tags of the outermost elements (``"00100010"``) and never by values.

    Attributes:
        kind: what that means.
        changed: elements that both have, with another value.
        added: what only the one that was received has.
        removed: what only the one that was sent has.
        undecoded: those of ``changed`` whose text or numbers cannot be decoded; that their bytes differ is certain.
    """

    kind: Difference
    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    undecoded: tuple[str, ...] = ()

    @property
    def tags(self) -> tuple[str, ...]:
        """Every element that differs, in order."""
        return tuple(sorted({*self.changed, *self.added, *self.removed}))

    @property
    def sameness(self) -> Sameness:
        """Whether it is the instance that was sent, to the last value."""
        if self.kind in (Difference.SAME, Difference.CANNOT_COMPARE):
            return Sameness.SAME if self.kind is Difference.SAME else Sameness.UNCLEAR
        # What cannot be decoded all looks alike: it may be the same text, written in two ways.
        return Sameness.UNCLEAR if self.tags and {*self.tags} == {*self.undecoded} else Sameness.DIFFERENT


def compare_files(sent: bytes, received: bytes) -> Sameness:
    """Return whether two whole files hold the same data set."""
    return differences(sent, received).sameness


def differences(sent: bytes, received: bytes) -> Differences:
    """Return how the data sets of two whole files differ.

    Bytes are compared first; only where they differ are both read by pydicom and compared element by element.
    """
    cannot = Differences(Difference.CANNOT_COMPARE)
    if sent == received:
        return Differences(Difference.SAME)
    one, other = data_set_start(sent), data_set_start(received)
    if one is None or other is None:
        return cannot
    (syntax, start), (other_syntax, other_start) = one, other
    if syntax == other_syntax and memoryview(sent)[start:] == memoryview(received)[other_start:]:
        return Differences(Difference.SAME)
    # pydicom would inflate what an archive sends without a bound. In another transfer syntax equal values have other
    # bytes: compressed pixels, byte order.
    if syntax == tags.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN or (
        syntax != other_syntax and not {syntax, other_syntax} <= _SAME_VALUES
    ):
        return cannot
    found = _differing_elements(sent, received)
    if found is None or (syntax != other_syntax and found.kind is Difference.DIFFERENT):
        return cannot  # VRs that only one of the two has make values look different
    return found


def _differing_elements(sent: bytes, received: bytes) -> Differences | None:
    import pydicom  # it takes long to import, and is seldom needed here

    try:
        with in_silence():
            sources = NotingBytes(sent), NotingBytes(received)
            one, other = (pydicom.dcmread(source) for source in sources)
            return None if any(source.ran_short for source in sources) else _between(one, other)
    except Exception:  # noqa: BLE001 - a parser on foreign bytes may raise anything
        return None


def _between(one: Dataset, other: Dataset) -> Differences:
    tags, others = _tags(one), _tags(other)
    as_raw = _raw_value(one, _CHARACTER_SET) == _raw_value(other, _CHARACTER_SET)
    changed: list[int] = []
    undecoded: list[int] = []
    for tag in sorted(tags & others):
        if as_raw and (raw := _raw_value(one, tag)) is not None and raw == _raw_value(other, tag):
            continue
        equal = _equal_element(one, other, tag)
        if not equal:
            changed.append(tag)
        if equal is None:
            undecoded.append(tag)
    differing = {*changed, *(tags ^ others)}
    kind = Difference.COERCED if all(map(is_coercible, differing)) else Difference.DIFFERENT
    return Differences(
        kind if differing else Difference.SAME,
        _named(changed),
        _named(others - tags),
        _named(tags - others),
        _named(undecoded),
    )


def _named(tags: set[int] | list[int]) -> tuple[str, ...]:
    return tuple(f"{tag:08X}" for tag in sorted(tags))


def _raw_value(dataset: Dataset, tag: int) -> tuple[Any, ...] | None:
    """Return VR and bytes of an element that has not been decoded yet; None for any other."""
    from pydicom.dataelem import RawDataElement

    element = dataset.get_item(tag) if tag in dataset else ()
    if element == ():
        return ()
    return (element.VR, element.value) if isinstance(element, RawDataElement) else None


def _equal_element(one: Dataset, other: Dataset, tag: int) -> bool | None:
    """Compare an element; None if one of the two cannot be fully decoded, so that different values could look alike."""
    try:
        element, another = one[tag], other[tag]
        return bool(element.VR == another.VR and _same_value(element.value, another.value))
    except Exception:  # noqa: BLE001 - values of foreign files through a parser that may raise anything
        return None


def _same(one: Dataset, other: Dataset) -> bool:
    """Compare data sets, ignoring group lengths and trailing padding."""
    tags = _tags(one)
    return tags == _tags(other) and all(
        one[tag].VR == other[tag].VR and _same_value(one[tag].value, other[tag].value) for tag in tags
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


def _tags(dataset: Dataset) -> set[int]:
    return {int(tag) for tag in dataset.keys() if tag.element != 0 and tag != TAG["DataSetTrailingPadding"]}  # noqa: SIM118
