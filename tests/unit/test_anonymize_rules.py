"""How rules are written, what is refused about them, and that what replaces a value is never shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from postdicom_async import Anonymization, UsageError
from postdicom_async.disk.anonymized import anonymized, anonymized_now
from postdicom_async.disk.sources import Usable
from tests.support.anonymizing import Writer, anonymize, leaves, read, refusal, result_of, usable
from tests.support.canaries import CANARIES, CanaryWatch
from tests.support.dicom_files import small_dicom
from tests.support.tag_names import SPELLINGS

NAME = CANARIES["patient_name"]


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [key for key, tag in SPELLINGS.items() if tag == "00100010"])
def test_ways_to_name_a_tag(key: str) -> None:
    assert read(anonymize(small_dicom(), {key: "Q^R"})).PatientName == "Q^R"


@pytest.mark.parametrize("key", ["(300A,00B0)", "300a00b0", "x300A00b0", "BeamSequence"])
def test_hexadecimal_digits_in_either_case(key: str) -> None:
    to = Writer()
    data = to.file(to.sequence(0x300A00B0, to.element(0x00100010, "PN", "A^B"), undefined=True))
    assert 0x300A00B0 not in {leaf.tag for leaf in leaves(anonymize(data, {key: None}))}


@pytest.mark.parametrize("rules", [["PatientName"], "PatientName", {"PatientName"}, 7, [("PatientName", "Q")]])
def test_rules_are_a_mapping(rules: Any) -> None:
    for make in (Anonymization, Anonymization.vendor_tags, Anonymization.basic_profile):
        with pytest.raises(UsageError, match="mapping"):
            make(rules)


@pytest.mark.parametrize("other", ["00100010", "(0010,0010)", " PatientName"])
def test_a_tag_is_given_once(other: str) -> None:
    with pytest.raises(UsageError, match=r"PatientName \(0010,0010\) is given twice") as caught:
        Anonymization({"PatientName": NAME, other: NAME})
    assert NAME not in str(caught.value)


PROTECTED = [
    "FileMetaInformationGroupLength", "FileMetaInformationVersion", "MediaStorageSOPClassUID", "00020003",
    "TransferSyntaxUID", "SpecificCharacterSet", "00100000", "00090000", "Item", "FFFEE00D", "CommandField", "00000000",
]  # fmt: skip


@pytest.mark.parametrize("key", PROTECTED)
@pytest.mark.parametrize("value", [None, "", NAME])
def test_what_says_how_a_file_is_written_is_not_to_be_changed(key: str, value: str | None) -> None:
    with pytest.raises(UsageError, match="says how a file is written") as caught:
        Anonymization({key: value})
    assert NAME not in str(caught.value)


@pytest.mark.parametrize("key", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_what_every_instance_has(key: str) -> None:
    for nothing in (None, ""):
        with pytest.raises(UsageError, match=f"{key} .*: no instance is without it"):
            Anonymization({key: nothing})
    with pytest.raises(UsageError, match=f"{key} .*: one UID"):
        Anonymization({key: "1.2\\1.3"})
    assert read(anonymize(small_dicom(), {key: "1.2.3.4"}))[key].value == "1.2.3.4"


# --- values -----------------------------------------------------------------------------------------------------------

WRONG = {
    "PatientBirthDate": "31.01.1970 of CNRY",
    "StudyTime": "noon of CNRY",
    "PatientAge": "70 CNRY",
    "PatientSex": "male of CNRY",
    "PatientWeight": "heavy CNRY",
    "InstanceNumber": "CNRY",
    "AccessionNumber": "CNRY" * 5,
    "PatientName": "CNRY\n",
    "PatientComments": "CNRY\x1b$B",
    "FrameOfReferenceUID": "1.2.CNRY",
    "Rows": "CNRY",
    "PixelData": "CNRY",
    "ReferencedStudySequence": "CNRY",
    "00091001": "CNRY\0",
}


@pytest.mark.parametrize("key", WRONG)
def test_values_are_checked_at_once(key: str) -> None:
    with pytest.raises(UsageError) as caught:
        Anonymization({key: WRONG[key]})
    text = str(caught.value)
    assert text.startswith((f"anonymize: {key} (", "anonymize: (0009,1001): "))
    assert "CNRY" not in text


@pytest.mark.parametrize("value", [7, b"Q", ["Q"], True, 0, 0.0, (), False])
def test_values_are_text(value: Any) -> None:
    with pytest.raises(UsageError, match=r"PatientID \(0010,0020\): give text, or None to remove it"):
        Anonymization({"PatientID": value})


def test_private_elements_that_go_anyway_are_not_replaced() -> None:
    for make in PRIVATE_REMOVED:
        for value in ("Q", ""):
            with pytest.raises(UsageError, match=r"\(0009,1001\): all private elements are removed"):
                make({"00091001": value})
        make({"00091001": None})


PRIVATE_REMOVED: list[Callable[[Mapping[str, str | None]], Anonymization]] = [
    lambda rules: Anonymization(rules, remove_private=True),
    lambda rules: Anonymization.vendor_tags(rules, remove_private=True),
    Anonymization.basic_profile,
]


@pytest.mark.parametrize("secret", ["", "short", b"1234567", 12345678, ["12345678"]])
def test_secrets_that_are_none(secret: Any) -> None:
    for make in (Anonymization, Anonymization.vendor_tags, Anonymization.basic_profile):
        with pytest.raises(UsageError, match="secret: text or bytes, at least 8"):
            make({}, secret=secret)


def test_rules_do_not_follow_what_they_were_made_of() -> None:
    rules: dict[str, str | None] = {"PatientName": "Q"}
    made = Anonymization(rules)
    rules["PatientName"] = NAME
    rules["PatientID"] = NAME
    out = read(anonymize(small_dicom(), made))
    assert (out.PatientName, out.PatientID) == ("Q", "T-1")
    with pytest.raises(TypeError):
        made.rules["PatientName"] = NAME  # type: ignore[index]


# --- how they are used ------------------------------------------------------------------------------------------------


async def test_what_is_no_anonymization() -> None:
    source = usable(small_dicom())
    for wrong in ({"PatientName": "Q"}, "PatientName", 7):
        with pytest.raises(UsageError, match="anonymize: give an Anonymization, or None"):
            await anonymized(source, wrong)  # type: ignore[arg-type]
    once = await anonymized(source, Anonymization({"PatientName": "Q"}))
    assert isinstance(once, Usable)
    with pytest.raises(UsageError, match="anonymised once"):
        await anonymized(once, Anonymization({"PatientName": "Q"}))
    refused = result_of(small_dicom()[:-1], {"PatientName": "Q"})
    assert anonymized_now(refused, Anonymization()) is refused


# --- nothing of it is shown -------------------------------------------------------------------------------------------


def test_nothing_shows_what_replaces_a_value(canary_watch: CanaryWatch) -> None:
    secret = CANARIES["password"]
    rules = {"PatientName": NAME, "PatientID": CANARIES["patient_id"], "AccessionNumber": CANARIES["accession"]}
    for made in (
        Anonymization(rules, secret=secret, insert_absent=True),
        Anonymization.vendor_tags(rules, secret=secret.encode(), remap_uids=True),
        Anonymization.basic_profile(rules, secret=secret),
    ):
        canary_watch.feed(made)
        canary_watch.feed([made.action(0x00100010, "PN"), made.insertions()])
        result = result_of(small_dicom(), made)
        assert isinstance(result, Usable)
        canary_watch.feed(result)
        canary_watch.feed(result.body)
    assert repr(Anonymization(rules, insert_absent=True, remap_uids=True, remove_private=True)) == (
        "Anonymization(3 rules, insert_absent, sequences, remap_uids, remove_private)"
    )


def test_no_reason_shows_a_value(canary_watch: CanaryWatch) -> None:
    """Neither what replaces nor what was there."""
    to = Writer()
    name = to.element(0x00100010, "PN", NAME)
    short = to.element(0x00100010, "SH", "A^B")
    files = [
        to.file(name)[:-1],
        to.file(name + b"garbage"),
        to.file(short),
        to.file(to.element(0x00100010, "OB", NAME)),
        to.file(to.element(0x00100010, "PN", NAME, length=9000)),
        to.file(to.element(0x00200052, "LO", NAME)),
        to.file(to.element(0x00080005, "CS", "ISO_IR 100"), name),
        b"x" * 200,
    ]
    for data in files:
        for text in (NAME + "Ł", NAME):
            for made in (Anonymization({"PatientName": text}), Anonymization.basic_profile({"PatientName": text})):
                result = result_of(data, made)
                canary_watch.feed(result)
                if not isinstance(result, Usable):
                    canary_watch.feed_text(refusal(result))


@pytest.mark.parametrize("key", ["PatientBirthDate", "00020010", "Patient Name", "PatientName"])
def test_no_exception_shows_a_value(key: str, canary_watch: CanaryWatch) -> None:
    with pytest.raises(UsageError) as caught:
        Anonymization({key: NAME, "(0010,0010)": NAME})
    canary_watch.feed(caught.value)
