"""DICOM JSON to pydicom's data sets. Pure.

Importing this brings pydicom, and numpy where it is installed, so it is imported when a data set is made.

Ten thousand results have a quarter of a million elements, of which a caller looks at a few, and pydicom takes ten times
as long to make one as its JSON takes to arrive. So what pydicom is certain to make an element of (text, numbers and
names of the kinds that their VRs say) is held, and becomes the element when it is first looked at. Everything else is
converted at once: so what cannot be read is told with the result, and never later.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, MutableMapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

from pydicom import config
from pydicom.dataelem import DataElement, RawDataElement, empty_value_for_VR
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from postdicom_async.dicom.json_reading import DicomJson, is_small, person_name, values_of
from postdicom_async.dicom.silence import in_silence
from postdicom_async.dicom.text import integer_text, number_text
from postdicom_async.errors import ProtocolError

_Tell: TypeAlias = Callable[[str], None]
"""Is told of each element that cannot be read, by its tag."""


def dataset_of(item: DicomJson, problem: _Tell) -> Dataset:
    """Return the data set. An element whose value is not what its VR says is left out and told to ``problem``.

    A value given by BulkDataURI is empty here; the raw object has the address.
    """
    dataset = Dataset(elements := HeldElements())
    _add(dataset, elements, item, problem)
    elements.sort()
    return dataset


def dataset_in_parts(item: DicomJson, problem: _Tell) -> Generator[None, None, Dataset]:
    """Return the data set as `dataset_of` does, and yield between its elements, those of sequences too.

    For one of very many elements, which takes seconds.
    """
    dataset = Dataset(elements := HeldElements())
    yield from _add_in_parts(dataset, elements, item, problem)
    return dataset


def dataset_of_result(item: DicomJson, problem: _Tell) -> Dataset | Generator[None, None, Dataset]:
    """Return the data set as `dataset_of` does; where that takes long, a generator as of `dataset_in_parts`."""
    if len(item) > _SHORT:
        return dataset_in_parts(item, problem)
    dataset = Dataset(elements := HeldElements())
    rest = elements.take(item)
    if not rest:
        return dataset
    if not is_small(rest):
        return _continued(dataset, elements, rest, problem)
    _add(dataset, elements, rest, problem)
    elements.sort()
    return dataset


def _continued(
    dataset: Dataset, elements: HeldElements, rest: DicomJson, problem: _Tell
) -> Generator[None, None, Dataset]:
    yield from _add_in_parts(dataset, elements, rest, problem)
    elements.sort()
    return dataset


# --- what is converted at once ----------------------------------------------------------------------------------------

_VALUE_KEYS = ("Value", "InlineBinary", "BulkDataURI")


def _add(dataset: Dataset, elements: HeldElements, item: DicomJson, problem: _Tell) -> None:
    rest = elements.take(item, depth=1)
    if not rest:
        return
    with in_silence(), config.disable_value_validation():
        for name, element in rest.items():
            _add_one(dataset, name, _converted(name, element), problem)


def _add_in_parts(
    dataset: Dataset, elements: HeldElements, item: DicomJson, problem: _Tell
) -> Generator[None, None, None]:
    for name, element in item.items():
        yield
        values = values_of({name: element}, name)
        if values and element.get("vr") == "SQ":
            _add_one(dataset, name, (yield from _sequence_in_parts(name, values)), problem)
        else:
            _add(dataset, elements, {name: element}, problem)


def _add_one(dataset: Dataset, name: str, element: DataElement | None, problem: _Tell) -> None:
    if element is None:
        problem(f"element {str(name)[:8]} has a value that cannot be read")
    else:
        dataset.add(element)


def _sequence_in_parts(name: str, values: list[Any]) -> Generator[None, None, DataElement | None]:
    items: list[Dataset] = []
    for value in values:
        found: list[str] = []
        if isinstance(value, dict | None):
            items.append((yield from dataset_in_parts(value or {}, found.append)))
        if found or not isinstance(value, dict | None):
            return None  # as pydicom has it: with an item that cannot be read the sequence cannot
    return DataElement(int(name, 16), "SQ", Sequence(items))


def _converted(name: str, element: Any) -> DataElement | None:
    try:
        vr = element["vr"]
        key = next((key for key in _VALUE_KEYS if key in element), None)
        value = element[key] if key else ""
        return DataElement.from_json(Dataset, name, vr, value, key, lambda _tag, _vr, _uri: b"")
    except Exception:  # noqa: BLE001 - foreign values through a parser that may raise anything
        return None


# --- what is converted when it is looked at ---------------------------------------------------------------------------

_Held: TypeAlias = tuple[str, Any]
"""A VR, and what pydicom makes the element of: a value, a list of values, a list of `HeldElements` for a sequence; None
where it is empty."""

_KINDS: Final[dict[str, type]] = {
    vr: kind
    for kind, vrs in (
        (str, ("AE", "AS", "CS", "DA", "DT", "LO", "LT", "SH", "ST", "TM", "UC", "UI", "UR", "UT")),
        (int, ("IS", "SL", "SS", "SV", "UL", "US", "UV")),
        (float, ("DS", "FD", "FL")),
        (dict, ("PN", "SQ")),
    )
    for vr in vrs
}
"""What values must be for their element to be held, by VR."""
_SHORT: Final = 500
"""HeldElements, or values of one, that are dealt with in less than a millisecond."""
_DEEPEST: Final = 16


class HeldElements(MutableMapping[BaseTag, DataElement | RawDataElement]):
    """The elements of a data set by tag; what is held becomes an element when it is asked for.

    A mapping, and no kind of ``dict``: Python copies those without asking them for their values. A shallow copy of a
    data set shares it, as pydicom's always do; pickles and deep copies have elements only, and know nothing of it.
    """

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: dict[BaseTag, DataElement | RawDataElement | _Held] = {}

    def take(self, item: DicomJson, depth: int = 0) -> DicomJson:
        """Hold the elements of which pydicom is certain to make one; return the others.

        At depth 0 long values and sequences are among the others, so that it takes no time.
        """
        if config.datetime_conversion or config.use_DS_decimal or config.use_DS_numpy:
            return item  # pydicom makes more than text and numbers of values, and of some it cannot
        found, rest = self._found, dict[str, Any]()
        for name, element in item.items():
            tag = _tag_of(name)
            if tag is not None and type(element) is dict and type(vr := element.get("vr")) is str:
                values = element.get("Value")
                if type(values) is list and len(values) == 1:
                    # One text or number: most of what there is, and this is most of the time.
                    value: Any = values[0]
                    kind = _KINDS.get(vr)
                    fits = type(value) is kind
                    if fits and (kind is str or (kind is int and -_LARGE < value < _LARGE)):
                        found[tag] = vr, value
                        continue
                held = _held(vr, element, depth)
                if held is not None:
                    found[tag] = held
                    continue
            rest[name] = element
        return rest

    def sort(self) -> None:
        """Put the elements in the order of their tags, as a data set arrives."""
        self._found = dict(sorted(self._found.items()))

    def __getitem__(self, tag: BaseTag) -> DataElement | RawDataElement:
        found = self._found[tag]
        if type(found) is tuple:  # pydicom's own raw elements, which a caller may add, are of a kind of tuple
            self._found[tag] = made = _made(tag, *found)
            return made
        return found  # type: ignore[return-value]  # nothing held is left

    def __setitem__(self, tag: BaseTag, element: DataElement | RawDataElement) -> None:
        self._found[tag] = element

    def __delitem__(self, tag: BaseTag) -> None:
        del self._found[tag]

    def __contains__(self, tag: object) -> bool:
        return tag in self._found

    def __iter__(self) -> Iterator[BaseTag]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def popitem(self) -> tuple[BaseTag, DataElement | RawDataElement]:
        """Remove the last element, as of a ``dict``."""
        tag = next(reversed(self._found), None)
        if tag is None:
            raise KeyError("the data set is empty")
        return tag, self.pop(tag)

    def __reduce__(self) -> tuple[type, tuple[dict[BaseTag, DataElement | RawDataElement]]]:
        return dict, (dict(self.items()),)

    def __array__(self, *_args: object, **_options: object) -> object:
        """Return one object: numpy takes what has items for a list of numbers."""
        import numpy as np

        array: Any = np.empty((), dtype=object)
        array[()] = dict(self.items())
        return array


@lru_cache(maxsize=4096)
def _tag_of(name: str) -> BaseTag | None:
    """Return a tag, one object for all results; None for that of a private element, whose creator must be found."""
    tag = BaseTag(int(name, 16)) if len(name) == 8 and _HEX.issuperset(name) else None
    return None if tag is None or tag.is_private else tag


_HEX: Final = frozenset("0123456789ABCDEFabcdef")


def _held(vr: str, element: dict[str, Any], depth: int) -> _Held | None:
    """Return what to hold of an element, None unless pydicom is certain to make one of it."""
    kind = _KINDS.get(vr)
    values = element["Value"] if "Value" in element else [] if len(element) == 1 else None
    if kind is None or type(values) is not list:
        return None
    if not values:
        return vr, None
    if len(values) > _SHORT and not depth:
        return None
    if vr == "SQ":
        return _held_sequence(values, depth)
    if kind is float:
        values = [_number(value) for value in values]
    elif kind is int:
        values = [_integer(value, vr) for value in values]
    elif kind is dict:
        values = [person_name(value) for value in values]
    elif not {str}.issuperset(map(type, values)):
        return None
    if None in values:
        return None
    return vr, values[0] if len(values) == 1 else values


_LARGE: Final = 1 << 31


def _held_sequence(values: list[Any], depth: int) -> _Held | None:
    items: list[HeldElements] = []
    if not 1 <= depth <= _DEEPEST:
        return None
    for value in values:
        if type(value) is not dict:
            return None
        items.append(HeldElements())
        if items[-1].take(value, depth + 1):
            return None
    return "SQ", items


_INTEGER_TEXT: Final = integer_text(9)
_NUMBER_TEXT: Final = number_text(15, 2)


def _integer(value: Any, vr: str) -> int | None:
    """Return an integer, which some archives write as text; None where pydicom might refuse it."""
    if type(value) is int:
        return value if vr != "IS" or -_LARGE < value < _LARGE else None
    return int(value) if type(value) is str and _INTEGER_TEXT.fullmatch(value) else None


def _number(value: Any) -> float | None:
    """Return a number, which some archives write as text; None where it is none, infinite, or too large an integer."""
    if type(value) is str:
        return float(value) if _NUMBER_TEXT.fullmatch(value) else None
    return float(value) if type(value) in (int, float) and -1e300 < value < 1e300 else None


def _made(tag: BaseTag, vr: str, value: Any) -> DataElement:
    try:
        if value is None:
            value = empty_value_for_VR(vr)
        elif vr == "SQ":
            value = Sequence([Dataset(elements) for elements in value])
        return DataElement(tag, vr, value, validation_mode=config.IGNORE)
    except Exception:  # noqa: BLE001 - what it raises may hold the value, so it goes no further
        problem = ProtocolError(f"element {tag:08X} has a value that pydicom's settings, changed meanwhile, refuse")
    raise problem
