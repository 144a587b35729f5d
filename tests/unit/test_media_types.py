"""Content-Type headers as servers write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postdicom_async.dicomweb.dialects import FRAME_LADDER, INSTANCE_LADDER, ContentType, parse_media_type

TABLE: list[tuple[str | None, str, dict[str, str]]] = [
    (None, "", {}),
    ("", "", {}),
    (";", "", {}),
    ("application/dicom+json", "application/dicom+json", {}),
    ("Application/DICOM+JSON", "application/dicom+json", {}),
    ("application/dicom+json; charset=utf-8", "application/dicom+json", {"charset": "utf-8"}),
    ("application/dicom+json;charset=UTF-8", "application/dicom+json", {"charset": "UTF-8"}),
    ("application/json ; Charset = utf-8 ", "application/json", {"charset": "utf-8"}),
    (
        'multipart/related; type="application/dicom"; boundary=abc',
        "multipart/related",
        {"type": "application/dicom", "boundary": "abc"},
    ),
    (
        "multipart/related; type=application/dicom; boundary=abc",
        "multipart/related",
        {"type": "application/dicom", "boundary": "abc"},
    ),
    (
        'multipart/related; boundary="DICOM DATA BOUNDARY"',
        "multipart/related",
        {"boundary": "DICOM DATA BOUNDARY"},
    ),
    ('multipart/related; boundary="a;b"; type="x"', "multipart/related", {"boundary": "a;b", "type": "x"}),
    (
        'multipart/related; start="<1;boundary=no>"; boundary=yes',
        "multipart/related",
        {"start": "<1;boundary=no>", "boundary": "yes"},
    ),
    (r'multipart/related; boundary="a\"b\\c"', "multipart/related", {"boundary": 'a"b\\c'}),
    ('multipart/related; boundary=""', "multipart/related", {"boundary": ""}),
    ("multipart/related; boundary=", "multipart/related", {"boundary": ""}),
    ("multipart/related; boundary", "multipart/related", {}),
    ('multipart/related; boundary="unclosed', "multipart/related", {"boundary": '"unclosed'}),
    ("multipart/related; boundary=a=b", "multipart/related", {"boundary": "a=b"}),
    ("multipart/related;\tboundary=\tabc\t", "multipart/related", {"boundary": "abc"}),
    (
        "multipart/related; BOUNDARY=AbC; Type=application/dicom",
        "multipart/related",
        {"boundary": "AbC", "type": "application/dicom"},
    ),
    (
        "application/dicom; transfer-syntax=1.2.840.10008.1.2.4.50",
        "application/dicom",
        {"transfer-syntax": "1.2.840.10008.1.2.4.50"},
    ),
    ("application/dicom; transfer-syntax=*", "application/dicom", {"transfer-syntax": "*"}),
    ("text/html; charset=utf-8, application/dicom", "text/html", {"charset": "utf-8, application/dicom"}),
]


@pytest.mark.parametrize(("value", "essence", "parameters"), TABLE)
def test_parse(value: str | None, essence: str, parameters: dict[str, str]) -> None:
    assert parse_media_type(value) == ContentType(essence, parameters)


@pytest.mark.parametrize(
    ("essence", "multipart", "json", "xml"),
    [
        ("multipart/related", True, False, False),
        ("multipart/mixed", True, False, False),
        ("application/dicom+json", False, True, False),
        ("application/json", False, True, False),
        ("application/dicom+xml", False, False, True),
        ("application/xml", False, False, True),
        ("text/xml", False, False, True),
        ("application/dicom", False, False, False),
        ("", False, False, False),
    ],
)
def test_kinds(essence: str, multipart: bool, json: bool, xml: bool) -> None:
    kind = ContentType(essence)
    assert (kind.is_multipart, kind.is_json, kind.is_xml) == (multipart, json, xml)


@given(st.text(max_size=200) | st.text(';="\\ ab/', max_size=200))
def test_any_text_is_taken(value: str) -> None:
    kind = parse_media_type(value)
    assert kind.essence == kind.essence.lower()


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=70))
def test_a_quoted_boundary_comes_back(boundary: str) -> None:
    quoted = boundary.replace("\\", "\\\\").replace('"', '\\"')
    kind = parse_media_type(f'multipart/related; type="application/dicom"; boundary="{quoted}"; x=y')
    assert kind.parameters == {"type": "application/dicom", "boundary": boundary, "x": "y"}


@pytest.mark.parametrize("hostile", ['a;b="' + "\\" * 100_000, ";a=" * 50_000, 'a;b="' * 50_000, "a" * 1_000_000])
def test_hostile_length_is_harmless(hostile: str) -> None:
    assert len(parse_media_type(hostile).parameters) < 5000


@pytest.mark.parametrize("accept", [*INSTANCE_LADDER, *FRAME_LADDER])
def test_one_media_range_in_each_accept_header(accept: str) -> None:
    """Orthanc answers 400 to a comma."""
    assert "," not in accept


def test_stored_transfer_syntax_is_asked_for_first() -> None:
    assert parse_media_type(INSTANCE_LADDER[0]).parameters["transfer-syntax"] == "*"
    assert all("transfer-syntax" not in parse_media_type(rung).parameters for rung in INSTANCE_LADDER[1:])
