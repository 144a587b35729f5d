"""What can be told for sure of a result, and nothing more: no false alarm."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postdicom_async.dicomweb.filters import (
    Contradictions,
    contradicted,
    expectations,
    filter_pairs,
    in_pieces,
    queries,
)

STUDY, SERIES, INSTANCE, PATIENT, DAY = "0020000D", "0020000E", "00080018", "00100020", "00080020"


def wrong(filters: dict[str, Any], tag: str, value: Any, key: str = INSTANCE) -> bool:
    """Return whether an item with this one value contradicts the filters."""
    return bool(contradicted(expectations(filter_pairs(filters), key), {tag: {"vr": "UN", "Value": value}}))


@pytest.mark.parametrize(
    ("filters", "tag", "value"),
    [
        ({"StudyInstanceUID": "1.2"}, STUDY, ["1.3"]),
        ({"StudyInstanceUID": ["1.2", "1.3"]}, STUDY, ["1.4"]),
        ({"SeriesInstanceUID": "1.2"}, SERIES, ["1.20"]),
        ({"SOPInstanceUID": "1.2"}, INSTANCE, ["1"]),
        ({"PatientID": "A-1"}, PATIENT, ["A-2"]),
        ({"PatientID": "A-1"}, PATIENT, ["A-11"]),
        ({"PatientID": 5}, PATIENT, ["6"]),
        ({"StudyDate": "20240131"}, DAY, ["20240201"]),
        ({"StudyDate": "2024"}, DAY, ["20230131"]),
        ({"StudyDate": "20240101-20240131"}, DAY, ["20240201"]),
        ({"StudyDate": "20240101-"}, DAY, ["20231231"]),
        ({"StudyDate": "-20240101"}, DAY, ["20240102"]),
        ({"StudyDate": ["20240101", "20240103"]}, DAY, ["20240102"]),
        ({"StudyDate": "20240131"}, DAY, ["2024.02.01"]),
        ({"PatientBirthDate": "19700101"}, "00100030", ["19800101"]),
    ],
    ids=repr,
)
def test_a_contradiction(filters: dict[str, Any], tag: str, value: list[Any]) -> None:
    assert wrong(filters, tag, value)


@pytest.mark.parametrize(
    ("filters", "tag", "value"),
    [
        ({"StudyInstanceUID": "1.2"}, STUDY, ["1.2"]),
        ({"StudyInstanceUID": "1.2"}, STUDY, ["1.2\0"]),
        ({"StudyInstanceUID": "1.2"}, STUDY, ["1.2 "]),
        ({"StudyInstanceUID": "1.2"}, STUDY, ["1.3", "1.2"]),
        ({"StudyInstanceUID": "1.2\\1.3"}, STUDY, ["1.3"]),
        ({"StudyInstanceUID": ["1.2", "1.3"]}, STUDY, ["1.3"]),
        ({"StudyInstanceUID": ""}, STUDY, ["1.3"]),
        ({"StudyInstanceUID": "*"}, STUDY, ["1.3"]),
        ({"StudyInstanceUID": "1.2*"}, STUDY, ["1.3"]),
        ({"StudyInstanceUID": "1.2"}, STUDY, []),
        ({"StudyInstanceUID": "1.2"}, STUDY, [""]),
        ({"StudyInstanceUID": "1.2"}, STUDY, [None]),
        ({"StudyInstanceUID": "1.2"}, STUDY, "1.3"),
        ({"StudyInstanceUID": "1.2"}, STUDY, [{"a": "1.3"}]),
        ({"StudyInstanceUID": "1.2"}, SERIES, ["1.3"]),
        ({"PatientID": "A-1"}, PATIENT, ["a-1 "]),
        ({"PatientID": " A-1"}, PATIENT, ["A-1"]),
        ({"PatientID": "A-?"}, PATIENT, ["B"]),
        ({"PatientID": "A*"}, PATIENT, ["B"]),
        ({"PatientID": ""}, PATIENT, ["B"]),
        ({"PatientID": "A,B"}, PATIENT, ["B"]),
        ({"PatientID": "A\\B"}, PATIENT, ["B"]),
        ({"PatientID": "A^^^HOSPITAL"}, PATIENT, ["A"]),
        ({"PatientID": "A"}, PATIENT, ["A^^^HOSPITAL"]),
        ({"PatientID": 5}, PATIENT, [5]),
        ({"PatientID": "A"}, PATIENT, ["X", "A"]),
        ({"StudyDate": "20240131"}, DAY, ["20240131"]),
        ({"StudyDate": "20240131"}, DAY, ["2024.01.31"]),
        ({"StudyDate": "20240101-20240231"}, DAY, ["20240229"]),
        ({"StudyDate": "2024*"}, DAY, ["20230131"]),
        ({"StudyDate": "-"}, DAY, ["20230131"]),
        ({"StudyDate": ""}, DAY, ["20230131"]),
        ({"StudyDate": "20240131"}, DAY, ["Jan 31"]),
        ({"StudyDate": "20240131"}, DAY, ["20240201", "20240131"]),
        ({"StudyDate": "20240131"}, DAY, ["20240201", "unknown"]),
        ({"PatientName": "DOE*"}, "00100010", ["ROE"]),
        ({"PatientName": "DOE^JOHN"}, "00100010", [{"Alphabetic": "ROE^RICHARD"}]),
        ({"StudyTime": "1030"}, "00080030", ["1130"]),
        ({"AccessionNumber": "A"}, "00080050", ["B"]),
        ({"00091001": "A"}, "00091001", ["B"]),
        ({"ReferencedSeriesSequence.SeriesInstanceUID": "1.2"}, SERIES, ["1.3"]),
    ],
    ids=repr,
)
def test_no_contradiction(filters: dict[str, Any], tag: str, value: Any) -> None:
    assert not wrong(filters, tag, value)


@pytest.mark.parametrize(("key", "tag"), [(STUDY, SERIES), (STUDY, INSTANCE), (SERIES, INSTANCE)])
def test_a_filter_on_a_level_below_says_nothing_of_the_result(key: str, tag: str) -> None:
    """A study matches by any of its series, and may be shown with another one."""
    assert not contradicted(expectations([(tag, "1.2")], key), {tag: {"vr": "UI", "Value": ["1.3"]}})
    assert contradicted(expectations([(tag, "1.2")], tag), {tag: {"vr": "UI", "Value": ["1.3"]}})


@given(st.dates(), st.dates(), st.dates())
def test_a_day_in_the_range_is_never_wrong(one: Any, two: Any, three: Any) -> None:
    first, day, last = sorted((one, two, three))
    text = f"{day.year:04}{day:%m%d}"
    for filters in ((first, last), (first, None), (None, last), day):
        assert not wrong({"StudyDate": filters}, DAY, [text])


def test_no_element_no_item_no_alarm() -> None:
    expected = expectations(filter_pairs({"StudyInstanceUID": "1.2", "PatientID": "A", "StudyDate": "2024"}), STUDY)
    assert contradicted(expected, {}) == []
    assert contradicted(expected, {STUDY: None, PATIENT: {}, DAY: {"vr": "DA"}}) == []


def test_the_line() -> None:
    checked = Contradictions(expectations([(STUDY, "1.2"), (PATIENT, "A")], STUDY), "tag")
    warnings = ["something else"]
    for number, uid in enumerate(("1.2", "1.3", "1.4")):
        checked.see({STUDY: {"vr": "UI", "Value": [uid]}, PATIENT: {"vr": "LO", "Value": ["B" if number else "A"]}})
        checked.tell(warnings)
    assert warnings == [
        "something else",
        (
            "2 of 3 results are not what was asked for by StudyInstanceUID and PatientID: the archive seems to ignore "
            "filters written as tags; the doctor tells which form works"
        ),
    ]


# --- lists in pieces --------------------------------------------------------------------------------------------------


@given(st.lists(st.integers()), st.integers(1, 20))
def test_pieces_are_the_whole_in_order(items: list[int], most: int) -> None:
    pieces = in_pieces(items, lambda some: len(some) <= most)
    assert [one for piece in pieces for one in piece] == items
    assert all(len(piece) <= most for piece in pieces)


@given(st.lists(st.integers(1, 99), unique=True, max_size=40), st.lists(st.integers(1, 99), unique=True, max_size=40))
def test_queries_match_together_what_the_one_would(studies: list[int], series: list[int]) -> None:
    pairs = (
        ("00100010", "DOE*"),
        (STUDY, ",".join(f"1.{one}" for one in studies)),
        (SERIES, "\\".join(f"2.{one}" for one in series)),
        ("includefield", "00081030"),
    )
    found = queries(pairs, lambda some: sum(len(value) for _, value in some) <= 60)
    matched = [
        (a, b) for query in found for a in query[1][1].split(",") for b in query[2][1].replace("\\", ",").split(",")
    ]
    everything = {(a, b) for a in pairs[1][1].split(",") for b in pairs[2][1].replace("\\", ",").split(",")}
    assert set(matched) == everything
    assert len(matched) == len(set(matched))
    assert all(query[0] == pairs[0] and query[3] == pairs[3] for query in found)


def test_one_that_is_too_long_alone_goes_as_it_is() -> None:
    assert in_pieces(["x" * 99], lambda _: False) == [["x" * 99]]
    assert queries((("00100010", "x" * 99),), lambda _: False) == [(("00100010", "x" * 99),)]
    assert queries((), lambda _: False) == [()]
