"""Bodies an archive would answer with, and broken ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from tests.support.exchange import Headers, Reply

__all__ = ["DICOM", "Multipart", "dicom_json", "json_reply", "multipart_related", "stow_answer"]

DICOM = "application/dicom"
JSON = "application/dicom+json"
XML = "application/dicom+xml"
NATIVE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"

PartHeaders = Headers | Callable[[int, bytes], Headers]
StoreItem = str | tuple[str, int]


@dataclass(frozen=True)
class Multipart:
    """A multipart body with its Content-Type."""

    content_type: str
    body: bytes

    def reply(self, status: int = 200, **settings: Any) -> Reply:
        """Make an answer of it; the settings are those of `Reply`."""
        return Reply(status, {"Content-Type": self.content_type}, self.body, **settings)


def multipart_related(
    parts: Sequence[bytes],
    *,
    boundary: str = "b0undary-of-the-tests",
    part_type: str = DICOM,
    part_headers: PartHeaders | None = None,
    preamble: bytes = b"",
    leading_crlf: bool = False,
    closing: bool = True,
    final_crlf: bool = True,
    epilogue: bytes = b"",
    quoted: bool = True,
) -> Multipart:
    """Build a multipart/related body.

    Args:
        parts: contents of the parts.
        boundary: delimits them.
        part_type: Content-Type of each part, and the ``type`` parameter of the whole.
        part_headers: the parts' headers instead of Content-Type alone; a function gets index and content.
        preamble: text before the first delimiter, a line of its own.
        leading_crlf: an empty line before the first delimiter.
        closing: end with the closing delimiter; without it the body is truncated.
        final_crlf: end the closing delimiter's line.
        epilogue: text after it.
        quoted: put the parameters of the Content-Type in quotation marks.
    """
    lead = preamble + (b"\r\n" if leading_crlf or preamble else b"")
    delimiter = f"--{boundary}".encode()
    blocks = [
        delimiter + b"\r\n" + _header_lines(part_headers, part_type, index, part) + b"\r\n" + part + b"\r\n"
        for index, part in enumerate(parts)
    ]
    end = delimiter + b"--" + (b"\r\n" if final_crlf else b"") if closing else b""
    mark = '"' if quoted else ""
    content_type = f"multipart/related; type={mark}{part_type}{mark}; boundary={mark}{boundary}{mark}"
    return Multipart(content_type, lead + b"".join(blocks) + end + epilogue)


def _header_lines(headers: PartHeaders | None, part_type: str, index: int, part: bytes) -> bytes:
    chosen = headers(index, part) if callable(headers) else {"Content-Type": part_type} if headers is None else headers
    pairs = chosen.items() if isinstance(chosen, Mapping) else chosen
    return "".join(f"{name}: {value}\r\n" for name, value in pairs).encode("latin-1")


def dicom_json(**attributes: Any) -> dict[str, Any]:
    """Make one DICOM JSON object of keywords and values."""
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset.to_json_dict()


def json_reply(objects: Any, status: int = 200, **settings: Any) -> Reply:
    """Answer with JSON; the settings are those of `Reply`."""
    return Reply(status, {"Content-Type": JSON}, json.dumps(objects).encode(), **settings)


def stow_answer(
    *,
    referenced: Iterable[StoreItem] = (),
    failed: Iterable[StoreItem] = (),
    warned: Iterable[StoreItem] = (),
    other_failures: Iterable[int] = (),
    sop_class: str = CTImageStorage,
    retrieve_url: str = "",
    form: Literal["json", "xml"] = "json",
) -> bytes:
    """Build the body of a store answer.

    Args:
        referenced: SOP Instance UIDs stored.
        failed: those not stored, alone (reason 0110H) or with a FailureReason.
        warned: those stored with a warning, alone (reason B000H) or with a WarningReason.
        other_failures: reasons for parts that could not be named.
        sop_class: of all of them.
        retrieve_url: of the study; empty leaves it out.
        form: DICOM JSON or Native DICOM XML.
    """
    answer = Dataset()
    if retrieve_url:
        answer.RetrieveURL = retrieve_url
    stored = [_item(sop_class, entry, None) for entry in referenced]
    stored += [_item(sop_class, entry, ("WarningReason", 0xB000)) for entry in warned]
    lost = [_item(sop_class, entry, ("FailureReason", 0x0110)) for entry in failed]
    for keyword, items in (("ReferencedSOPSequence", stored), ("FailedSOPSequence", lost)):
        if items:
            setattr(answer, keyword, items)
    if others := [_reason("FailureReason", code) for code in other_failures]:
        answer.OtherFailuresSequence = others
    return _as_xml(answer) if form == "xml" else json.dumps(answer.to_json_dict()).encode()


def _item(sop_class: str, entry: StoreItem, reason: tuple[str, int] | None) -> Dataset:
    uid, code = entry if isinstance(entry, tuple) else (entry, None)
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = uid
    if reason:
        item.update(_reason(reason[0], reason[1] if code is None else code))
    return item


def _reason(keyword: str, code: int) -> Dataset:
    dataset = Dataset()
    setattr(dataset, keyword, code)
    return dataset


def _as_xml(dataset: Dataset) -> bytes:
    text = f'<NativeDicomModel xmlns="{NATIVE}">{_elements(dataset)}</NativeDicomModel>'
    return f'<?xml version="1.0" encoding="utf-8"?>{text}'.encode()


def _elements(dataset: Dataset) -> str:
    return "".join(
        f'<DicomAttribute tag="{int(element.tag):08X}" vr="{element.VR}" keyword="{element.keyword}">'
        f"{_content(element.value)}</DicomAttribute>"
        for element in dataset
    )


def _content(value: Any) -> str:
    if isinstance(value, str | int):
        return f'<Value number="1">{value}</Value>'
    return "".join(f'<Item number="{n}">{_elements(item)}</Item>' for n, item in enumerate(value, 1))
