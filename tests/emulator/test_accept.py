from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postdicom_async.emulator.dicomweb.accept import MediaRange, parse_accept, parse_media_type, wants_only


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", MediaRange("")),
        ("application/dicom", MediaRange("application/dicom")),
        (" Application/DICOM ; Transfer-Syntax=* ", MediaRange("application/dicom", {"transfer-syntax": "*"})),
        (
            'multipart/related; type="application/dicom"; boundary="DICOM DATA BOUNDARY"',
            MediaRange("multipart/related", {"type": "application/dicom", "boundary": "DICOM DATA BOUNDARY"}),
        ),
        ('a/b; x="quo\\"te;,"; y=1', MediaRange("a/b", {"x": 'quo"te;,', "y": "1"})),
        ("a/b;;x=1;", MediaRange("a/b", {"x": "1"})),
    ],
)
def test_media_types(text: str, expected: MediaRange) -> None:
    assert parse_media_type(text) == expected


def test_accept_is_ordered_by_quality() -> None:
    accept = 'text/*;q=0.3, multipart/related; type="a/b, c"; q=0.9, */*;q=0, application/dicom'

    assert [media.name for media in parse_accept(accept)] == ["application/dicom", "multipart/related", "text/*"]


def test_no_accept_accepts_all() -> None:
    assert parse_accept("") == [MediaRange("*/*")]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [("a/x", True), ("a/x, a/y", False), ("a/x, */*;q=0.1", False), ("a/*", False), ("a/x;q=0", False), ("", False)],
)
def test_wants_only(accept: str, expected: bool) -> None:
    assert wants_only(parse_accept(accept), "a/x", "a/y") is expected


@settings(deadline=None)
@given(st.text(max_size=60))
def test_anything_parses(text: str) -> None:
    assert all(media.quality > 0 for media in parse_accept(text))
    parse_media_type(text)
