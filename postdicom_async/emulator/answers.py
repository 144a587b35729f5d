"""Builds responses: JSON, Native DICOM Model XML, and errors with ``X-Error-Reason``."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from traceback import extract_tb
from typing import Any, TypeAlias
from xml.sax.saxutils import escape, quoteattr

from pydicom.datadict import keyword_for_tag
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from postdicom_async.emulator.dicomweb.accept import LONGEST, MediaRange, parse_accept
from postdicom_async.emulator.store.header import Json

DICOM_JSON = "application/dicom+json"
DICOM_XML = "application/dicom+xml"


RouteHandler: TypeAlias = Callable[[Request], Awaitable[Response]]
RouteRow: TypeAlias = tuple[str, str, RouteHandler]
"""Method, path and handler."""


class Refusal(HTTPException):
    """Raised by a handler to answer with a status and a reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)


def accepted(request: Request) -> list[MediaRange]:
    """Return the client's accepted media types; the ``accept`` parameter outranks the header (PS3.18 section 8.3.3.1).

    Raises:
        Refusal: 431 when the text is unreasonably long.
    """
    text = request.query_params.get("accept") or ", ".join(request.headers.getlist("accept"))
    if len(text) > LONGEST:
        raise Refusal(431, f"what is accepted must be said in {LONGEST} characters")
    return parse_accept(text)


def header_text(text: str) -> str:
    """Return a text that a header may carry: ASCII, one line, of bounded length."""
    ascii_only = text.encode("ascii", "backslashreplace").decode("ascii")
    return "".join(char if char.isprintable() else " " for char in ascii_only)[:400]


def refusal(status: int, reason: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error answer: a short JSON body and the reason in ``X-Error-Reason``."""
    body = json.dumps({"status": status, "error": reason}).encode()
    return Response(
        body, status, {**(headers or {}), "X-Error-Reason": header_text(reason)}, media_type="application/json"
    )


def places_of(error: Exception) -> str:
    """Return where an exception came from, for a log: its text and its frames may hold what was asked or stored."""
    return " ".join(f"{Path(frame.filename).stem}:{frame.lineno}" for frame in extract_tb(error.__traceback__))


def slow_down(wait: int) -> Response:
    """Return the refusal of a login attempt that is not even checked, after too many wrong ones."""
    return refusal(429, "too many wrong passwords or keys came from there", {"Retry-After": str(wait)})


def dicom_json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer in the DICOM JSON model."""
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(body, status, dict(headers or {}), media_type=DICOM_JSON)


def base_url(request: HTTPConnection) -> str:
    """Return the base URL that the client used, without a trailing slash; with scheme http for a WebSocket too."""
    root = request.scope.get("root_path", "")  # where the archive is mounted
    netloc = request.url.netloc
    name, port = request.scope.get("server") or ("", None)
    if netloc == name and port not in {None, 80, 443}:  # some clients send a Host without its port
        netloc = f"{name}:{port}"
    scheme = {"ws": "http", "wss": "https"}.get(request.url.scheme, request.url.scheme)
    return f"{scheme}://{netloc}{root}".rstrip("/")


def native_xml(dataset: Json) -> bytes:
    """Return a data set as a Native DICOM Model document (PS3.19 section A.1); no binary values."""
    body = "".join(_attributes(dataset))
    root = '<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM" xml:space="preserve">'
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{root}{body}</NativeDicomModel>'.encode()


def _attributes(dataset: Json) -> Iterator[str]:
    for tag, element in dataset.items():
        names = f"tag={quoteattr(tag)} vr={quoteattr(element['vr'])} keyword={quoteattr(keyword_for_tag(int(tag, 16)))}"
        items = (
            f'<Item number="{number}">{"".join(_attributes(value))}</Item>'
            if element["vr"] == "SQ"
            else f'<Value number="{number}">{escape(str(value))}</Value>'
            for number, value in enumerate(element.get("Value", []), 1)
        )
        yield f"<DicomAttribute {names}>{''.join(items)}</DicomAttribute>"
