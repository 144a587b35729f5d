from __future__ import annotations

import fnmatch
import re
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postdicom_async.emulator.dicomweb.matching import fuzzy_name_matches, matches, text_matches, time_span, uid_list

TEXTS = st.text("abAB ^é*?.-", max_size=12)
DATES = st.dates(date(1900, 1, 1), date(2099, 12, 31))
VRS = st.sampled_from(["PN", "LO", "CS", "UI", "DA", "TM", "DT", "IS", "DS", "US", "UN", "SQ", "AT", "FD"])


def name(alphabetic: str, ideographic: str = "", phonetic: str = "") -> dict[str, str]:
    groups = {"Alphabetic": alphabetic, "Ideographic": ideographic, "Phonetic": phonetic}
    return {key: value for key, value in groups.items() if value}


@settings(deadline=None)
@given(st.text("ab*?", max_size=8), st.text("ab", max_size=10))
def test_wildcards_are_what_fnmatch_says(pattern: str, text: str) -> None:
    assert text_matches(pattern, text) is bool(re.fullmatch(fnmatch.translate(pattern), text))


@settings(deadline=None)
@given(TEXTS)
def test_a_text_matches_itself_and_any_run(text: str) -> None:
    plain = text.replace("*", "").replace("?", "").rstrip(" ")

    assert text_matches(plain, plain)
    assert text_matches(f"*{plain}*", plain)
    assert text_matches("?" * len(plain), plain)


def test_many_wildcards_take_no_time() -> None:
    assert not text_matches("*a" * 40 + "b", "a" * 2000)


@settings(deadline=None)
@given(TEXTS, VRS, st.lists(st.one_of(TEXTS, st.integers(), st.none(), st.floats(allow_nan=False)), max_size=3))
def test_any_key_on_any_element_gives_an_answer(key: str, vr: str, values: list[object]) -> None:
    if vr == "PN":
        values = [name(str(value)) for value in values]

    assert matches(key, vr, values) in {True, False}


@settings(deadline=None)
@given(VRS, TEXTS)
def test_universal_keys_match_everything_and_others_never_match_nothing(vr: str, key: str) -> None:
    assert matches("", vr, [])
    assert matches("*", vr, [])
    if key not in {"", "*"}:
        assert not matches(key, vr, [])
        assert not matches(key, vr, [None])


@pytest.mark.parametrize(
    ("key", "vr", "value", "expected"),
    [
        ("CT", "CS", "CT", True),
        ("ct", "CS", "CT", False),
        ("C?", "CS", "CT", True),
        ("C?", "CS", "C", False),
        ("CT\\MR", "CS", "MR", True),
        ("CT\\MR", "CS", "US", False),
        ("abc ", "LO", "abc", True),
        ("[ab]*", "LO", "a", False),
        ("[ab]*", "LO", "[ab]c", True),
        ("a.c", "LO", "abc", False),
        ("1.2.3", "UI", "1.2.3", True),
        ("1.2.*", "UI", "1.2.3", False),
        ("1.2.4,1.2.3", "UI", "1.2.3", True),
        ("1.2.4\\1.2.3", "UI", "1.2.3", True),
        ("7", "IS", 7, True),
        ("07", "IS", 7, True),
        ("7.0", "DS", 7, True),
        ("8", "IS", 7, False),
        ("1\\7", "IS", 7, True),
        ("1*", "IS", 12, True),
        ("512", "US", 512, True),
        ("x", "US", 512, False),
    ],
)
def test_values(key: str, vr: str, value: object, expected: bool) -> None:
    assert matches(key, vr, [value]) is expected


def test_any_of_several_values_may_match() -> None:
    assert matches("AXIAL", "CS", ["ORIGINAL", None, "AXIAL"])
    assert not matches("LOCALIZER", "CS", ["ORIGINAL", None, "AXIAL"])


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("doe^john", name("DOE^JOHN"), True),
        ("DOE^JOHN^^", name("Doe^John"), True),
        ("DOE", name("DOE^JOHN"), False),
        ("DOE*", name("Doe^John"), True),
        ("*john", name("Doe^John"), True),
        ("święty^ŁUKASZ", name("Święty^Łukasz"), True),
        ("山田^太郎", name("Yamada^Tarou", "山田^太郎", "やまだ^たろう"), True),
        ("山田*", name("Yamada^Tarou", "山田^太郎", "やまだ^たろう"), True),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", name("Yamada^Tarou", "山田^太郎", "やまだ^たろう"), True),
        ("Yamada^Tarou=山田*", name("Yamada^Tarou", "山田^太郎", "やまだ^たろう"), True),
        ("قباني^لنزار", name("قباني^لنزار"), True),
    ],
)
def test_person_names_match_by_component_group_without_case(key: str, value: dict[str, str], expected: bool) -> None:
    assert matches(key, "PN", [value]) is expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("doe", True),
        ("joh", True),
        ("JO DO", True),
        ("jo^do", True),
        ("ohn", False),
        ("doe smith", False),
        ("doe*", True),
    ],
)
def test_fuzzy_matching_compares_beginnings_of_words(key: str, expected: bool) -> None:
    assert fuzzy_name_matches(key, name("Doe^John^Adam")) is expected
    assert matches(key, "PN", [name("Doe^John^Adam")], fuzzy=True) is expected


@pytest.mark.parametrize(
    ("key", "vr", "value", "expected"),
    [
        ("20240201-20240231", "DA", "20240229", True),
        ("20240201-20240231", "DA", "20240301", False),
        ("-20230231", "DA", "20230228", True),
        ("-20230229", "DA", "20230301", False),
        ("20240401-20240431", "DA", "20240430", True),
        ("20240201-20240232", "DA", "20240210", False),
        ("20240201-20241331", "DA", "20240210", False),
        ("20240231-20240331", "DA", "20240310", False),
        ("20240231", "DA", "20240229", False),
        ("20240201-20240231235959", "DT", "20240229120000", True),
        ("20240201-20240231+0100", "DT", "20240229120000", True),
    ],
)
def test_the_upper_end_of_a_range_may_be_a_day_the_month_does_not_have(
    key: str, vr: str, value: str, expected: bool
) -> None:
    assert matches(key, vr, [value]) is expected


@settings(deadline=None)
@given(DATES, DATES, DATES)
def test_date_ranges_include_both_ends(one: date, two: date, value: date) -> None:
    first, last = sorted((one, two))
    text = f"{value:%Y%m%d}".rjust(8, "0")

    assert matches(f"{first:%Y%m%d}-{last:%Y%m%d}", "DA", [text]) is (first <= value <= last)
    assert matches(f"{first:%Y%m%d}-", "DA", [text]) is (value >= first)
    assert matches(f"-{last:%Y%m%d}", "DA", [text]) is (value <= last)
    assert matches(f"{first:%Y%m%d}", "DA", [text]) is (value == first)


@pytest.mark.parametrize(
    ("key", "vr", "value", "expected"),
    [
        ("10", "TM", "105959.999", True),
        ("10", "TM", "11", False),
        ("1030-11", "TM", "113000", True),
        ("1030-11", "TM", "120000", False),
        ("-0900", "TM", "090030", True),
        ("235959-", "TM", "235959.5", True),
        ("10:30:00", "TM", "103000", True),
        ("20200229", "DA", "2020.02.29", True),
        ("2020", "DT", "20200615101500", True),
        ("202002", "DT", "20200301", False),
        ("2020-2021", "DT", "20211231235959", True),
        ("2020-", "DT", "1999", False),
        ("20200101120000+0100", "DT", "20200101110000", True),
        ("20200101120000+0100-20200101130000+0100", "DT", "20200101113000+0000", True),
        ("20200101120000-0500", "DT", "20200101170000", True),
        ("nonsense", "DA", "20200101", False),
        ("20201301", "DA", "20201301", True),  # no date, but the same text
        ("20200101-", "DA", "nonsense", False),
    ],
)
def test_times(key: str, vr: str, value: str, expected: bool) -> None:
    assert matches(key, vr, [value]) is expected


@settings(deadline=None)
@given(st.sampled_from(["DA", "TM", "DT"]), st.text("0123456789.:+-", max_size=26))
def test_a_span_is_in_order_or_none(vr: str, text: str) -> None:
    span = time_span(vr, text)

    assert span is None or span[0] <= span[1]


def test_spans_of_limited_precision() -> None:
    first, last = time_span("DT", "202002") or pytest.fail("no span")

    assert last - first == timedelta(days=29) - timedelta(microseconds=1)


@settings(deadline=None)
@given(st.lists(st.text("0123456789.", min_size=1, max_size=20), max_size=5), st.sampled_from([",", "\\", ", "]))
def test_uid_lists(uids: list[str], separator: str) -> None:
    assert uid_list(separator.join(uids)) == uids
