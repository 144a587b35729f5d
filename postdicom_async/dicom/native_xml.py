"""The Native DICOM Model (PS3.19 annex A.1): data sets as XML, which some servers send, read as DICOM JSON. Pure."""

from __future__ import annotations

from typing import Any
from xml.parsers import expat

from postdicom_async.dicom.json_reading import DicomJson, NotDicomJson, data_set_in

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
