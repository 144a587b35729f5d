"""Tables of results and reports: columns and their types, and what a notebook shows of its own accord."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, timedelta
from html import escape
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary

from postdicom_async import (
    Diagnosis,
    DicomWeb,
    DownloadReport,
    Finding,
    Folder,
    InstanceUids,
    Outcome,
    PatientOrder,
    Results,
    Scan,
    ScannedPatient,
    Status,
    UploadReport,
    UsageError,
    read_files,
)
from postdicom_async.dicom.columns import TableOfResults, column_of
from postdicom_async.dicom.tags import tag_of
from postdicom_async.doctor.checks import Area
from postdicom_async.doctor.examination import Verdict
from postdicom_async.frames import ColumnKind, ColumnValues, FrameInParts, frame_of
from postdicom_async.jobs.states import State
from postdicom_async.jobs.summary import Count, JobFacts, Summary
from postdicom_async.markup import table
from postdicom_async.vendor.table import AnswerTable
from tests.support.dicom_files import small_dicom, uid

HOSTILE = "<script>alert(1)</script>&\"'\x1b\u202e"
CANARY = "QUILLFEATHER"


def cell(keyword: str, *values: Any, vr: str = "LO", columns: list[str] | None = None) -> tuple[Any, list[str]]:
    """Return the one cell that these values of an attribute become, and the warnings."""
    made = TableOfResults(columns or [keyword])
    (tag,) = made._columns
    made.add({tag: {"vr": vr, "Value": list(values)}})
    (column,) = made.take().values()
    return column.values[0], made.warnings()


# --- columns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keyword", "values", "expected"),
    [
        ("PatientID", ["P1"], "P1"),
        ("PatientID", [17], "17"),
        ("PatientID", [], None),
        ("PatientID", [None], None),
        ("PatientName", [{"Alphabetic": "Doe^J"}], "Doe^J"),
        ("PatientName", [{"Alphabetic": "Yamada", "Ideographic": "山田"}], "Yamada=山田"),
        ("PatientName", ["Doe^J"], "Doe^J"),
        ("StudyInstanceUID", ["1.2"], "1.2"),
        ("StudyDate", ["20240131"], date(2024, 1, 31)),
        ("StudyDate", ["2024.01.31"], date(2024, 1, 31)),
        ("StudyDate", ["16001231"], date(1600, 12, 31)),
        ("StudyTime", ["101112"], timedelta(hours=10, minutes=11, seconds=12)),
        ("StudyTime", ["1011"], timedelta(hours=10, minutes=11)),
        ("StudyTime", ["10"], timedelta(hours=10)),
        ("StudyTime", ["10:11:12.5"], timedelta(hours=10, minutes=11, seconds=12, milliseconds=500)),
        ("InstanceNumber", [7], 7),
        ("InstanceNumber", ["7"], 7),
        ("InstanceNumber", [7.0], 7),
        ("SliceThickness", [2], 2.0),
        ("SliceThickness", ["2.5"], 2.5),
        ("InstanceNumber", [" -2147483648 "], -(2**31)),
        ("InstanceNumber", [str(2**63 - 1)], 2**63 - 1),
        ("SliceThickness", ["-0.12345678901234567890e+1 "], -1.2345678901234567),
        ("SliceThickness", [".5"], 0.5),
        ("SliceThickness", ["5."], 5.0),
        ("Rows", [512], 512),
        ("ModalitiesInStudy", ["CT", "SR"], ("CT", "SR")),
        ("ModalitiesInStudy", ["CT"], ("CT",)),
        ("ModalitiesInStudy", [], None),
        ("PixelSpacing", [0.5, None], (0.5, None)),
        ("AcquisitionDateTime", ["202401"], "202401"),
        ("00091001", ["private"], ("private",)),
    ],
)
def test_what_a_cell_is(keyword: str, values: list[Any], expected: Any) -> None:
    found, warned = cell(keyword, *values)
    assert (found, type(found)) == (expected, type(expected))
    assert not warned


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientID", {"Alphabetic": 5}),
        ("PatientID", ["x"]),
        ("StudyDate", CANARY),
        ("StudyDate", "20240230"),
        ("StudyDate", 20240131),
        ("StudyTime", "250000"),
        ("StudyTime", "106100"),
        ("StudyTime", "101161"),
        ("StudyTime", 5),
        ("InstanceNumber", CANARY),
        ("InstanceNumber", 1.5),
        ("InstanceNumber", 2**63),
        ("InstanceNumber", {}),
        ("SliceThickness", CANARY),
        ("SliceThickness", 10**400),
        ("InstanceNumber", "1_000"),
        ("InstanceNumber", "٣"),
        ("InstanceNumber", ""),
        ("InstanceNumber", "9" * 5000),
        ("InstanceNumber", str(2**63)),
        ("InstanceNumber", float("inf")),
        ("InstanceNumber", True),
        ("Rows", False),
        ("PatientID", True),
        ("SliceThickness", "1_0.5"),
        ("SliceThickness", "nan"),
        ("SliceThickness", "Infinity"),
        ("SliceThickness", "1e999"),
        ("SliceThickness", float("-inf")),
        ("SliceThickness", float("nan")),
        ("SliceThickness", True),
    ],
)
def test_what_cannot_be_read_is_empty_and_told_without_its_value(keyword: str, value: Any) -> None:
    found, warned = cell(keyword, value)
    assert found is None
    assert warned == [f"column {keyword}: values that cannot be read: 1"]


def test_more_values_than_the_attribute_has() -> None:
    assert cell("PatientID", "A", "B") == (
        "A", ["column PatientID: results with several values, of which the first is shown: 1"]
    )  # fmt: skip


def test_columns_that_come_later_are_empty_before() -> None:
    made = TableOfResults(None, ["StudyDate"])
    made.add({"00100020": {"vr": "LO", "Value": ["A"]}, "00081199": {"vr": "SQ"}, "00080020": {"vr": "DA"}})
    made.add({"00080060": {"vr": "CS", "Value": ["CT"]}, "00091001": None})
    assert made.order == ["StudyDate", "Modality", "00091001", "PatientID"]
    taken = made.take()
    assert {name: list(column.values) for name, column in taken.items()} == {
        "StudyDate": [None, None],
        "PatientID": ["A", None],
        "Modality": [None, "CT"],
        "00091001": [None, None],
    }
    assert made.rows == 0


@pytest.mark.parametrize(
    "columns", [["NoKeyword"], ["PixelData"], ["ReferencedSOPSequence"], "StudyDate", ["Modality", 5]]
)
def test_a_column_that_is_none(columns: Any) -> None:
    with pytest.raises(UsageError, match="columns"):
        TableOfResults(columns)


def test_each_column_stands_once() -> None:
    assert TableOfResults(["StudyDate", "00080020", "Modality"]).order == ["StudyDate", "Modality"]


def overlays(*rows: int) -> dict[str, Any]:
    return {f"60{2 * number:02X}0010": {"vr": "US", "Value": [count]} for number, count in enumerate(rows)}


async def test_each_overlay_has_its_column() -> None:
    async with Asked(study(1, **overlays(512, 256)), study(2)).archive() as archive:
        frame = await archive.search_for_studies().to_pandas()
        chosen = await archive.search_for_studies().to_pandas(columns=["60020010", "(6000,0010)", "x60020010"])
    assert frame.columns.is_unique
    assert (frame["60000010"].tolist(), frame["60020010"].tolist()) == ([512, pd.NA], [256, pd.NA])
    assert list(chosen.columns) == ["60020010", "60000010"]
    assert chosen.iloc[0].tolist() == [256, 512]
    assert chosen.dtypes.astype(str).tolist() == ["Int64", "Int64"]


def in_a_group(mask: str) -> st.SearchStrategy[int]:
    return st.text("02468ACE", min_size=8, max_size=8).map(
        lambda digits: int("".join(own if own != "x" else other for own, other in zip(mask, digits, strict=True)), 16)
    )


TAGS = (
    st.sampled_from(sorted(RepeatersDictionary)).flatmap(in_a_group)
    | st.sampled_from(sorted(DicomDictionary))
    | st.integers(0, 2**32 - 1)
)
VALUES: dict[ColumnKind, Callable[[int], tuple[Any, Any]]] = {
    ColumnKind.TEXT: lambda number: (f"text {number}", f"text {number}"),
    ColumnKind.INTEGER: lambda number: (number + 1000, number + 1000),
    ColumnKind.NUMBER: lambda number: (number + 0.5, number + 0.5),
    ColumnKind.DATE: lambda number: (f"{2000 + number}0101", np.datetime64(f"{2000 + number}-01-01")),
    ColumnKind.TIME: lambda number: (f"0101{number:02}", np.timedelta64(3660 + number, "s")),
}
"""What is written of the value of a number, and what the frame has of it."""


@settings(max_examples=60, deadline=None)
@given(st.lists(TAGS, min_size=1, max_size=12, unique=True), st.booleans())
@example([0x60000010, 0x60020010, 0x60000022, 0x60020022, 0x50040010, 0x00203101, 0x00203102], True)
def test_each_value_is_in_exactly_one_column(tags: list[int], chosen: bool) -> None:
    columns = {tag: column for tag in tags if (column := column_of(f"{tag:08X}")) is not None}
    values = {tag: VALUES[column.kind](number) for number, (tag, column) in enumerate(columns.items())}
    # By tag, and by keyword where there is one: both are the same column.
    names = [name for tag, column in columns.items() for name in (f"{tag:08x}", column.name)]
    made, parts = TableOfResults(names if chosen else None), FrameInParts()
    made.add({f"{tag:08X}": {"vr": "UN", "Value": [written]} for tag, (written, _) in values.items()})
    parts.add(made.take())
    frame = parts.whole(made.order)
    row = {name: frame[name].iloc[0] for name in frame.columns}
    assert len(row) == len(frame.columns) == len(columns)
    for tag, (_, expected) in values.items():
        cells = [name for name, cell in row.items() if cell == ((expected,) if columns[tag].several else expected)]
        assert cells == [columns[tag].name]
        assert tag_of(cells[0]) == tag
    assert not made.warnings()


def test_every_attribute_of_the_dictionary_keeps_its_keyword() -> None:
    found = [column for tag, entry in DicomDictionary.items() if entry[4] and (column := column_of(f"{tag:08X}"))]
    assert {column.name for column in found} <= {entry[4] for entry in DicomDictionary.values()}
    assert len({column.name for column in found}) == len(found) > 3000


def test_kinds_follow_from_the_dictionary() -> None:
    assert column_of("00080020") == column_of("00080020")
    kinds = {name: getattr(column_of(tag), "kind", None) for tag, name in (("00280106", "SmallestImagePixelValue"),)}
    assert kinds == {"SmallestImagePixelValue": ColumnKind.INTEGER}  # US or SS
    assert column_of("7FE00010") is None


# --- frames -----------------------------------------------------------------------------------------------------------


def test_a_frame_in_parts_has_the_types_of_one() -> None:
    parts = FrameInParts()
    parts.add({"a": ColumnValues(ColumnKind.TEXT, ["x", None]), "d": ColumnValues(ColumnKind.DATE, [None, None])})
    parts.add({"b": ColumnValues(ColumnKind.INTEGER, [1]), "d": ColumnValues(ColumnKind.DATE, [date(1600, 1, 2)])})
    parts.add({})
    frame = parts.whole(["d", "a", "b"])
    assert list(frame.dtypes.astype(str).items()) == [("d", "datetime64[s]"), ("a", "string"), ("b", "Int64")]
    assert frame["a"].isna().tolist() == [False, True, True]
    assert frame["b"].isna().tolist() == [True, True, False]
    assert frame["d"][2] == np.datetime64("1600-01-02")
    assert list(frame.index) == [0, 1, 2]


def test_a_column_that_is_ordered_twice_stands_once() -> None:
    parts = FrameInParts()
    parts.add({"a": ColumnValues(ColumnKind.TEXT, ["x"]), "b": ColumnValues(ColumnKind.INTEGER, [1])})
    assert parts.whole(["b", "a", "b"]).to_dict("list") == {"b": [1], "a": ["x"]}


def test_without_pandas_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "pandas"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("postdicom_async.frames.find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r'^data frames need pandas; pip install "postdicom-async\[pandas\]"$'):
        frame_of({})


# --- results ----------------------------------------------------------------------------------------------------------


def study(number: int, **others: Any) -> dict[str, Any]:
    return {
        "0020000D": {"vr": "UI", "Value": [f"1.2.{number}"]},
        "00080020": {"vr": "DA", "Value": ["20240131"]},
        "00080061": {"vr": "CS", "Value": ["CT", "SR"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": f"{CANARY}^J"}]},
        "00201208": {"vr": "IS", "Value": [number]},
        **others,
    }


class Asked:
    """An archive that answers every search with the same list, and counts what it was asked."""

    def __init__(self, *found: dict[str, Any]) -> None:
        self.found = found
        self.times = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.times += 1
        later = request.url.params.get("offset", "0") != "0"
        return httpx.Response(200, json=[] if later else list(self.found))

    def archive(self) -> DicomWeb:
        return DicomWeb("https://a.example/dicom-web", transport=httpx.MockTransport(self))


def page(shown: Any) -> str:
    made = shown._repr_html_()
    assert isinstance(made, str)
    return made


async def test_results_become_a_typed_frame_with_rows_or_without() -> None:
    async with Asked(*(study(number) for number in range(1, 5))).archive() as archive:
        frame = await archive.search_for_studies().to_pandas()
    async with Asked().archive() as archive:
        empty = await archive.search_for_studies().to_pandas()
        chosen = await archive.search_for_instances().to_pandas(columns=["Rows", "00180050"])
    assert frame["NumberOfStudyRelatedInstances"].sum() == 10
    assert frame["ModalitiesInStudy"][0] == ("CT", "SR")
    assert frame["PatientName"][0] == f"{CANARY}^J"
    assert frame.dtypes.equals(empty.dtypes)
    assert len(empty) == 0
    assert chosen.dtypes.astype(str).to_dict() == {"Rows": "Int64", "SliceThickness": "Float64"}


async def test_many_results_are_added_in_parts() -> None:
    late = study(5000, **{"00081030": {"vr": "LO", "Value": ["head"]}, "00104000": {"vr": "LT", "Value": ["late"]}})
    async with Asked(*(study(number) for number in range(1, 2500)), late).archive() as archive:
        frame = await archive.search_for_studies().raw.to_pandas()
    assert frame["StudyInstanceUID"].is_unique
    assert (len(frame), frame["PatientComments"].notna().sum(), frame["PatientComments"].iloc[-1]) == (2500, 1, "late")


async def test_nothing_is_asked_for_a_column_that_is_none() -> None:
    asked = Asked(study(1))
    async with asked.archive() as archive:
        with pytest.raises(UsageError, match="NoKeyword"):
            await archive.search_for_studies().to_pandas(columns=["NoKeyword"])
    assert asked.times == 0


async def test_a_column_that_no_result_has_is_told() -> None:
    columns = ["StudyInstanceUID", "SliceLocation", "00100010"]
    async with Asked(study(1), study(2)).archive() as archive:
        results = archive.search_for_studies()
        assert (await results.to_pandas(columns=columns))["SliceLocation"].isna().all()
        assert results.warnings == ["no result has SliceLocation: ask for it with fields= of the search"]
        unasked = archive.search_for_studies()
        await unasked.to_pandas()
        assert not unasked.warnings
    async with Asked().archive() as archive:
        nothing = archive.search_for_studies()
        await nothing.to_pandas(columns=columns)
        assert not nothing.warnings


async def test_what_is_left_out_is_told() -> None:
    wrong = {"00080020": {"vr": "DA", "Value": [CANARY]}, "00100020": {"vr": "LO", "Value": ["A", "B"]}}
    async with Asked(study(1, **wrong)).archive() as archive:
        results = archive.search_for_studies()
        assert len(await results.to_pandas()) == 1
        assert len(await results.to_pandas()) == 1
    assert len(results.warnings) == 2
    assert CANARY not in " ".join(results.warnings)


async def test_showing_results_asks_nothing_and_shows_no_patient() -> None:
    hostile = {tag: {"vr": "LO", "Value": [f"{CANARY} {HOSTILE}"]} for tag in ("0020000D", "00080061", "00201206")}
    asked = Asked(*(study(number) for number in range(1, 30)), study(30))
    async with asked.archive() as archive:
        results = archive.search_for_studies()
        assert "Nothing was asked yet" in page(results)
        assert asked.times == 0
        assert len(await results.all()) == 30
        times = asked.times
        shown = page(results)
        assert asked.times == times
    assert "30 read so far" in shown
    assert "20 more are not shown" in shown
    assert "<td>1.2.10</td><td>20240131</td><td>CT, SR</td>" in shown
    assert CANARY not in shown
    async with Asked(study(1, **hostile)).archive() as archive:
        results = archive.search_for_studies()
        await results.to_pandas()
        shown = page(results)
    assert "1 read so far" in shown
    assert CANARY not in shown
    assert "<script" not in shown


async def test_results_without_columns() -> None:
    async def pages(_at_most: int | None, _warnings: list[str]) -> AsyncIterator[list[dict[str, Any]]]:
        yield [{"name": CANARY}]

    results = Results(pages, lambda item, _warnings: item)
    with pytest.raises(UsageError, match="no columns"):
        await results.to_pandas()
    assert len(await results.all()) == 1
    assert page(results) == "<p>Results. 1 read so far.</p>"


ORDER_UUID, FOLDER_UUID = (f"{digit * 8}-1111-2222-3333-444444444444" for digit in "ab")


async def test_orders_and_folders() -> None:
    found = {
        "PatientOrderUuid": ORDER_UUID,
        "PatientName": f"{CANARY}^J",
        "Modality": "CT",
        "InstitutionUuid": f"{CANARY} {HOSTILE}",
    }
    orders = AnswerTable("search for orders", PatientOrder)
    frame = await orders.frame(items(found, found), None, [])
    assert frame["patient_name"].tolist() == [f"{CANARY}^J"] * 2
    assert set(frame.dtypes.astype(str)) == {"string"}
    assert frame.dtypes.equals((await orders.frame(items(), None, [])).dtypes)
    assert orders.cells(found) == [ORDER_UUID, ""]
    assert orders.cells({}) == ["", ""]
    folders = AnswerTable("search for folders", Folder)
    chosen = await folders.frame(
        items({"FolderUuid": FOLDER_UUID, "OrderCount": 3}), ["folder_uuid", "order_count"], []
    )
    assert chosen.dtypes.astype(str).to_dict() == {"folder_uuid": "string", "order_count": "Int64"}
    twice = await folders.frame(items({"FolderUuid": FOLDER_UUID, "OrderCount": 3}), ["order_count"] * 2, [])
    assert twice.to_dict("list") == {"order_count": [3]}
    with pytest.raises(UsageError, match="columns: 1 of the columns are none; there are folder_uuid"):
        await folders.frame(items(), ["folder_uuid", "orders"], [])


async def items(*found: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    for one in found:
        yield one


# --- reports ----------------------------------------------------------------------------------------------------------

UIDS = InstanceUids("1.2", "1.2.3", "1.2.3.4")
OUTCOMES = (
    Outcome(f"/{CANARY}/1.dcm", Status.STORED, UIDS, 100),
    Outcome(f"/{CANARY}/2.dcm", Status.FAILED, None, 5, 0xA700, f"no room {HOSTILE}", temporary=True),
)


def test_an_upload_report() -> None:
    report = UploadReport(OUTCOMES, {Status.STORED: 1, Status.FAILED: 1}, 100, 1.0)
    frame = report.to_pandas()
    assert frame["sop_instance_uid"].tolist() == ["1.2.3.4", pd.NA]
    assert frame["reason_code"][1] == 0xA700
    assert frame["ok"].tolist() == [True, False]
    shown = page(report)
    assert "1 need attention" in shown
    assert "no room &lt;script&gt;" in shown
    which = escape('report.to_pandas()["where"]')
    assert f"Which files they are: <code>{which}</code>" in shown.split("</table>")[-1]
    assert CANARY not in shown
    empty = UploadReport((), {}, 0, 0.0)
    assert empty.to_pandas().dtypes.equals(frame.dtypes)
    assert "Everything is in the archive" in page(empty)
    assert "Which files" not in page(empty)


def test_a_report_shows_a_few_of_what_needs_attention() -> None:
    many = UploadReport(OUTCOMES[1:] * 500, {Status.FAILED: 700}, 0, 1.0)
    assert page(many).count("no room") == 10
    assert "690 more are not shown" in page(many)


def test_a_download_report() -> None:
    report = DownloadReport(
        OUTCOMES[:1], {Status.SAVED: 1, Status.MISSING: 1}, (UIDS,), (UIDS,), 0, 100, 1.0, "compared"
    )
    assert report.to_pandas()["status"].tolist() == ["stored", "present", "missing"]
    assert report.to_pandas()["size"].tolist() == [100, pd.NA, pd.NA]
    assert "1 are missing" in page(report)
    whole = DownloadReport((), {}, (), (), 0, 0, 0.0, "counted")
    assert "whole; listing counted" in page(whole)
    wrong = DownloadReport((), {}, (), (), 2, 0, 0.0, "unavailable", contradicted=True, failed=True)
    assert "it broke off, 2 parts were refused, the archive&#x27;s own list contradicts it" in page(wrong)


def test_a_summary_of_a_job() -> None:
    facts = JobFacts("nightly", "copy", "old", "new", datetime(2026, 1, 2, tzinfo=UTC), "listed", "moving")
    summary = Summary(facts, {State.DONE: Count(1200, 5000), State.FAILED: Count(1, 2)}, 3, notes=(HOSTILE,))
    assert summary.to_pandas().to_dict("list") == {
        "state": ["done", "failed"], "instances": [1200, 1], "bytes": [5000, 2]
    }  # fmt: skip
    shown = page(summary)
    assert "copy nightly: old to new, moving, run 1. 3 studies." in shown
    assert "<td>moved</td><td>1,200</td><td>5,000</td>" in shown
    assert "<script" not in shown


def test_a_diagnosis() -> None:
    finding = Finding(Area.CONNECTION, "encryption", Verdict.NOTE, HOSTILE, "https")
    shown = page(Diagnosis({"python": "3.11"}, (finding,) * 30))
    assert "can be used" in shown
    assert shown.count("encryption") == 30
    assert "<script" not in shown
    assert "cannot be used: UsageError" in page(Diagnosis({}, (), UsageError("x")))


async def test_a_scan(tmp_path: Path) -> None:
    for number in range(1, 4):
        data = small_dicom(uid(1), uid(1, 1), uid(1, 1, number), number=number, patient_name=CANARY)
        (tmp_path / f"{CANARY}{number}").write_bytes(data)
    (tmp_path / "text").write_text("no DICOM")
    scan = await read_files(tmp_path)
    frame = scan.to_pandas()
    assert sorted(frame["InstanceNumber"]) == [1, 2, 3]
    assert set(frame["PatientName"]) == {CANARY}
    assert str(frame["StudyDate"].dtype) == "datetime64[s]"
    assert frame.dtypes.equals(Scan((), (), 0).to_pandas().dtypes)
    shown = page(scan)
    assert f"<td>{uid(1)}</td>" in shown
    assert "Scan of 4 files: 1 patients, 1 studies, 3 instances, 1 not DICOM." in shown
    assert CANARY not in shown


def test_the_columns_of_a_scan_are_its_attributes() -> None:
    assert "PatientName" in Scan((), (), 0).to_pandas().columns
    assert hasattr(ScannedPatient, "patient_name")


@pytest.mark.parametrize(
    "make",
    [
        lambda: table(["a"], [["x"]]),
        lambda: table(["a"], [["x"]] * 30, caption=HOSTILE),
        lambda: UploadReport((), {}, 0, 0.0)._repr_html_(),
    ],
)
def test_tables_bring_no_colours(make: Callable[[], str]) -> None:
    shown = make()
    assert "style" not in shown
    assert "<th scope=" in shown
    assert "<script" not in json.dumps(shown)
