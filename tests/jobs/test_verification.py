"""Verification by bytes: what the target gives against what was sent."""

from __future__ import annotations

import tracemalloc
from contextlib import aclosing
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pydicom
import pytest

from postdicom_async import Anonymization, ConnectionFailed, LocalFileError, Status
from postdicom_async.bodies import BytesBody
from postdicom_async.dicom.anonymize.identities import PatientRows
from postdicom_async.dicom.digest import DataSetDigest
from postdicom_async.dicom.header import InstanceHeader, read_header
from postdicom_async.dicom.sameness import Difference, differences
from postdicom_async.dicomweb.store_answer import TWO_PATIENTS
from postdicom_async.disk.files import Unusable
from postdicom_async.disk.sources import Usable
from postdicom_async.jobs.compare_bytes import Verified, VerifyFinding, digest_of, verify_bytes
from postdicom_async.jobs.ledger.schema import ItemRow
from postdicom_async.jobs.states import Reason, State, verdict_of
from postdicom_async.results import InstanceUids, Outcome
from postdicom_async.transfer import comparing
from tests.support.anonymizing import anonymize as anonymized_bytes
from tests.support.anonymizing import result_of
from tests.support.dicom_files import DEFLATED, IMPLICIT, JPEG, small_dicom, study_files, uid

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping

    from postdicom_async.jobs.ends.end import Identified, Selection

STUDY, SERIES = uid(1), uid(1, 1)


@dataclass
class MemoryEnd:
    """An end that gives what it has, and notes what it was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    series: list[str | None] = field(default_factory=list)
    twice: bool = False
    fails: bool = False

    async def open(self, wanted: Selection) -> AsyncGenerator[Identified, None]:
        self.asked += [one.uid for one in wanted.instances]
        self.series.append(wanted.series)
        for one in reversed(wanted.instances):
            if self.fails:
                raise ConnectionFailed("not there")
            for _ in range(1 + self.twice):
                if one.uid in self.files:
                    yield source_of(one.uid, self.files[one.uid])


def source_of(label: str, data: bytes) -> Identified:
    header = read_header(data, complete=True)
    if not isinstance(header, InstanceHeader):
        return Unusable(label, Status.REFUSED, "no DICOM", len(data))
    return Usable(label, header, BytesBody(data))


def digest(data: bytes) -> bytes:
    made = DataSetDigest()
    made.update(data)
    return made.digest()


def rows(files: Mapping[str, bytes], *, digests: bool = True, series: str = SERIES) -> list[ItemRow]:
    return [
        ItemRow(series, name, State.DONE, size=len(data), digest=digest(data) if digests else b"")
        for name, data in files.items()
    ]


async def found(source: MemoryEnd, target: MemoryEnd, items: Iterable[ItemRow], **how: Any) -> dict[str, Verified]:
    findings: dict[str, Verified] = {}
    async with aclosing(verify_bytes(source, target, STUDY, list(items), **how)) as all_found:  # type: ignore[arg-type]
        async for one in all_found:
            assert one.uid not in findings, "each has one finding"
            findings[one.uid] = one
    return findings


def changed(data: bytes, change: Callable[[Any], object]) -> bytes:
    dataset = pydicom.dcmread(BytesIO(data))
    change(dataset)
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


# --- the digest -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [small_dicom(), small_dicom(transfer_syntax=DEFLATED), b"<html>" * 400, b""])
def test_how_the_bytes_are_cut_makes_no_difference(data: bytes) -> None:
    whole = digest(data)
    assert len(whole) == 16
    for size in (1, 7, 131, 1024, 4096):
        made = DataSetDigest()
        for at in range(0, len(data), size):
            made.update(memoryview(data)[at : at + size])
        assert made.digest() == whole


def test_the_meta_information_does_not_count_and_the_transfer_syntax_does() -> None:
    data = small_dicom()
    other = changed(data, lambda dataset: setattr(dataset.file_meta, "ImplementationVersionName", "ANOTHER"))
    assert other != data
    assert digest(b"II*\0" + other[4:]) == digest(data)
    assert digest(data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0")) != digest(data)


def test_every_bit_of_the_data_set_counts() -> None:
    data = small_dicom(pixel_bytes=64)
    start = data.index(b"\x08\0\x16\0UI")
    digests = {digest(flipped(data, at)) for at in range(start, len(data))}
    assert len(digests) == len(data) - start
    assert digest(data) not in digests


def test_what_hides_its_data_set_is_digested_whole_within_bounded_memory() -> None:
    head = bytes(128) + b"DICM" + b"\x02\0\x02\x01OB\0\0" + (1 << 30).to_bytes(4, "little")
    tracemalloc.start()
    try:
        made = DataSetDigest()
        made.update(head)
        for _ in range(1000):
            made.update(bytes(10_000))
        one = made.digest()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
    assert one == digest(head + bytes(10_000_000))
    assert one != digest(head + bytes(9_999_999) + b"\1")


async def test_the_digest_of_a_body() -> None:
    assert await digest_of(BytesBody(small_dicom())) == digest(small_dicom())


# --- differences ------------------------------------------------------------------------------------------------------


def difference(change: Callable[[Any], object], data: bytes | None = None) -> tuple[str, tuple[str, ...]]:
    data = data or small_dicom()
    found = differences(data, changed(data, change))
    return found.kind.value, found.tags


def test_what_differs_is_told_by_tag() -> None:
    def reconciled(dataset: Any) -> None:
        dataset.PatientID = "ANOTHER"
        dataset.IssuerOfPatientID = "HOSPITAL"
        dataset.OriginalAttributesSequence = [pydicom.Dataset()]
        del dataset.AccessionNumber

    found = differences(small_dicom(), changed(small_dicom(), reconciled))
    assert found.kind is Difference.COERCED
    assert found.changed == ("00100020",)
    assert found.added == ("00100021", "04000561")
    assert found.removed == ("00080050",)
    assert found.tags == ("00080050", "00100020", "00100021", "04000561")
    assert "ANOTHER" not in repr(found)


@pytest.mark.parametrize(
    ("keyword", "value", "tag"),
    [
        ("SOPInstanceUID", "1.2.3", "00080018"),
        ("StudyInstanceUID", "1.2.3", "0020000D"),
        ("SeriesDescription", "another", "0008103E"),
        ("PixelData", bytes(2048), "7FE00010"),
        ("Modality", "MR", "00080060"),
    ],
)
def test_what_no_archive_may_change_is_a_difference(keyword: str, value: Any, tag: str) -> None:
    assert difference(lambda dataset: setattr(dataset, keyword, value)) == ("different", (tag,))


def test_a_value_deep_in_a_sequence_is_told_by_the_outermost_tag() -> None:
    item = pydicom.Dataset()
    item.CodeValue = "T-04000"
    data = changed(small_dicom(), lambda dataset: setattr(dataset, "AnatomicRegionSequence", [item]))
    assert difference(lambda dataset: setattr(dataset.AnatomicRegionSequence[0], "CodeValue", "T-1"), data) == (
        "different",
        ("00082218",),
    )


def test_text_in_another_character_set_is_the_same_text() -> None:
    data = changed(small_dicom(patient_name="MÜLLER"), lambda one: setattr(one, "SpecificCharacterSet", "ISO_IR 100"))
    assert difference(lambda one: setattr(one, "SpecificCharacterSet", "ISO_IR 192"), data) == (
        "coerced",
        ("00080005",),
    )


def test_names_that_cannot_be_decoded_do_not_hide_what_was_changed() -> None:
    """Files say ASCII and hold something else, and archives leave them so."""
    odd = changed(small_dicom(), lambda one: setattr(one, "SpecificCharacterSet", "ISO_IR 192"))
    odd = odd.replace(b"Study of the tests", b"Study \xff\xfe the tests")
    found = differences(odd, odd.replace(b"T-1 ", b"T-2 "))
    assert (found.kind, found.tags) == (Difference.COERCED, ("00100020",))


def test_another_way_of_writing_is_the_same() -> None:
    def implicit(dataset: Any) -> None:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(IMPLICIT)

    assert difference(implicit) == ("same", ())
    assert differences(small_dicom(), small_dicom(transfer_syntax=JPEG)).kind is Difference.CANNOT_COMPARE


# --- verification -----------------------------------------------------------------------------------------------------


async def test_one_flipped_bit_among_ten_thousand_is_found() -> None:
    """In the pixels of one, in a text of another; only these two are asked of the source."""
    pattern = small_dicom(instance=uid(1, 1, 100000), pixel_bytes=64)
    files = {
        uid(1, 1, 100000 + n): pattern.replace(uid(1, 1, 100000).encode(), uid(1, 1, 100000 + n).encode())
        for n in range(10_000)
    }
    assert len({digest(data) for data in files.values()}) == 10_000
    source, target = MemoryEnd(dict(files)), MemoryEnd(dict(files))
    pixels, text = uid(1, 1, 104711), uid(1, 1, 100815)
    target.files[pixels] = flipped(files[pixels], len(files[pixels]) - 20)
    target.files[text] = flipped(files[text], files[text].index(b"Series of the tests") + 3)
    findings = await found(source, target, rows(files))
    assert len(findings) == 10_000
    assert {one.uid: one for one in findings.values() if one.finding is not VerifyFinding.SAME} == {
        pixels: Verified(pixels, VerifyFinding.DIFFERENT, ("7FE00010",)),
        text: Verified(text, VerifyFinding.DIFFERENT, ("0008103E",)),
    }
    assert set(source.asked) == {pixels, text}
    assert target.series == [SERIES]


async def test_without_digests_the_source_is_read_for_all() -> None:
    files = study_files(20)
    source, target = MemoryEnd(files), MemoryEnd(dict(files))
    names = list(files)
    target.files[names[3]] = flipped(files[names[3]], len(files[names[3]]) - 1)
    findings = await found(source, target, rows(files, digests=False))
    assert {one.uid for one in findings.values() if not one.finding.ok} == {names[3]}
    assert sorted(source.asked) == sorted([*names, names[3]])


@pytest.mark.parametrize("digests", [True, False])
async def test_what_one_end_does_not_give_is_said(digests: bool) -> None:
    files = study_files(5)
    names = list(files)
    source, target = MemoryEnd(dict(files)), MemoryEnd(dict(files), twice=True)
    del target.files[names[0]]
    del source.files[names[1]]
    target.files[names[1]] = flipped(files[names[1]], 2000)
    target.files[names[2]] = b"<html>"
    findings = await found(source, target, rows(files, digests=digests))
    assert [findings[name].finding for name in names] == [
        VerifyFinding.MISSING,
        VerifyFinding.GONE,
        VerifyFinding.CANNOT_COMPARE,
        VerifyFinding.SAME,
        VerifyFinding.SAME,
    ]
    assert [findings[name].finding.ok for name in names] == [False, False, False, True, True]


async def test_hundreds_that_were_coerced_are_compared_some_at_a_time() -> None:
    files = study_files(100, series=2, pixel_bytes=64)
    source = MemoryEnd(files)
    target = MemoryEnd({name: data.replace(b"T-1 ", b"T-2 ") for name, data in files.items()})
    items = [row._replace(series=uid(1, int(row.uid.split(".")[-2]))) for row in rows(files)]
    findings = await found(source, target, items)
    assert set(findings.values()) == {Verified(name, VerifyFinding.COERCED, ("00100020",)) for name in files}
    assert target.series == [None], "of two series"
    assert len(source.asked) == 100
    assert len(source.series) > 5


async def test_an_end_that_fails_ends_it() -> None:
    files = study_files(3)
    with pytest.raises(ConnectionFailed):
        await found(MemoryEnd(files), MemoryEnd(files, fails=True), rows(files))
    with pytest.raises(ConnectionFailed):
        await found(MemoryEnd(files, fails=True), MemoryEnd(files), rows(files, digests=False))


async def test_nothing_is_asked_for_nothing() -> None:
    source, target = MemoryEnd(), MemoryEnd()
    assert not await found(source, target, [])
    assert not source.series
    assert not target.series
    findings = await found(source, target, rows({uid(1, 1, 1): small_dicom()}, digests=False))
    assert [one.finding for one in findings.values()] == [VerifyFinding.GONE]
    assert not target.series, "there is nothing to compare with"


RULES = Anonymization({"PatientName": "ANON"}, remap_uids=True, secret="a secret of the tests")


@pytest.mark.parametrize("digests", [True, False])
async def test_anonymised_copies_are_looked_for_under_their_own_uids(digests: bool) -> None:
    files = study_files(6)
    sent = {name: anonymized_bytes(data, RULES) for name, data in files.items()}
    there = {RULES.new_uid(name): data for name, data in sent.items()}
    names = list(files)
    source, target = MemoryEnd(files), MemoryEnd(there)
    target.files[RULES.new_uid(names[1])] = there[RULES.new_uid(names[1])].replace(b"T-1 ", b"B-1 ")
    target.files[RULES.new_uid(names[3])] = there[RULES.new_uid(names[3])].replace(b"ANON", b"JOHN")
    target.files[RULES.new_uid(names[2])] = flipped(there[RULES.new_uid(names[2])], -1 % len(sent[names[2]]))
    items = [row._replace(digest=digest(sent[row.uid]) if digests else b"") for row in rows(files)]
    findings = await found(source, target, items, anonymize=RULES)
    assert [findings[name].finding for name in names] == [
        VerifyFinding.SAME,
        VerifyFinding.COERCED,
        VerifyFinding.DIFFERENT,
        VerifyFinding.DIFFERENT,  # what was kept from the archive is for no archive to change
        *[VerifyFinding.SAME] * 2,
    ]
    assert target.series == [RULES.new_uid(SERIES)]


class _Gone(BytesBody):
    async def open(self) -> AsyncGenerator[bytes, None]:
        yield self.data[:100]
        raise LocalFileError("a source changed while it was read")


async def test_a_body_that_cannot_be_read_is_no_proof() -> None:
    class Odd(MemoryEnd):
        async def open(self, wanted: Selection) -> AsyncGenerator[Identified, None]:
            async for one in super().open(wanted):
                assert isinstance(one, Usable)
                yield Usable(one.label, one.header, _Gone(b"x"))

    files = study_files(2)
    for source, target in ((MemoryEnd(files), Odd(files)), (Odd(files), MemoryEnd(files))):
        findings = await found(source, target, rows(files, digests=source.__class__ is MemoryEnd))
        assert {one.finding for one in findings.values()} == {VerifyFinding.CANNOT_COMPARE}


LARGE = small_dicom(pixel_bytes=8 << 20)
LARGE_JPEG = small_dicom(pixel_bytes=8 << 20, transfer_syntax=JPEG)
BLOB = changed(small_dicom(pixel_bytes=64), lambda one: one.add_new(0x00420011, "OB", bytes(6 << 20)))


@pytest.mark.parametrize(
    ("data", "other", "finding", "tags"),
    [
        (LARGE, flipped(LARGE, 4 << 20), VerifyFinding.DIFFERENT, ("7FE00010",)),
        (LARGE, LARGE.replace(b"T-1 ", b"T-2 "), VerifyFinding.COERCED, ("00100020",)),
        (LARGE, small_dicom(pixel_bytes=8 << 20, patient_id="ANOTHER-1"), VerifyFinding.COERCED, ("00100020",)),
        (
            LARGE,
            flipped(LARGE, -1 % len(LARGE)).replace(b"T-1 ", b"T-2 "),
            VerifyFinding.DIFFERENT,
            ("00100020", "7FE00010"),
        ),
        (LARGE, LARGE.replace(b"Series of", b"Serien of"), VerifyFinding.DIFFERENT, ("0008103E",)),
        (LARGE, LARGE[:-4], VerifyFinding.CANNOT_COMPARE, ()),
        (LARGE, small_dicom(pixel_bytes=9 << 20), VerifyFinding.CANNOT_COMPARE, ()),
        (LARGE_JPEG, flipped(LARGE_JPEG, 4 << 20), VerifyFinding.DIFFERENT, ("7FE00010",)),
        (LARGE_JPEG, LARGE_JPEG.replace(b"T-1 ", b"T-2 "), VerifyFinding.COERCED, ("00100020",)),
        (LARGE, LARGE_JPEG, VerifyFinding.CANNOT_COMPARE, ()),
        (BLOB, flipped(BLOB, 3 << 20), VerifyFinding.DIFFERENT, ()),
        (BLOB, b"<html>" * (1 << 20), VerifyFinding.CANNOT_COMPARE, ()),
    ],
)  # fmt: skip
async def test_large_instances_are_compared_in_flat_memory(
    data: bytes, other: bytes, finding: VerifyFinding, tags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "COMPARED_WHOLE", 1 << 20)
    name = uid(1, 1, 1)
    items = rows({name: data})
    differences(small_dicom(), small_dicom(patient_id="X"))  # pydicom is there before
    tracemalloc.start()
    try:
        findings = await found(Wide({name: data}), Wide({name: other}), items)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert findings == {name: Verified(name, finding, tags)}
    assert peak < (24 << 20 if data is BLOB else 4 << 20)


class Wide(MemoryEnd):
    """An end whose instances are what they say, whatever is in them."""

    async def open(self, wanted: Selection) -> AsyncGenerator[Identified, None]:
        for one in wanted.instances:
            yield Usable(one.uid, InstanceHeader(InstanceUids("1", "1", "1"), "", ""), BytesBody(self.files[one.uid]))


def test_what_cannot_be_anonymised_has_a_reason_of_its_own() -> None:
    """A ledger tells it from a file that cannot be read: another table may help."""
    result = result_of(small_dicom(), Anonymization(patients=PatientRows([b"PatientID,PatientName\n", b"X,ANON\n"])))
    assert isinstance(result, Unusable)
    outcome = Outcome("", result.status, reason=result.reason)
    assert verdict_of(outcome) == (State.FAILED, Reason.ANONYMIZE, False)
    assert verdict_of(Outcome("", Status.UNREADABLE, reason="it is cut off")).reason == Reason.UNREADABLE


def test_what_an_archive_has_under_two_patients_has_a_reason_of_its_own() -> None:
    twofold = Outcome("", Status.UNCONFIRMED, reason=f"{TWO_PATIENTS}, and may return it under none")
    assert verdict_of(twofold) == (State.UNCONFIRMED, Reason.TWO_PATIENTS, False)
    assert verdict_of(Outcome("", Status.UNCONFIRMED)).reason == Reason.NOT_CONFIRMED
