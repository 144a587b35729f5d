"""The DICOM JSON model (PS3.18 annex F), read from servers that do not always keep to it; and Native DICOM XML."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias
from xml.parsers import expat

from pydicom import config
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

__all__ = [
    "DicomJson",
    "NotDicomJson",
    "dataset_of",
    "first_value",
    "items_of",
    "objects_in",
    "objects_in_xml",
    "tag_of",
]

DicomJson: TypeAlias = dict[str, Any]
"""One data set: 8-hex-digit tags to objects with ``vr`` and ``Value``."""


class NotDicomJson(ValueError):
    """The text is not JSON, or not an array of objects."""


def objects_in(body: bytes) -> list[DicomJson]:
    """Return the data sets of an answer: an array, one bare object, or nothing at all.

    Raises:
        NotDicomJson: anything else.
    """
    text = body.removeprefix(b"\xef\xbb\xbf").strip()
    if not text:
        return []
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise NotDicomJson("not JSON") from None
    objects = [found] if isinstance(found, dict) else found
    if not isinstance(objects, list) or not all(isinstance(item, dict) for item in objects):
        raise NotDicomJson("not an array of objects")
    return objects


def _refuse_constant(name: str) -> float:
    raise ValueError(name)


def tag_of(keyword_or_tag: str) -> str | None:
    """Return the 8 upper-case hex digits for a DICOM keyword or a tag in any spelling, None for neither."""
    plain = keyword_or_tag.strip().strip("()").replace(",", "").replace(" ", "")
    if len(plain) == 8 and all(char in "0123456789abcdefABCDEF" for char in plain):
        return plain.upper()
    keyword = keyword_or_tag.strip()
    tag = tag_for_keyword(keyword) if keyword else None  # the empty keyword is that of retired elements
    return None if tag is None else f"{tag:08X}"


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


# --- to pydicom -----------------------------------------------------------------------------------------------------


def dataset_of(item: DicomJson, problem: Callable[[str], None]) -> Dataset:
    """Return the data set. An element whose value is not what its VR says is left out and told to ``problem``.

    A value given by BulkDataURI is empty here; the raw object has the address.
    """
    dataset = Dataset()
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        for tag, element in item.items():
            read = _element(tag, element)
            if read is None:
                problem(f"element {str(tag)[:8]} has a value that cannot be read")
            else:
                dataset.add(read)
    return dataset


_VALUE_KEYS = ("Value", "InlineBinary", "BulkDataURI")


def _element(tag: str, element: Any) -> DataElement | None:
    try:
        vr = element["vr"]
        key = next((key for key in _VALUE_KEYS if key in element), None)
        value = element[key] if key else ""
        return DataElement.from_json(Dataset, tag, vr, value, key, lambda _tag, _vr, _uri: b"")
    except Exception:  # noqa: BLE001 - foreign values through a parser that may raise anything
        return None


# --- from XML -------------------------------------------------------------------------------------------------------

_DEEPEST_XML = 64


def objects_in_xml(body: bytes) -> list[DicomJson]:
    """Return the data sets of a Native DICOM Model document (PS3.19 annex A.1) as DICOM JSON.

    Document type declarations are refused, so that no entity can unfold.

    Raises:
        NotDicomJson: it is not such a document.
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
        raise NotDicomJson("not a Native DICOM Model") from None
    return reader.objects


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
