"""Ways through pure files that the other tests do not come by."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from postdicom_async import DICOMWEB, CloudWire, Outcome, ProtocolError, Status, UsageError
from postdicom_async.cloud.frames import read_http_envelope
from postdicom_async.dicom.anonymize.pieces import Segments
from postdicom_async.dicomweb.dialects import Route
from postdicom_async.dicomweb.filters import filter_pairs
from postdicom_async.jobs.ends.folder_match import _date
from postdicom_async.jobs.states import State, reason_code, verdict_of
from postdicom_async.postdicom.operations import _written
from postdicom_async.profiles.model import _option_text
from postdicom_async.vendor.values import ValueKind
from postdicom_async.vendor.wire import Wire


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
    assert _option_text("options", [4, 6, 18]) == "4,6,18"
