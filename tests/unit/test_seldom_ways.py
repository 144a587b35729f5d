"""Ways through pure files that the other tests do not come by."""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from datetime import UTC, date, datetime
from itertools import count
from typing import Any

import pytest

from postdicom_async import DICOMWEB, Anonymization, CloudWire, Outcome, PatientTable, ProtocolError, Status, UsageError
from postdicom_async.cloud.frames import read_http_envelope
from postdicom_async.dicom import json_reading, wholeness
from postdicom_async.dicom.anonymize.pieces import Segments
from postdicom_async.dicom.anonymize.plan import plan_file
from postdicom_async.dicom.anonymize.values import encode_value
from postdicom_async.dicom.elements import EXPLICIT_LITTLE, DicomProblem
from postdicom_async.dicom.header import HeaderGap, InstanceHeader, pixels_start, read_header
from postdicom_async.dicom.json_reading import JsonReader, NotJson
from postdicom_async.dicom.sameness import Sameness, compare_files
from postdicom_async.dicom.tags import JSON_TAG, UNDEFINED
from postdicom_async.dicomweb.dialects import Route
from postdicom_async.dicomweb.filters import expectations, filter_pairs
from postdicom_async.dicomweb.multipart import reader_for
from postdicom_async.jobs.ends.end import ListedInstance
from postdicom_async.jobs.ends.folder_match import _date
from postdicom_async.jobs.ledger.schema import ItemRow, Stage, StudyRow
from postdicom_async.jobs.machines.in_flight import InFlight
from postdicom_async.jobs.pace.outage_policy import OutagePolicy
from postdicom_async.jobs.pace.windows import Windows, _Part
from postdicom_async.jobs.pages.eta import Eta
from postdicom_async.jobs.pages.page import parts
from postdicom_async.jobs.plan import Comparison, chunks_of, planned_items
from postdicom_async.jobs.states import Reason, State, reason_code, verdict_of
from postdicom_async.jobs.summary import Count
from postdicom_async.postdicom.operations import _written
from postdicom_async.profiles.model import _option_text
from postdicom_async.vendor.values import ValueKind, _date_or_datetime
from postdicom_async.vendor.wire import Wire
from tests.jobs.summaries import small
from tests.support.anonymizing import Writer, anonymize, leaves, refusal, result_of
from tests.support.dicom_files import DEFLATED, EXPLICIT, IMPLICIT, small_dicom, uid


def test_nothing_is_no_piece() -> None:
    pieces = Segments()
    pieces.keep(7, 0)
    pieces.write(b"")
    assert (pieces.parts, pieces.length) == ([], 0)


def test_a_list_is_no_answer_of_the_bring_up() -> None:
    with pytest.raises(ProtocolError):
        read_http_envelope(b"[]")


def test_what_is_of_another_type_is_refused() -> None:
    wrong: Any = ["PatientID"]
    with pytest.raises(UsageError, match="give a mapping"):
        filter_pairs(wrong)
    with pytest.raises(UsageError, match="give Route members"):
        replace(DICOMWEB, routes={Route.SEARCH_STUDIES: "no path"})
    wrong = None
    with pytest.raises(UsageError, match="give text"):
        CloudWire(after_date_alone=wrong)


@pytest.mark.parametrize(("key", "matches"), [("2021*", True), ("2019*,202?0101", True), ("2019*", False)])
def test_days_with_wildcards(key: str, matches: bool) -> None:
    assert _date(key, "20210101") is matches


def test_the_reason_that_an_archive_gave_is_that_of_the_item() -> None:
    verdict = verdict_of(Outcome("a file", Status.FAILED, reason_code=0xA700))
    assert (verdict.state, verdict.reason) == (State.FAILED, reason_code(dicom=0xA700))


def test_a_day_and_numbers_as_text() -> None:
    assert _written(ValueKind.DATE, date(2024, 1, 2), Wire()) == "2024-01-02"
    assert _written(ValueKind.FLAG_ID, 12, Wire()) == "12"
    assert _option_text("options", [4, 6, 18]) == "4,6,18"


# --- files ------------------------------------------------------------------------------------------------------------


NAME, PRIVATE, CHARACTER_SET = 0x00100010, 0x00091001, 0x00080005
FRAGMENTS = b"\xfe\xff\x00\xe0\x04\x00\x00\x00abcd" + b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"


def test_a_patient_is_found_behind_fragments() -> None:
    to = Writer()
    rules = Anonymization({"PatientName": "Q"}, patients=PatientTable([b"PatientID,PatientID\n", b"4711,S-1\n"]))
    fragments = to.element(PRIVATE, "OB", b"", length=UNDEFINED) + FRAGMENTS
    own = fragments + to.element(0x00100020, "LO", "4711")
    found = {leaf.tag: leaf.value for leaf in leaves(anonymize(to.file(own), rules))}
    assert (found[0x00100020], found[PRIVATE]) == (b"S-1 ", FRAGMENTS[:12])
    without_uids = to.file_as_given(to.element(0x00080018, "UI", uid(1, 1, 1)), own)  # and nothing behind the patient
    assert "no valid Study, Series and SOP Instance UID" in refusal(result_of(without_uids, rules))


def test_values_that_are_too_long_to_be_held() -> None:
    to = Writer()
    data = to.file(to.element(CHARACTER_SET, "CS", "ISO_IR 100\\" * 200), to.element(NAME, "PN", "A"))
    assert "SpecificCharacterSet (0008,0005) is too long" in refusal(result_of(data, {"PatientName": "Q"}))


def test_a_file_that_became_shorter_meanwhile() -> None:
    data = Writer().file(Writer().element(CHARACTER_SET, "CS", "ISO_IR 100"))
    there = data.index(b"ISO_IR") + 3
    with pytest.raises(DicomProblem, match="ends inside SpecificCharacterSet"):
        plan_file(lambda at, size: data[at : min(at + size, there)], len(data), Anonymization({"PatientName": "Q"}))


def test_a_sequence_of_unknown_vr_that_holds_no_items_becomes_empty() -> None:
    """Within one that becomes a dummy (Basic Profile), so that nothing of it may stay."""
    to = Writer()
    nested = to.sequence(0x00081111, to.element(0x00081140, "UN", b"QUILLFEATHER"), undefined=False)
    out = anonymize(to.file(nested), Anonymization.basic_profile())
    assert b"QUILL" not in out
    assert (0x00081140, "UN", b"") in [(leaf.tag, leaf.vr, leaf.value) for leaf in leaves(out)]


def test_text_beyond_ascii_where_no_character_set_counts() -> None:
    with pytest.raises(DicomProblem, match="must be ASCII"):
        encode_value("CS", "\u00c4", EXPLICIT_LITTLE, ("ISO_IR 100",))


def test_where_the_pixels_begin_cannot_be_seen_in_what_is_deflated() -> None:
    data = small_dicom(transfer_syntax=EXPLICIT)
    assert pixels_start(data) == data.index(b"\xe0\x7f\x10\x00")
    assert pixels_start(small_dicom(transfer_syntax=DEFLATED)) is None


def test_an_end_without_a_beginning_is_left_to_pydicom() -> None:
    to = Writer()
    stray = to.file_as_given(to.element(0xFFFEE00D, "", b""), *to.uids())
    found = read_header(stray, complete=True)
    assert isinstance(found, InstanceHeader)
    assert found.uids.sop_instance_uid == uid(1, 1, 1)
    assert read_header(stray, complete=False) is HeaderGap.INCOMPLETE


@pytest.mark.parametrize("value", [math.nan, 0.0])
def test_what_is_no_number_equals_itself_alone(value: float) -> None:
    explicit, implicit = Writer(EXPLICIT), Writer(IMPLICIT)
    one = explicit.file(explicit.element(0x00089459, "FL", struct.pack("<f", math.nan)))
    other = implicit.file(implicit.element(0x00089459, "FL", struct.pack("<f", value)))
    assert compare_files(one, other) is (Sameness.SAME if math.isnan(value) else Sameness.UNCLEAR)


def missing(data: bytes, *, size: int | None = None) -> str | None:
    return wholeness.what_is_missing(data[:140], size or len(data), lambda at, count: data[at : at + count])


def test_where_a_file_is_doubtful_it_counts_as_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    to, whole = Writer(), small_dicom()
    assert missing(to.file_as_given(meta=to.element(0x00020102, "OB", b"", length=UNDEFINED))) is None
    assert missing(whole, size=len(whole) + 9000) is None  # it was longer a moment ago
    implicit = Writer(IMPLICIT)
    lying = implicit.file_as_given(*implicit.uids()) + to.element(0x00280010, "US", b"\0\0")
    assert missing(lying) is None
    no_sequence = to.element(0x00280010, "US", b"\0\0") + to.element(0x00281050, "UT", b"", length=UNDEFINED)
    assert missing(to.file(after=no_sequence)) is None
    for budget in ("_MOST_STEPS", "_MOST_READ"):
        with monkeypatch.context() as patch:
            patch.setattr(wholeness, budget, 3)
            assert missing(whole[:-1]) is None
    assert missing(whole[:-1])


# --- answers ----------------------------------------------------------------------------------------------------------


def test_a_key_without_an_end_and_levels_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_reading, "_WINDOW", 1)  # read level by level
    reader = JsonReader(largest=1 << 26)
    list(reader.feed(b'[{"a":1,'))
    with pytest.raises(NotJson, match="not JSON"):
        list(reader.feed(b'"' + b"k" * (2 * json_reading._LONGEST_TOKEN)))
    with pytest.raises(NotJson, match="too deep"):
        list(JsonReader(largest=1 << 26).feed(b"[" * (json_reading.DEEPEST + 2)))


def test_nothing_is_expected_of_a_date_that_cannot_be_compared() -> None:
    day = JSON_TAG["StudyDate"]
    assert expectations([(day, "yesterday")], JSON_TAG["StudyInstanceUID"]) == []
    assert [one.tag for one in expectations([(day, "20240101")], JSON_TAG["StudyInstanceUID"])] == [day]


def test_times_with_wildcards_are_left_as_they_are_or_refused() -> None:
    assert filter_pairs({"StudyTime": "10*"}) == [(JSON_TAG["StudyTime"], "10*")]
    with pytest.raises(UsageError, match="StudyTime"):
        filter_pairs({"StudyTime": "ten*"})


def test_a_single_part_that_comes_with_an_empty_piece() -> None:
    seen: list[str] = []

    class Taker:
        def part_begins(self, headers: dict[str, str]) -> None:
            seen.append(headers["content-type"])

        def part_data(self, data: bytes, start: int, end: int) -> None:
            seen.append(data[start:end].decode())

        def part_ends(self) -> None:
            seen.append("end")

    reader = reader_for("application/dicom", Taker(), end_is_marked=True, max_parts=1)
    for piece in (b"", b"whole"):
        reader.feed(piece)
    reader.close()
    assert seen == ["application/dicom", "whole", "end"]


def test_a_time_with_a_zone_is_no_time_of_the_account() -> None:
    with pytest.raises(ValueError, match="without a time zone"):
        _date_or_datetime(datetime(2024, 1, 2, tzinfo=UTC))


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_what_is_not_under_way_cannot_be_lost() -> None:
    flights = InFlight()
    flights.lost((7, 1))
    assert not flights.has_waiting


def test_work_given_out_while_nothing_is_wrong_needs_no_trial() -> None:
    sky = OutagePolicy()
    before = sky.advice(0.0)
    sky.given(0.0)
    sky.rested(0.0)
    assert sky.advice(0.0) == before


def test_windows_that_no_day_opens_never_change() -> None:
    never = Windows((_Part((), ((0, 60),)),))
    monday = datetime(2026, 11, 30, tzinfo=UTC)
    assert not never.is_open(monday)
    assert never.next_change(monday) is None


def test_a_job_that_is_not_verified_tells_no_numbers_of_it() -> None:
    facts = replace(small().facts, verify="none")
    told = str(parts(replace(small(), facts=facts))["verification"])
    assert "Found as they should be" not in told
    assert "Found as they should be" in str(parts(small())["verification"])


def test_a_sample_is_no_comparison_of_everything() -> None:
    for share, whole in ((1.0, True), (0.05, False)):
        facts = replace(small().facts, verify="bytes", sample=share)
        told = str(parts(replace(small(), facts=facts))["verification"])
        assert ("every instance was retrieved" in told) is whole
        assert ("a sample of 0.05" in told) is not whole


def test_what_was_found_equal_is_the_work_of_a_verification() -> None:
    eta, left = Eta(), replace(small().facts, verb="verify")
    for at in range(0, 100, 2):
        counts = {State.PRESENT: Count(at * 10, 0), State.PENDING: Count(10_000 - at * 10, 0)}
        forecast = eta.note(replace(small(), facts=left, counts=counts, moments=(), seconds=float(at)), float(at))
    assert forecast.instances == pytest.approx(600)


def study() -> StudyRow:
    return StudyRow(1, "1.2", 202401, 0, 9, None, 9, 0, 0, Stage.PLANNED, 1, 0)


def test_a_study_is_cut_into_chunks_and_no_file_that_is_no_instance_is_in_one() -> None:
    items = [
        *(ItemRow("", f"digest {number}", State.PENDING) for number in range(2)),
        *(ItemRow("1.1", f"1.1.{number}", State.PENDING) for number in range(7)),
    ]
    found = chunks_of(study(), items, most=3, numbers=count(1), splits_series=True)
    assert [len(one.wanted.instances) for one in found] == [3, 3, 1]
    assert {one.series for chunk in found for one in chunk.wanted.instances} == {"1.1"}


def test_what_has_gone_and_was_left_alone_stays_so() -> None:
    gone = [ItemRow("1", f"1.{n}", state) for n, state in enumerate((State.UNCONFIRMED, State.FAILED, State.DONE))]
    known = {(one.series, one.uid): one for one in gone}
    rows = list(planned_items([ListedInstance("1", "1.9")], None, known, Comparison(1, target_lists=False)))
    assert [(row.uid, row.state, row.reason) for row in rows[1:]] == [
        ("1.1", State.EXCLUDED, Reason.GONE),
        ("1.2", State.DONE, Reason.GONE),
    ]
