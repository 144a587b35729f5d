"""Values that replace others: valid for their VR by pydicom's own checks, and read back as the text that was given."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom import config
from pydicom.charset import convert_encodings
from pydicom.valuerep import IS, PersonName, validate_value

from postdicom_async import Anonymization, UsageError
from postdicom_async.dicom.anonymize.values import DUMMIES, check_value, encode_value
from postdicom_async.dicom.elements import EXPLICIT_LITTLE, DicomProblem, Encoding
from postdicom_async.dicom.text import decode_text
from tests.support.anonymizing import Writer, anonymize, dcmdump, read, refusal, result_of, strictly_invalid
from tests.support.dicom_files import small_dicom
from tests.support.large import examples

TEXTS = "LO LT PN SH ST UC UT"
MULTI = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "PN", "SH", "TM", "UC", "UI"}

GOOD = {
    "AE": ["SCANNER_1", "A" * 16, "A B"],
    "AS": ["000D", "034W", "999M", "001Y"],
    "CS": ["CT", "A_B 9", "A\\B", "X" * 16],
    "DA": ["19000101", "20000229", "00000229", "20240101\\20240102"],
    "DS": ["1", "-1.5", "+.5e-10", "1.", "1E5", " 1 ", "1234567890.12345", "1\\2\\3"],
    "DT": ["2024", "202412", "20241231", "20241231235960", "20241231235959.999999", "2024+0100", "20241231-1200"],
    "IS": ["0", "-2147483648", "2147483647", " 5 ", "1\\2"],
    "LO": ["a", "x" * 64, "Müller", "a\\b"],
    "LT": ["x" * 10_240, "a\\b", "line\r\nline\tTAB\f", "é"],
    "PN": ["A^B^C^D^E", "x" * 64 + "=" + "y" * 64 + "=" + "z" * 64, "=漢字", "A\\B"],
    "SH": ["x" * 16, "é" * 16],
    "ST": ["x" * 1024, "a\\b\n"],
    "TM": ["00", "2359", "235960", "235959.1", "235959.123456"],
    "UC": ["x" * 70_000, "a\\b"],
    "UI": ["1.2.3", "0.0", "2.25." + "9" * 39, "1." + "2" * 62, "1.2\\1.3"],
    "UR": ["https://example.org/a?b=c%20d"],
    "UT": ["x" * 70_000, "a\\b\r\n"],
    "US": ["0", "65535", "1\\2"], "SS": ["-32768"], "UL": ["4294967295"], "SL": ["-2147483648"],
    "UV": ["18446744073709551615"], "SV": ["-9223372036854775808"], "FL": ["1.5", "-1e10"], "FD": ["1e300"],
}  # fmt: skip
BAD = {
    "AE": ["A" * 17, "a\\\u00e9", "tab\t", "nul\0"],
    "AS": ["1Y", "1000Y", "012y", "12", "012Y "],
    "CS": ["ct", "X" * 17, "A-B", "Ä"],
    "DA": ["2024", "20240230", "20241301", "2024-1-1", "20230229", "2024010", "٢٠٢٤٠١٠١", "20240101-20240102"],
    "DS": ["1,5", "1e", "abc", "12345678901234567", "1 2", "nan", "1\n", "--1"],
    "DT": ["202413", "20240230", "2024123124", "2024123123595", "20241231235959.1234567", "2024&0100", "2024023012"],
    "IS": ["1.0", "2147483648", "-2147483649", "999999999999", "1234567890123", "x", "1_0", "٣"],
    "LO": ["x" * 65, "line\n", "esc\x1b", "nul\0", "\x85", "\udc80"],
    "LT": ["x" * 10_241, "nul\0", "esc\x1b$B", "\x0e", "\udc80"],
    "PN": ["x" * 65, "a=b=c=d", "tab\t", "esc\x1b", "\ud800"],
    "SH": ["x" * 17, "\n"],
    "ST": ["x" * 1025, "esc\x1b", "\x07"],
    "TM": ["24", "1", "10:00", "235961", "2359591", "235959.", "235959.1234567"],
    "UC": ["\n", "esc\x1b"],
    "UI": ["1..2", "1.02", "1.2.", ".1", "a", "1 2", "1." + "2" * 63, "1,2"],
    "UR": ["a b", "ä", "a\\b", "a\n", "a^b", '"'],
    "UT": ["nul\0", "esc\x1b(B", "\x9f"],
    "UN": ["esc\x1b", "nul\0"],
    "US": ["-1", "65536", "1.0", "x", "1_0", "٣", "\\", "1\\\\2", "1" * 5000], "SS": ["32768"], "UL": ["-1"],
    "SL": ["1e3"], "UV": ["-1"], "SV": ["9223372036854775808"], "FL": ["1e39", "x", "1,5", "nan", "inf"],
    "FD": ["0x10", "1e999x"],
    "OB": ["1"], "OW": ["1"], "SQ": ["x"], "AT": ["00100010"],
}  # fmt: skip


@pytest.mark.parametrize(("vr", "value"), [(vr, value) for vr, values in GOOD.items() for value in values])
def test_values_of_a_vr(vr: str, value: str) -> None:
    assert check_value(vr, value) is None
    data = encode_value(vr, value, EXPLICIT_LITTLE, ("ISO_IR 192",))
    assert len(data) % 2 == 0


@pytest.mark.parametrize(("vr", "value"), [(vr, value) for vr, values in BAD.items() for value in values])
def test_what_is_no_value_of_it(vr: str, value: str) -> None:
    problem = check_value(vr, value)
    assert problem is not None
    assert vr in problem
    if len(value) > 3:
        assert value not in problem


@pytest.mark.parametrize("vr", DUMMIES)
def test_dummies_are_valid(vr: str) -> None:
    assert check_value(vr, DUMMIES[vr]) is None


LIKELY = st.text(st.sampled_from("0123456789.+-eE DWMYAZaz_=^\\/\t\n\r\x1b\0\x85éł山\udc80"), max_size=24)


@given(
    vr=st.sampled_from(sorted(GOOD)), value=st.one_of(LIKELY, st.text(max_size=80), st.from_regex(r"\A[0-9.]{1,20}\Z"))
)
@settings(max_examples=examples(1500))
@example(vr="IS", value="2147483648")
@example(vr="LT", value="\x1b$B")
def test_what_passes_is_valid_for_pydicom_too(vr: str, value: str) -> None:
    if not value or check_value(vr, value) is not None:
        return
    for one in value.split("\\") if vr in MULTI else [value]:
        validate_value(vr, float(one) if vr in ("FL", "FD") else int(one) if vr in NUMBERS else one, config.RAISE)
        if vr == "IS" and one:
            IS(one, validation_mode=config.RAISE)


NUMBERS = {"US", "SS", "UL", "SL", "UV", "SV"}


@pytest.mark.parametrize("order", [True, False])
def test_padding_and_order(order: bool) -> None:
    encoding = Encoding(little=order, explicit=True)
    assert encode_value("UI", "1.2.3", encoding, ()) == b"1.2.3\0"
    assert encode_value("LO", "abc", encoding, ()) == b"abc "
    assert encode_value("LO", "abcd", encoding, ()) == b"abcd"
    assert encode_value("US", "258\\1", encoding, ()) == (b"\2\1\1\0" if order else b"\1\2\0\1")


# --- character sets ---------------------------------------------------------------------------------------------------

# The examples of PS3.5 annexes H, I, J and K, and one of each single-byte set.
NAMES: list[tuple[str, str, bytes]] = [
    ("", "Doe^John", b"Doe^John"),
    ("ISO_IR 100", "Müller^Jörg", b"M\xfcller^J\xf6rg"),
    ("ISO_IR 101", "Święty^Łukasz", "Święty^Łukasz".encode("iso8859-2")),
    ("ISO_IR 109", "Ħaġar", "Ħaġar".encode("iso8859-3")),
    ("ISO_IR 110", "Ģirts", "Ģirts".encode("iso8859-4")),
    ("ISO_IR 126", "Διονυσιος", "Διονυσιος".encode("iso8859-7")),
    ("ISO_IR 127", "قباني^لنزار", "قباني^لنزار".encode("iso8859-6")),
    ("ISO_IR 138", "שרון^דבורה", "שרון^דבורה".encode("iso8859-8")),
    ("ISO_IR 144", "Юлия^Щука", "Юлия^Щука".encode("iso8859-5")),
    ("ISO_IR 148", "Çavuşoğlu", "Çavuşoğlu".encode("iso8859-9")),
    ("ISO_IR 166", "นามสกุล", "นามสกุล".encode("tis-620")),
    ("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3"),
    ("ISO_IR 192", "Wang^XiaoDong=王^小東", "Wang^XiaoDong=王^小東".encode()),
    ("GB18030", "Wang^XiaoDong=王^小东", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab"),
    ("GBK", "Wang^XiaoDong=王^小东", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab"),
    (
        "\\ISO 2022 IR 87",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    ),
    (
        "ISO 2022 IR 13\\ISO 2022 IR 87",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
    ),
    (
        "\\ISO 2022 IR 149",
        "Hong^Gildong=洪^吉洞=홍^길동",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
    ),
    (
        "\\ISO 2022 IR 58",
        "Zhang^XiaoDong=张^小东",
        b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab",
    ),
    ("ISO 2022 IR 100\\ISO 2022 IR 87", "Jörg^山", b"J\xf6rg^\x1b$B;3\x1b(B"),
    ("ISO 2022 IR 100\\ISO 2022 IR 126", "Jörg^Ιων", b"J\xf6rg^\x1b-F\xc9\xf9\xed\x1b-A"),
    ("\\ISO 2022 IR 159\\ISO 2022 IR 87", "丂山a", b"\x1b$(D0!\x1b$B;3\x1b(Ba"),
]  # fmt: skip


@pytest.mark.parametrize(("sets", "name", "expected"), NAMES)
def test_names_in_every_character_set(sets: str, name: str, expected: bytes) -> None:
    assert check_value("PN", name) is None
    expected += b" " * (len(expected) % 2)
    assert encode_value("PN", name, EXPLICIT_LITTLE, tuple(sets.split("\\"))) == expected
    assert decode_text(expected, sets.encode()) == name
    if "IR 58" not in sets:  # of which pydicom makes something else
        assert str(PersonName(expected, convert_encodings(sets.split("\\")))).strip() == name


@pytest.mark.parametrize(("sets", "name", "expected"), NAMES)
def test_files_with_such_names(sets: str, name: str, expected: bytes, tmp_path: Path) -> None:
    to = Writer()
    data = to.file(to.element(0x00080005, "CS", sets), to.element(0x00100010, "PN", "Doe^John"))
    out = anonymize(data, Anonymization({"PatientName": name, "PatientComments": name}, insert_absent=True))
    assert expected in out
    assert strictly_invalid(out) == set()
    assert dcmdump(tmp_path, {"x": out}) == {}
    if "IR 58" not in sets:
        assert (str(read(out).PatientName), read(out).PatientComments) == (name, name)


ALPHABETS = [
    "Müéß",
    "Łęż",
    "Διον",
    "Люк",
    "山田太郎",
    "やまだ",
    "ﾔﾏﾀ",
    "홍길동",
    "นาม",
    "abc019 -",
    "^=",
    "שרון",
    "丂",
]
FIRST = [
    "",
    "ISO 2022 IR 6",
    "ISO 2022 IR 100",
    "ISO 2022 IR 101",
    "ISO 2022 IR 13",
    "ISO 2022 IR 126",
    "ISO 2022 IR 144",
]
MORE = [f"ISO 2022 IR {number}" for number in (13, 87, 100, 101, 126, 144, 149, 159, 166)]


@given(
    first=st.sampled_from(FIRST),
    more=st.lists(st.sampled_from(MORE), max_size=3, unique=True),
    text=st.lists(st.sampled_from(ALPHABETS).flatmap(st.sampled_from), min_size=1, max_size=9).map("".join),
)
@settings(max_examples=examples(1500))
def test_what_is_written_reads_back_or_is_refused(first: str, more: list[str], text: str) -> None:
    """Also where a name changes from one character set to another within a word."""
    sets = [first, *more]
    if check_value("PN", text) is not None:
        return
    try:
        data = encode_value("PN", text, EXPLICIT_LITTLE, tuple(sets))
    except DicomProblem:
        return
    assert _trimmed(str(PersonName(data, convert_encodings(list(sets))))) == _trimmed(text)


def _trimmed(name: str) -> str:
    return re.sub(r"[ =]+$", "", name)


SETS = [
    *FIRST,
    *MORE,
    "ISO_IR 100",
    "ISO_IR 192",
    "GBK",
    "GB18030",
    "ISO_IR 203",
    "ISO 2022 IR 203",
    "nonsense",
    "ISO_IR ",
]


@pytest.mark.parametrize("first", SETS)
def test_whatever_a_file_says_nothing_else_happens(first: str) -> None:
    for second in ["", *SETS]:
        for text in ("Διον^Люк", "山a홍=ü\\é", "😀"):
            try:
                encode_value("PN", text, EXPLICIT_LITTLE, (first, second))
            except DicomProblem:
                continue


BEYOND = [
    ("", "Müller"), ("ISO_IR 6", "Müller"), ("ISO_IR 100", "Łukasz"), ("ISO_IR 101", "Διον"), ("ISO_IR 13", "山"),
    ("ISO_IR 13", "¥"), ("ISO_IR 13", "‾"), ("GBK", "Jörg"), ("ISO_IR 192\\ISO 2022 IR 87", "\udc80"),
    ("\\ISO 2022 IR 87", "홍"), ("\\ISO 2022 IR 87", "¥"), ("\\ISO 2022 IR 149", "Müller"), ("nonsense", "é"),
    ("\\ISO 2022 IR 58", "¥"), ("ISO_IR 203", "é"), ("\\ISO 2022 IR 159", "山"),
]  # fmt: skip


@pytest.mark.parametrize(("sets", "name"), BEYOND)
def test_a_character_set_without_the_characters(sets: str, name: str) -> None:
    with pytest.raises(DicomProblem, match="cannot hold the value") as caught:
        encode_value("PN", name, EXPLICIT_LITTLE, tuple(sets.split("\\")))
    assert name not in str(caught.value)


def test_such_a_file_is_refused_and_the_name_not_told() -> None:
    reason = refusal(result_of(small_dicom(), {"PatientName": "Świętokrzyski"}))
    assert reason == (
        "cannot be anonymised: PatientName (0010,0010): its Specific Character Set (0008,0005) cannot hold the value"
    )
    ascii_only = Writer()
    data = ascii_only.file(
        ascii_only.element(0x00080005, "CS", "ISO_IR 192"), ascii_only.element(0x00080054, "LO", "x")
    )
    assert read(anonymize(data, {"00080054": "AE_TITLE"}))[0x00080054].value == "AE_TITLE"
    with pytest.raises(UsageError, match="RetrieveAETitle"):
        Anonymization({"RetrieveAETitle": "Świętokrzyski"})
    odd = ascii_only.file(ascii_only.element(0x00080005, "CS", "ISO_IR 192"), ascii_only.element(0x00100010, "UI", "1"))
    assert "VR UI" in refusal(result_of(odd, {"PatientName": "Świętokrzyski"}))
