"""What a store answer says about each instance."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postdicom_async.dicomweb.store_answer import failure_name, verdicts_of
from postdicom_async.results import Status
from tests.support.bodies import JSON, XML, stow_answer

A, B, C = "1.2.1", "1.2.2", "1.2.3"
STORED, WARNED, FAILED, UNCONFIRMED = (
    Status.STORED,
    Status.WARNED,
    Status.FAILED,
    Status.UNCONFIRMED,
)
Expected = dict[str, tuple[Status, int | None]]


def judged(content_type: str, body: bytes, sent: tuple[str, ...] = (A, B, C)) -> Expected:
    return {uid: (v.status, v.reason_code) for uid, v in verdicts_of(content_type, body, sent).items()}


UNKNOWN = (UNCONFIRMED, None)
FORMED: list[tuple[dict[str, Any], Expected]] = [
    ({}, {A: UNKNOWN, B: UNKNOWN, C: UNKNOWN}),
    ({"referenced": [A, B, C]}, {A: (STORED, None), B: (STORED, None), C: (STORED, None)}),
    ({"referenced": [A, B, C], "retrieve_url": "http://x"}, {A: (STORED, None), B: (STORED, None), C: (STORED, None)}),
    ({"referenced": [A]}, {A: (STORED, None), B: UNKNOWN, C: UNKNOWN}),
    ({"failed": [A, B, C]}, {A: (FAILED, 0x110), B: (FAILED, 0x110), C: (FAILED, 0x110)}),
    ({"referenced": [A], "failed": [(B, 0xA700)]}, {A: (STORED, None), B: (FAILED, 0xA700), C: UNKNOWN}),
    ({"warned": [A]}, {A: (WARNED, 0xB000), B: UNKNOWN, C: UNKNOWN}),
    ({"warned": [(A, 0xB006), (B, 0xB007)]}, {A: (WARNED, 0xB006), B: (WARNED, 0xB007), C: UNKNOWN}),
    ({"warned": [(A, 0)]}, {A: (STORED, None), B: UNKNOWN, C: UNKNOWN}),
    ({"failed": [(A, 0xB00E)]}, {A: (WARNED, 0xB00E), B: UNKNOWN, C: UNKNOWN}),
    ({"failed": [(A, 0x0111)]}, {A: (WARNED, 0x0111), B: UNKNOWN, C: UNKNOWN}),
    ({"failed": [(A, 272)]}, {A: (FAILED, 0x0110), B: UNKNOWN, C: UNKNOWN}),
    ({"failed": [(A, 43264)]}, {A: (FAILED, 0xA900), B: UNKNOWN, C: UNKNOWN}),
    ({"failed": [(A, 0xC122)]}, {A: (FAILED, 0xC122), B: UNKNOWN, C: UNKNOWN}),
    ({"failed": [(A, 0)]}, {A: (FAILED, 0), B: UNKNOWN, C: UNKNOWN}),
    ({"referenced": [A], "failed": [A]}, {A: UNKNOWN, B: UNKNOWN, C: UNKNOWN}),
    ({"warned": [A], "failed": [A]}, {A: UNKNOWN, B: UNKNOWN, C: UNKNOWN}),
    ({"referenced": [A], "failed": [(A, 0xB00E)]}, {A: (WARNED, 0xB00E), B: UNKNOWN, C: UNKNOWN}),
    ({"referenced": [A, A]}, {A: (STORED, None), B: UNKNOWN, C: UNKNOWN}),
    ({"referenced": [A], "warned": [A]}, {A: (WARNED, 0xB000), B: UNKNOWN, C: UNKNOWN}),
    ({"failed": [(A, 0x110), (A, 0xA700)]}, {A: (FAILED, 0x110), B: UNKNOWN, C: UNKNOWN}),
    ({"referenced": ["9.9"]}, {A: UNKNOWN, B: UNKNOWN, C: UNKNOWN}),
    ({"other_failures": [0x110]}, {A: UNKNOWN, B: UNKNOWN, C: UNKNOWN}),
    ({"referenced": [A], "other_failures": [0x110, 0xC000]}, {A: (STORED, None), B: UNKNOWN, C: UNKNOWN}),
]


@pytest.mark.parametrize("form", ["json", "xml"])
@pytest.mark.parametrize(("contents", "expected"), FORMED)
def test_answer_in_either_form(contents: dict[str, Any], expected: Expected, form: Literal["json", "xml"]) -> None:
    body = stow_answer(**contents, form=form)
    assert judged(JSON if form == "json" else XML, body) == expected


@pytest.mark.parametrize(
    "content_type",
    ["", JSON, "application/json", "application/dicom+json; charset=utf-8", "text/plain", "application/octet-stream"],
)
def test_json_under_any_name(content_type: str) -> None:
    assert judged(content_type, stow_answer(referenced=[A]))[A] == (STORED, None)


@pytest.mark.parametrize("content_type", ["", XML, "application/xml", "text/xml; charset=utf-8", "text/plain"])
def test_xml_under_any_name(content_type: str) -> None:
    assert judged(content_type, b"\r\n" * (not content_type) + stow_answer(referenced=[A], form="xml").lstrip())[A]
    assert judged(content_type, stow_answer(referenced=[A], form="xml"))[A] == (STORED, None)


def entry(uid: Any, **codes: Any) -> dict[str, Any]:
    tags = {"warning": "00081196", "failure": "00081197"}
    made = {"00081155": {"vr": "UI", "Value": [uid]}}
    return made | {tags[name]: {"vr": "US", "Value": [code]} for name, code in codes.items()}


def answer(tag: str, *items: Any) -> dict[str, Any]:
    return {tag: {"vr": "SQ", "Value": list(items)}}


REFERENCED, FAILURES = "00081199", "00081198"
ODD: list[tuple[Any, tuple[Status, int | None]]] = [
    ([answer(REFERENCED, entry(A))], (STORED, None)),
    ([answer(REFERENCED, entry(B)), answer(REFERENCED, entry(A))], (STORED, None)),
    ([answer(FAILURES, entry(A, failure=272)), answer("00081190")], (FAILED, 272)),
    # What is no data set, alone or among others, says nothing.
    ([answer(FAILURES, entry(A, failure=272)), {}], UNKNOWN),
    ([answer(REFERENCED, entry(A)), {"error": "index is read-only"}], UNKNOWN),
    ({**answer(REFERENCED, entry(A)), "error": "index is read-only"}, UNKNOWN),
    ({"error": "index is read-only"}, UNKNOWN),
    ({}, UNKNOWN),
    ([answer(REFERENCED, entry(A)), answer(FAILURES, entry(A))], UNKNOWN),
    (answer(REFERENCED, entry(f" {A} ")), (STORED, None)),
    (answer(REFERENCED, entry(f"{A}\0")), (STORED, None)),
    (answer(REFERENCED, None, 5, "x", entry(A)), (STORED, None)),
    (answer(REFERENCED, {}), UNKNOWN),
    (answer(REFERENCED, entry(None)), UNKNOWN),
    (answer(REFERENCED, entry({"x": 1})), UNKNOWN),
    (answer(FAILURES, entry(A)), (FAILED, None)),
    (answer(FAILURES, entry(A, failure="272")), (FAILED, 272)),
    (answer(FAILURES, entry(A, failure="0110H")), (FAILED, None)),
    (answer(FAILURES, entry(A, failure=None)), (FAILED, None)),
    (answer(FAILURES, entry(A, failure=True)), (FAILED, None)),
    (answer(FAILURES, entry(A, failure=272.0)), (FAILED, None)),
    (answer(FAILURES, entry(A, failure=-1)), (FAILED, -1)),
    (answer(REFERENCED, entry(A, warning="45056")), (WARNED, 45056)),
    (answer(REFERENCED, entry(A, warning="none")), (STORED, None)),
    (answer(REFERENCED, entry(A, failure=272)), UNKNOWN),  # yes and no in one
    (answer(REFERENCED, entry(A, failure=272), entry(A)), UNKNOWN),
    (answer(REFERENCED, entry(A, failure=0)), (STORED, None)),
    ({REFERENCED: {"vr": "SQ"}, FAILURES: {"vr": "SQ", "Value": []}}, UNKNOWN),
    ({REFERENCED: None}, UNKNOWN),
    ({REFERENCED: {"vr": "SQ", "Value": {"0": entry(A)}}}, UNKNOWN),
    ([], UNKNOWN),
    ("stored", UNKNOWN),
    (None, UNKNOWN),
    ([[answer(REFERENCED, entry(A))]], UNKNOWN),
]


@pytest.mark.parametrize(("document", "expected"), ODD, ids=lambda value: repr(value)[:60])
def test_odd_answers(document: Any, expected: tuple[Status, int | None]) -> None:
    assert judged(JSON, json.dumps(document).encode(), (A,)) == {A: expected}


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("", b""),
        (JSON, b""),
        (JSON, b"  "),
        (XML, b""),
        (XML, b"<"),
        (XML, b"<html><body>OK</body></html>"),
        (XML, b'<!DOCTYPE x [<!ENTITY a "b">]><NativeDicomModel/>'),
        (JSON, b"OK"),
        ("text/html", b"<html>stored</html>"),
        (JSON, b"[" * 100_000),
        (JSON, b"\xff\xff"),
        (JSON, stow_answer(referenced=[A])[:-5]),
        (XML, stow_answer(referenced=[A], form="xml")[:-5]),
    ],
    ids=repr,
)
def test_what_cannot_be_read_confirms_nothing(content_type: str, body: bytes) -> None:
    assert judged(content_type, body, (A, B)) == {A: UNKNOWN, B: UNKNOWN}


@given(st.binary(max_size=200), st.sampled_from(["", JSON, XML, "text/html"]))
def test_any_body_gives_one_verdict_each(body: bytes, content_type: str) -> None:
    assert judged(content_type, body) == {A: UNKNOWN, B: UNKNOWN, C: UNKNOWN}


STATES = st.sampled_from(["stored", "failed", "warned", "absent"])


@given(st.lists(STATES, max_size=12), st.sampled_from(["json", "xml"]))
def test_success_is_per_instance(states: list[str], form: Literal["json", "xml"]) -> None:
    uids = [f"1.{n}" for n in range(len(states))]
    of = {state: [uid for uid, one in zip(uids, states, strict=True) if one == state] for state in set(states)}
    body = stow_answer(
        referenced=of.get("stored", ()), failed=of.get("failed", ()), warned=of.get("warned", ()), form=form
    )
    found = verdicts_of("", body, uids)
    wanted = {"stored": STORED, "failed": FAILED, "warned": WARNED, "absent": UNCONFIRMED}
    assert [found[uid].status for uid in uids] == [wanted[state] for state in states]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (0x0110, "processing failure"),
        (0x0122, "referenced SOP class not supported"),
        (0x0124, "not authorized"),
        (0xA700, "out of resources"),
        (0xA7FF, "out of resources"),
        (0xA900, "data set does not match SOP class"),
        (0xA9FF, "data set does not match SOP class"),
        (0xB000, "coercion of data elements"),
        (0xB006, "elements discarded"),
        (0xB007, "data set does not match SOP class"),
        (0xC000, "cannot understand"),
        (0xCFFF, "cannot understand"),
        (0xC122, "referenced transfer syntax not supported"),
        (0x1234, "reason 0x1234"),
        (0, "reason 0x0000"),
    ],
)
def test_failure_name(code: int, name: str) -> None:
    assert failure_name(code) == name
