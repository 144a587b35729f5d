"""What a file becomes because of whose it is: Patient IDs from a keyed hash, values from a table of patients."""

from __future__ import annotations

import base64
import csv
import hashlib
import hmac
import re
import subprocess
import sys
import time
import tracemalloc
import unicodedata
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any

import pandas as pd
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postdicom_async import Anonymization, LocalFileError, PatientTable, UsageError
from postdicom_async.dicom.anonymize.identities import Patient, PatientRows, keyed_patient_id
from postdicom_async.dicom.anonymize.values import check_value
from tests.support.anonymizing import Writer, anonymize, read, refusal, result_of
from tests.support.canaries import CANARIES, CanaryWatch
from tests.support.dicom_files import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, JPEG, small_dicom
from tests.support.large import large

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "a secret of the tests"
KEYED = Anonymization(patient_ids="keyed", secret=SECRET)
ID, ISSUER, NAME = 0x00100020, 0x00100021, 0x00100010


def table(*lines: str | bytes) -> PatientRows:
    return PatientRows([(line.encode() if isinstance(line, str) else line) + b"\n" for line in lines])


def of_patient(patient_id: str | None, issuer: str | None = None, syntax: str = EXPLICIT, *more: bytes) -> bytes:
    to = Writer(syntax)
    given = [(ID, patient_id), (ISSUER, issuer)]
    return to.file(*[to.element(tag, "LO", value) for tag, value in given if value is not None], *more)


# --- keyed IDs --------------------------------------------------------------------------------------------------------


def test_the_id_is_that_of_an_hmac() -> None:
    """20 letters and digits of base 32, over issuer and ID; computed here by hand."""
    digest = hmac.new(SECRET.encode(), b'["PatientID", "HOSPITAL", "4711"]', hashlib.sha256).digest()
    expected = base64.b32encode(digest).decode()[:20]
    out = read(anonymize(of_patient("4711 ", "HOSPITAL"), KEYED))
    assert out.PatientID == expected
    assert "IssuerOfPatientID" not in out, "the new ID is none of theirs"


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED])
def test_a_patient_is_one_however_the_file_is_written(syntax: str) -> None:
    out = read(anonymize(of_patient("4711", None, syntax), KEYED))
    assert out.PatientID == keyed_patient_id(SECRET.encode(), Patient("4711"))
    assert read(anonymize(small_dicom(transfer_syntax=JPEG), KEYED)).PatientID == keyed_patient_id(
        SECRET.encode(), Patient("T-1")
    )


def test_a_patient_is_one_in_every_character_set() -> None:
    def named(character_set: str, raw: bytes) -> str:
        to = Writer()
        data = to.file(to.element(0x00080005, "CS", character_set), to.element(ID, "LO", raw))
        return str(read(anonymize(data, KEYED)).PatientID)

    one = named("ISO_IR 100", "MÜ-1".encode("latin-1"))
    assert one == named("ISO_IR 192", "MÜ-1".encode()) == named("ISO_IR 192", "MU\u0308-1".encode())
    assert one != named("ISO_IR 192", b"MU-1")


def test_whoever_has_no_id_is_not_made_one_with_others() -> None:
    for data in (of_patient(""), of_patient("  ", "HOSPITAL"), of_patient(None)):
        assert not read(anonymize(data, KEYED)).get("PatientID")


def test_an_id_that_cannot_be_decoded_is_not_taken_for_another() -> None:
    to = Writer()
    data = to.file(to.element(0x00080005, "CS", "ISO_IR 192"), to.element(ID, "LO", b"4\xff1"))
    assert "PatientID (0010,0020) cannot be decoded" in refusal(result_of(data, KEYED))


@pytest.mark.parametrize("late", [True, False])
def test_a_second_id_is_refused(late: bool) -> None:
    """A reader may take either for the patient."""
    to = Writer()
    again = to.element(ID, "LO", "OTHER")
    own = to.element(ID, "LO", "4711")
    parts = [own, again, *to.uids()[1:]] if not late else [own, *to.uids()[1:], again]
    assert "is not where it belongs" in refusal(result_of(to.file_as_given(to.uids()[0], *parts), KEYED))


def test_ids_inside_sequences_become_the_new_one() -> None:
    to = Writer()
    for undefined in (True, False):
        other = to.sequence(0x00101002, to.element(ID, "LO", "OLD-ID"), undefined=undefined)
        early = to.sequence(0x00081140, to.element(ID, "LO", "EARLY"), undefined=undefined)
        out = anonymize(of_patient("4711", None, EXPLICIT, other, early), KEYED)
        assert read(out).OtherPatientIDsSequence[0].PatientID == read(out).PatientID
        assert read(out).PatientID == keyed_patient_id(SECRET.encode(), Patient("4711"))
        assert b"OLD-ID" not in out
        assert b"EARLY" not in out


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=64)


@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_other_patients_get_other_ids(one_id: str, one_issuer: str, other_id: str, other_issuer: str) -> None:
    key = SECRET.encode()
    one, other = Patient(one_id, one_issuer), Patient(other_id, other_issuer)
    new = keyed_patient_id(key, one)
    assert check_value("LO", new) is None
    assert new.isascii()
    assert len(new) in (0, 20)
    assert new == keyed_patient_id(key, Patient(f" {one_id} ", one_issuer))
    if new:
        assert new != keyed_patient_id(b"another secret", one)
        same = keyed_patient_id(key, other) == new
        assert not same or [*map(str.strip, one)] == [*map(str.strip, other)] or not (one_id + one_issuer).isascii()


def test_keyed_ids_and_a_rule_for_the_id_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="give a rule, or patient_ids"):
        Anonymization({"PatientID": "X"}, patient_ids="keyed")
    with pytest.raises(UsageError, match='patient_ids: "keyed", or None'):
        Anonymization(patient_ids="other")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="give a PatientTable"):
        Anonymization(patients={"4711": "S-1"})  # type: ignore[arg-type]


def test_the_profiles_with_keyed_ids() -> None:
    data = small_dicom()
    expected = keyed_patient_id(SECRET.encode(), Patient("T-1"))
    for rules in (
        Anonymization.vendor_tags(patient_ids="keyed", secret=SECRET),
        Anonymization.basic_profile(patient_ids="keyed", secret=SECRET),
    ):
        assert read(anonymize(data, rules)).PatientID == expected
    assert (
        read(anonymize(data, Anonymization.vendor_tags(patient_ids="keyed", secret=SECRET))).PatientName == "ANONYMOUS"
    )


# --- a table ----------------------------------------------------------------------------------------------------------


def test_each_patient_gets_values_of_its_own() -> None:
    rows = table(
        "PatientID,PatientID,PatientName,PatientBirthDate,(0010;4000)".replace("(0010;4000)", "00104000"),
        "4711,S-001,STUDY^ONE,,first",
        '"T-1",S-002,"STUDY^TWO, JR",19000101,"second, with a comma"',
    )
    assert len(rows) == 2
    rules = Anonymization({"PatientName": "GENERAL", "StudyDescription": ""}, patients=rows)
    one = read(anonymize(of_patient("4711", "HOSPITAL"), rules))
    assert (one.PatientID, one.PatientName, one.PatientBirthDate) == ("S-001", "STUDY^ONE", "")
    assert one.PatientComments == "first", "added where it is absent"
    assert "IssuerOfPatientID" not in one
    two = read(anonymize(small_dicom(), rules))
    assert (two.PatientID, two.PatientName, two.PatientBirthDate) == ("S-002", "STUDY^TWO, JR", "19000101")
    assert two.StudyDescription == ""


def test_of_a_patient_who_is_not_in_it_nothing_is_sent() -> None:
    rules = Anonymization(patients=table("PatientID,PatientName", "4711,ANON"), patient_ids="keyed", secret=SECRET)
    for data in (of_patient("4712"), of_patient(""), of_patient(None), small_dicom()):
        assert refusal(result_of(data, rules)) == "cannot be anonymised: its patient is not in the table of patients"
    assert read(anonymize(of_patient("4711"), rules)).PatientID == keyed_patient_id(SECRET.encode(), Patient("4711"))


def test_with_an_issuer_both_must_agree() -> None:
    rows = table("PatientID;IssuerOfPatientID;PatientID;IssuerOfPatientID", "1;A;S-1;NEW", "1;B;S-2;", "1;;S-3;NEW")
    rules = Anonymization(patients=rows)
    made = [read(anonymize(of_patient("1", issuer), rules)) for issuer in ("A", "B ", None)]
    assert [(one.PatientID, one.IssuerOfPatientID) for one in made] == [("S-1", "NEW"), ("S-2", ""), ("S-3", "NEW")]
    assert "not in the table" in refusal(result_of(of_patient("1", "C"), rules))
    without = Anonymization(patients=table("PatientID,PatientID", "1,S-1"))
    assert {read(anonymize(of_patient("1", issuer), without)).PatientID for issuer in ("A", None)} == {"S-1"}


def test_a_rule_may_keep_who_issued_the_new_ids() -> None:
    rules = Anonymization({"IssuerOfPatientID": "STUDY"}, patients=table("PatientID,PatientID", "1,S-1"))
    assert read(anonymize(of_patient("1", "HOSPITAL"), rules)).IssuerOfPatientID == "STUDY"
    named = Anonymization(patients=table("PatientID,PatientName", "1,ANON"))
    assert read(anonymize(of_patient("1", "HOSPITAL"), named)).IssuerOfPatientID == "HOSPITAL", "the ID is as it was"


def test_the_basic_profile_with_a_table() -> None:
    rows = table("PatientID,PatientID,PatientBirthDate", "T-1,S-001,19700000".replace("19700000", "19700101"))
    out = read(anonymize(small_dicom(), Anonymization.basic_profile(patients=rows)))
    assert (out.PatientID, out.PatientBirthDate, out.PatientIdentityRemoved) == ("S-001", "19700101", "YES")


def test_letters_beyond_ascii() -> None:
    rows = table("\ufeffPatientID;PatientName".encode(), "MÜ-1;Łukasz".encode())
    to = Writer()
    data = to.file(to.element(0x00080005, "CS", "ISO_IR 192"), to.element(ID, "LO", "MÜ-1".encode()))
    assert read(anonymize(data, Anonymization(patients=rows))).PatientName == "Łukasz"
    latin = to.file(to.element(0x00080005, "CS", "ISO_IR 100"), to.element(ID, "LO", "MÜ-1".encode("latin-1")))
    assert "cannot hold the value" in refusal(result_of(latin, Anonymization(patients=rows)))


P_ID, P_NAME, P_DATE = CANARIES["patient_id"], CANARIES["patient_name"], CANARIES["birth_date"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "line 1 names no column PatientID and another one, with , or ; between them"),
        ([f"{P_ID},{P_NAME}"], "line 1 names no column PatientID"),
        (["PatientID"], "line 1 names no column PatientID and another one"),
        (["PatientID|PatientName"], "line 1 names no column"),
        (["PatientID,IssuerOfPatientID", f"{P_ID},X"], "line 1: no column has new values"),
        ([f"PatientID,{P_NAME}"], "line 1, column 2: no DICOM keyword or tag"),
        (["PatientID,PatientName,00100010"], r"line 1, column 3: PatientName \(0010,0010\) is there twice"),
        (["PatientID,StudyInstanceUID"], r"line 1, column StudyInstanceUID \(0020,000D\): no value of a patient"),
        (["PatientID,TransferSyntaxUID"], r"column TransferSyntaxUID \(0002,0010\): it says how a file is written"),
        (["PatientID,PatientName"], "no patient is in the table"),
        (["PatientID,PatientName", f"{P_ID},{P_NAME},X"], "line 2: 3 columns, where line 1 has 2"),
        (["PatientID,PatientName", "1,A", f'{P_ID},"{P_NAME}'], "line 3: its quotes do not match"),
        (["PatientID,PatientName", f" ,{P_NAME}"], "line 2, column PatientID: empty"),
        (["PatientID,PatientID", f"{P_ID}, "], "line 2, column PatientID: the new one is empty"),
        (["PatientID,PatientBirthDate", "1,", f"{P_ID},{P_DATE}x"], r"line 3, column PatientBirthDate .*: VR DA"),
        (["PatientID,PatientName", f"{P_ID},A", "", f" {P_ID} ,B"], "line 4: a patient who was there before"),
        (["PatientID,PatientName", f"{P_ID}\x1f,A"], "line 2, column PatientID: control characters"),
        ([b"PatientID,PatientName", P_ID.encode() + b",\xff\xfe"], "line 2: not UTF-8"),
    ],
)  # fmt: skip
def test_mistakes_name_line_and_column_and_never_a_value(lines: list[Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / CANARIES["path"]
    path.write_bytes(b"\r\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    watch = CanaryWatch()
    with pytest.raises(UsageError, match=message) as caught:
        PatientTable.from_csv(path)
    watch.feed(caught.value)
    watch.assert_clean()


@pytest.mark.parametrize("lines", [{"PatientID": ["1"]}, ["PatientID,PatientName\n"], b"PatientID,PatientName\n1,A", 7])
def test_what_is_no_lines_of_bytes(lines: Any) -> None:
    with pytest.raises(UsageError, match=r"^patients: give lines of bytes, or use from_csv$"):
        PatientTable(lines)


def test_a_data_frame() -> None:
    with pytest.raises(UsageError, match=r"^patients: give lines of bytes, or use from_csv$"):
        PatientTable(pd.DataFrame({"PatientID": ["1"], "PatientName": ["A"]}))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    watch = CanaryWatch()
    with pytest.raises(LocalFileError, match="the table of patients: does not exist") as caught:
        PatientTable.from_csv(tmp_path / CANARIES["path"])
    watch.feed(caught.value)
    watch.assert_clean()


def test_a_file_without_line_breaks_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    with path.open("wb") as file:
        file.write(b"PatientID,PatientName\n")
        file.truncate(1 << 30)
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match="line 2: a very long line"):
            PatientTable.from_csv(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


PARTS = st.sampled_from([b"PatientID", b"PatientName", b"00104000", b",", b";", b'"', b"\n", b"\r\n", b"\xff", b"4711"])


@given(st.lists(PARTS | st.binary(max_size=5)).map(b"".join))
def test_whatever_is_in_a_file_it_is_a_table_or_a_mistake(content: bytes) -> None:
    said = "patients: line 1"
    try:
        PatientRows(content.splitlines(keepends=True))
    except UsageError as error:
        said = str(error)
    assert re.fullmatch(r"patients: (line \d+.*|no patient is in the table)", said)


VALUES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="\\="), max_size=40)
IDS = VALUES.filter(lambda text: bool(text.strip(" ")))


@given(st.dictionaries(IDS.map(lambda text: unicodedata.normalize("NFC", text).strip(" ")), st.tuples(IDS, VALUES)))
def test_what_is_written_as_csv_is_read(patients: dict[str, tuple[str, str]]) -> None:
    for delimiter in ",;":
        file = StringIO()
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["PatientID", "PatientID", "PatientName"])
        writer.writerows([name, *values] for name, values in patients.items())
        lines = file.getvalue().encode().splitlines(keepends=True)
        if not patients:
            continue
        rows = PatientRows(lines)
        assert len(rows) == len(patients)
        for name, (new_id, new_name) in patients.items():
            made = rows.values_of(Patient(name))
            assert (made[ID].text, made[NAME].text) == (new_id.strip(" "), new_name.strip(" "))


def test_private_columns_need_private_elements() -> None:
    rows = table("PatientID,00111010", "1,X")
    with pytest.raises(UsageError, match="all private elements are removed"):
        Anonymization(patients=rows, remove_private=True)


def test_no_patient_shows(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"PatientID,PatientID,PatientName\n{P_ID},S-1,{P_NAME}\n")
    rows = PatientTable.from_csv(path)
    rules = Anonymization(patients=rows, secret=CANARIES["password"])
    watch = CanaryWatch()
    for thing in (rows, rules, rules.description(), rules.fingerprint(), result_of(of_patient("X"), rules)):
        watch.feed(thing)
    watch.feed(result_of(of_patient(P_ID), rules))
    to = Writer()
    bad = to.file(to.element(ID, "LO", P_ID), to.element(NAME, "PN", P_NAME))[:-20]
    watch.feed(result_of(bad, rules))
    watch.assert_clean()
    assert repr(Anonymization(patient_ids="keyed")) == "Anonymization(0 rules, sequences, patient_ids)"
    assert repr(rows) == "PatientTable(1 patients: 00100020, 00100010)"


@pytest.mark.parametrize("count", [20_000, large(100_000)])
def test_many_patients_are_read_fast_into_little_memory(count: int, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    with path.open("w") as file:
        file.write("PatientID;IssuerOfPatientID;PatientID;PatientName;PatientBirthDate\n")
        file.writelines(f"{n};HOSPITAL;S-{n:06d};NAME^{n};19{n % 100:02d}0101\n" for n in range(count))
    started = time.process_time()
    PatientTable.from_csv(path)
    assert time.process_time() - started < count * 3e-4, "of work, not of waiting"
    tracemalloc.start()
    try:
        rows = PatientTable.from_csv(path)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(rows) == count
    assert peak < count * 335  # 32 MiB for a hundred thousand
    assert held < count * 262
    assert rows.values_of(Patient("19999", "HOSPITAL"))[ID].text == "S-019999"


OTHER_PROCESS = """
import sys
from postdicom_async import Anonymization
from tests.support.anonymizing import anonymize
rules = Anonymization.vendor_tags(patient_ids="keyed", remap_uids=True, secret=sys.argv[1])
sys.stdout.buffer.write(anonymize(sys.stdin.buffer.read(), rules))
"""


def test_another_process_makes_the_same_bytes() -> None:
    data = small_dicom()
    rules = Anonymization.vendor_tags(patient_ids="keyed", remap_uids=True, secret=SECRET)
    command = [sys.executable, "-c", OTHER_PROCESS, SECRET]
    made = subprocess.run(command, input=data, capture_output=True, check=True, timeout=60).stdout
    assert made == anonymize(data, rules)
    assert pydicom.dcmread(BytesIO(made)).PatientID == keyed_patient_id(SECRET.encode(), Patient("T-1"))
