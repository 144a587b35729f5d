"""The DICOM JSON model (PS3.18 annex F), read from servers that do not always keep to it; and Native DICOM XML."""

from __future__ import annotations

from functools import lru_cache
from itertools import chain
from typing import Any, TypeAlias
from xml.parsers import expat

from postdicom_async.dicom.json_stream import JsonReader, NotJson
from postdicom_async.dicom.tags import tag_of_keyword
from postdicom_async.face import translated

DicomJson: TypeAlias = dict[str, Any]
"""One data set: 8-hex-digit tags to objects with ``vr`` and ``Value``."""


class NotDicomJson(ValueError):
    """The text is not JSON, or holds something that is no data set.

    Attributes:
        found: what there is instead of a data set; None where the text is not JSON. It may hold anything.
    """

    def __init__(self, message: str, *, found: object = None) -> None:
        super().__init__(message)
        self.found = found


def objects_in(body: bytes) -> list[DicomJson]:
    """Return the data sets of an answer: an array, one bare object, or nothing at all.

    Raises:
        NotDicomJson: anything else, or a list that holds anything else.
    """
    found: list[DicomJson] = []
    reader = JsonReader(largest=len(body) + 1)
    with translated(NotJson, lambda error: NotDicomJson(str(error))):
        for items in chain(reader.feed(body), reader.end()):
            found += [data_set_in(item) for item in items]  # at once: the first that is none ends the reading
    return found


def data_set_in(found: object) -> DicomJson:
    """Return what JSON gave if it is a data set: an object of DICOM elements, at least one, and of nothing else.

    An element is an object with its VR or a value, or an empty one, or null, under a tag of 8 hex digits; those of some
    servers are lower-case and become upper-case. An error that a server writes as an object is none, an object without
    elements neither: PS3.18 has none, and as a result it would say nothing. What stands inside an element is not looked
    at: it is told when it is read.

    Raises:
        NotDicomJson: it is none.
    """
    if not isinstance(found, dict) or not found:
        raise NotDicomJson("no data set", found=found)
    data_set: DicomJson = {}
    as_it_is = True
    for key, element in found.items():
        tag = _tag_in(key) if len(key) == 8 else None
        if tag is None or not _is_element(element):
            by_keyword = any(key[:1].isupper() and tag_of_keyword(key) is not None for key in list(found)[:100])
            kind = "attributes under their names instead of their tags" if by_keyword else "no data set"
            raise NotDicomJson(kind, found=found)
        as_it_is = as_it_is and tag == key
        data_set[tag] = element
    return data_set if as_it_is else _in_upper_case(data_set)


_HEX = frozenset("0123456789abcdefABCDEF")
_ELEMENT_KEYS = frozenset({"vr", "Value", "InlineBinary", "BulkDataURI"})


@lru_cache(maxsize=4096)
def _tag_in(key: str) -> str | None:
    """Return the tag that 8 characters are; one text for all results, of which there may be many."""
    return key.upper() if _HEX.issuperset(key) else None


def _is_element(element: object) -> bool:
    if not isinstance(element, dict):
        return element is None
    return "vr" in element or not element or not _ELEMENT_KEYS.isdisjoint(element)


def _in_upper_case(data_set: DicomJson) -> DicomJson:
    """Return a data set with the tags of its items in upper case too."""
    for element in data_set.values():
        values: Any = element.get("Value") if isinstance(element, dict) else None
        for place, item in enumerate(values if isinstance(values, list) else ()):
            if isinstance(item, dict) and item and all(len(key) == 8 and _tag_in(key) for key in item):
                values[place] = _in_upper_case({key.upper(): value for key, value in item.items()})
    return data_set


def values_of(item: DicomJson, tag: str) -> list[Any]:
    """Return an element's values; an absent, empty or malformed element has none."""
    element = item.get(tag)
    value = element.get("Value") if isinstance(element, dict) else None
    return value if isinstance(value, list) else []


def first_value(item: DicomJson, tag: str) -> Any:
    """Return an element's first value, or None."""
    return next(iter(values_of(item, tag)), None)


def items_of(item: DicomJson, tag: str) -> list[DicomJson]:
    """Return the items of a sequence."""
    return [value for value in values_of(item, tag) if isinstance(value, dict)]


# --- from XML -------------------------------------------------------------------------------------------------------

_DEEPEST_XML = 64


def objects_in_xml(body: bytes) -> list[DicomJson]:
    """Return the data sets of a Native DICOM Model document (PS3.19 annex A.1) as DICOM JSON.

    Document type declarations are refused, so that no entity can unfold.

    Raises:
        NotDicomJson: it is not such a document, or one without a data set.
    """
    reader = _NativeModel()
    parser = expat.ParserCreate()
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = reader.refuse
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, ValueError, LookupError):
        objects = []
    else:
        objects = reader.objects
    if not objects:
        raise NotDicomJson("not a Native DICOM Model")
    return [data_set_in(item) for item in objects]


class _NativeModel:
    """Builds DICOM JSON from the elements NativeDicomModel, DicomAttribute, Item and Value."""

    def __init__(self) -> None:
        self.objects: list[DicomJson] = []
        self._open: list[DicomJson] = []  # data sets and items, innermost last
        self._attributes: list[dict[str, Any]] = []
        self._text: list[str] | None = None
        self._depth = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _DEEPEST_XML:
            raise ValueError("too deep")
        kind = name.rpartition(":")[2]
        if kind == "NativeDicomModel":
            self._open.append({})
            self.objects.append(self._open[-1])
        elif kind == "DicomAttribute" and self._open:
            attribute: dict[str, Any] = {"vr": attributes.get("vr", "UN"), "Value": []}
            self._open[-1][attributes.get("tag", "").upper()] = attribute
            self._attributes.append(attribute)
        elif kind == "Item" and self._attributes:
            self._open.append({})
            self._attributes[-1]["Value"].append(self._open[-1])
        elif kind == "Value":
            self._text = []

    def end(self, name: str) -> None:
        self._depth -= 1
        kind = name.rpartition(":")[2]
        if kind in ("NativeDicomModel", "Item") and self._open:
            self._open.pop()
        elif kind == "DicomAttribute" and self._attributes:
            self._attributes.pop()
        elif kind == "Value" and self._attributes:
            text = "".join(self._text or [])
            number = text.isdigit() and self._attributes[-1]["vr"] in ("US", "UL", "SS", "SL")
            self._attributes[-1]["Value"].append(int(text[:20]) if number else text)
            self._text = None

    def text(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data)

    def refuse(self, *_declaration: object) -> None:
        raise ValueError("a document type declaration is not accepted")
