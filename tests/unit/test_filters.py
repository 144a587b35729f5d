"""Filters to a query string and back."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.valuerep import PersonName

from postdicom_async.dicomweb.filters import FilterValue, filter_pairs, include_pairs, query_string, wire_pairs
from postdicom_async.errors import UsageError
from tests.support.ids import shown
from tests.support.tag_names import NO_TAGS, json_tag_of

VALUES: list[tuple[str, FilterValue, tuple[str, str]]] = [
    ("PatientName", "DOE*", ("00100010", "DOE*")),
    ("PatientName", "DOE^JANE", ("00100010", "DOE^JANE")),
    ("PatientName", PersonName("Müller^Jérôme"), ("00100010", "Müller^Jérôme")),
    ("PatientName", "山田^太郎", ("00100010", "山田^太郎")),
    ("PatientName", "D?E", ("00100010", "D?E")),
    ("PatientName", "", ("00100010", "")),
    ("PatientID", "A&B=C#D+E %", ("00100020", "A&B=C#D+E %")),
    ("PatientID", 12345, ("00100020", "12345")),
    ("00100020", "x", ("00100020", "x")),
    ("0020000d", "1.2", ("0020000D", "1.2")),
    ("(0020,000D)", "1.2", ("0020000D", "1.2")),
    ("StudyInstanceUID", ["1.2", "1.3"], ("0020000D", "1.2,1.3")),
    ("StudyInstanceUID", ["1.2"], ("0020000D", "1.2")),
    ("StudyDate", date(2020, 1, 2), ("00080020", "20200102")),
    ("StudyDate", date(999, 1, 2), ("00080020", "09990102")),
    ("StudyDate", datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC), ("00080020", "20200102")),
    ("StudyTime", datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC), ("00080030", "030405")),
    ("AcquisitionDateTime", datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC), ("0008002A", "20200102030405")),
    ("StudyTime", time(3, 4, 5), ("00080030", "030405")),
    ("StudyDate", (date(2020, 1, 1), date(2020, 12, 31)), ("00080020", "20200101-20201231")),
    ("StudyDate", (date(2020, 1, 1), None), ("00080020", "20200101-")),
    ("StudyDate", (None, date(2020, 1, 1)), ("00080020", "-20200101")),
    ("StudyDate", ("20200101", date(2020, 1, 2)), ("00080020", "20200101-20200102")),
    ("StudyDate", "20200101-20201231", ("00080020", "20200101-20201231")),
    ("StudyDate", "20200101-", ("00080020", "20200101-")),
    ("StudyDate", "2020-01-01", ("00080020", "20200101")),
    ("StudyDate", "2020-01-01-2020-12-31", ("00080020", "20200101-20201231")),
    ("StudyDate", "-2020-12-31", ("00080020", "-20201231")),
    ("StudyDate", "2020-01-01-", ("00080020", "20200101-")),
    ("StudyDate", ("2020-01-01", None), ("00080020", "20200101-")),
    ("StudyDate", "2020*", ("00080020", "2020*")),
    ("StudyDate", "", ("00080020", "")),
    ("00080020", "2020-01-01", ("00080020", "20200101")),
    ("00400275.00400002", "2020-01-01", ("00400275.00400002", "20200101")),
    ("PatientID", "2020-01-01", ("00100020", "2020-01-01")),
    ("StudyTime", (time(1), time(2)), ("00080030", "010000-020000")),
    (
        "RequestAttributesSequence.ScheduledProcedureStepID",
        "x",
        ("00400275.00400009", "x"),
    ),
    ("00400275.00400009", "x", ("00400275.00400009", "x")),
    ("00091001", "private", ("00091001", "private")),
]


@pytest.mark.parametrize(("name", "value", "pair"), VALUES, ids=shown)
def test_pair(name: str, value: FilterValue, pair: tuple[str, str]) -> None:
    assert filter_pairs({name: value}) == [pair]


@pytest.mark.parametrize(
    "name",
    [
        *NO_TAGS,
        "PatientName.",
        ".PatientName",
        "a.b",
    ],
    ids=lambda name: shown(name)[:20],
)
def test_unknown_attributes_are_refused(name: Any) -> None:
    with pytest.raises(UsageError, match=r"^filters: "):
        filter_pairs({name: "x"})


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        1.5,
        b"x",
        {},
        object(),
        (),
        ("20200101",),
        ("1", "2", "3"),
        (None, None),
        (1.5, None),
        [],
        [None],
        [["1.2"]],
        "line\nbreak",
        "nul\x00",
        "\ud800",
        "x\u202ey",
        ["1.2", "x\n"],
        ("a\r", None),
    ],
    ids=shown,
)
def test_values_that_cannot_match_are_refused(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^filters: "):
        filter_pairs({"PatientName": value})


@pytest.mark.parametrize(
    "value",
    [
        "yesterday", "2020-01", "2020-1", "2020-1-2", "01-02-2020", "2020.01.02", "2020/01/02", "2020-01-02T03:04",
        "20200101-20200102-20200103", "20200101 - 20200102", "--", "\u0662020-01-01", ["20200101", "yesterday"],
        ("yesterday", None), (None, "2020-01"),
        "20241301", "2024-13-01", "20240132", "2024-01-00", "20240001", "202413", "202400", "2024011", "240131", "1",
        "20200102030405", "00000000-99999999", "20240101-20241301", "202413-", ["20240101", "20241301"],
        "20240101,2024-13-01", ("20241301", None), (None, "202413"), ("20240101-20240102", None), 20241301, "2024 ",
    ],
    ids=shown,
)  # fmt: skip
def test_dates_that_are_none_would_match_nothing(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^filters: StudyDate: a date is YYYYMMDD or YYYY-MM-DD, a range two of them"):
        filter_pairs({"StudyDate": value})


@pytest.mark.parametrize("value", ["20230229", "2023-02-29", "20240431", ["20240101", "20240230"], "00000230"])
def test_days_that_no_month_has_match_nothing(value: Any) -> None:
    with pytest.raises(UsageError, match="filters: StudyDate: this month has no such day"):
        filter_pairs({"StudyDate": value})


@pytest.mark.parametrize(
    "value",
    [
        "20240201-20240231",
        "20240231-",
        "20240229",
        "20240215,20240216",
        "-",
        "2024*",
        "*",
        "",
        "2024????",
        "2024*-2025*",
    ],
)
def test_what_some_archive_matches_goes_out_as_it_is(value: str) -> None:
    assert filter_pairs({"StudyDate": value}) == [("00080020", value)]


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("2024", "20240101-20241231"),
        (2024, "20240101-20241231"),
        ("202401", "20240101-20240131"),
        ("202402", "20240201-20240229"),
        ("202302", "20230201-20230228"),
        ("1900-", "19000101-"),
        ("-2024", "-20241231"),
        ("-202404", "-20240430"),
        ("2024-2025", "20240101-20251231"),
        ("202402-202403", "20240201-20240331"),
        ("2024-20240615", "20240101-20240615"),
        ("2024-02-15-202403", "20240215-20240331"),
        (["2024", "20250101"], "20240101-20241231,20250101"),
        ("202401,202403-", "20240101-20240131,20240301-"),
        (("2024", "202506"), "20240101-20250630"),
        ((None, "2024"), "-20241231"),
        ((date(2024, 5, 1), "2024"), "20240501-20241231"),
    ],
    ids=shown,
)
def test_years_and_months_stand_for_all_their_days(value: Any, sent: str) -> None:
    assert filter_pairs({"StudyDate": value}) == [("00080020", sent)]


@pytest.mark.parametrize("value", ["20240301-20240201", "2025-2024", "202403-202402", ("20240102", date(2024, 1, 1))])
def test_a_range_that_ends_before_it_begins_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="filters: StudyDate: the range ends before it begins"):
        filter_pairs({"StudyDate": value})


@pytest.mark.parametrize(
    ("value", "sent"),
    [("10:30", "103000-103059.999999"), ("10:30:15.5", "103015.5"), ("10", "100000-105959.999999"),
     ("10:00-1200", "1000-1200"), ("-23:59:60", "-235960"),
     ("1030*", "1030*"), ("", ""), (["10:30:00", "11"], "103000,110000-115959.999999"),
     (("10:30", time(11)), "1030-110000")],
)  # fmt: skip
def test_times_as_text(value: Any, sent: str) -> None:
    assert filter_pairs({"StudyTime": value}) == [("00080030", sent)]


@pytest.mark.parametrize(
    "value", ["noon", "25", "1060", "10:3", "10:30:61", "1", "10-11-12", "20240101", date(2024, 1, 1), ("25", None)]
)
def test_times_that_are_none_would_match_nothing(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^filters: StudyTime"):
        filter_pairs({"StudyTime": value})


@pytest.mark.parametrize(
    ("value", "sent"),
    [("2024", "2024"), ("202401", "202401"), ("2024-01-31", "20240131"), ("2024-01-31T10:30:15", "20240131103015"),
     ("20240131103015.123+0100", "20240131103015.123+0100"), ("2024-2025", "2024-2025"), ("-20240131", "-20240131"),
     ("2024-01-31T10-2024-01-31T11", "2024013110-2024013111"), ("2024013110-0500", "2024013110-0500"),
     ("2024*", "2024*")],
)  # fmt: skip
def test_dates_with_times_as_text(value: Any, sent: str) -> None:
    assert filter_pairs({"AcquisitionDateTime": value}) == [("0008002A", sent)]


@pytest.mark.parametrize(
    "value", ["20241301", "2024-13-01", "20240131 10:30", "now", "2024013125", time(3), (time(3), None)]
)
def test_dates_with_times_that_are_none(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^filters: AcquisitionDateTime"):
        filter_pairs({"AcquisitionDateTime": value})


def test_only_dates_and_times_have_ranges() -> None:
    with pytest.raises(UsageError, match="filters: PatientID is neither a date nor a time"):
        filter_pairs({"PatientID": ("1", "2")})
    assert filter_pairs({"00091001": ("1", "2")}) == [("00091001", "1-2")]


def test_a_time_is_no_date() -> None:
    with pytest.raises(UsageError, match="filters: StudyDate is a date; a time cannot match it"):
        filter_pairs({"StudyDate": time(3)})
    with pytest.raises(UsageError, match="filters: StudyDate is a date; a time cannot match it"):
        filter_pairs({"StudyDate": (None, time(3))})
    assert filter_pairs({"StudyDate": ["2020-01-01", "20200102"]}) == [("00080020", "20200101,20200102")]


def test_no_filters() -> None:
    assert filter_pairs(None) == []
    assert filter_pairs({}) == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (None, []),
        ([], []),
        ("all", ["all"]),
        ("StudyDescription", ["00081030"]),
        (["StudyDescription", "00100010"], ["00081030", "00100010"]),
        (("all",), ["all"]),
        (iter(["PatientName"]), ["00100010"]),
        ("RequestAttributesSequence.ScheduledProcedureStepID", ["00400275.00400009"]),
    ],
)
def test_fields(fields: Any, expected: list[str]) -> None:
    assert include_pairs(fields) == [("includefield", one) for one in expected]


@pytest.mark.parametrize("fields", ["NoSuchKeyword", ["All"], [None], [5], [""]])
def test_unknown_fields_are_refused(fields: Any) -> None:
    with pytest.raises(UsageError, match=r"^fields: "):
        include_pairs(fields)


@pytest.mark.parametrize(
    ("value", "loose", "strict"),
    [
        ("DOE^J*", "DOE^J*", "DOE%5EJ*"),
        ("a b", "a%20b", "a%20b"),
        ("a+b", "a%2Bb", "a%2Bb"),
        ("a&b=c", "a%26b%3Dc", "a%26b%3Dc"),
        ("1.2,1.3", "1.2,1.3", "1.2,1.3"),
        ("-20200101", "-20200101", "-20200101"),
        ("?", "?", "?"),
        ("10:30", "10:30", "10:30"),
        ("é", "%C3%A9", "%C3%A9"),
        ("100%", "100%25", "100%25"),
        ("a#b/c\\d", "a%23b%2Fc%5Cd", "a%23b%2Fc%5Cd"),
        ("山=", "%E5%B1%B1%3D", "%E5%B1%B1%3D"),
    ],
)
def test_encoding(value: str, loose: str, strict: str) -> None:
    assert query_string([("00100010", value)]) == f"00100010={loose}"
    assert query_string([("00100010", value)], strict=True) == f"00100010={strict}"


TEXT = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=20).filter(str.isprintable)
TAGS = st.integers(0, 0xFFFFFFFF).map("{:08X}".format)


@given(st.dictionaries(TAGS, TEXT, max_size=6), st.booleans())
def test_the_query_parsed_back_is_the_intent(filters: dict[str, str], strict: bool) -> None:
    query = query_string(filter_pairs(filters), strict=strict)
    assert query.isascii()
    assert dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))) == filters


@given(st.dates() | st.datetimes(), st.dates() | st.none())
def test_moments_are_digits_of_fixed_length(moment: Any, other: date | None) -> None:
    ((_, value),) = filter_pairs({"AcquisitionDateTime": (moment, other)})
    start, _, end = value.partition("-")
    assert len(start) == (14 if isinstance(moment, datetime) else 8)
    assert len(end) == (0 if other is None else 8)
    assert (start + end).isdigit()


@given(st.times() | st.datetimes(), st.times() | st.none())
def test_times_are_digits_of_fixed_length(moment: Any, other: time | None) -> None:
    ((_, value),) = filter_pairs({"StudyTime": (moment, other)})
    assert [len(end) for end in value.split("-")] == [6, 0 if other is None else 6]


@given(st.dates(), st.dates())
def test_any_two_days_in_order_are_a_range(one: date, other: date) -> None:
    first, last = sorted((one, other))
    ((_, value),) = filter_pairs({"StudyDate": (first, last)})
    assert value == f"{first.year:04}{first:%m%d}-{last.year:04}{last:%m%d}"
    assert filter_pairs({"StudyDate": value}) == [("00080020", value)]


@pytest.mark.parametrize(
    ("pair", "keyword"),
    [
        (("00100010", "DOE*"), ("PatientName", "DOE*")),
        (("0020000D", "1.2"), ("StudyInstanceUID", "1.2")),
        (("00400275.00400009", "x"), ("RequestAttributesSequence.ScheduledProcedureStepID", "x")),
        (("00091001", "private"), ("00091001", "private")),
        (("00091001.00400009", "x"), ("00091001.00400009", "x")),
        (("00400275.00091001", "x"), ("00400275.00091001", "x")),
        (("00100011", "no keyword"), ("00100011", "no keyword")),
        (("60020010", "of a repeating group"), ("60020010", "of a repeating group")),
        (("includefield", "00081030"), ("includefield", "StudyDescription")),
        (("includefield", "00400275.00400009"), ("includefield", "RequestAttributesSequence.ScheduledProcedureStepID")),
        (("includefield", "00091001"), ("includefield", "00091001")),
        (("includefield", "all"), ("includefield", "all")),
        (("limit", "1"), ("limit", "1")),
        (("fuzzymatching", "true"), ("fuzzymatching", "true")),
    ],
    ids=shown,
)
def test_forms(pair: tuple[str, str], keyword: tuple[str, str]) -> None:
    assert wire_pairs([pair], "keyword") == [keyword]
    assert wire_pairs([pair], "tag") == [pair]


@given(TAGS)
def test_a_keyword_leads_back_to_its_tag(tag: str) -> None:
    ((name, _),) = wire_pairs([(tag, "x")], "keyword")
    assert json_tag_of(name) == tag


@pytest.mark.parametrize("fields", [5, 0, 1.5, True, object()])
def test_fields_that_are_none(fields: Any) -> None:
    with pytest.raises(UsageError, match="fields: give"):
        include_pairs(fields)
