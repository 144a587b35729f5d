"""The DICOM JSON model and Native DICOM XML, as servers send them."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from postdicom_async.dicom.data_sets import dataset_in_parts, dataset_of
from postdicom_async.dicom.json_reading import (
    NotDicomJson,
    first_value,
    items_of,
    objects_in,
)
from postdicom_async.dicom.native_xml import objects_in_xml
from tests.support.tag_names import json_tag_of

STUDY: dict[str, Any] = {"0020000D": {"vr": "UI", "Value": ["1.2"]}}


def read(item: Any) -> tuple[Dataset, list[str]]:
    problems: list[str] = []
    return dataset_of(item, problems.append), problems


# --- objects ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", []),
        (b"  \r\n ", []),
        (b"\xef\xbb\xbf", []),
        (b"[]", []),
        (json.dumps(STUDY).encode(), [STUDY]),
        (json.dumps([STUDY, STUDY]).encode(), [STUDY, STUDY]),
        (b"\xef\xbb\xbf" + json.dumps([STUDY]).encode(), [STUDY]),
        (json.dumps([STUDY]).encode("utf-16"), [STUDY]),
        (b' \n[ {"00100010": {"vr": "PN"}} ]\n', [{"00100010": {"vr": "PN"}}]),
        (
            b'[{"00080005": {}, "00091001": {"vr": "LO"}, "00080000": {"vr": "UL", "Value": [4]}, "0020000D": null}]',
            [{"00080005": {}, "00091001": {"vr": "LO"}, "00080000": {"vr": "UL", "Value": [4]}, "0020000D": None}],
        ),
        (b'[{"0020000D": {"Value": ["1.2"]}}]', [{"0020000D": {"Value": ["1.2"]}}]),
        (
            b'[{"0020000d": {"vr": "UI"}, "0040a730": {"vr": "SQ", "Value": [{"0040a010": {"vr": "CS"}}, {}, 5]}}]',
            [{"0020000D": {"vr": "UI"}, "0040A730": {"vr": "SQ", "Value": [{"0040A010": {"vr": "CS"}}, {}, 5]}}],
        ),
        # What stands inside an element does not make the whole unreadable.
        (
            b'[{"00081199": {"vr": "SQ", "Value": [{}, {"error": 1}]}}]',
            [{"00081199": {"vr": "SQ", "Value": [{}, {"error": 1}]}}],
        ),
    ],
)
def test_objects(body: bytes, expected: list[Any]) -> None:
    assert objects_in(body) == expected


NOT_JSON = [
    b"null",
    b"1",
    b'"text"',
    b"true",
    b"[{}]]",
    b"{} {}",
    b"<html>",
    b"\xff\xfe\x00",
    b"[NaN]",
    b'[{"00080005": {"vr": "DS", "Value": [NaN]}}]',
    b'[{"x": Infinity}]',
    b'[{"x": -Infinity}]',
    b'[{"x": ' + b"9" * 5000 + b"}]",
    b"[" * 200_000,
    b'{"x":' * 200_000,
    b"[" * 200_000 + b"]" * 200_000,
]
NO_DATA_SET: list[Any] = [
    1,
    [],
    None,
    "x",
    {},
    {"error": "not authorized"},
    {"Error": {}},
    {"message": {"vr": "LO"}},
    {"StudyInstanceUID": {"vr": "UI", "Value": ["1.2"]}},
    {"0020,000D": {"vr": "UI", "Value": ["1.2"]}},
    {"0020000D": "1.2"},
    {"0020000D": ["1.2"]},
    {"0020000D": {"Name": "StudyInstanceUID", "Type": "String"}},
    {**STUDY, "error": "x"},
    {**STUDY, "0020000DX": {}},
    {**STUDY, "0020000G": {}},
    {**STUDY, "\uff10020000D": {}},
    {**STUDY, "": {}},
]


@pytest.mark.parametrize("body", NOT_JSON, ids=lambda body: repr(body[:30]))
def test_not_json(body: bytes) -> None:
    with pytest.raises(NotDicomJson) as caught:
        objects_in(body)
    assert str(caught.value) in {"not JSON", "too deep"}
    assert caught.value.found is None


@pytest.mark.parametrize("found", NO_DATA_SET, ids=repr)
def test_what_is_no_data_set_is_not_counted_as_one(found: Any) -> None:
    """Alone, in a list, or among data sets."""
    for body in ([found], [STUDY, found], [found, STUDY], *([found] if isinstance(found, dict) else [])):
        with pytest.raises(NotDicomJson, match=r"no data set|names instead of their tags") as caught:
            objects_in(json.dumps(body).encode())
        assert caught.value.found == found


@pytest.mark.parametrize("cut", [1, 10, -2, -1])
def test_json_that_ends_early_is_told_from_what_is_none(cut: int) -> None:
    with pytest.raises(NotDicomJson) as caught:
        objects_in(json.dumps([STUDY]).encode()[:cut])
    assert (str(caught.value), caught.value.found) == ("ends early", None)


@given(st.binary(max_size=100) | st.text(max_size=100).map(str.encode))
def test_any_body_is_objects_or_not(body: bytes) -> None:
    with suppress(NotDicomJson):
        assert all(isinstance(item, dict) for item in objects_in(body))


@pytest.mark.parametrize(
    ("item", "first"),
    [
        ({}, None),
        ({"00080018": None}, None),
        ({"00080018": []}, None),
        ({"00080018": {}}, None),
        ({"00080018": {"vr": "UI"}}, None),
        ({"00080018": {"vr": "UI", "Value": None}}, None),
        ({"00080018": {"vr": "UI", "Value": "1.2"}}, None),
        ({"00080018": {"vr": "UI", "Value": []}}, None),
        ({"00080018": {"vr": "UI", "Value": [None]}}, None),
        ({"00080018": {"vr": "UI", "Value": ["1.2", "3"]}}, "1.2"),
    ],
)
def test_first_value(item: dict[str, Any], first: Any) -> None:
    assert first_value(item, "00080018") == first


def test_items_of_a_sequence() -> None:
    item = {"00081199": {"vr": "SQ", "Value": [{"a": 1}, None, 3, {"b": 2}]}}
    assert items_of(item, "00081199") == [{"a": 1}, {"b": 2}]


# --- to pydicom -------------------------------------------------------------------------------------------------------

VALUES: list[tuple[str, dict[str, Any], Any]] = [
    ("00080018", {"vr": "UI", "Value": ["1.2.3"]}, "1.2.3"),
    ("00100010", {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane"}]}, "Doe^Jane"),
    (
        "00100010",
        {
            "vr": "PN",
            "Value": [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}],
        },
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
    ),
    ("00100010", {"vr": "PN", "Value": [{"Ideographic": "山田^太郎"}]}, "=山田^太郎"),
    ("00100010", {"vr": "PN", "Value": ["Doe^Jane"]}, "Doe^Jane"),
    ("00100010", {"vr": "PN", "Value": [{}]}, ""),
    ("00100010", {"vr": "PN"}, ""),
    ("00100010", {"vr": "PN", "Value": []}, ""),
    ("00280030", {"vr": "DS", "Value": [0.7, 0.7]}, [0.7, 0.7]),
    ("00280030", {"vr": "DS", "Value": ["0.7", "0.7"]}, [0.7, 0.7]),
    ("00180050", {"vr": "DS", "Value": ["2.5"]}, 2.5),
    ("00180050", {"vr": "DS", "Value": [2]}, 2),
    ("00180050", {"vr": "DS", "Value": []}, None),
    ("00180050", {"vr": "DS"}, None),
    ("00201206", {"vr": "IS", "Value": [3]}, 3),
    ("00201206", {"vr": "IS", "Value": ["3"]}, 3),
    ("00201206", {"vr": "IS"}, None),
    ("00280010", {"vr": "US", "Value": [512]}, 512),
    ("00080020", {"vr": "DA", "Value": ["20200102"]}, "20200102"),
    ("00080020", {"vr": "DA", "Value": ["2020.01.02"]}, "2020.01.02"),
    ("00080020", {"vr": "DA", "Value": [""]}, ""),
    ("00080020", {"vr": "DA", "Value": [None]}, ""),
    ("00080061", {"vr": "CS", "Value": ["CT", "MR"]}, ["CT", "MR"]),
    ("00080061", {"vr": "CS", "Value": ["lower case, longer than allowed"]}, "lower case, longer than allowed"),
    ("7FE00010", {"vr": "OW", "InlineBinary": "AAEC"}, b"\x00\x01\x02"),
    ("7FE00010", {"vr": "OW", "BulkDataURI": "http://host/bulk"}, b""),
    ("7FE00010", {"vr": "OB", "BulkDataURI": ""}, b""),
    ("00091001", {"vr": "LO", "Value": ["private"]}, "private"),
    ("00091002", {"vr": "UN", "InlineBinary": "AAEC"}, b"\x00\x01\x02"),
    ("00081199", {"vr": "SQ", "Value": []}, []),
    ("00081199", {"vr": "SQ"}, []),
]


@pytest.mark.parametrize(("tag", "element", "value"), VALUES)
def test_value(tag: str, element: dict[str, Any], value: Any) -> None:
    dataset, problems = read({tag: element})
    assert problems == []
    assert dataset[tag].value == value or str(dataset[tag].value) == str(value)


def read_in_parts(item: Any) -> tuple[Dataset, list[str]]:
    problems: list[str] = []
    work = dataset_in_parts(item, problems.append)
    try:
        while True:
            next(work)
    except StopIteration as end:
        return end.value, problems


def test_a_data_set_read_in_parts_is_the_same() -> None:
    broken = {**STUDY, "00180050": {"vr": "DS", "Value": ["thick"]}}
    for tag, element in [*((tag, element) for tag, element, _ in VALUES), *BROKEN]:
        nested = {tag: element} if json_tag_of(tag) == tag else {}  # what else pydicom takes it takes at the top alone
        for inner in ({tag: element}, {"00081199": {"vr": "SQ", "Value": [STUDY, nested, {}, None]}}):
            item = {**STUDY, **inner}
            assert read_in_parts(item) == read(item), item
    sequences: list[list[Any]] = [[broken], [STUDY, broken], ["x"], [5], [[]], [{}, None]]
    for sequence in sequences:
        item = {**STUDY, "00081199": {"vr": "SQ", "Value": sequence}}
        assert read_in_parts(item) == read(item), item


def test_nested_items() -> None:
    inner = {"00081155": {"vr": "UI", "Value": ["1.2"]}}
    dataset, problems = read({"00081199": {"vr": "SQ", "Value": [inner, inner]}})
    assert [item.ReferencedSOPInstanceUID for item in dataset.ReferencedSOPSequence] == ["1.2", "1.2"]
    assert problems == []


BROKEN: list[tuple[str, Any]] = [
    ("00080018", None),
    ("00080018", []),
    ("00080018", "text"),
    ("00080018", 5),
    ("00080018", {}),
    ("00080018", {"Value": ["1.2"]}),
    ("00080018", {"vr": "XX", "Value": ["1.2"]}),
    ("00080018", {"vr": None, "Value": ["1.2"]}),
    ("00080018", {"vr": 5, "Value": ["1.2"]}),
    ("00080018", {"vr": ["UI"], "Value": ["1.2"]}),
    ("00180050", {"vr": "DS", "Value": ["two and a half"]}),
    ("00201206", {"vr": "IS", "Value": ["three"]}),
    ("00100010", {"vr": "PN", "Value": [{"Alphabetic": 5}]}),
    ("7FE00010", {"vr": "OW", "InlineBinary": 5}),
    ("7FE00010", {"vr": "OW", "InlineBinary": "A"}),
    ("00081199", {"vr": "SQ", "Value": ["not an item"]}),
    ("00081199", {"vr": "SQ", "Value": 5}),
    ("PatientName", {"vr": "PN"}),
    ("", {"vr": "PN"}),
    ("-0010010", {"vr": "PN"}),
    ("0010001000100010", {"vr": "PN"}),
    ("zzzzzzzz", {"vr": "PN"}),
]


@pytest.mark.parametrize(("tag", "element"), BROKEN, ids=repr)
def test_a_broken_element_is_left_out_and_told(tag: str, element: Any) -> None:
    dataset, problems = read({**STUDY, tag: element, "00080060": {"vr": "CS", "Value": ["CT"]}})
    assert dataset.StudyInstanceUID == "1.2"
    assert dataset.Modality == "CT"
    assert len(problems) <= 1
    assert all(len(problem) < 60 for problem in problems)


def test_deep_nesting_is_told_and_harmless() -> None:
    item: dict[str, Any] = {}
    for _ in range(50_000):
        item = {"00081199": {"vr": "SQ", "Value": [item]}}
    dataset, problems = read({**STUDY, **item})
    assert dataset.StudyInstanceUID == "1.2"
    assert problems == ["element 00081199 has a value that cannot be read"]
    while item:  # let go of it level by level
        item = item["00081199"]["Value"].pop()


def test_problems_do_not_repeat_values(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        _, problems = read(
            {
                "00180050": {"vr": "DS", "Value": ["QUILLFEATHER"]},
                "QUILLFEATHER^J": {"vr": "PN"},
                "00280009": {"vr": "AT", "Value": ["QUILLFEATHER"]},
                "00081199": {"vr": "SQ", "Value": [{"00280009": {"vr": "AT", "Value": ["QUILLFEATHER"]}}]},
            }
        )
    assert len(problems) == 2
    assert "QUILLFEATHER^J" not in " ".join(problems)
    assert "QUILLFEATHER" not in caplog.text


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["vr", "Value", "Alphabetic", "InlineBinary", "BulkDataURI", "00080018"]), inner
        )
    ),
    max_leaves=6,
)
ELEMENTS = st.fixed_dictionaries(
    {
        "vr": st.sampled_from(["UI", "PN", "DS", "IS", "SQ", "OB", "OW", "UN", "AT", "US", "FD", "DA", "XX"])
        | JSON_VALUES
    },
    optional={"Value": JSON_VALUES, "InlineBinary": JSON_VALUES, "BulkDataURI": JSON_VALUES},
)


SOME_TAGS = st.sampled_from(["00080018", "00091001", "00020010", "FFFEE000", "00080000", "x"]) | st.text(max_size=9)


@given(st.dictionaries(SOME_TAGS, ELEMENTS | JSON_VALUES, max_size=4))
def test_any_object_gives_a_data_set(item: dict[str, Any]) -> None:
    dataset, problems = read(item)
    assert len(dataset) + len(problems) <= len(item)


# --- XML --------------------------------------------------------------------------------------------------------------


def model(inside: str) -> bytes:
    head = '<?xml version="1.0" encoding="utf-8"?><NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM">'
    return f"{head}{inside}</NativeDicomModel>".encode()


def test_native_model() -> None:
    inside = """
      <DicomAttribute tag="00081199" vr="SQ" keyword="ReferencedSOPSequence">
        <Item number="1">
          <DicomAttribute tag="00081155" vr="UI"><Value number="1">1.2.&#51;</Value></DicomAttribute>
          <DicomAttribute tag="00081196" vr="US"><Value number="1">45056</Value></DicomAttribute>
        </Item>
        <Item number="2"><DicomAttribute tag="0008115a" vr="UI"/></Item>
      </DicomAttribute>
      <DicomAttribute tag="00081190" vr="UR"><Value number="1">http://x</Value></DicomAttribute>"""
    (item,) = objects_in_xml(model(inside))
    first, second = items_of(item, "00081199")
    assert (first_value(first, "00081155"), first_value(first, "00081196")) == ("1.2.3", 45056)
    assert "0008115A" in second
    assert first_value(item, "00081190") == "http://x"


def test_several_models_in_one_document_and_namespace_prefixes() -> None:
    attribute = '<d:DicomAttribute tag="00080018" vr="UI"><d:Value>1</d:Value></d:DicomAttribute>'
    one = f"<d:NativeDicomModel>{attribute}</d:NativeDicomModel>"
    found = objects_in_xml(f'<all xmlns:d="x">{one}{one}</all>'.encode())
    assert [first_value(item, "00080018") for item in found] == ["1", "1"]


LOL = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
HOSTILE_XML = [
    b"",
    b"text",
    b"<",
    b"<a>",
    b"<a></b>",
    b"<a/><b/>",
    b"\xff\xfe<a/>",
    model("<Item>"),
    f'<!DOCTYPE x [<!ENTITY l0 "lol">{LOL}]><NativeDicomModel>&l9;</NativeDicomModel>'.encode(),
    b'<!DOCTYPE x SYSTEM "http://host/x.dtd"><NativeDicomModel/>',
    b'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><NativeDicomModel><Value>&f;</Value></NativeDicomModel>',
    b"<!DOCTYPE NativeDicomModel><NativeDicomModel/>",
    model("&undefined;"),
    model("<a>" * 100 + "</a>" * 100),
    model("<a>" * 100_000),
    b'<?xml version="1.0" encoding="no-such-encoding"?><NativeDicomModel/>',
    model('<DicomAttribute tag="00081196" vr="US"><Value>\u00b2</Value></DicomAttribute>'),
]


@pytest.mark.parametrize("body", HOSTILE_XML, ids=lambda body: repr(body[:40]))
def test_hostile_xml_is_refused(body: bytes) -> None:
    with pytest.raises(NotDicomJson):
        objects_in_xml(body)


ODD_XML = [
    "<Item/>",
    "<Value>1</Value>",
    "<DicomAttribute/>",
    "<DicomAttribute><DicomAttribute/></DicomAttribute>",
    "<Item><DicomAttribute tag='00080018'><Value>1</Value></DicomAttribute></Item>",
    "<DicomAttribute tag='x' vr='UI'><Item><Item/></Item></DicomAttribute>",
    "<DicomAttribute tag='00080018' vr='US'><Value>99999999999999999999999999</Value></DicomAttribute>",
    "<DicomAttribute tag='00080018' vr='US'><Value/><Value>-1</Value></DicomAttribute>",
    "<PersonName><Alphabetic><FamilyName>x</FamilyName></Alphabetic></PersonName>",
]


@pytest.mark.parametrize("inside", ODD_XML)
def test_odd_xml_is_taken_as_far_as_it_goes(inside: str) -> None:
    whole = "<DicomAttribute tag='0020000D' vr='UI'><Value>1.2</Value></DicomAttribute>"
    inside = inside.replace("<DicomAttribute>", "<DicomAttribute tag='00091001'>").replace("tag='x'", "tag='00091002'")
    (found,) = objects_in_xml(model(whole + inside.replace("<DicomAttribute/>", "<DicomAttribute tag='00091001'/>")))
    assert found["0020000D"] == {"vr": "UI", "Value": ["1.2"]}


NO_DATA_SET_IN_XML = [
    b"<html><body>Sign in</body></html>",
    b"<error>not authorized</error>",
    model(""),
    model("<Item/>"),
    model("<DicomAttribute/>"),
    model("<DicomAttribute tag='error' vr='LO'/>"),
    b"<all><NativeDicomModel><DicomAttribute tag='00080005'/></NativeDicomModel><NativeDicomModel/></all>",
]


@pytest.mark.parametrize("body", NO_DATA_SET_IN_XML, ids=lambda body: repr(body[-40:]))
def test_xml_without_a_data_set_is_refused(body: bytes) -> None:
    with pytest.raises(NotDicomJson):
        objects_in_xml(body)


OPENING = ["<Item>", "<Value>", "<DicomAttribute tag='1' vr='SQ'>", "<NativeDicomModel>"]
CLOSING = ["</Item>", "</Value>", "</DicomAttribute>", "</NativeDicomModel>"]


@given(st.lists(st.sampled_from([*OPENING, *CLOSING, "5"]), max_size=12))
def test_any_xml_is_objects_or_not(pieces: list[str]) -> None:
    with suppress(NotDicomJson):
        objects_in_xml(model("".join(pieces)))
