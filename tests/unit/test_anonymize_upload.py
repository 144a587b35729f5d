"""Uploads that anonymise: what an archive has afterwards, byte for byte, and what the report says of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from postdicom_async import Anonymization, DicomWeb, Limits, Settings, Status, UploadReport, UsageError
from postdicom_async.dicom.header import InstanceHeader, read_header
from postdicom_async.disk.anonymized import anonymized
from postdicom_async.disk.sources import IdentifiedSource
from postdicom_async.emulator import EmbeddedArchive
from tests.faults.clients import transport_of
from tests.live.support import Progress, dataset_of, require_stored
from tests.support.anonymizing import DATA, SHIPPED, anonymize, content_of, read
from tests.support.canaries import CANARIES, CanaryWatch
from tests.support.dicom_files import DEFLATED, IMPLICIT, JPEG, small_dicom, study_files, uid
from tests.unit.test_anonymize_files import GOOD, REFUSED

NAME = CANARIES["patient_name"]
SETTINGS = Settings(limits=Limits(batch_instances=3), fsync=False)
RULES = Anonymization(
    {"PatientName": "ANON^1", "PatientID": "S-1", "StudyDate": None}, remap_uids=True, secret="of the tests"
)


@pytest.fixture
async def client(embedded_archive: EmbeddedArchive, transport_name: str) -> AsyncIterator[DicomWeb]:
    """Give a client with small batches, on each transport."""
    transport = transport_of(transport_name, SETTINGS)
    async with DicomWeb(
        embedded_archive.url, auth=embedded_archive.auth, settings=SETTINGS, transport=transport
    ) as one:
        yield one


def stored(archive: EmbeddedArchive) -> dict[str, bytes]:
    """Return SOP Instance UID -> file, of everything in the archive's folder."""
    found: dict[str, bytes] = {}
    for path in archive.folder.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        header = read_header(data, complete=True)
        if isinstance(header, InstanceHeader):
            found[header.uids.sop_instance_uid] = data
    return found


def statuses(report: UploadReport) -> dict[str, Status]:
    return {Path(outcome.where).name: outcome.status for outcome in report.outcomes}


def require_new_uids(report: UploadReport, rules: Anonymization) -> None:
    """Look for the new study in the report: what it says must be what the archive has."""
    for outcome in report.outcomes:
        if outcome.in_archive:
            assert outcome.uids is not None
            assert outcome.uids.study_instance_uid == rules.new_uid(uid(1))


async def test_a_folder(client: DicomWeb, embedded_archive: EmbeddedArchive, tmp_path: Path) -> None:
    folder = tmp_path / "to send"
    folder.mkdir()
    files = study_files(7, series=2, pixel_bytes=5000)
    for number, data in enumerate(files.values()):
        (folder / str(number)).write_bytes(data)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    progress = Progress()
    report = await client.upload(folder, anonymize=RULES, progress=progress)
    require_stored(report, 7)
    expected = {RULES.new_uid(one): anonymize(data, RULES) for one, data in files.items()}
    assert stored(embedded_archive) == expected
    assert report.bytes_sent == sum(map(len, expected.values()))
    progress.require_sound(instances=7, size=report.bytes_sent)
    assert progress.events[-1].totals.bytes_total == report.bytes_sent
    for outcome, (old, data) in zip(report.outcomes, files.items(), strict=True):
        assert outcome.uids is not None
        assert outcome.uids.sop_instance_uid == RULES.new_uid(old)
        assert outcome.size == len(expected[RULES.new_uid(old)]) != len(data)
    require_new_uids(report, RULES)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == before
    (study,) = await client.search_for_studies().all()
    assert (study.StudyInstanceUID, study.PatientID) == (RULES.new_uid(uid(1)), "S-1")
    assert study.NumberOfStudyRelatedInstances == 7
    assert study.NumberOfStudyRelatedSeries == 2


@pytest.mark.parametrize("syntax", [IMPLICIT, DEFLATED, JPEG])
async def test_every_kind_of_source(
    client: DicomWeb, embedded_archive: EmbeddedArchive, tmp_path: Path, syntax: str
) -> None:
    one, two, three = (small_dicom(uid(1), uid(1, 1), uid(1, 1, n), transfer_syntax=syntax) for n in (1, 2, 3))
    (tmp_path / "one").write_bytes(one)

    async def sources() -> AsyncIterator[Path | bytes]:
        yield tmp_path / "one"
        yield two

    require_stored(await client.upload(sources(), anonymize=RULES), 2)
    (outcome,) = await client.store_instances(dataset_of(three), anonymize=RULES)
    assert outcome.status is Status.STORED
    found = stored(embedded_archive)
    for number, data in enumerate((one, two), 1):
        assert found[RULES.new_uid(uid(1, 1, number))] == anonymize(data, RULES)
    assert read(found[RULES.new_uid(uid(1, 1, 3))]).PatientName == "ANON^1"
    assert not [data for data in found.values() if b"TEST^FILE" in content_of(data)]


async def test_several_pieces(client: DicomWeb, embedded_archive: EmbeddedArchive, tmp_path: Path) -> None:
    data = small_dicom(pixel_bytes=9 << 20)
    (tmp_path / "large").write_bytes(data)
    require_stored(await client.upload([tmp_path / "large"], anonymize=RULES), 1)
    assert stored(embedded_archive) == {RULES.new_uid(uid(1, 1, 1)): anonymize(data, RULES)}


async def test_what_cannot_be_anonymised_is_an_outcome_and_not_sent(
    client: DicomWeb, embedded_archive: EmbeddedArchive, tmp_path: Path, canary_watch: CanaryWatch
) -> None:
    named = {number: small_dicom(uid(1), uid(1, 1), uid(1, 1, number), patient_name=NAME) for number in (1, 2, 3, 4)}
    (tmp_path / "1 good").write_bytes(named[1])
    (tmp_path / "2 cut").write_bytes(named[2][:-1])
    (tmp_path / "3 garbage").write_bytes(named[3] + b"garbage")
    (tmp_path / "4 no DICOM").write_text(NAME)
    (tmp_path / "5 damaged").write_bytes(named[4].replace(b"\x10\0\x10\0PN", b"\x10\0\x10\0QQ"))
    paths = sorted(path for path in tmp_path.iterdir() if path.is_file())
    report = await client.upload(paths, anonymize=RULES)
    assert statuses(report) == {
        "1 good": Status.STORED,
        "2 cut": Status.UNREADABLE,
        "3 garbage": Status.UNREADABLE,
        "4 no DICOM": Status.NOT_DICOM,
        "5 damaged": Status.UNREADABLE,
    }
    assert [outcome.reason for outcome in report.outcomes if outcome.status is Status.UNREADABLE] == [
        "cut off: its pixel data need 2048 bytes, 2047 are there",
        "cannot be anonymised: it ends inside an element",
        "cannot be anonymised: PatientName (0010,0010) has no value representation of PS3.5",
    ]
    assert not report.ok
    assert report.bytes_sent == len(anonymize(named[1], RULES))
    assert stored(embedded_archive) == {RULES.new_uid(uid(1, 1, 1)): anonymize(named[1], RULES)}
    for path in embedded_archive.folder.rglob("*"):
        if path.is_file():
            canary_watch.feed_text(path.read_bytes(), "the archive")
    canary_watch.feed_text(repr(report.outcomes))


async def test_a_character_set_without_the_characters(client: DicomWeb, embedded_archive: EmbeddedArchive) -> None:
    rules = Anonymization({"PatientName": "Świętokrzyski"})
    report = await client.upload([small_dicom()], anonymize=rules)
    (outcome,) = report.outcomes
    assert outcome.status is Status.UNREADABLE
    assert outcome.reason == (
        "cannot be anonymised: PatientName (0010,0010): its Specific Character Set (0008,0005) cannot hold the value"
    )
    assert stored(embedded_archive) == {}


async def test_duplicates(client: DicomWeb, embedded_archive: EmbeddedArchive, tmp_path: Path) -> None:
    """Told apart by what they were: two that only look alike now are two."""
    data = small_dicom()
    for name in ("1", "2"):
        (tmp_path / name).write_bytes(data)
    alike = small_dicom(patient_name="TEST^FILM")
    longer = small_dicom(patient_name="TEST^FILE^OF^ANOTHER")
    report = await client.upload([tmp_path / "1", tmp_path / "2", data, alike, longer], anonymize=RULES)
    assert [outcome.status for outcome in report.outcomes] == [
        Status.STORED,
        Status.DUPLICATE,
        Status.DUPLICATE,
        Status.FAILED,
        Status.FAILED,
    ]
    require_new_uids(report, RULES)
    assert stored(embedded_archive) == {RULES.new_uid(uid(1, 1, 1)): anonymize(data, RULES)}


async def test_a_source_that_changes_is_not_stored(
    client: DicomWeb, embedded_archive: EmbeddedArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is planned, then it is another file: an error of its own, and the others are stored."""
    (tmp_path / "1").write_bytes(small_dicom())
    (tmp_path / "2").write_bytes(small_dicom(uid(1), uid(1, 1), uid(1, 1, 2)))

    async def then_changed(source: IdentifiedSource, rules: Anonymization) -> IdentifiedSource:
        result = await anonymized(source, rules)
        (tmp_path / "1").write_bytes(small_dicom(patient_name=NAME))
        return result

    monkeypatch.setattr("postdicom_async.transfer.intake.anonymized", then_changed)
    report = await client.upload([tmp_path / "1", tmp_path / "2"], anonymize=RULES)
    first, second = report.outcomes
    assert (first.in_archive, second.status) == (False, Status.STORED)
    assert "changed while it was read" in str(first.reason)
    assert set(stored(embedded_archive)) == {RULES.new_uid(uid(1, 1, 2))}


async def test_of_which_study_they_must_be(client: DicomWeb, embedded_archive: EmbeddedArchive) -> None:
    """The study is the one that will be in the archive."""
    files = [*study_files(2).values(), *study_files(1, study=2).values()]
    new = RULES.new_uid(uid(1))
    report = await client.upload(files, anonymize=RULES, study_instance_uid=new)
    assert [outcome.in_archive for outcome in report.outcomes] == [True, True, False]
    assert len(stored(embedded_archive)) == 2


async def test_the_basic_profile_on_all_that_pydicom_ships(client: DicomWeb, embedded_archive: EmbeddedArchive) -> None:
    profile = Anonymization.basic_profile(secret="of the tests")
    report = await client.upload(SHIPPED, anonymize=profile)
    names = {Path(outcome.where).relative_to(DATA).as_posix(): outcome for outcome in report.outcomes}
    assert {name: one.reason for name, one in names.items() if "DICOM" in one.status or "unreadable" in one.status} == {
        name: reason.removeprefix("not DICOM: ") for name, reason in REFUSED.items()
    }
    found = stored(embedded_archive)
    sent = [name for name in GOOD if names[name].in_archive]
    assert len(sent) > 120
    for name in set(GOOD) - set(sent):  # pydicom ships one instance in several forms
        assert "another source of this upload has the same SOP Instance UID" in str(names[name].reason)
    for name in sent:
        uids = names[name].uids
        assert uids is not None
        assert found[uids.sop_instance_uid] == anonymize((DATA / name).read_bytes(), profile)


async def test_it_is_an_anonymization(client: DicomWeb) -> None:
    for wrong in ({"PatientName": "ANON"}, "PatientName", True):
        with pytest.raises(UsageError, match="anonymize: give an Anonymization, or None"):
            await client.upload([small_dicom()], anonymize=wrong)  # type: ignore[arg-type]
