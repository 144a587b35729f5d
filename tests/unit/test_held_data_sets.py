"""Data sets made of DICOM JSON hold their elements until they are looked at, and nobody can tell the difference."""

from __future__ import annotations

import copy
import json
import pickle
import tracemalloc
import warnings
from collections.abc import Callable, Generator
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import config
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from postdicom_async import ProtocolError
from postdicom_async.dicom import data_sets
from postdicom_async.dicom.data_sets import dataset_of, dataset_of_result
from postdicom_async.dicom.json_reading import DicomJson

ITEM: DicomJson = {
    "00080018": {"vr": "UI", "Value": ["1.2.3"]},
    "00080020": {"vr": "DA", "Value": ["20240131"]},
    "00080061": {"vr": "CS", "Value": ["CT", "SR"]},
    "00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2"]}}, {}]},
    "00090010": {"vr": "LO", "Value": ["ACME"]},
    "00091001": {"vr": "LO", "Value": ["private"]},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane", "Phonetic": "do"}]},
    "00100030": {"vr": "DA"},
    "00180050": {"vr": "DS", "Value": [2.5]},
    "00200013": {"vr": "IS", "Value": [7]},
    "00280030": {"vr": "DS", "Value": [1, 0.5]},
    "7FE00010": {"vr": "OW", "BulkDataURI": "http://host/bulk"},
}


def converted(item: DicomJson) -> tuple[Dataset, int]:
    """Return the data set that pydicom makes by itself, and how many elements it cannot make."""
    dataset, problems = Dataset(), 0
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        for name, element in item.items():
            try:
                key = next((key for key in ("Value", "InlineBinary", "BulkDataURI") if key in element), None)
                value = element[key] if key else ""
                made = DataElement.from_json(Dataset, name, element["vr"], value, key, lambda _tag, _vr, _uri: b"")
            except Exception:
                problems += 1
            else:
                dataset.add(made)
    return dataset, problems


def held(item: DicomJson = ITEM) -> Dataset:
    problems: list[str] = []
    dataset = dataset_of(item, problems.append)
    assert not problems
    return dataset


def kinds(dataset: Dataset) -> list[Any]:
    """Return all that a caller sees of the values: their types, and what their elements say of themselves."""
    return [
        (element.tag, element.VR, element.VM, element.validation_mode, element.private_creator, type(element.value))
        + (tuple(kinds(item) for item in element.value) if element.VR == "SQ" else (repr(element.value),))
        for element in dataset
    ]


# --- it is the same ---------------------------------------------------------------------------------------------------

NUMBER_TEXTS = [
    "1",
    "+7",
    "-0",
    "1.5",
    ".5",
    "5.",
    "1e3",
    "-1.5E-3",
    " 1",
    "1 ",
    "",
    "1e999",
    "0x1",
    "1_0",
    "٣",
    "9" * 12,
]
TEXT = st.text(max_size=8) | st.sampled_from(["1.2.3", "20240131", "a\\b", "", " x "])
NUMBERS = st.integers() | st.floats(allow_nan=False) | st.just(10**400) | st.booleans() | st.sampled_from(NUMBER_TEXTS)
NAMES = st.dictionaries(st.sampled_from(["Alphabetic", "Ideographic", "Phonetic", "Other"]), TEXT | st.integers())
TAGS = st.sampled_from(["00080018", "0008103E", "00100010", "00280030", "00091001", "00090010", "0010", "x"])
ITEMS: st.SearchStrategy[DicomJson] = st.deferred(
    lambda: st.dictionaries(
        TAGS,
        st.fixed_dictionaries(
            {"vr": st.sampled_from(["UI", "LO", "PN", "DS", "IS", "US", "FD", "SQ", "DA", "AT", "OB", "UN", "UT"])},
            optional={
                "Value": st.lists(TEXT, max_size=3)
                | st.lists(NUMBERS, max_size=3)
                | st.lists(NAMES, max_size=2)
                | st.lists(ITEMS | st.none(), max_size=2)
                | TEXT
                | st.none(),
                "BulkDataURI": TEXT,
                "InlineBinary": TEXT,
            },
        ),
        max_size=4,
    )
)


@given(ITEMS)
def test_whatever_came_it_is_what_pydicom_makes(item: DicomJson) -> None:
    expected, wrong = converted(item)
    problems: list[str] = []
    dataset = dataset_of(copy.deepcopy(item), problems.append)
    assert len(problems) == wrong
    assert list(dataset.keys()) == sorted(expected.keys())
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        assert kinds(dataset) == kinds(expected)


@pytest.mark.parametrize("vr", ["IS", "DS", "US", "FD", "SV"])
@pytest.mark.parametrize("text", NUMBER_TEXTS)
def test_numbers_as_text(vr: str, text: str) -> None:
    for values in ([text], [text, text], [text, 1]):
        expected, wrong = converted({"00280030": {"vr": vr, "Value": values}})
        problems: list[str] = []
        dataset = dataset_of({"00280030": {"vr": vr, "Value": values}}, problems.append)
        assert len(problems) == wrong
        assert kinds(dataset) == kinds(expected)


@pytest.mark.parametrize("make", [dataset_of, dataset_of_result])
def test_the_order_is_that_of_the_tags(make: Callable[..., Any]) -> None:
    dataset = make(ITEM, lambda _text: None)
    assert [f"{tag:08X}" for tag in dataset.keys()] == list(ITEM)  # noqa: SIM118 - a data set iterates over elements


USES: list[Callable[[Dataset], Any]] = [
    lambda one: (one.SOPInstanceUID, one.ModalitiesInStudy, one.PatientName.phonetic, one.PixelSpacing),
    lambda one: [str(element) for element in one],
    lambda one: str(one),
    lambda one: list(one.items()),
    lambda one: list(one.values()),
    lambda one: one.to_json(),
    lambda one: one.to_json_dict(),
    lambda one: (one.get("StudyDate"), one.get(0x00080020), one.get("Rows", 5), "StudyDate" in one, len(one)),
    lambda one: (one.pop("StudyDate"), "StudyDate" in one),
    lambda one: [one.popitem()[0] for _ in range(3)],
    lambda one: one.setdefault("PatientName", "x"),
    lambda one: one.setdefault("PatientID", "x"),
    lambda one: one[0x00080000:0x00100000],
    lambda one: one.group_dataset(0x10),
    lambda one: one.dir("Date"),
    lambda one: [element.keyword for element in one.iterall()],
    lambda one: one.get_item("StudyDate").value,
    lambda one: one.private_block(0x9, "ACME")[1].value,
    lambda one: one.remove_private_tags(),
    lambda one: one.update({BaseTag(0x00100020): DataElement(0x00100020, "LO", "x")}),
    lambda one: one.clear(),
    lambda one: delattr(one, "PatientName"),
    lambda one: setattr(one, "PatientName", "Roe"),
    lambda one: setattr(one.ReferencedSOPSequence[1], "Modality", "CT"),
    lambda one: Dataset(one).PatientName,
    lambda one: {**one._dict}[BaseTag(0x00200013)],
    lambda one: dict(one._dict),
    lambda one: np.array([one]).tolist(),
]


@pytest.mark.parametrize("number", range(len(USES)))
def test_every_use_gives_the_same_and_leaves_the_same(number: int) -> None:
    ours, (theirs, _) = held(), converted(ITEM)
    assert repr(USES[number](ours)) == repr(USES[number](theirs))
    assert kinds(ours) == kinds(theirs)
    assert ours == theirs
    assert theirs == ours


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_and_pickles(copied: Callable[[Dataset], Dataset]) -> None:
    again = copied(held())
    assert type(again) is Dataset
    assert again == held()
    assert kinds(again) == kinds(held())


def test_a_pickle_needs_nothing_of_ours() -> None:
    assert b"postdicom_async" not in pickle.dumps(held())


def test_it_is_written_to_a_file_as_any_other() -> None:
    files: list[bytes] = []
    for dataset in (held(), converted(ITEM)[0]):
        file = BytesIO()
        dataset.SOPClassUID = pydicom.uid.CTImageStorage
        pydicom.dcmwrite(file, dataset, implicit_vr=False, little_endian=True)
        files.append(file.getvalue())
    assert files[0] == files[1]


def test_an_element_of_a_file_in_it_is_converted_as_in_any_other() -> None:
    dataset = held()
    dataset[0x00100020] = RawDataElement(BaseTag(0x00100020), "LO", 2, b"ID", 0, False, True)
    assert dataset.PatientID == "ID"


# --- it is held -------------------------------------------------------------------------------------------------------


def plain(number: int) -> DicomJson:
    tags = {"00080018": "UI", "00080020": "DA", "00080060": "CS", "00100020": "LO", "00201208": "IS", "00280010": "US"}
    return {tag: {"vr": vr, "Value": [number if vr in ("IS", "US") else str(number)]} for tag, vr in tags.items()}


def test_an_element_is_made_when_it_is_looked_at_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    class Counted(DataElement):
        def __init__(self, tag: int, *args: Any, **options: Any) -> None:
            made.append(tag)
            super().__init__(tag, *args, **options)

    monkeypatch.setattr(data_sets, "DataElement", Counted)
    results = [dataset_of_result(plain(number), lambda _text: None) for number in range(50)]
    assert not made
    assert [result.SOPInstanceUID for result in results if isinstance(result, Dataset)] == [str(n) for n in range(50)]
    assert made == [0x00080018] * 50
    first = results[0]
    assert isinstance(first, Dataset)
    assert first[0x00080018] is first["SOPInstanceUID"]
    assert made == [0x00080018] * 50


def test_what_is_held_takes_less_memory_than_elements() -> None:
    def bytes_of(make: Callable[[DicomJson], Any]) -> int:
        make(plain(0))
        tracemalloc.start()
        kept = [make(json.loads(json.dumps(plain(number)))) for number in range(100)]
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert len(kept) == 100
        return size

    assert bytes_of(held) < bytes_of(lambda item: converted(item)[0])


def test_what_cannot_be_read_is_told_with_the_result() -> None:
    problems: list[str] = []
    dataset = dataset_of({**ITEM, "00180050": {"vr": "DS", "Value": ["thick"]}}, problems.append)
    assert problems == ["element 00180050 has a value that cannot be read"]
    assert "SliceThickness" not in dataset


def test_with_settings_that_may_refuse_a_value_everything_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "datetime_conversion", True)
    problems: list[str] = []
    dataset = dataset_of({**ITEM, "00080021": {"vr": "DA", "Value": ["QUILLFEATHER"]}}, problems.append)
    assert problems == ["element 00080021 has a value that cannot be read"]
    assert dataset.StudyDate.year == 2024


def test_settings_changed_afterwards_are_an_error_without_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = held({"00080021": {"vr": "DA", "Value": ["QUILLFEATHER"]}, **ITEM})
    monkeypatch.setattr(config, "datetime_conversion", True)
    assert dataset.StudyDate.year == 2024
    with pytest.raises(ProtocolError, match="element 00080021") as caught:
        _ = dataset.SeriesDate
    assert caught.value.__context__ is None
    assert "QUILLFEATHER" not in repr(caught.value)
    assert "SeriesDate" in dataset


def finished(work: Dataset | Generator[None, None, Dataset]) -> Dataset:
    """Go on with a data set that is made in parts; it must be one."""
    assert not isinstance(work, Dataset)
    ends: list[Dataset] = []

    def whole() -> Generator[None, None, None]:
        ends.append((yield from work))

    assert len(list(whole())) > 1
    return ends[0]


@pytest.mark.parametrize(
    "element",
    [
        {"vr": "UT", "Value": ["x"] * 1000},
        {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2"]}}] * 800},
        {"vr": "UN", "InlineBinary": "AAEC" * 1_000_000},
    ],
    ids=["values", "items", "bytes"],
)
def test_a_large_element_is_made_in_parts(element: Any) -> None:
    item = {**ITEM, "00091002": element, "00401001": element}
    dataset = finished(dataset_of_result(item, lambda _text: None))
    assert dataset == converted(item)[0]
    assert list(dataset.keys()) == sorted(dataset.keys())


def test_many_elements_are_made_in_parts() -> None:
    item = {f"0018{number:04X}": {"vr": "LO", "Value": ["x"]} for number in range(501)}
    assert finished(dataset_of_result(item, lambda _text: None)) == converted(item)[0]


def test_an_empty_data_set_has_no_last_element() -> None:
    with pytest.raises(KeyError):
        held({}).popitem()
